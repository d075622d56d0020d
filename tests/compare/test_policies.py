"""The comparison of policies in a training loop: its numbers, its page, its command, and what it refuses."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from user_loops import LOOP

import augkit
from augkit.compare import PolicyComparison
from augkit.compare import __main__ as command
from augkit.core.cli import run
from augkit.core.errors import InputError, RunError

NEAR = augkit.Policy(shift={"max_pixels": 1.0})
GIVEN: dict[str, Any] = {"seeds": 2, "epochs": 1, "max_shift": 1.0, "pairs": 1}


@pytest.fixture(scope="module")
def loop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A module with a training loop."""
    place = tmp_path_factory.mktemp("loop")
    (place / "compared_loop.py").write_text(LOOP)
    sys.path.insert(0, str(place))
    import compared_loop  # type: ignore[import-not-found]

    yield compared_loop
    sys.path.remove(str(place))
    sys.modules.pop("compared_loop")


def test_every_policy_and_the_control_are_trained_with_every_seed_and_paired(loop: Any, tmp_path: Path) -> None:
    calls: list[tuple[bool, int, int]] = []

    def train(policy: augkit.Policy, *, epochs: int, seed: int, start: Path | None) -> nn.Module:
        assert start is None
        calls.append((policy.is_identity, epochs, seed))
        model: nn.Module = loop.train(policy, epochs=epochs, seed=seed, start=start)
        return model

    found = augkit.compare_policies(train, loop.validation, {"near": NEAR}, score=lambda model: 0.5, **GIVEN)
    assert calls == [(True, 1, 1), (False, 1, 1), (True, 1, 2), (False, 1, 2)]
    assert list(found.policies) == ["control", "near"]
    settings = {"max_shift": 1.0, "pairs": 1, "lengths": [k / 6 for k in range(1, 7)]}
    nets = [[loop.train(p, epochs=1, seed=s, start=None) for s in (1, 2)] for p in (augkit.Policy(), NEAR)]
    control, near = ([augkit.measure_invariance(m, *loop.validation, **settings) for m in both] for both in nets)
    row = next(row for row in found.table if row.arm == "near")
    assert row["accuracy"].value == np.mean([report.accuracy.value for report in near])
    assert row.per_seed["shift_information"] == [pytest.approx(r.shift_information.value, abs=1e-6) for r in near]
    wanted = augkit.learned_invariance(near, control)
    assert row.learned_invariance is not None
    assert row.learned_invariance.value == pytest.approx(wanted.value, abs=1e-6)
    assert row.learned_invariance.low == pytest.approx(wanted.low, abs=1e-5)
    assert found.scores["near"].gain is not None
    assert found.scores["near"].gain.value == 0
    assert found.curves["near"].x == settings["lengths"]
    text = found.report(tmp_path / "report.html").read_text()
    assert all(words in text for words in ("Closing table", "Response to a shift", "<strong>near</strong>", "Score"))
    assert "training seeds" in found.conclusions["near"]


def test_atypical_images_and_no_labels(loop: Any, tmp_path: Path) -> None:
    images = (255 * loop.validation[0]).byte()
    given = {**GIVEN, "seeds": 1}
    found = augkit.compare_policies(loop.train, (images, None), {"near": NEAR}, score=loop.half, atypical=True, **given)
    assert {row.images for row in found.table} == {"typical", "inverted", "upside down", "photographs"}
    assert found.table[0]["accuracy"] is None
    assert list(found.curves["near"].metrics) == ["js", "top1_change"]
    assert "Carry-over" in found.report(tmp_path / "report.html").read_text()
    with pytest.raises(InputError, match="test: expected uint8 images for atypical ones, got floating"):
        augkit.compare_policies(loop.train, loop.validation, {"near": NEAR}, atypical=True, **given)


