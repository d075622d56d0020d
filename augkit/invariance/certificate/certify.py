"""Certifies that a network is exactly invariant to shifts on the torus, or names the first layer that is not.

Two checks must agree. The *structure* is a trace of the network, layer by layer (`trace_states`): each layer provably
commutes with integer or fractional shifts, or it ends the guarantee. The *logits* are computed in float64 for random
images and shifts. A network is certified only if every layer passes and the logits do not change. A network that fails
in structure is not certified even if its logits, like a constant network's, do not change.

Exactly invariant networks: Chaman & Dokmanic 2021, https://arxiv.org/abs/2011.14214 (integer shifts); Michaeli et
al. 2023, https://arxiv.org/abs/2303.08085 (fractional ones).
"""

from __future__ import annotations

import dataclasses
import math
import warnings
from dataclasses import dataclass
from typing import Literal, SupportsFloat

import torch
from torch import Tensor, nn

from augkit.architectures.modes import as_written, check_network, copied, is_lazy
from augkit.architectures.outputs import check_logits, logits_in, reason
from augkit.augment.resample import as_size, fourier_shift
from augkit.core.errors import InputError, OddMapWarning, brief, check_whole
from augkit.core.precision import wide_device
from augkit.invariance.certificate.state import Equivariant, Level, Limitation, Lost, State
from augkit.invariance.certificate.trace import Step, Trace, trace_states

Verdict = Literal["integer", "fractional", "none", "refused"]

# Every residue of small strides, along each axis and along both, and distances beyond the strides: a short shift may
# change only the phases of polyphase samplings and move no coarse map. The first few shifts detect most faults.
INTEGER_SHIFTS = ((1, 0), (5, 7), (13, -11), (0, 1), (1, 1), (2, -1), (-3, 2), (-26, 22))
FRACTIONAL_SHIFTS = ((0.5, 0.5), (1 / 3, -2 / 3), (-0.25, 1.7), (0.5, 0.0), (0.0, 0.5))
FEW = 3  # shifts of each kind that show how far the logits of a broken network move
CALIBRATION_PASSES = 3
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


@dataclass(frozen=True)
class LogitCheck:
    """Changes of the logits under circular shifts, in float64.

    Attributes:
        integer, fractional: the largest absolute change of a logit over all images and shifts of each kind.
        scale: the largest absolute logit of the unshifted images.
        tolerance: change over scale up to which logits count as unmoved.
        shifts: number of shifts; fewer are tried where the structure already fails.
        images: number of random images, standard normal, drawn from ``seed``.
        calibrated: whether batch norm took its statistics from these images, or kept those it came with.
    """

    integer: float
    fractional: float
    scale: float
    tolerance: float
    shifts: int
    images: int
    seed: int
    calibrated: bool

    @property
    def integer_moves(self) -> bool:
        """Whether an integer shift moved a logit."""
        return not self.integer <= self.tolerance * self.scale

    @property
    def fractional_moves(self) -> bool:
        """Whether a fractional shift moved a logit."""
        return not self.fractional <= self.tolerance * self.scale


@dataclass(frozen=True)
class Certificate:
    """The verdict on a network in evaluation mode, at one input size, on the torus.

    Attributes:
        verdict: ``integer``: exactly invariant to integer circular shifts; ``fractional``: to fractional shifts too;
            ``none``: to neither; ``refused``: the network cannot be judged.
        layer, type: qualified name and class of the first layer that ends the guarantee (for ``integer``, the
            guarantee of fractional shifts); None where no layer ends it.
        reason: why the guarantee ends, or why it holds, in one sentence.
        remedy: a change of the layer that would restore the guarantee; None where none is known.
        input_size: ``(H, W)``.
        walk: the layers in the order of execution.
        check: the check on logits.
    """

    verdict: Verdict
    layer: str | None
    type: str | None
    reason: str
    remedy: str | None
    input_size: tuple[int, int]
    walk: tuple[Step, ...]
    check: LogitCheck

    @property
    def mend(self) -> str | None:
        """The former name of ``remedy``."""
        return self.remedy

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        H, W = self.input_size
        claim = {
            "integer": "exactly invariant to integer circular shifts, not to fractional ones",
            "fractional": "exactly invariant to integer and fractional circular shifts",
            "none": "not exactly invariant to circular shifts",
            "refused": "cannot be judged",
        }[self.verdict]
        place = "" if self.layer is None else f"{self.layer} ({self.type}): "
        c = self.check
        lines = [f"{self.verdict}: {claim} ({H} x {W} pixels, evaluation mode)", f"  {place}{self.reason}"]
        lines += [] if self.remedy is None else [f"  remedy: {self.remedy}"]
        statistics = "calibrated" if c.calibrated else "as it is"
        change = f"{c.integer:.1e} (integer) and {c.fractional:.1e} (fractional shifts)"
        lines += [
            f"  logits of scale {c.scale:.1e} move by {change}, tolerance {c.tolerance:g} of the scale",
            f"  float64, {c.images} random images, {c.shifts} shifts, batch norm {statistics}",
        ]
        return "\n".join(lines)


