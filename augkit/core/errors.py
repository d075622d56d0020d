"""Every error that augkit raises on purpose. Each is one line: what was expected, what came, how to mend it.

AugkitError                 exit code 1
├── RunError                a run that started and failed (also a RuntimeError)
│   ├── DeviceMemoryError   since a batch does not fit into the device's memory
│   └── WriteError          since a file could not be written
└── InputError              bad input (also a ValueError), exit code 2
    └── InputTypeError      of the wrong type (also a TypeError)

OddMapWarning               a map whose size ends a guarantee (also a UserWarning)
BackendWarning              a fast path that is not trusted on a device (also a UserWarning)
"""

from __future__ import annotations

import difflib
import operator
from collections.abc import Iterable
from typing import SupportsIndex

SHOWN = 16  # names that one line can hold


class AugkitError(Exception):
    """Base of all errors raised on purpose; a command prints it as one line, without a traceback."""

    exit_code = 1

    def __init__(self, message: object = "") -> None:
        """``message`` becomes one line, whatever the input that it quotes holds."""
        super().__init__(" ".join(str(message).splitlines()))


class RunError(AugkitError, RuntimeError):
    """A run that was well specified and failed all the same, such as a loss that became NaN."""


class DeviceMemoryError(RunError):
    """A batch of training, or of its evaluation, that does not fit into the device's memory."""

    def __init__(self, device: object) -> None:
        super().__init__(f"out of memory on {device}: a lower batch_size or more accumulate")


class WriteError(RunError):
    """A file that could not be written: the disk is full, or the folder is not ours."""


class InputError(AugkitError, ValueError):
    """Input that cannot be used. The message says what was expected, what came and how to mend it."""

    exit_code = 2


class InputTypeError(InputError, TypeError):
    """Input of the wrong type."""


class OddMapWarning(UserWarning):
    """A map that is no multiple of a layer's stride: exact equivariance to shifts ends there."""


class BackendWarning(UserWarning):
    """A fast path failed on a device or was wrong there; a slower one stands in, and results are right."""


def check_whole(name: str, value: object, least: int) -> None:
    """Raise InputError unless ``value`` is None or a whole number of ``least`` or more; ``name`` is for the message."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, SupportsIndex) or operator.index(value) < least:
        raise InputError(f"{name}: expected a whole number of {least} or more, got {value!r}")


def unknown_name(kind: str, name: object, known: Iterable[str]) -> InputError:
    """The error for a name that is not among those known, with the nearest one suggested.

    >>> print(unknown_name("kernel", "bilinaer", ["bicubic", "bilinear"]))
    unknown kernel 'bilinaer': did you mean 'bilinear'? (known: bicubic, bilinear)
    """
    names = sorted(known)
    close = difflib.get_close_matches(str(name), names, n=1)
    hint = f" did you mean '{close[0]}'?" if close else ""
    listed = ", ".join(names) if len(names) <= SHOWN else f"{', '.join(names[:SHOWN])} and {len(names) - SHOWN} more"
    return InputError(f"unknown {kind} '{name}':{hint} (known: {listed})")
