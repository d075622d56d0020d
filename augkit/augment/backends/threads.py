"""Divides work among plain threads, with a pool that a forked process starts anew."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any


def spread(loop: Callable[..., None], planes: int, threads: int, arguments: tuple[Any, ...]) -> None:
    """Run ``loop(start, stop, *arguments)`` over shares of ``planes``; the calling thread runs the last share."""
    threads = max(1, min(threads, planes))
    edges = [planes * k // threads for k in range(threads + 1)]
    shares = list(itertools.pairwise(edges))
    others = [_pool().submit(loop, *share, *arguments) for share in shares[:-1]]
    loop(*shares[-1], *arguments)
    for other in others:
        other.result()


_POOL: list[ThreadPoolExecutor] = []


def _pool() -> ThreadPoolExecutor:
    if not _POOL:
        _POOL.append(ThreadPoolExecutor(max_workers=max(1, (os.cpu_count() or 2) - 1), thread_name_prefix="augkit"))
    return _POOL[0]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_POOL.clear)  # threads do not survive a fork; the child starts its own