def certify(
    model: nn.Module,
    input_size: int | tuple[int, int],
    *,
    in_channels: int | None = None,
    images: int = 2,
    tolerance: float = 1e-9,
    calibrate: bool = False,
    seed: int = 0,
) -> Certificate:
    """Decide whether the logits of a network are exactly invariant to circular shifts.

    The network is copied and judged in evaluation mode; it is not changed. It is followed along the calls that it makes
    for random images, traced by `torch.fx`: a branch that neither takes, such as one behind a test of the type of its
    input, is not judged.

    Args:
        model: maps images ``(B, C, H, W)`` to logits ``(B, K)``.
        input_size: side of the input in pixels, or ``(H, W)``. The verdict can depend on it, through strides that do
            not divide a map and through maps of odd size.
        in_channels: C; taken from the first convolution when None.
        images: number of random images for the check on logits, at least 2.
        tolerance: largest change of a logit, relative to the largest logit, that counts as rounding in float64.
        calibrate: set the statistics of batch norm from the random images (for untrained networks); otherwise batch
            norm keeps its own.
        seed: seed of the random images.

    Returns:
        The verdict, with the first layer that ends the guarantee, a reason, and the check on logits.

    Raises:
        InputTypeError: the model is not a `torch.nn.Module`.
        InputError: the network does not accept the input size, its output is not ``(B, K)``, or C is unknown.

    >>> from torch import nn
    >>> net = nn.Sequential(
    ...     nn.Conv2d(1, 4, 3, padding=1, padding_mode="circular"), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ... )
    >>> certificate = certify(net, 16)
    >>> certificate.verdict, certificate.layer
    ('integer', '1')
    """
    size, channels = checked_input(model, input_size, in_channels, images, tolerance)
    generator = torch.Generator().manual_seed(seed)
    batch = torch.randn(images, channels, *size, generator=generator, dtype=torch.float64)
    devices = [torch.device("cuda", k) for k in range(torch.cuda.device_count())] if torch.cuda.is_initialized() else []
    with torch.no_grad(), torch.random.fork_rng(devices=devices), warnings.catch_warnings():
        warnings.simplefilter("ignore", OddMapWarning)  # the certificate reports odd maps
        network, batch = prepared(model, batch, calibrate=calibrate)
        logits = _logits(network, batch)
        traced = _agreeing(trace_states(network, batch.clone()), logits, tolerance)
        few = FEW if isinstance(traced.state, Lost) else None
        shifts = INTEGER_SHIFTS[:few], FRACTIONAL_SHIFTS[:few]
        integer, fractional = (_moved(network, batch, logits, own) for own in shifts)
    check = LogitCheck(
        integer, fractional, float(logits.abs().max()), tolerance, sum(map(len, shifts)), images, seed, calibrate
    )
    return _verdict(traced, check, size)


def checked_input(
    model: nn.Module, input_size: int | tuple[int, int], in_channels: int | None, images: int, tolerance: float
) -> tuple[tuple[int, int], int]:
    """Return ``(H, W)`` and the channels of the input.

    Raises:
        InputTypeError: the model is not a `torch.nn.Module`.
        InputError: the size, the tolerance, the number of images or of channels does not fit, or the channels are
            unknown.
    """
    check_network(model)
    size = as_size(input_size)
    check_whole("images", images, 2, optional=False)
    if not (isinstance(tolerance, SupportsFloat) and tolerance >= 0):
        raise InputError(f"tolerance: expected at least 0, a share of the largest output, got {brief(tolerance)}")
    if in_channels is None:
        found = (getattr(module, "in_channels", None) for module in model.modules())
        in_channels = next((number for number in found if isinstance(number, int)), None)
    if not in_channels and is_lazy(model):
        raise InputError("in_channels: the network has lazy layers; run it on one image first")
    if in_channels is None:
        raise InputError("in_channels: the network has no convolution to read it from; pass it, such as in_channels=3")
    check_whole("in_channels", in_channels, 1, optional=False)
    return size, in_channels


