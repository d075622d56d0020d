"""Chooses how the passes of a network are fastest while it is measured, by timing them on the first batch.

On a CPU most convolutional networks are faster with the channels of a pixel beside each other (``channels_last``),
some are slower; and batch norms that are folded into the convolutions before them save a pass over each map. Outputs
are the same but for rounding.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from augkit.core.errors import AugkitError, InputError
from augkit.invariance import Network
from augkit.invariance.network import MEMORY_FORMATS

CONTIGUOUS, CHANNELS_LAST = MEMORY_FORMATS
LEAST, MOST = 2, 6  # timed passes in each way, after one that is not timed; on a busy machine two may mislead
GAIN = 1.05  # how much faster channels last must be, and folded norms
# Two choices of `rounds` take 4 (rounds + 1) passes of a batch, at most a tenth of the measurement. Shorter ones would
# hardly gain by them.
PASSES, SECONDS = 10 * 4 * (LEAST + 1), 10.0
CLOSE = {"float32": 1e-3}  # of the largest value of an output; half precision rounds more
CLOSE_IN_HALF = 0.05
CLOSE_IF_FOLDED = 1e-4  # a convolution whose output goes elsewhere, too, must not pass

Setting = Callable[[bool], None]


def choose_fast_passes(
    network: Network,
    first_batch: Callable[[], Tensor],
    passes: int,
    run: Callable[[Tensor], Any] | None = None,
    *,
    memory_format: str | None = None,
    fold: bool | None = None,
) -> None:
    """Let the network use ``channels_last``, and fold batch norms, where that is faster and gives the same outputs.

    Networks that are compiled, that fail in channels last, or whose measurement is too short to repay the timing (fewer
    than `PASSES` passes or `SECONDS`) stay contiguous and as they are. Batch norms are folded on a CPU in float32.

    Args:
        network: the network, in contiguous format.
        first_batch: returns its inputs for the first batch, ``(B, C, H, W)``, on its device.
        passes: forward passes to be measured: batches times views.
        run: returns the output for inputs, in which the tensors are compared; ``network`` when None.
        memory_format: chosen by the user, so not timed.
        fold: chosen by the user, so not timed.

    Raises:
        InputError: the user chose to fold, and that changes the outputs.
    """
    run = run or network
    if memory_format is not None:
        network.use_memory_format(memory_format)
    if fold:
        _fold(network, run, first_batch())
    may_fold = fold is None and network.device.type == "cpu" and network.precision == "float32"
    if network.compiled or passes < PASSES or not (may_fold or memory_format is None):
        return
    inputs, rounds = first_batch(), min(MOST, passes // 40 - 1)
    if passes * min(_timed(network, run, inputs)[0] for _ in range(2)) < SECONDS:
        return
    if memory_format is None:
        close = CLOSE.get(network.precision, CLOSE_IN_HALF)

        def use(on: bool) -> None:
            network.use_memory_format(CHANNELS_LAST if on else CONTIGUOUS)

        _try(network, run, inputs, use, close, rounds)
    if may_fold:
        _try(network, run, inputs, network.use_folding, CLOSE_IF_FOLDED, rounds)


@contextmanager
def contiguous(network: Network) -> Iterator[None]:
    """Context of the analyses, which are faster contiguous; the network's own format returns after it."""
    kept = network.memory_format
    network.use_memory_format(CONTIGUOUS)
    try:
        yield
    finally:
        network.use_memory_format(kept)


def _fold(network: Network, run: Callable[[Tensor], Any], inputs: Tensor) -> None:
    """Fold batch norms as the user chose; raise InputError where that changes outputs by more than rounding."""
    outputs = []
    for on in (False, True):
        network.use_folding(on)
        outputs.append(list(_tensors(_timed(network, run, inputs)[1])))
    close = CLOSE_IF_FOLDED if network.precision == "float32" else CLOSE_IN_HALF
    if not _are_close(outputs[0], outputs[1], close):
        raise InputError(
            "--fold: expected a network whose convolutions feed their batch norm alone, and outputs change here; leave"
            " it out"
        )


def _try(
    network: Network, run: Callable[[Tensor], Any], inputs: Tensor, use: Setting, close: float, rounds: int
) -> None:
    """Switch something on where it is faster and gives outputs as ``close``, as a share of their largest value."""
    try:
        better = _is_better(network, run, inputs, use, close, rounds)
    except (AugkitError, RuntimeError):  # such as `view` of a map, or too little memory
        better = False
    use(better)


def _is_better(
    network: Network, run: Callable[[Tensor], Any], inputs: Tensor, use: Setting, close: float, rounds: int
) -> bool:
    ways = (False, True)
    seconds: dict[bool, list[float]] = {way: [] for way in ways}
    outputs: dict[bool, list[Tensor]] = {}
    for way in ways * (rounds + 1):  # alternating, so that other load on the machine affects both
        use(way)
        taken, output = _timed(network, run, inputs)
        seconds[way].append(taken)
        outputs[way] = list(_tensors(output))
    off, on = (min(seconds[way][1:]) for way in ways)
    return off > GAIN * on and _are_close(outputs[False], outputs[True], close)


def _timed(network: Network, run: Callable[[Tensor], Any], inputs: Tensor) -> tuple[float, Any]:
    """Seconds of a pass, and its output."""
    with network.measuring():  # its random state is that of a new measurement
        start = _clock(network.device)
        output = run(inputs)
        return _clock(network.device) - start, output


def _clock(device: torch.device) -> float:
    """Seconds; on a CPU, CPU time of this process, which excludes other processes."""
    if device.type == "cpu":
        return time.process_time()
    torch.accelerator.synchronize(device)
    return time.perf_counter()


def _tensors(output: Any) -> Iterator[Tensor]:
    """The tensors of an output; none of an object that is no collection."""
    if isinstance(output, Tensor):
        yield output
    elif isinstance(output, (Mapping, list, tuple)):
        for part in output.values() if isinstance(output, Mapping) else output:
            yield from _tensors(part)


def _are_close(one: list[Tensor], other: list[Tensor], close: float) -> bool:
    if not one or [values.shape for values in one] != [values.shape for values in other]:
        return False
    pairs = [(a.double(), b.double()) for a, b in zip(one, other, strict=True) if a.numel()]
    return all(bool((a - b).abs().max() <= close * a.abs().max()) for a, b in pairs)
