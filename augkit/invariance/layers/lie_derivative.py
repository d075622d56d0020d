"""Lie derivative: the rate at which the output of a network changes as its input begins to move.

Gruver, Finzi, Goldblum & Wilson 2023, "The Lie Derivative for Measuring Learned Equivariance"
(https://arxiv.org/abs/2210.02984). For a direction with the flow ``T_t``, ``L = d/dt f(T_t x)`` at t = 0.

Difference from the published code, which differentiates a bilinear ``grid_sample``: bilinear interpolation has a kink
at every pixel, so its derivative at t = 0 is a one-sided difference (to the left or to the right, depending on
rounding), for which an invariant network does not give 0. Here an image is interpolated by its trigonometric
polynomial, which is smooth: the derivative is two-sided and spectral, that of `augkit.fourier_shift`. Directions are
in pixels, not in fractions of the image.

The protocol determines the pixels beyond the border: the opposite edge (``circular``), the mirror image of the whole
image, from which the window is then cut (``crop``), or the canvas, which is constant around the image and is itself a
torus (``embed``). For log-scale and rotation the gradient is multiplied by the distance from the center of the
window, which is neither periodic nor tapered: content enters and leaves at the border at full speed. The network
itself is differentiated in forward mode.
"""

from __future__ import annotations

import contextlib
import functools
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from augkit.architectures.modes import called_with
from augkit.augment.resample import check_images
from augkit.core.errors import InputError, unknown_name
from augkit.core.precision import wide_device
from augkit.invariance.bootstrap import Estimate, means_with_replicates, percentile_interval
from augkit.invariance.network import CheckedForward, Forward, batch_slices, check_finite, evaluating
from augkit.invariance.protocols import Protocol, make_protocol

STEP = 1e-5  # of the velocity, to either side: rectifiers seldom switch within it, and rounding is 1e-16 / STEP
METHODS = ("auto", "forward", "central")

# From the gradient (gx, gy) and the distance (x, y) in pixels from the center to the velocity of each pixel's value.
# x and y come divided by their root mean square length, so that every direction moves content by 1 pixel (RMS).
DIRECTIONS: dict[str, Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    "shift_x": lambda gx, gy, x, y: -gx,
    "shift_y": lambda gx, gy, x, y: -gy,
    "log_scale": lambda gx, gy, x, y: -(x * gx + y * gy),
    "rotation": lambda gx, gy, x, y: x * gy - y * gx,
}


@dataclass(frozen=True)
class LieSettings:
    """Settings that reproduce `lie_derivative`; ``method`` is ``forward`` or ``central``, sizes are (H, W)."""

    protocol: str
    background: float | str
    generator: str
    method: str
    images: int
    image_size: list[int]
    input_size: list[int]
    seed: int


@dataclass(frozen=True)
class LieDerivative:
    """The result of `lie_derivative`, per direction.

    Attributes:
        logits: ``E ||L||^2 / K`` on logits.
        probabilities: ``E sum_k |L_k| / K`` on probabilities, the form of the published code.
        radius: pixels by which content moves, root mean square over the image, for a unit of log scale or a
            radian of rotation. Times ``radius`` (squared on logits) the two are per such unit.
        settings: settings that reproduce the measurement.
        per_image: ``logits`` and ``probabilities`` per image and direction, ``(N, D)`` each.
    """

    logits: dict[str, Estimate]
    probabilities: dict[str, Estimate]
    radius: float
    settings: LieSettings
    per_image: dict[str, Tensor] = field(repr=False)

    def to_dict(self) -> dict[str, object]:
        """Estimates and settings for JSON."""
        estimates = {
            form: {name: estimate.to_dict() for name, estimate in getattr(self, form).items()}
            for form in ("logits", "probabilities")
        }
        return {**estimates, "radius": self.radius, "settings": asdict(self.settings)}


