"""Random streams that a run names instead of saving, and algorithms that give the same numbers twice."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

import torch

ORDER, AUGMENTATION, MIXING = 1, 2, 3  # names of random streams


def random_stream(seed: int, name: int, place: int, rank: int = 0) -> int:
    """The seed of one random stream of a run, at an epoch or a step, in one process."""
    # A product of odd numbers keeps streams apart; torch's generators mix the seed themselves.
    return (seed * 0x9E3779B1 + name * 0x85EBCA77 + place * 0xC2B2AE3D + rank * 0x27D4EB2F) % 2**63


@contextlib.contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Where ``wanted``, only algorithms that give the same numbers twice, for as long as the context lasts."""
    if not wanted:
        yield
        return
    before, benchmark = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # which cuBLAS wants to be told
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.backends.cudnn.benchmark = benchmark