def test_the_same_call_goes_on_from_what_the_function_left(loop: Any, tmp_path: Path) -> None:
    trained: list[str] = []

    def train(policy: augkit.Policy, *, epochs: int, seed: int, start: Path | None) -> nn.Module:
        assert start is not None
        kept = start / "last.pt"
        model: nn.Module = loop.network()
        if kept.is_file():
            model.load_state_dict(torch.load(kept))
            return model
        trained.append(start.name)
        if len(trained) == 2 and not (tmp_path / "again").exists():
            (tmp_path / "again").touch()
            raise KeyboardInterrupt
        model = loop.train(policy, epochs=epochs, seed=seed, start=None)
        torch.save(model.state_dict(), kept)
        return model

    given = {**GIVEN, "seeds": 1, "folder": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        augkit.compare_policies(train, loop.validation, {"near": NEAR}, **given)
    first = augkit.compare_policies(train, loop.validation, {"near": NEAR}, **given)
    assert trained == ["control-seed1", "near-seed1", "near-seed1"]
    other = augkit.compare_policies(train, loop.validation, {"near": augkit.Policy(flip={})}, **given)
    assert trained[3:] == ["near-seed1"], "what another policy left is not used"
    assert other.table[0].to_dict() == first.table[0].to_dict()


def test_a_score_that_is_no_function_is_refused_before_anything_is_trained(loop: Any) -> None:
    def train(policy: augkit.Policy, *, epochs: int, seed: int, start: Path | None) -> nn.Module:
        raise AssertionError("trained")

    with pytest.raises(InputError, match=r"score: expected a function score\(model\), got int"):
        augkit.compare_policies(train, loop.validation, {"near": NEAR}, score=3, **GIVEN)


@pytest.mark.integration
def test_a_folder_is_gone_on_from_by_the_same_function_alone_and_no_other_files_are_deleted(
    loop: Any, tmp_path: Path
) -> None:
    seen: list[list[str]] = []

    def train(policy: augkit.Policy, *, epochs: int, seed: int, start: Path | None) -> nn.Module:
        assert start is not None
        seen.append([path.name for path in start.iterdir()])
        (start / "last.pt").touch()
        model: nn.Module = loop.network()
        return model

    def other(policy: augkit.Policy, *, epochs: int, seed: int, start: Path | None) -> nn.Module:
        return train(policy, epochs=epochs, seed=seed, start=start)

    given = {**GIVEN, "seeds": 1, "folder": tmp_path / "runs"}
    for function, there in ((train, []), (train, ["last.pt"]), (other, []), (other, ["last.pt"])):
        augkit.compare_policies(function, loop.validation, {"near": NEAR}, **given)
        assert seen[-2:] == [there, there]
    for mark in (tmp_path / "runs").glob("*.json"):  # as they were before functions were named
        mark.write_text(json.dumps({k: v for k, v in json.loads(mark.read_text()).items() if k != "function"}))
    augkit.compare_policies(train, loop.validation, {"near": NEAR}, **given)
    assert seen[-2:] == [["last.pt"], ["last.pt"]]
    mine = tmp_path / "runs" / "mine-seed1" / "checkpoint.pt"  # of `augkit.train`, say
    mine.parent.mkdir()
    mine.touch()
    with pytest.raises(InputError, match=r"start '.*mine-seed1': expected no folder or what the function left there"):
        augkit.compare_policies(train, loop.validation, {"mine": NEAR}, **given)
    assert mine.is_file()
    with pytest.raises(RunError, match=r"control-seed1': cannot be made .Not a directory"):
        augkit.compare_policies(train, loop.validation, {"near": NEAR}, **{**given, "folder": mine})


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"policies": {}}, r"policies: expected a mapping of names to augkit.Policy, got \{\}"),
        ({"policies": [NEAR]}, "policies: expected a mapping of names"),
        ({"policies": {"near": 3}}, "policies: expected an augkit.Policy as 'near', got int"),
        ({"policies": {"control": NEAR}}, "policies: expected another name than 'control'"),
        ({"policies": {"a b": NEAR}}, "policies: name: "),
        ({"train": 3}, "train: expected a function"),
        ({"test": torch.zeros(3)}, r"test: expected \(images, labels\) or a dataset of augkit, got Tensor"),
        ({"seeds": 0}, "seeds: expected a whole number of 1 or more, got 0"),
        ({"epochs": 1.5}, "epochs: expected a whole number of 1 or more, got 1.5"),
        ({"max_shift": 9.0}, "max_shift 9 leaves no window"),
        ({"timeout": "10"}, "timeout: expected seconds above 0, got '10'"),
    ],
)
def test_bad_input_is_one_line(loop: Any, changed: dict[str, Any], words: str) -> None:
    given = {"train": loop.train, "test": loop.validation, "policies": {"near": NEAR}, **GIVEN, **changed}
    with pytest.raises(InputError, match=words):
        augkit.compare_policies(**given)