def lie_derivative(  # noqa: PLR0913 (keywords of one measurement, each with a default)
    model: nn.Module,
    images: Tensor,
    *,
    directions: Sequence[str] = tuple(DIRECTIONS),
    protocol: Protocol | None = None,
    method: str = "auto",
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    batch_size: int = 64,
    device: torch.device | str | None = None,
    seed: int = 0,
    on_batch: Callable[[int, int], None] | None = None,
) -> LieDerivative:
    """Return the Lie derivative of a network's logits and probabilities; it is 0 for an invariant network.

    Every direction moves content by one pixel: ``shift_x`` right and ``shift_y`` down by one pixel everywhere,
    ``log_scale`` outwards and ``rotation`` counter-clockwise by one pixel in root mean square over the image.

    Args:
        model: gives logits ``(B, K)``; evaluated in ``eval()`` and put back in the mode it was in.
        images: ``(N, C, H, W)``, uint8 or floating in [0, 1]; computed in the dtype of the network's weights.
        directions: names among ``shift_x``, ``shift_y``, ``log_scale``, ``rotation``.
        protocol: the source of pixels beyond the border (see the head of this file), made by `make_protocol`; the
            torus when None. Its kernel is not used, as the derivative is spectral.
        method: ``forward``, forward-mode differentiation; ``central``, central differences in float64, two
            passes per direction; ``auto``, ``forward`` where the network supports it, else ``central``. In
            forward mode what the network detaches counts as constant; one whose output is wholly detached is
            not supported.
        mean, std: per channel, applied to the images before the network sees them.
        batch_size: images per pass; with D directions, forward mode needs the memory of D + 1 passes.
        device: device of the computation; that of the model when None.
        seed: seed of the bootstrap over images.
        on_batch: called with the number of finished images and the number of all images.

    Returns:
        The estimates per direction, with the values of every image and the settings.

    Raises:
        InputError: a name is unknown, shapes do not fit, the logits are not ``(B, K)`` or not finite, or ``method``
            cannot differentiate the network.

    >>> net = nn.Sequential(nn.Conv2d(1, 4, 3, padding=1, padding_mode="circular"), nn.AdaptiveAvgPool2d(1))
    >>> found = lie_derivative(nn.Sequential(net, nn.Flatten()), torch.rand(2, 1, 9, 9))
    >>> found.logits["shift_x"].value < 1e-9, found.logits["log_scale"].value < 1e-9
    (True, False)
    """
    check_images(images)
    check_names(directions, method)
    size = (images.shape[-2], images.shape[-1])
    protocol = make_protocol("circular", size) if protocol is None else protocol
    if protocol.image_size != size:
        raise InputError(f"protocol: made for images of {protocol.image_size} pixels (H, W), got {size}")
    if protocol.mirrors:
        raise InputError("protocol: expected a canvas that is constant, got background 'reflection'; take 'crop'")
    rows = []
    with evaluating(model, images, mean=mean, std=std, device=device) as network:
        differentiate, used = differentiator(model, network, images[:1], protocol, directions, method)
        for part in batch_slices(len(images), batch_size, on_batch):
            window, velocity = tangents(network.load(images[part]), protocol, directions)
            rows.append(_speeds(*differentiate(window, velocity), part.start))
    per_image = {form: torch.cat([row[form] for row in rows]) for form in ("logits", "probabilities")}
    settings = LieSettings(
        protocol=protocol.name,
        background=protocol.background,
        generator="spectral",
        method=used,
        images=len(images),
        image_size=list(size),
        input_size=list(protocol.input_size),
        seed=seed,
    )
    estimates = {form: _estimates(values, directions, seed) for form, values in per_image.items()}
    return LieDerivative(**estimates, radius=radius_of(protocol.input_size), settings=settings, per_image=per_image)


def check_names(directions: Sequence[str], method: str) -> None:
    """Raise InputError for an unknown direction or method, or no direction at all."""
    for kind, known, names in (("direction", DIRECTIONS, directions), ("method", METHODS, [method])):
        for name in names:
            if name not in known:
                raise unknown_name(kind, name, known)
    if not directions:
        raise InputError(f"directions: expected at least one of {', '.join(DIRECTIONS)}")


def spectral_derivative(images: Tensor, dim: int, *, mirrored: bool = False) -> Tensor:
    """Return the derivative of the trigonometric interpolant along one axis, per pixel, at every pixel.

    Args:
        images: ``(..., H, W)``, floating.
        dim: -1 for x, -2 for y.
        mirrored: continue the image by its mirror image about the center of the border pixels; otherwise by its
            opposite edge.

    Returns:
        ``(..., H, W)``. The Nyquist frequency of an even size contributes 0: it is a cosine with its extrema at the
        pixels.

    >>> spectral_derivative(torch.tensor([[0.0, 1.0, 0.0, -1.0]]), -1)  # of sin(pi x / 2)
    tensor([[ 1.5708,  0.0000, -1.5708,  0.0000]])
    """
    count = images.shape[dim]
    if mirrored and count > 2:
        images = torch.cat([images, images.narrow(dim, 1, count - 2).flip(dim)], dim)
    size = images.shape[dim]
    turns = 2 * math.pi * torch.fft.rfftfreq(size, device=images.device, dtype=images.dtype)
    if size % 2 == 0:
        turns[-1] = 0
    spectrum = torch.fft.rfft(images, dim=dim) * (1j * (turns if dim == -1 else turns[:, None]))
    return torch.fft.irfft(spectrum, n=size, dim=dim).narrow(dim, 0, count)


