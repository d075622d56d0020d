"""Distributed training: the rank of this process, and different random draws per rank.

Processes with the same seed, as set by Lightning's ``seed_everything`` or by ``torch.manual_seed`` under torchrun, get
the same draws from torch's global state. Augkit passes its draws through `draws_of_rank`, so that all ranks augment
differently and a run is reproducible. An explicit ``generator`` is used unchanged: pass generators with equal seeds
where ranks must share their draws.
"""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from torch import Tensor


def place_among_processes() -> tuple[int, int]:
    """Return the rank of this process and the number of processes that train together; ``(0, 1)`` for a single one.

    They come from ``torch.distributed`` if it is initialized, else from the environment variables of torchrun or
    Lightning, which DataLoader workers inherit under any start method.
    """
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    count = _number("WORLD_SIZE", 1)
    if count <= 1:
        return 0, 1
    # Lightning sets only the node rank and the local rank; any numbering without duplicates will do.
    return _number("RANK", _number("NODE_RANK", 0) * 1024 + _number("LOCAL_RANK", 0)), count


def _number(variable: str, default: int) -> int:
    value = os.environ.get(variable, "")
    return int(value) if value.isdecimal() else default


def draws_of_rank(draws: Tensor, rank: int) -> Tensor:
    """Return uniform ``draws`` in [0, 1), float32, changed for process ``rank``; those of rank 0 stay unchanged.

    Each rank applies its own permutation of the multiples of 2**-24, from which `torch.rand` draws. The draws stay
    uniform, the global state stays equal on all ranks, and the device is not synchronized.
    """
    if rank == 0:
        return draws
    bits = (draws * 2.0**24).to(torch.int64) + rank * 0x9E3779
    for factor in (0x45D9F3B, 0x2C1B3C6D):  # odd, so that the product has an inverse modulo 2**24
        bits = bits & 0xFFFFFF
        bits = (bits ^ (bits >> 12)) * factor
    bits = bits & 0xFFFFFF
    return (bits ^ (bits >> 12)).to(torch.float32) * 2.0**-24


def rank() -> int:
    """Return the rank of this process under torchrun; 0 without torchrun."""
    return int(os.environ.get("RANK", "0"))