def test_failures_name_the_policy_and_the_seed(loop: Any) -> None:
    def train(policy: augkit.Policy, *, epochs: int, seed: int, start: Path | None) -> nn.Module:
        if seed == 2 and not policy.is_identity:
            raise ValueError("no such file")
        network: nn.Module = loop.network(3 if policy.is_identity else 4)
        return network

    with pytest.raises(RunError, match="near, seed 1: train: expected a network with as many outputs as before"):
        augkit.compare_policies(train, loop.validation, {"near": NEAR}, **GIVEN)
    with pytest.raises(RunError, match=r"near, seed 2: train raised ValueError: no such file \(test_policies.py:\d+\)"):
        augkit.compare_policies(train, loop.validation, {"near": NEAR}, **{**GIVEN, "seeds": 1, "seed": 2})


def call(*words: str) -> int:
    return run(command.main, [*words, "--quiet"])


@pytest.mark.integration
def test_the_command_compares_files_of_policies(
    loop: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "near.yaml").write_text(NEAR.to_yaml())
    few = ["train.epochs=1", "invariance.max_shift=1", "invariance.pairs=1", "--seeds", "1", "--output", "out"]
    assert call("compared_loop:train", "near=near.yaml", *few, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["policies"]) == ["control", "near"]
    assert json.loads((tmp_path / "out" / "results.json").read_text()) == {
        k: v for k, v in found.items() if k != "folder"
    }
    assert (tmp_path / "out" / "report.html").is_file()
    (tmp_path / "out" / "best.yaml").write_text(NEAR.to_yaml())  # such as that of a search
    for words, message in (
        (["near=out/best.yaml", *few, "--overwrite"], "output 'out': --overwrite would delete 'out/best.yaml'"),
        (["near=near.yaml", *few], "'out' exists: add --resume"),
        (["near=no.yaml"], "policy: expected a file, 'no.yaml' is none"),
        (["near=near.yaml", "optim.lr=1"], "override 'optim.lr=1': expected name=policy.yaml, train.epochs or one of"),
        (["near=near.yaml", "train.epochs=0"], "train.epochs: expected a whole number of 1 or more, got 0"),
        (["--workers", "2"], "--workers belongs to studies, 'compared_loop:train' is none"),
        (["--device", "cpu"], "--device: expected a recipe, because a function chooses its device itself"),
        (["--test", "compared_loop:none"], "test 'compared_loop:none': cannot be imported"),
        (["mnist5k"], "expected one function and name=policy.yaml, got"),
        (["--resume"], "--resume: expected --output DIR"),
        (["near=near.yaml", "near=near.yaml"], "policies: expected each name once, got 'near' 2 times"),
        (["a/b=near.yaml"], "policies: name: "),
        (["--score", "compared_loop:space"], r"score: expected a function score\(model\), got Policy"),
        (["--score", "compared_loop:shapes"], r"score: expected a function score\(model\), got another one .*'seed'"),
        (["--output", "out", "--overwrite", "invariance.max_shift=9"], "max_shift 9 leaves no window"),
    ):
        assert call("compared_loop:train", *words) == 2
        said = capsys.readouterr().err
        assert re.search(message, said), said
        assert said.splitlines()[-1].startswith("augkit: error:")
        assert said.count("\n") == 1
    assert not (tmp_path / "runs").exists()
    assert json.loads((tmp_path / "out" / "results.json").read_text()), "what was refused has replaced nothing"
    assert call("mnist5k", "--atypical") == 2
    assert "--atypical: expected a function, package.module:train" in capsys.readouterr().err


def test_the_results_are_plain_data(loop: Any) -> None:
    found = augkit.compare_policies(loop.train, loop.validation, loop.policies, **{**GIVEN, "seeds": 1})
    assert isinstance(found, PolicyComparison)
    whole = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert list(whole["curves"]) == ["control", "shifted", "far"]
    assert whole["policies"]["far"]["shift"]["max_pixels"] == 2.0
