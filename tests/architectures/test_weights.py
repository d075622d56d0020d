"""State dicts in checkpoints of training scripts: nesting, names, and omitted entries."""

from __future__ import annotations

import argparse
import copy
import dataclasses
import datetime
import io
import pathlib
import random
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import augkit
from augkit.architectures.weights import fit_weights, read_weights, unwrapped
from augkit.compare.recipes import finished_recipe
from augkit.core.errors import AugkitError, InputError
from augkit.core.safe_files import Unreadable, load_safely
from augkit.measure.__main__ import main as measure
from augkit.train.checkpoint import read_checkpoint
from augkit.train.load_model import load_model
from augkit.train.recipe import Recipe


def net(outputs: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, outputs))


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


@dataclasses.dataclass
class Settings:
    rate: float = 0.1


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("run",))


HARMLESS = {
    "namespace": argparse.Namespace(lr=0.1, folder=pathlib.Path("runs"), inner=argparse.Namespace(a=[1])),
    "simple namespace": types.SimpleNamespace(a=1),
    "numpy scalar": np.float64(3.0),
    "numpy integer": np.int32(3),
    "numpy flag": np.bool_(True),
    "numpy array": np.arange(6.0).reshape(2, 3),
    "numpy text": np.array(["cat", "dog"]),
    "random state": {"numpy": np.random.get_state(), "python": random.getstate(), "torch": torch.get_rng_state()},  # noqa: NPY002
    "path": pathlib.PurePosixPath("a/b"),
    "path of Windows": pathlib.PureWindowsPath("a/b"),
    "time": [datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC), datetime.timedelta(1), datetime.date(2026, 1, 2)],
    "containers": [frozenset([1]), {2}, slice(1, 2), range(3), 1j],
    "torch's own": [torch.__version__, torch.device("cpu"), torch.Size([1]), torch.float16],
}


@pytest.mark.parametrize("old", [False, True], ids=["zip", "old format"])
@pytest.mark.parametrize("kind", HARMLESS)
def test_checkpoints_with_harmless_types_are_read(kind: str, old: bool, tmp_path: Path) -> None:
    source, target = net(), net()
    whole = {"state_dict": source.state_dict(), "epoch": 3, "more": HARMLESS[kind]}
    torch.save(whole, tmp_path / "w.pth.tar", _use_new_zipfile_serialization=not old)
    fit_weights(target, read_weights(tmp_path / "w.pth.tar"), "w")
    assert same(source, target)
    back = load_safely(tmp_path / "w.pth.tar")["more"]
    assert repr(back).replace("Pure", "") == repr(HARMLESS[kind]).replace("Pure", "")


def test_hyperparameters_of_lightning_are_read(tmp_path: Path) -> None:
    kind = pytest.importorskip("lightning.fabric.utilities.data").AttributeDict
    torch.save({"state_dict": net().state_dict(), "hyper_parameters": kind(lr=0.1)}, tmp_path / "w.ckpt")
    assert load_safely(tmp_path / "w.ckpt")["hyper_parameters"] == {"lr": 0.1}
    assert len(read_weights(tmp_path / "w.ckpt")) == len(net().state_dict())


