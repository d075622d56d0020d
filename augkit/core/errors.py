"""The errors that augkit raises on purpose. Each message is one line: expected, got, remedy.

AugkitError                 exit code 1
├── RunError                a run that started and failed (also a RuntimeError)
│   ├── DeviceMemoryError   a batch does not fit into the device's memory
│   └── WriteError          a file could not be written
└── InputError              bad input (also a ValueError), exit code 2
    └── InputTypeError      input of the wrong type (also a TypeError)

OddMapWarning               a map whose size ends a guarantee (also a UserWarning)
BackendWarning              a fast path that failed its check on a device (also a UserWarning)
"""

from __future__ import annotations

import difflib
import math
import operator
from collections.abc import Iterable
from numbers import Real
from typing import Any

SHOWN = 16  # names shown in one line
MOST_SEED = 2**63 - 1  # what torch's and numpy's generators all take
LONGEST = 80  # characters of a value in a message


class AugkitError(Exception):
    """Base of all errors raised on purpose; commands print it as one line, without a traceback."""

    exit_code = 1

    def __init__(self, message: object = "") -> None:
        """Create an error whose message is one line, even if it quotes input with line breaks."""
        super().__init__(" ".join(str(message).splitlines()))


class RunError(AugkitError, RuntimeError):
    """A run that failed although its input was valid, such as a loss that became NaN."""


class DeviceMemoryError(RunError):
    """A batch of training or evaluation that does not fit into the device's memory."""

    def __init__(self, device: object) -> None:
        super().__init__(f"out of memory on {device}: a lower batch_size or more accumulate")


class WriteError(RunError):
    """A file that could not be written: the disk is full, or the folder is not writable."""


class InputError(AugkitError, ValueError):
    """Input that cannot be used. The message says what was expected, what was given and how to correct it."""

    exit_code = 2


class InputTypeError(InputError, TypeError):
    """Input of the wrong type."""


class OddMapWarning(UserWarning):
    """A map whose side is not a multiple of a layer's stride, which ends exact equivariance to shifts."""


class BackendWarning(UserWarning):
    """A fast path failed or was wrong on a device; a slower path replaces it, so results are correct."""


def check_seed(value: object) -> None:
    """Raise InputError unless ``value`` is a whole number from 0 to `MOST_SEED`."""
    check_whole("seed", value, 0, optional=False)
    if operator.index(value) > MOST_SEED:  # type: ignore[arg-type]
        raise InputError(f"seed: expected a whole number below 2**63, got {brief(value)}")


def check_whole(name: str, value: object, least: int, *, optional: bool = True) -> None:
    """Raise InputError unless ``value`` is a whole number of at least ``least``, or None if ``optional``."""
    if value is None and optional:
        return
    try:
        fits = not isinstance(value, bool) and operator.index(value) >= least  # type: ignore[arg-type]
    except (TypeError, ValueError):
        fits = False
    if not fits:
        raise InputError(f"{name}: expected a whole number of {least} or more, got {brief(value)}")


def check_number(name: str, value: Any, low: float = -math.inf, high: float = math.inf) -> float:
    """Return a real number in ``[low, high]``, but not NaN or infinity, as a float.

    Raises:
        InputTypeError: ``value`` is no real number; an error begins with ``name``.
        InputError: it is out of bounds.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise InputTypeError(f"{name}: expected a number, got {brief(value)}")
    number = float(value)
    if not low <= number <= high or abs(number) == math.inf:  # no `isinf`, which graphs of torch.compile break at
        bounds = "that is finite" if low == -math.inf else f"at least {low:g}"
        bounds = bounds if high == math.inf else f"in [{low:g}, {high:g}]"
        raise InputError(f"{name}: expected a number {bounds}, got {number:g}")
    return number


def brief(value: object) -> str:
    """A value for a message: its ``repr``, shortened; an array or a tensor by its type and shape.

    >>> brief("a"), brief([0.5] * 50)[-9:]
    ("'a'", ', 0.5 ...')
    """
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and shape:
        return f"a {type(value).__name__} of shape {tuple(shape)}"
    text = " ".join(repr(value).split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 4].rsplit(' ', 1)[0].rstrip(',')} ..."


def unknown_name(kind: str, name: object, known: Iterable[str]) -> InputError:
    """Return the error for a name that is not among ``known``, with the nearest name as a suggestion.

    >>> print(unknown_name("kernel", "bilinaer", ["bicubic", "bilinear"]))
    unknown kernel 'bilinaer': did you mean 'bilinear'? (known: bicubic, bilinear)
    """
    names = sorted(known)
    close = difflib.get_close_matches(str(name), names, n=1)
    hint = f" did you mean '{close[0]}'?" if close else ""
    listed = ", ".join(names) if len(names) <= SHOWN else f"{', '.join(names[:SHOWN])} and {len(names) - SHOWN} more"
    return InputError(f"unknown {kind} '{name}':{hint} (known: {listed})")