def tangents(images: Tensor, protocol: Protocol, directions: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Return the network's input ``(B, C, H, W)`` and its velocity in each direction ``(D, B, C, H, W)``."""
    still = images.new_zeros(len(images), 2)
    mirrored = protocol.name == "crop"
    source = images if mirrored else protocol.shift(images, still)
    along_x, along_y = (spectral_derivative(source, dim, mirrored=mirrored) for dim in (-1, -2))
    if mirrored:
        source, along_x, along_y = (protocol.shift(each, still) for each in (source, along_x, along_y))
    return source, velocities(along_x, along_y, directions, protocol.input_size)


def velocities(
    along_x: Tensor,
    along_y: Tensor,
    directions: Sequence[str],
    input_size: tuple[int, int],
    stride: tuple[float, float] = (1.0, 1.0),
) -> Tensor:
    """Return how fast each pixel of an image or map changes while its content moves, ``(D, ..., h, w)``.

    Args:
        along_x, along_y: its derivatives ``(..., h, w)`` per pixel of the network's input.
        directions: names among `DIRECTIONS`; every one moves the content of the input by 1 pixel (RMS).
        input_size: ``(H, W)`` of the input.
        stride: ``(y, x)`` of the map, whose center is that of the input.
    """
    radius = max(radius_of(input_size), torch.finfo(along_x.dtype).tiny)
    (height, width), device, dtype = along_x.shape[-2:], along_x.device, along_x.dtype
    x = (torch.arange(width, device=device, dtype=dtype) - (width - 1) / 2) * (stride[1] / radius)
    y = (torch.arange(height, device=device, dtype=dtype)[:, None] - (height - 1) / 2) * (stride[0] / radius)
    return torch.stack([DIRECTIONS[name](along_x, along_y, x, y) for name in directions])


def radius_of(size: tuple[int, int]) -> float:
    """Return the root mean square distance of a pixel from the center."""
    return math.sqrt((size[0] ** 2 + size[1] ** 2 - 2) / 12)


Differentiate = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


def differentiator(
    model: nn.Module, network: CheckedForward, image: Tensor, protocol: Protocol, directions: Sequence[str], method: str
) -> tuple[Differentiate, str]:
    """Return a function that differentiates ``network``, chosen by a trial on one image, and the name of its method."""
    window, velocity = tangents(network.load(image), protocol, directions)
    network(window)  # raises the errors of the network itself
    reason: Exception | None = None
    if method != "central":
        try:
            _forward(network, window, velocity)
            return functools.partial(_forward, network), "forward"
        except (InputError, RuntimeError) as error:  # the first is an error of the network itself
            reason = error
        if method == "forward":
            raise InputError(f"model: forward mode fails ({_line(reason)}); use method='central'") from reason
    double = _in_double(model, network)
    try:
        _central(double, window, velocity)
    except (InputError, RuntimeError) as error:
        first = "" if reason is None else f"forward mode fails ({_line(reason)}), and "
        raise InputError(
            f"model: {first}central differences need float64, in which it fails ({_line(error)})"
        ) from error
    return functools.partial(_central, double), "central"


def _line(error: BaseException) -> str:
    error = error.__cause__ or error
    return f"{type(error).__name__}: {str(error).splitlines()[0][:120]}" if str(error) else type(error).__name__


def _forward(network: CheckedForward, window: Tensor, velocity: Tensor) -> tuple[Tensor, Tensor]:
    """Return logits ``(B, K)`` and derivatives ``(D, B, K)``; all directions share one evaluation of the network."""
    with _differentiable():
        along = torch.func.vmap(lambda each: torch.func.jvp(network, (window,), (each,), strict=True)[:2])
        logits, slopes = along(velocity)
    return logits[0], slopes


@contextlib.contextmanager
def _differentiable() -> Iterator[None]:
    """Use the plain form of attention, which has a forward derivative, and silence torch's warnings about speed."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


def _central(network: CheckedForward, window: Tensor, velocity: Tensor) -> tuple[Tensor, Tensor]:
    window, velocity = (each.to(network.device).double() for each in (window, velocity))
    slopes = [(network(window + STEP * each) - network(window - STEP * each)) / (2 * STEP) for each in velocity]
    return network(window), torch.stack(slopes)


def _in_double(model: nn.Module, network: CheckedForward) -> CheckedForward:
    """Return a copy of the network in float64, on the CPU where the device has no float64."""
    device = wide_device(network.device)
    state = {
        name: value.detach().to(device).to(torch.float64 if value.is_floating_point() else value.dtype)
        for name, value in (*model.named_parameters(), *model.named_buffers())
    }
    forward: Forward = lambda images: called_with(model, state, images)  # noqa: E731
    return replace(network, forward=forward, device=device, dtype=torch.float64)


def _speeds(logits: Tensor, slopes: Tensor, start: int) -> dict[str, Tensor]:
    """Return ``||L||^2 / K`` of the logits and ``sum_k |L_k| / K`` of the probabilities, ``(B, D)`` each."""
    # The difference of probabilities is computed in float64 on the CPU, because MPS has no float64.
    both = check_finite(torch.cat([logits[None], slopes]), "logits and derivatives", start)
    probability, slopes = both[0].softmax(-1), both[1:]
    moved = probability * (slopes - (probability * slopes).sum(-1, keepdim=True))
    return {"logits": slopes.square().mean(-1).mT, "probabilities": moved.abs().mean(-1).mT}


def _estimates(values: Tensor, directions: Sequence[str], seed: int) -> dict[str, Estimate]:
    whole, replicates = means_with_replicates(values, seed)
    return {name: percentile_interval(whole[d], replicates[:, d], low=0.0) for d, name in enumerate(directions)}
