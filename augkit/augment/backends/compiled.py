"""How numba compiles the loops of `augkit.augment.backends.native`: `entry` for a loop, `part` for what it calls."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba

# `contract` alone: fused multiply-adds keep infinities, signed zeros and the order of the sums.
OPTIONS: dict[str, object] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}

part: Callable[..., Any] = numba.njit(**OPTIONS)
inlined: Callable[..., Any] = numba.njit(forceinline=True, **OPTIONS)


def entry(make: Callable[[int], Callable[..., None]]) -> Callable[..., None]:
    """The loop that ``make`` returns, compiled, and cached on disk where numba may write.

    numba recompiles when the file of the loop has changed, but not when a file that it calls into has. So ``make`` gets
    a checksum of all these files, which its loop closes over: closure values are part of the cache key.
    """
    return kept(make(_checksum()), OPTIONS)


def kept(loop: Callable[..., None], options: dict[str, object]) -> Callable[..., None]:
    """The ``loop`` compiled with ``options``, and cached on disk where numba may write."""
    try:
        compiled: Callable[..., None] = numba.njit(cache=True, **options)(loop)
    except RuntimeError:  # no folder that numba may write its cache to
        compiled = numba.njit(**options)(loop)
    return compiled


def unfused(make: Callable[[int], Callable[..., None]]) -> Callable[..., None]:
    """As `entry`, without fused multiply-adds: each operation is rounded by itself, as in torch."""
    return kept(make(_checksum()), {**OPTIONS, "fastmath": False})


def _checksum() -> int:
    here = Path(__file__).parent
    sources = [here / "compiled.py", here / "lanes.py", *sorted(here.glob("native_*.py"))]
    return zlib.crc32(b"".join(source.read_bytes() for source in sources))
