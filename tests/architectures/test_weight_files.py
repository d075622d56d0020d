"""Files given as weights: errors describe other formats, numpy arrays are read, and invalid values are errors."""

from __future__ import annotations

import collections
import decimal
import gzip
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from augkit.architectures.weights import fit_weights, read_weights
from augkit.core.errors import InputError
from augkit.core.safe_files import load_safely


def net() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 3))


def state(change: Callable[[Tensor], Any] = lambda values: values) -> dict[str, Any]:
    return {k: change(v) if v.is_floating_point() else v for k, v in net().state_dict().items()}


def saved(content: Any, folder: Path) -> Path:
    torch.save(content, folder / "w.pt")
    return folder / "w.pt"


def whole(folder: Path) -> bytes:
    return saved(state(), folder).read_bytes()


def zipped(folder: Path) -> bytes:
    with zipfile.ZipFile(folder / "z", "w") as archive:
        archive.writestr("a.txt", "a")
    return (folder / "z").read_bytes()


def scripted(folder: Path) -> bytes:
    torch.jit.trace(net().eval(), torch.rand(1, 1, 3, 3)).save(folder / "s")
    return (folder / "s").read_bytes()


FILES: dict[str, tuple[Callable[[Path], bytes], str]] = {
    "empty": (lambda _: b"", "it is empty"),
    "half": (lambda folder: whole(folder)[:500], "it is cut short or broken"),
    "all but a byte": (lambda folder: whole(folder)[:-1], "it is cut short or broken"),
    "text": (lambda _: b"hello world", "it is no file of torch.save"),
    "a page": (lambda _: b"<!DOCTYPE html><html>", "it is no file of torch.save"),
    "a pointer": (
        lambda _: b"version https://git-lfs.github.com/spec/v1\noid",
        "it is a pointer of Git LFS.*",
    ),
    "packed": (lambda folder: gzip.compress(whole(folder)), "it is packed by gzip; unpack it first"),
    "another zip": (zipped, "it is another zip archive"),
    "torch.jit": (scripted, r"it is a network of torch\.jit"),
    "a pickle": (lambda _: pickle.dumps({"a": 1}, 2), r"it is a pickle, and no file of torch\.save"),
}


@pytest.mark.parametrize("kind", FILES)
@pytest.mark.filterwarnings("ignore:.*torch.jit")
def test_files_that_are_not_checkpoints_are_errors(kind: str, tmp_path: Path) -> None:
    make, message = FILES[kind]
    content = make(tmp_path)
    (tmp_path / "given.pt").write_bytes(content)
    with pytest.raises(InputError, match=rf"cannot be read safely \({message}\); save model\.state_dict\(\)") as caught:
        read_weights(tmp_path / "given.pt")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("path", ["~nobody-of-this-name/w.pt", "a" * 5000, "a\0b", "nothing.pt"])
def test_paths_that_cannot_be_are_said(path: str) -> None:
    with pytest.raises(InputError, match="no such file"):
        read_weights(path)


def test_a_folder_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="it is a folder; give the file in it"):
        read_weights(tmp_path)


@pytest.mark.parametrize("name", ["w.SAFETENSORS", "w.bin", "w.pt"])
def test_safetensors_are_read_under_any_file_name(name: str, tmp_path: Path) -> None:
    save_file = pytest.importorskip("safetensors.torch").save_file
    save_file(state(), tmp_path / name)
    assert read_weights(tmp_path / name).keys() == state().keys()


@pytest.mark.parametrize("nest", [None, "state_dict", "params"])
def test_numpy_arrays_are_read_as_tensors(nest: str | None, tmp_path: Path) -> None:
    given, target = {key: value.numpy() for key, value in net().state_dict().items()}, net()
    fit_weights(target, read_weights(saved(given if nest is None else {nest: given, "epoch": 3}, tmp_path)), "w")
    assert all(np.array_equal(target.state_dict()[key].numpy(), value) for key, value in given.items())


def test_further_containers_and_numbers_are_read(tmp_path: Path) -> None:
    lists = collections.defaultdict(list, {"loss": [0.5]})
    more = [lists, collections.deque([1, 2], maxlen=3), decimal.Decimal("0.1"), np.float32, np.int64]
    path = saved({"state_dict": state(), "more": more}, tmp_path)
    assert load_safely(path)["more"] == [{"loss": [0.5]}, [1, 2], decimal.Decimal("0.1"), np.float32, np.int64]
    assert read_weights(path).keys() == state().keys()


KINDS: dict[str, Callable[[Tensor], Any]] = {
    "complex64": lambda values: values.to(torch.complex64),
    "int8": lambda values: (10 * values).to(torch.int8),
    "bool": lambda values: values > 0,
    "sparse float32": lambda values: values.to_sparse(),
    "without values": lambda values: values.to("meta"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("strict", [True, False])
def test_values_of_other_kinds_are_not_loaded_as_weights(kind: str, strict: bool) -> None:
    target = net()
    before = {key: value.clone() for key, value in target.state_dict().items()}
    if strict:
        with pytest.raises(InputError, match=rf"8 of another kind \(0\.weight is {kind}, not float32"):
            fit_weights(target, state(KINDS[kind]), "w")
    else:
        assert len(fit_weights(target, state(KINDS[kind]), "w", strict=False).kinds) == 8
    assert all(torch.equal(target.state_dict()[key], value) for key, value in before.items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_weights(dtype: torch.dtype) -> None:
    given = state(lambda values: values.to(dtype))
    target = net()
    assert not fit_weights(target, given, "w")
    assert torch.equal(target.state_dict()["3.weight"], given["3.weight"].float())


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_values_that_are_not_finite_are_refused(value: float, strict: bool) -> None:
    given = {**state(), "3.bias": torch.tensor([0.0, value, 1.0], dtype=torch.float64)}
    with pytest.raises(InputError, match=r"expected finite values, 1 with NaN or infinity \(3\.bias\)"):
        fit_weights(net(), given, "w", strict=strict)


def test_buffers_may_be_infinite_where_those_of_the_network_are() -> None:
    class Masked(nn.Linear):
        mask: Tensor

        def __init__(self) -> None:
            super().__init__(2, 2)
            self.register_buffer("mask", torch.tensor([0.0, -float("inf")]))

    assert not fit_weights(Masked(), Masked().state_dict(), "w")
    with pytest.raises(InputError, match=r"1 with NaN or infinity \(mask\)"):
        fit_weights(Masked(), {**Masked().state_dict(), "mask": torch.tensor([-float("inf"), 0.0])}, "w")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_quantized_networks_are_not_left_without_their_weights() -> None:
    model = torch.ao.quantization.quantize_dynamic(net(), {nn.Linear})
    with pytest.raises(InputError, match=r"'3\._packed_params\._packed_params' of the network is quantized"):
        fit_weights(model, state(), "w")
