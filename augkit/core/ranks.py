"""Several processes that train together: which one this is, and draws of its own for each.

Processes that were seeded alike, as by Lightning's ``seed_everything`` or by one ``torch.manual_seed`` under torchrun,
draw alike from torch's global state. What augkit draws from there goes through here, so that no two ranks augment alike
and a run repeats. A ``generator`` that is passed is taken as it is: pass one, seeded alike, where ranks must share.
"""

from __future__ import annotations

import os

import torch
import torch.distributed as dist
from torch import Tensor


@torch.compiler.assume_constant_result
def place_among_processes() -> tuple[int, int]:
    """The rank of this process and the number of processes that train together; ``(0, 1)`` where it is alone.

    From ``torch.distributed`` where it is initialised, else from what torchrun or Lightning set in the environment,
    which the workers of a DataLoader inherit whatever started them.
    """
    if dist.is_available() and dist.is_initialized():
        return dist.get_rank(), dist.get_world_size()
    count = _number("WORLD_SIZE", 1)
    if count <= 1:
        return 0, 1
    # Lightning tells node and local rank alone; all that matters here is that no two processes have the same number.
    return _number("RANK", _number("NODE_RANK", 0) * 1024 + _number("LOCAL_RANK", 0)), count


def _number(variable: str, default: int) -> int:
    value = os.environ.get(variable, "")
    return int(value) if value.isdecimal() else default


def draws_of_rank(draws: Tensor, rank: int) -> Tensor:
    """Uniform ``draws`` in [0, 1), float32, as they are for process ``rank``; those of rank 0 are as given.

    Each rank permutes the multiples of 2**-24, which `torch.rand` draws from, in its own way: they stay uniform, the
    global state stays alike on all ranks, and nothing waits for the device.
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
    """The rank that torchrun gave this process; 0 without torchrun."""
    return int(os.environ.get("RANK", "0"))