def prepared(model: nn.Module, batch: Tensor, *, calibrate: bool = False) -> tuple[nn.Module, Tensor]:
    """Return a float64 copy of a network in evaluation mode, and the images on its device."""
    network = copied(as_written(model))
    first = next((t for t in (*network.parameters(), *network.buffers())), None)
    device = torch.device("cpu") if first is None else wide_device(first.device)
    network, batch = network.to(device).double().eval(), batch.to(device)
    norms = [m for m in network.modules() if isinstance(m, BATCH_NORMS)]
    if calibrate:
        for norm in norms:
            norm.train()
            norm.reset_running_stats()
            norm.momentum = None  # a plain average
        for _ in range(CALIBRATION_PASSES):
            _logits(network, batch)
        network.eval()
    return network, batch


def _logits(network: nn.Module, batch: Tensor, classes: int | None = None) -> Tensor:
    H, W = batch.shape[-2:]
    try:
        logits = logits_in(network(batch.clone()))
    except Exception as error:  # the network's own code may raise anything
        raise InputError(
            f"input_size {H} x {W}, {batch.shape[1]} channels: the network cannot take it in float64 ({reason(error)})"
        ) from error
    check_logits(logits, len(batch), classes=classes, least=1)
    if not bool(torch.isfinite(logits).all()):
        raise InputError("model: its logits are not finite for random images; pass calibrate=True if it is untrained")
    return logits


def _moved(network: nn.Module, batch: Tensor, logits: Tensor, shifts: tuple[tuple[float, float], ...]) -> float:
    """Return the largest change of a logit over the shifts; the images of a batch take different shifts."""
    largest = 0.0
    for k in range(len(shifts)):
        own = [shifts[(k + n) % len(shifts)] for n in range(len(batch))]
        if all(isinstance(s, int) for s in own[0]):
            moved = torch.stack([image.roll((y, x), (-2, -1)) for image, (x, y) in zip(batch, own, strict=True)])
        else:
            moved = fourier_shift(batch, torch.tensor(own, dtype=torch.float64, device=batch.device))
        change = float((_logits(network, moved, logits.shape[1]) - logits).abs().max())
        largest = change if math.isnan(change) else max(largest, change)
    return largest


def _agreeing(traced: Trace, logits: Tensor, tolerance: float) -> Trace:
    """Return the trace, or a refusal where its logits differ from those of the network."""
    if isinstance(traced.state, Lost):
        return traced
    output = traced.output
    close = isinstance(output, Tensor) and output.shape == logits.shape
    if close and float((output - logits).abs().max()) <= tolerance * float(logits.abs().max()):
        return traced
    why = "its trace gives other logits than the network: its Python code takes another path, or it is random"
    return dataclasses.replace(traced, state=Lost(Limitation(why, refused=True)))


def _verdict(traced: Trace, check: LogitCheck, size: tuple[int, int]) -> Certificate:
    state = traced.state
    if isinstance(state, Lost):
        limitation = state.limitation
        verdict: Verdict = "refused" if limitation.refused else "none"
    else:
        verdict, limitation = _structural(state)
        moves = check.integer_moves or (verdict == "fractional" and check.fractional_moves)
        if moves and verdict in ("integer", "fractional"):
            kind = "integer" if check.integer_moves else "fractional"
            why = f"every layer allows {verdict} shifts, yet the logits move under {kind} ones: a layer hides something"
            verdict, limitation = "refused", Limitation(why, refused=True)
    remedy = _divisible(traced, size) if limitation.needs_divisible else limitation.remedy
    return Certificate(verdict, limitation.layer, limitation.type, limitation.why, remedy, size, traced.steps, check)


def _structural(state: State) -> tuple[Verdict, Limitation]:
    if not isinstance(state, Equivariant):
        return "refused", Limitation("its output is a phase or the scores of attention, not logits", refused=True)
    if state.moves:
        return "none", Limitation(
            "its output still has spatial positions, which move with the image", "global average pooling"
        )
    if state.level == Level.FRACTIONAL:
        return "fractional", Limitation(
            "every layer commutes with fractional shifts, and the head does not depend on the place"
        )
    return "integer", state.limit or Limitation("a layer commutes with integer shifts only")


def _divisible(traced: Trace, size: tuple[int, int]) -> str:
    """Advise an input size at which every polyphase sampling divides its map: a multiple of the product of strides."""
    factor, side = 1, size[0]
    for step in traced.steps:
        if step.type.endswith("PolyphaseSampling") and step.size is not None and step.size[0] < side:
            factor, side = factor * math.ceil(side / step.size[0]), step.size[0]  # ceil(side / stride) are left
    sizes = [[n // factor * factor for n in size], [-(-n // factor) * factor for n in size]]
    near = " or ".join(f"{H} x {W}" for H, W in sizes if min(H, W) > 0)
    return f"an input whose sides are multiples of {factor}, such as {near} instead of {size[0]} x {size[1]}"