@pytest.mark.parametrize("old", [False, True], ids=["zip", "old format"])
@pytest.mark.parametrize(
    ("more", "named"),
    [
        (Settings(), rf"it holds {__name__}\.Settings\)"),
        (Evil(), r"it holds (builtins\.)?print\)"),
        (nn.Linear(1, 1), r"it holds torch\.nn\.modules\.linear\.Linear"),
        (np.array([Evil()]), r"it holds (builtins\.print|numpy\.dtypes\.ObjectDType)\)"),
        (np.array([1, "a"], dtype=object), r"it holds numpy\.dtypes\.ObjectDType\)"),
    ],
)
def test_the_error_names_types_that_are_not_read(
    more: object, named: str, old: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = {"state_dict": net().state_dict(), "more": more}
    torch.save(whole, tmp_path / "w.pt", _use_new_zipfile_serialization=not old)
    with pytest.raises(InputError, match=rf"cannot be read safely \({named}.*; save model\.state_dict\(\)") as caught:
        read_weights(tmp_path / "w.pt")
    assert "\n" not in str(caught.value)
    assert "\x1b" not in str(caught.value)
    assert capsys.readouterr().out == ""


def test_another_protocol_of_pickle_is_said(tmp_path: Path) -> None:
    torch.save({"state_dict": net().state_dict()}, tmp_path / "w.pt", pickle_protocol=4)
    with pytest.raises(InputError, match=r"not saved with the protocol of pickle that torch\.save takes of itself"):
        read_weights(tmp_path / "w.pt")


NESTS = ["model_ema", "state_dict_ema", "ema", "network", "net", "student", "my_model"]


@pytest.mark.parametrize("nest", NESTS)
def test_further_nests_are_looked_into(nest: str, tmp_path: Path) -> None:
    source, target = net(), net()
    optimizer = torch.optim.Adam(source.parameters())
    source(torch.rand(2, 1, 3, 3)).sum().backward()
    optimizer.step()
    torch.save({"epoch": 3, nest: source.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "w.pt")
    fit_weights(target, read_weights(tmp_path / "w.pt"), "w")
    assert same(source, target)


def test_which_of_several_networks_is_not_guessed(tmp_path: Path) -> None:
    torch.save({"student": net().state_dict(), "teacher": net().state_dict()}, tmp_path / "w.pt")
    with pytest.raises(InputError, match="expected a state dict, a dict of tensors, got one of student, teacher"):
        read_weights(tmp_path / "w.pt")


def prefixed(prefix: str) -> Callable[[str], str]:
    return lambda name: prefix + name


RENAMED: dict[str, Callable[[str], str]] = {
    **{prefix: prefixed(prefix) for prefix in ("backbone.", "net.", "encoder.body.", "module.backbone.", "module.")},
    "a part in parallel": lambda name: name.replace("0.", "0.module.", 1) if name.startswith("0.") else name,
    "a part compiled": lambda name: name.replace("3.", "3._orig_mod.", 1) if name.startswith("3.") else name,
    "sharded": lambda name: f"_fsdp_wrapped_module.{name.replace('.', '._fsdp_wrapped_module.', 1)}",
    "Lightning on a compiled part": lambda name: f"model._orig_mod.module.{name}",
}


@pytest.mark.parametrize("how", RENAMED)
def test_names_are_the_same_but_for_wrappers_and_a_prefix(how: str) -> None:
    source, target = net(), net()
    state = {RENAMED[how](name): value for name, value in source.state_dict().items()}
    fit_weights(target, state, "w")
    assert same(source, target)
    wrapped = nn.ModuleDict({"model": net()})
    fit_weights(wrapped, state, "w")
    assert same(source, wrapped["model"]), "a prefix that only the network has"
    compiled: Any = torch.compile(net())
    fit_weights(compiled, state, "w")
    assert same(source, compiled)


def test_a_network_with_and_without_the_wrapper_name_keeps_both() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(2, 2)
            self.module = nn.ModuleDict({"fc": nn.Linear(2, 2)})

    source, target = Both(), Both()
    assert list(unwrapped(source.state_dict(), source.state_dict())) == list(source.state_dict())
    fit_weights(target, source.state_dict(), "w")
    assert same(source, target)


def test_weights_make_lazy_ones_and_leave_other_state_alone() -> None:
    class Counted(nn.Linear):
        def get_extra_state(self) -> dict[str, int]:
            return {"calls": 3}

        def set_extra_state(self, state: Any) -> None:
            raise AssertionError("not in the file")

    lazy = nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(3))
    source = net()
    fit_weights(lazy, source.state_dict(), "w")
    assert same(source, lazy)
    fit_weights(Counted(2, 2), nn.Linear(2, 2).state_dict(), "w")


def test_without_strict_the_weights_that_fit_are_loaded() -> None:
    source, target = net(), net(outputs=5)
    state = {f"backbone.{name}": value for name, value in source.state_dict().items() if name != "1.bias"}
    state["decoder.weight"] = torch.zeros(1)
    with pytest.raises(InputError, match="do not fit the network"):
        fit_weights(target, state, "w")
    before = target[3].weight.detach().clone()
    left_out = fit_weights(target, state, "w", strict=False)
    assert str(left_out) == (
        "1 missing (1.bias); 1 unexpected (decoder.weight); 2 of another shape (3.weight is (3, 4), not (5, 4), "
        "3.bias is (3,), not (5,))"
    )
    assert torch.equal(target[0].weight, source[0].weight)
    assert torch.equal(target[3].weight, before)
    assert not fit_weights(net(), source.state_dict(), "w", strict=False)
    with pytest.raises(InputError, match="do not fit the network: 8 missing"):
        fit_weights(net(), {"encoder.weight": torch.zeros(1)}, "w", strict=False)


def test_the_flag_lists_omitted_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "nets_of_weights.py").write_text(
        "from torch import nn\n"
        "def make():\n"
        "    pooled = (nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())\n"
        "    return nn.Sequential(*pooled, nn.Linear(4, 10))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    torch.save({"0.weight": torch.ones(4, 1, 3, 3), "0.bias": torch.ones(4), "old": torch.ones(1)}, "w.pt")
    command = ["nets_of_weights:make", "--data", "digits", "--limit", "8", "--max-shift", "1", "--pairs", "1"]
    command += ["--no-curves", "--weights", "w.pt", "--output", "out"]
    with pytest.raises(InputError, match=r"2 missing \(3.weight, 3.bias\); 1 unexpected \(old\)"):
        measure(command)
    with pytest.raises(InputError, match="--not-strict: expected --weights FILE"):
        measure([*command[:-4], "--not-strict"])
    measure([*command, "--not-strict"])
    note = "weights 'w.pt' were taken as far as they fit: 2 missing (3.weight, 3.bias); 1 unexpected (old)"
    assert note in " ".join(capsys.readouterr().err.split())
    assert note in (tmp_path / "out" / "results.json").read_text()


FILES: dict[str, Any] = {
    "text": {"model": "resnet"},
    "no input": {"model": {}, "recipe": {"name": "a"}},
    "odd input": {"model": {}, "recipe": {"name": "a"}, "input": {"classes": 3, "channels": None, "side": 1}},
    "odd recipe": {"model": {}, "recipe": [1]},
    "odd history": {"model": {}, "history": {"epoch": 1}},
    "odd rows": {"model": {}, "history": [1]},
    "odd step": {"model": {}, "step": "three"},
    "odd weights": {"model": {"a": 3}, "recipe": {"name": "a"}, "input": {"classes": ["a"], "channels": 1, "side": 8}},
    "list": [1, 2],
    "tensor": torch.zeros(2),
    "numbers": {1: 2},
}


def one_line(call: Callable[[], object]) -> None:
    """What ``call`` gives is a result, or one line."""
    said = ""
    try:
        call()
    except AugkitError as error:
        said = str(error)
    assert "\n" not in said
    assert len(said) < 500


@pytest.mark.parametrize("form", FILES)
def test_odd_checkpoints_are_refused_in_one_line(form: str, tmp_path: Path) -> None:
    torch.save(FILES[form], tmp_path / "checkpoint.pt")
    with pytest.raises(InputError) as caught:
        load_model(str(tmp_path))
    assert "\n" not in str(caught.value)
    one_line(lambda: read_weights(tmp_path / "checkpoint.pt"))
    one_line(lambda: read_checkpoint(tmp_path / "checkpoint.pt"))


@pytest.mark.slow
@pytest.mark.parametrize("old", [False, True], ids=["zip", "old format"])
def test_damaged_checkpoints_are_refused_in_one_line(old: bool, tmp_path: Path) -> None:
    """Cut anywhere, with bytes changed anywhere, or of random bytes: a line each, and no warning."""
    rng, file, whole = np.random.default_rng(0), tmp_path / "checkpoint.pt", io.BytesIO()
    content = {"model": net().state_dict(), "recipe": {"name": "a"}, "args": argparse.Namespace(a=np.float64(1))}
    torch.save(content, whole, _use_new_zipfile_serialization=not old)
    sound = whole.getvalue()
    for _ in range(400):
        damaged = bytearray(sound)
        for place in rng.integers(0, len(sound), rng.integers(1, 9)):
            damaged[place] = rng.integers(256)
        for content in (sound[: rng.integers(len(sound))], bytes(damaged), rng.bytes(rng.integers(1, 300))):
            file.write_bytes(content)
            for read in (lambda: load_model(str(tmp_path)), lambda: read_weights(file), lambda: read_checkpoint(file)):
                with warnings.catch_warnings():
                    warnings.simplefilter("error")
                    one_line(read)


ODD = [None, -1, 2.5, "text", [], [1], {}, {"a": 1}, torch.zeros(2), torch.zeros(0), argparse.Namespace(a=1)]


@pytest.mark.slow
@pytest.mark.parametrize("part", ["itself", "model", "optimizer", "input", "recipe", "history"])
def test_changed_checkpoints_go_on_or_are_refused_in_one_line(part: str, tiny: Recipe, tmp_path: Path) -> None:
    recipe = tiny.replaced(train={"epochs": 2, "batch_size": 64, "patience": 5})
    folder, rng = tmp_path / "run", np.random.default_rng(0)
    augkit.fit(recipe, output=folder)
    sound = load_safely(folder / "checkpoint.pt")
    sound["step"], sound["history"] = 3, sound["history"][:1]
    for key in sound if part == "itself" else [part]:
        for odd in ODD:
            changed = copy.deepcopy(sound)
            holds = changed if part == "itself" else changed[part]
            where = key if part == "itself" else rng.choice(list(holds)) if isinstance(holds, dict) else 0
            holds[where] = odd
            for whole in (changed, {name: value for name, value in changed.items() if name != key}):
                torch.save(whole, folder / "checkpoint.pt")
                one_line(lambda: load_model(str(folder)))
                one_line(lambda: finished_recipe(folder))
                one_line(lambda: augkit.fit(recipe, output=folder, resume=True))


def test_reasons_are_short() -> None:
    assert str(Unreadable(ValueError())) == "ValueError"
    assert str(Unreadable("\x1b[1mbold\x1b[0m\nmore")) == "bold"
    assert len(str(Unreadable("a" * 1000))) == 120


@pytest.mark.parametrize(
    "beside",
    [
        {"mine": None, "loss": torch.tensor(0.3)},
        {"state_dict": {}, "model": None},
        {"model": {"name": "resnet", "width": 3}, "network": None},
        {"params": {"lr": 0.1}, "net": {"ema": None}},
    ],
)
def test_a_state_dict_is_found_beside_scalars_and_settings(tmp_path: Path, beside: dict[str, Any]) -> None:
    state = nn.Linear(3, 2).state_dict()

    def filled(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: filled(inner) for key, inner in value.items()}
        return state if value is None else value

    torch.save(filled(beside), tmp_path / "a.pt")
    assert list(read_weights(tmp_path / "a.pt")) == ["weight", "bias"]


def test_a_checkpoint_that_holds_itself_is_refused(tmp_path: Path) -> None:
    content: dict[str, Any] = {}
    content["model"] = content
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(InputError, match="expected a state dict"):
        read_weights(tmp_path / "a.pt")
