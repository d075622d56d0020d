"""Chooses how the maps of a network lie in memory while it is measured, by timing it on the first batch.

On a CPU most convolutional networks are faster with the channels of a pixel beside each other (``channels_last``),
some are slower. Both formats give the same logits but for rounding.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor

from augkit.core.errors import AugkitError
from augkit.invariance import Network
from augkit.invariance.network import MEMORY_FORMATS

CONTIGUOUS, CHANNELS_LAST = MEMORY_FORMATS
ROUNDS = 2  # timed passes in each format, after one that is not timed
GAIN = 1.05  # how much faster channels last must be
# The choice takes 2 (ROUNDS + 1) passes of a batch. Shorter measurements would hardly gain by it.
PASSES, SECONDS = 10 * 2 * (ROUNDS + 1), 10.0
CLOSE = {"float32": 1e-3}  # of the largest logit; half precision rounds more
CLOSE_IN_HALF = 0.05


def choose_memory_format(network: Network, first_batch: Callable[[], Tensor], passes: int) -> None:
    """Let the network use ``channels_last`` if that is faster and gives the same logits.

    Networks that are compiled, that fail in channels last, or whose measurement is too short to repay the timing (fewer
    than `PASSES` passes or `SECONDS`) stay contiguous.

    Args:
        network: the network, in contiguous format.
        first_batch: returns its inputs for the first batch, ``(B, C, H, W)``, on its device.
        passes: forward passes to be measured: batches times views.
    """
    if network.compiled or passes < PASSES:
        return
    inputs = first_batch()
    if passes * min(_timed(network, CONTIGUOUS, inputs)[0] for _ in range(2)) < SECONDS:
        return
    try:
        chosen = CHANNELS_LAST if _is_faster(network, inputs) else CONTIGUOUS
    except (AugkitError, RuntimeError):  # such as `view` of a map, or too little memory
        chosen = CONTIGUOUS
    network.use_memory_format(chosen)


@contextmanager
def contiguous(network: Network) -> Iterator[None]:
    """Context of the analyses, which are faster contiguous; the network's own format returns after it."""
    kept = network.memory_format
    network.use_memory_format(CONTIGUOUS)
    try:
        yield
    finally:
        network.use_memory_format(kept)


def _is_faster(network: Network, inputs: Tensor) -> bool:
    seconds: dict[str, list[float]] = {name: [] for name in MEMORY_FORMATS}
    logits: dict[str, Tensor] = {}
    # Alternating, so that other load on the machine affects both.
    for name in chain.from_iterable([MEMORY_FORMATS] * (ROUNDS + 1)):
        taken, logits[name] = _timed(network, name, inputs)
        seconds[name].append(taken)
    one, other = logits[CONTIGUOUS].double(), logits[CHANNELS_LAST].double()
    close = CLOSE.get(network.precision, CLOSE_IN_HALF)
    if not bool((one - other).abs().max() <= close * one.abs().max()):
        return False
    contiguous, channels_last = (min(seconds[name][1:]) for name in MEMORY_FORMATS)
    return contiguous > GAIN * channels_last


def _timed(network: Network, memory_format: str, inputs: Tensor) -> tuple[float, Tensor]:
    """Seconds of a pass, and its logits."""
    with network.measuring():  # its random state is that of a new measurement
        network.use_memory_format(memory_format)
        start = _clock(network.device)
        logits = network(inputs)
        return _clock(network.device) - start, logits


def _clock(device: torch.device) -> float:
    """Seconds; on a CPU, CPU time of this process, which excludes other processes."""
    if device.type == "cpu":
        return time.process_time()
    torch.accelerator.synchronize(device)
    return time.perf_counter()
