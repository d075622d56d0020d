"""Lets glibc keep the memory of freed tensors, which makes networks on a CPU faster.

On Linux, glibc's malloc maps every large block anew and returns it to the kernel when it is freed, so the kernel
zeroes all pages of each large tensor of a network again. Two settings (``M_MMAP_MAX`` and ``M_TRIM_THRESHOLD`` of
``mallopt``) let it keep and reuse them. Results do not change, and the process holds its peak memory until it ends.
`benchmarks/measure_speed.py` measures both.

All commands of augkit call `keep_freed_memory`, as do their workers; ``import augkit`` does not. Call it in loops of
your own, before the first large tensor:

    from augkit.core.allocator import keep_freed_memory

    keep_freed_memory()
"""

from __future__ import annotations

import ctypes
import os
import sys

from augkit.core.errors import InputError

VARIABLE = "AUGKIT_ALLOCATOR"
CHOICES = ("keep", "system")
# Environment variables that configure glibc; a user's choice is kept.
GLIBC_VARIABLES = ("MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_TOP_PAD_")
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of malloc.h
NEVER = -1  # a trim threshold: no free memory goes back


def keep_freed_memory() -> bool:
    """Let glibc's malloc keep freed memory in this process and in those that it forks.

    Nothing happens without glibc (macOS, Windows, musl), with another malloc preloaded (such as jemalloc or tcmalloc),
    where environment variables configure malloc, or with ``AUGKIT_ALLOCATOR=system``.

    Returns:
        Whether it was set.

    Raises:
        InputError: ``AUGKIT_ALLOCATOR`` is neither ``keep`` (the default) nor ``system``.
    """
    choice = os.environ.get(VARIABLE) or "keep"
    if choice not in CHOICES:
        raise InputError(f"{VARIABLE}: expected {' or '.join(CHOICES)}, got '{choice}'; unset it for the default")
    if choice == "system" or _set_by_user():
        return False
    libc = _glibc()
    if libc is None:
        return False
    return bool(libc.mallopt(M_MMAP_MAX, 0)) and bool(libc.mallopt(M_TRIM_THRESHOLD, NEVER))


def _set_by_user() -> bool:
    tunables = os.environ.get("GLIBC_TUNABLES", "")
    return "glibc.malloc." in tunables or any(name in os.environ for name in GLIBC_VARIABLES)


def _glibc() -> ctypes.CDLL | None:
    """The C library if it is glibc and its malloc is the one in use."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        process, libc = ctypes.CDLL(None), ctypes.CDLL("libc.so.6")
        process.gnu_get_libc_version  # noqa: B018 (glibc alone has it)
        used, own = (ctypes.cast(library.malloc, ctypes.c_void_p).value for library in (process, libc))
        libc.mallopt  # noqa: B018 (AttributeError where it is missing)
    except (AttributeError, OSError):
        return None
    return libc if used == own else None
