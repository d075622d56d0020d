"""Named random streams without stored state, and deterministic algorithms."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator

import numpy as np
import torch

# Names of random streams: order of the data, augmentation, mixing, the network's own draws in training (dropout), a
# user's loader, the network's own draws in evaluation, and in measurements.
ORDER, AUGMENTATION, MIXING, NETWORK, LOADING, EVALUATION, MEASUREMENT = range(1, 8)

CPU = torch.device("cpu")


def random_stream(seed: int, name: int, place: int, rank: int = 0) -> int:
    """Return the seed of a named random stream of a run, at the epoch or step ``place``, in the process ``rank``."""
    # Products with odd numbers keep the streams distinct; torch's generators mix the seed themselves.
    return (seed * 0x9E3779B1 + name * 0x85EBCA77 + place * 0xC2B2AE3D + rank * 0x27D4EB2F) % 2**63


def drawing(
    device: torch.device, seed: int, name: int, place: int = 0, rank: int = 0
) -> contextlib.AbstractContextManager[None]:
    """Return `seeded` for the random stream ``name``."""
    return seeded(random_stream(seed, name, place, rank), device)


@contextlib.contextmanager
def seeded(number: int, device: torch.device = CPU) -> Iterator[None]:
    """Seed the global random number generators with ``number`` within the context.

    This is for code that takes no generator: dropout and similar layers, samplers and transforms of a loader. It seeds
    torch on the CPU and on ``device``, numpy, and Python, and restores their states afterwards.
    """
    before = torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002 (others draw from it)
    with _seeded_device(device, number):
        # `torch.manual_seed` would also seed devices whose states are not restored here.
        torch.default_generator.manual_seed(number)
        np.random.seed(number % 2**32)  # noqa: NPY002
        random.seed(number)
        try:
            yield
        finally:
            torch.set_rng_state(before[0])
            np.random.set_state(before[1])  # noqa: NPY002
            random.setstate(before[2])


@contextlib.contextmanager
def _seeded_device(device: torch.device, number: int) -> Iterator[None]:
    """Seed the generator of an accelerator; do nothing for the CPU."""
    if device.type in ("cpu", "meta"):
        yield
        return
    module = torch.get_device_module(device)
    which = () if device.type == "mps" else (device,)  # there is only one
    before = module.get_rng_state(*which)
    with module.device(device) if which else contextlib.nullcontext():
        module.manual_seed(number)
    try:
        yield
    finally:
        module.set_rng_state(before, *which)


@contextlib.contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Use only deterministic algorithms within the context if ``wanted``."""
    if not wanted:
        yield
        return
    before, benchmark = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # required by cuBLAS
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)
        torch.backends.cudnn.benchmark = benchmark


def stream(*names: int) -> np.random.Generator:
    """Return numpy's generator for a seed, a purpose and the number of an image."""
    return np.random.default_rng(list(names))
