"""Reads files of `torch.save` without running code that they may contain.

`torch.load` with ``weights_only=True`` allows tensors and plain containers. This file also allows harmless types that
training scripts store in checkpoints: settings of `argparse`, paths, numpy's scalars and arrays of numbers, dates,
further containers of Python, and the dict of Lightning's hyperparameters.
"""

from __future__ import annotations

import argparse
import datetime
import decimal
import fractions
import pathlib
import re
import types
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

SHOWN = 3  # names shown in one line
LENGTH = 120  # characters of a reason
HEADER = 100_000_000  # bytes of the longest header of safetensors


class Unreadable(Exception):  # noqa: N818 (a reason, which the caller puts into its own error)
    """A file cannot be read; the message is the reason."""

    def __init__(self, error: BaseException | str) -> None:
        text = re.sub(r"\x1b\[[0-9;]*m", "", str(error)).strip()  # without escape codes of terminals
        if unsupported := re.search(r"Unsupported (?:global: GLOBAL|class) ([\w.]+)", text):
            text = f"it holds {unsupported[1]}"
        elif built := re.search(r"Can only build .* but got <class '([\w.]+)", text):
            text = f"it holds {built[1]}"
        elif "Unsupported operand" in text:
            text = "it is broken, or was not saved with the protocol of pickle that torch.save takes of itself"
        elif "unexpected EOF" in text:
            text = "it is cut short"
        elif "Invalid magic number" in text:
            text = "it is a pickle, and no file of torch.save"
        elif unpickler := re.search(r"WeightsUnpickler error:\s*(.*)", text):
            text = unpickler[1]
        super().__init__((text.splitlines() or [type(error).__name__])[0][:LENGTH])


def the_file(path: str | Path) -> Path:
    """Return the file at ``path``, with a leading ``~`` resolved.

    Raises:
        FileNotFoundError: the file does not exist, or it is a folder.
    """
    try:
        file = Path(path).expanduser()
        if file.is_file():
            return file
        is_folder = file.is_dir()
    except (OSError, RuntimeError, ValueError):  # name too long, unknown user, or folder not accessible
        is_folder = False
    raise FileNotFoundError("it is a folder; give the file in it" if is_folder else "no such file")


def is_safetensors(file: Path) -> bool:
    """Whether a file, under any name, starts like a safetensors file: the length of a header, then JSON."""
    head = _head(file)
    return len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < HEADER


def load_safely(file: Path, device: torch.device | str = "cpu") -> Any:
    """Return the content of a file of `torch.save`, with its tensors on ``device``.

    Raises:
        Unreadable: the file has another format, is broken, or contains types that are not allowed; the message names
            them.
    """
    with torch.serialization.safe_globals(harmless()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about archives of TorchScript, which are not read
        try:
            return torch.load(file, map_location=device, weights_only=True)
        except Exception as error:  # torch raises many kinds of errors for other files
            raise Unreadable(_unknown_types(file) or _what_it_is(file) or error) from None


def harmless() -> list[Any]:
    """Return the allowed types and constructors for `torch.serialization.safe_globals`, with their names in files."""
    paths = [(kind, f"{module}.{name}") for name, kind in _PATHS.items() for module in ("pathlib", "pathlib._local")]
    # The functions with which numpy pickles scalars and arrays; their module had another name before numpy 2.
    makers: list[Any] = [np.float64(0).__reduce__()[0], np.zeros(0).__reduce__()[0]]
    numpys = [
        (make, f"{module}.{make.__name__}")
        for make in makers
        for module in ("numpy.core.multiarray", "numpy._core.multiarray")
    ]
    scalars = [kind for kind in np.sctypeDict.values() if kind not in (np.object_, np.void)]  # as types, not values
    numbers = {type(np.dtype(code)) for code in np.typecodes["All"] if code not in "OV"}
    hyperparameters = [(dict, name) for name in _ATTRIBUTE_DICTS]
    return [*_PLAIN, *_CONTAINERS, *paths, *numpys, np.ndarray, np.dtype, *numbers, *scalars, *hyperparameters]


_PLAIN = (
    *(dict, frozenset, slice, range),
    *(list, tuple, set, int, float, str, bool),  # the factories of a defaultdict
    *(decimal.Decimal, fractions.Fraction),
    *(argparse.Namespace, types.SimpleNamespace, torch.torch_version.TorchVersion),
    *(datetime.datetime, datetime.date, datetime.time, datetime.timedelta, datetime.timezone),
)
# As pure paths, since paths of another operating system cannot be created.
_PATHS = {
    "PosixPath": pathlib.PurePosixPath,
    "PurePosixPath": pathlib.PurePosixPath,
    "WindowsPath": pathlib.PureWindowsPath,
    "PureWindowsPath": pathlib.PureWindowsPath,
}


def _plain_dict(*made_by: Any) -> dict[Any, Any]:
    return {}


def _plain_list(items: Any = (), length: int | None = None) -> list[Any]:
    return list(items)


# As plain containers: torch cannot fill others.
_CONTAINERS = ((_plain_dict, "collections.defaultdict"), (_plain_list, "collections.deque"))
_ATTRIBUTE_DICTS = (
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
)


def _head(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(64)


def _what_it_is(file: Path) -> str | None:
    """Describe a file that torch cannot read; None where torch's reason is sufficient."""
    try:
        head = _head(file)
    except OSError:  # the reason already says so
        return None
    if not head:
        return "it is empty"
    if head.startswith(b"version https://git-lfs"):
        return "it is a pointer of Git LFS, whose file was not fetched: git lfs pull"
    if head.startswith(b"PK\x03\x04"):
        return _what_zip_it_is(file)
    if head.startswith(b"\x1f\x8b"):
        return "it is packed by gzip; unpack it first"
    return None if head.startswith(b"\x80") else "it is no file of torch.save"


def _what_zip_it_is(file: Path) -> str | None:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except (OSError, ValueError, zipfile.BadZipFile):
        return "it is cut short or broken"
    if any(name.endswith("/constants.pkl") for name in names):
        return "it is a network of torch.jit"
    if any("exported_program" in name or "/models/" in name for name in names):
        return "it is a program of torch.export"
    return None if any(name.endswith("/data.pkl") for name in names) else "it is another zip archive"


def _unknown_types(file: Path) -> str | None:
    """Describe the types in a valid file that are not allowed."""
    try:
        found = torch.serialization.get_unsafe_globals_in_checkpoint(str(file))
    except Exception:  # the file is broken, or has the old format, where torch cannot list types
        return None
    if not found:
        return None
    more = f" and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return f"it holds {', '.join(sorted(found)[:SHOWN])}{more}"
