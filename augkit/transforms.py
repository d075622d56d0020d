"""Random geometric transforms: one op a class, composed by `Augment` and resampled once.

Each op turns uniform draws into a matrix and does nothing else; randomness enters as data. Alone, an op is a
Kornia augmentation (it also runs inside ``kornia.augmentation.AugmentationSequential``). Inside `Augment` only
its matrix is used. Every sample has its own parameters and its own coin for ``p``.

``strength`` in [0, 1] scales the range of every op: 0 is the identity bit for bit, 1 the range as written.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from kornia.augmentation import GeometricAugmentationBase2D
from torch import Tensor, nn

from augkit import geometry
from augkit.errors import InputError, InputTypeError
from augkit.interpolation import check_names
from augkit.resampling import (
    Finish,
    check_images,
    check_size,
    finished,
    fourier_shift_checked,
    resample,
    resample_checked,
)

Size = tuple[int, int]


class RandomGeometry(GeometricAugmentationBase2D):
    """Base of the ops. A subclass says how many uniform draws it takes and what matrix they make.

    Column 0 of the draws is the coin for ``p``: a sample not chosen gets the identity.
    """

    draws: ClassVar[int]

    def __init__(self, p: float, kernel: str, padding: str) -> None:
        # Kornia's own coin stays at 1: it would compute and blend every sample, and refuses crops.
        super().__init__(p=1.0)
        self.probability = check_range("p", p, 0.0, 1.0)
        check_names(kernel, padding)
        self.kernel, self.padding = kernel, padding

    def matrix(self, draws: Tensor, strength: Tensor, size: Size) -> Tensor:
        """Matrices ``(B, 3, 3)`` for an input of ``size`` from draws ``(B, n)`` in [0, 1) and strength ``(B,)``."""
        raise NotImplementedError  # abstract: every op below defines it

    def output_size(self, size: Size) -> Size:
        """The size that an input of ``size`` leaves with."""
        return size

    def max_shrink(self, size: Size) -> float:
        """The most that the op shrinks an axis of an input of ``size``, at least 1: bounds the antialias taps."""
        del size
        return 1.0

    def chosen(self, draws: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
        """``values`` where the coin fell on the op, 0 elsewhere: 0 is the identity of every parameter here."""
        coin = draws[:, 0] < self.probability
        return tuple(torch.where(coin, value, torch.zeros_like(value)) for value in values)

    def forward(
        self,
        input: Tensor,
        params: dict[str, Tensor] | None = None,
        *,
        strength: float | Tensor = 1.0,
        generator: torch.Generator | None = None,
        data_keys: Any = None,
    ) -> Tensor:
        """Transform ``input`` ``(B, C, H, W)``; replay with ``params=op._params`` as in Kornia.

        ``data_keys`` is what Kornia's containers pass along; it is not used.
        """
        del data_keys
        check_images(input)
        if not input.is_floating_point():
            raise InputTypeError(f"images: expected a floating dtype (only Augment takes uint8), got {input.dtype}")
        if params is None:
            # Not through `forward_parameters`, which would draw from torch's global state as well.
            params = {
                "draws": draw(input.shape[0], self.draws, input.device, generator),
                "strength": strengths(strength, input.shape[0], input.device),
                "batch_prob": torch.ones(input.shape[0], device=input.device),
                "forward_input_shape": torch.tensor(input.shape),
            }
        return super().forward(input, params)

    def generate_parameters(self, batch_shape: tuple[int, ...]) -> dict[str, Tensor]:
        draws = torch.rand(batch_shape[0], self.draws, device=self.device)
        return {"draws": draws, "strength": torch.ones(batch_shape[0], device=self.device)}

    def generate_transformation_matrix(self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any]) -> Tensor:
        # Kornia's would round the matrix to the images' dtype under autocast.
        return self.compute_transformation(input, params, flags)

    def compute_transformation(self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any]) -> Tensor:
        del flags
        draws, strength = params["draws"].to(input.device), params["strength"].to(input.device)
        return self.matrix(draws, strength, (input.shape[-2], input.shape[-1]))

    def apply_transform(
        self,
        input: Tensor,
        params: dict[str, Tensor],
        flags: dict[str, Any],
        transform: Tensor | None = None,
    ) -> Tensor:
        if transform is None:
            transform = self.compute_transformation(input, params, flags)
        size = (input.shape[-2], input.shape[-1])
        kernel = flags.get("kernel", self.kernel)
        return resample_checked(input, transform, self.output_size(size), kernel, self.padding, self.max_shrink(size))

    def apply_transform_mask(
        self, input: Tensor, params: dict[str, Tensor], flags: dict[str, Any], transform: Tensor | None = None
    ) -> Tensor:
        return self.apply_transform(input, params, {**flags, "kernel": "nearest"}, transform)

    def inverse_transform(
        self, input: Tensor, flags: dict[str, Any], transform: Tensor | None = None, size: Size | None = None
    ) -> Tensor:
        del flags
        assert transform is not None  # Kornia always passes the inverted matrix
        return resample(input, transform, size, kernel=self.kernel, padding=self.padding)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.extra_repr()})"


class RandomSubpixelShift(RandomGeometry):
    """Shift by up to ``max_pixels`` along x and along y, uniformly and by any fraction of a pixel.

    Args:
        max_pixels: largest displacement along each axis, in pixels.
        p: probability that a sample is shifted.
        kernel, padding: used when the op stands alone; `Augment` has its own.

    Raises:
        InputError: ``max_pixels`` below 0, ``p`` outside [0, 1], unknown kernel or padding.
    """

    draws = 3

    def __init__(self, max_pixels: float, p: float = 1.0, kernel: str = "bicubic", padding: str = "zeros") -> None:
        super().__init__(p, kernel, padding)
        self.max_pixels = check_range("max_pixels", max_pixels, 0.0, math.inf)

    def matrix(self, draws: Tensor, strength: Tensor, size: Size) -> Tensor:
        del size
        reach = self.max_pixels * strength
        x, y = self.chosen(draws, (2 * draws[:, 1] - 1) * reach, (2 * draws[:, 2] - 1) * reach)
        return geometry.shift(torch.stack([x, y], dim=-1))

    def extra_repr(self) -> str:
        return f"max_pixels={self.max_pixels}, p={self.probability}"


class RandomRescale(RandomGeometry):
    """Scale about the centre by a factor that is log-uniform in ``[1 / max_factor, max_factor]``.

    Args:
        max_factor: largest factor; 1.25 enlarges up to 1.25 times and shrinks down to 0.8.
        p: probability that a sample is rescaled.
        kernel, padding: used when the op stands alone; `Augment` has its own.

    Raises:
        InputError: ``max_factor`` below 1, ``p`` outside [0, 1], unknown kernel or padding.
    """

    draws = 2

    def __init__(self, max_factor: float, p: float = 1.0, kernel: str = "bicubic", padding: str = "zeros") -> None:
        super().__init__(p, kernel, padding)
        self.max_factor = check_range("max_factor", max_factor, 1.0, math.inf)

    def matrix(self, draws: Tensor, strength: Tensor, size: Size) -> Tensor:
        (log_factor,) = self.chosen(draws, (2 * draws[:, 1] - 1) * math.log(self.max_factor) * strength)
        return geometry.rescale(torch.exp(log_factor), size)

    def max_shrink(self, size: Size) -> float:
        del size
        return self.max_factor

    def extra_repr(self) -> str:
        return f"max_factor={self.max_factor}, p={self.probability}"


class RandomSubpixelCrop(RandomGeometry):
    """Cut a window of random area and aspect at a sub-pixel place and resize it (Szegedy et al. 2015).

    Differs from torchvision's ``RandomResizedCrop``: the window is not rounded to pixels; instead of ten tries
    and a fallback, the aspect is log-uniform over the part of its range that fits, so that the area is always
    exactly the one drawn; a sample that ``p`` spares shows the whole image.

    Args:
        size: ``(H, W)`` of the output; the input's when None.
        area: range of the window's area, as a fraction of the image's.
        ratio: range of the window's width over its height, in pixels.
        p: probability that a sample is cropped.
        kernel, padding: used when the op stands alone; `Augment` has its own.

    Raises:
        InputError: a range that is empty or out of bounds, ``p`` outside [0, 1], unknown kernel or padding.
    """

    draws = 5

    def __init__(
        self,
        size: Size | None = None,
        area: tuple[float, float] = (0.35, 1.0),
        ratio: tuple[float, float] = (3 / 4, 4 / 3),
        p: float = 1.0,
        kernel: str = "bicubic",
        padding: str = "zeros",
    ) -> None:
        super().__init__(p, kernel, padding)
        self.size = check_size(size) if size is not None else None
        self.area = _ordered("area", area, 1e-6, 1.0)
        self.ratio = _ordered("ratio", ratio, 1e-6, math.inf)

    def matrix(self, draws: Tensor, strength: Tensor, size: Size) -> Tensor:
        low, high = self.area
        drawn_area = low + (high - low) * draws[:, 1]
        (lost,) = self.chosen(draws, (1 - drawn_area) * strength)
        area = 1 - lost
        # Aspect relative to the image's own, so that strength 0 is the whole image whatever its shape.
        image_ratio = size[1] / size[0]
        limit = -torch.log(area)
        lowest = torch.clamp(torch.full_like(area, math.log(self.ratio[0] / image_ratio)), -limit, limit)
        highest = torch.clamp(torch.full_like(area, math.log(self.ratio[1] / image_ratio)), -limit, limit)
        relative = torch.exp((lowest + (highest - lowest) * draws[:, 2]) * strength)
        width = torch.sqrt(area * relative).clamp(max=1.0) * size[1]
        height = torch.sqrt(area / relative).clamp(max=1.0) * size[0]
        left, top = draws[:, 3] * (size[1] - width), draws[:, 4] * (size[0] - height)
        return geometry.crop(left, top, width, height, self.output_size(size))

    def output_size(self, size: Size) -> Size:
        return self.size or size

    def max_shrink(self, size: Size) -> float:
        out = self.output_size(size)
        return max(1.0, size[0] / out[0], size[1] / out[1])

    def extra_repr(self) -> str:
        return f"size={self.size}, area={self.area}, ratio={self.ratio}, p={self.probability}"


class RandomHorizontalFlip(RandomGeometry):
    """Mirror left and right with probability ``p * strength``.

    Raises:
        InputError: ``p`` outside [0, 1].
    """

    draws = 1

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p, "nearest", "zeros")

    def matrix(self, draws: Tensor, strength: Tensor, size: Size) -> Tensor:
        return geometry.flip(draws[:, 0] < self.probability * strength, size)

    def extra_repr(self) -> str:
        return f"p={self.probability}"


class Augmented(NamedTuple):
    """What `Augment` returns when targets are passed; a target that was not passed is None."""

    images: Tensor
    masks: Tensor | None
    boxes: Tensor | None
    keypoints: Tensor | None
    matrix: Tensor


class Augment(nn.Module):
    """Compose the geometry of several ops and resample once, whatever their number.

    In ``eval()`` the geometry is the identity; ``normalize`` and ``dtype`` still apply.

    Args:
        *ops: applied in this order.
        kernel, padding: see `augkit.resample`.
        antialias: stretch the kernel where an axis shrinks.
        normalize: ``(mean, std)`` per channel, applied after the geometry to images in [0, 1].
        dtype: floating dtype of the output; uint8 input is then divided by 255. Without ``dtype`` and
            ``normalize`` the output has the dtype of the input.
        strength: used where a call names none.

    Raises:
        InputError, InputTypeError: from the constructor and from ``forward``, one line each.

    >>> augment = Augment(RandomSubpixelShift(2.0), RandomRescale(1.2), RandomSubpixelCrop(size=(24, 24)))
    >>> augment(torch.rand(4, 3, 32, 32)).shape
    torch.Size([4, 3, 24, 24])
    """

    mean: Tensor | None
    std: Tensor | None

    def __init__(
        self,
        *ops: RandomGeometry,
        kernel: str = "bicubic",
        padding: str = "zeros",
        antialias: bool = True,
        normalize: tuple[Any, Any] | None = None,
        dtype: torch.dtype | None = None,
        strength: float = 1.0,
    ) -> None:
        super().__init__()
        check_names(kernel, padding)
        self.strength = check_range("strength", strength, 0.0, 1.0)
        for op in ops:
            if not isinstance(op, RandomGeometry):
                raise InputTypeError(
                    f"Augment: expected augkit ops such as RandomSubpixelShift, got {type(op).__name__}"
                )
        if kernel == "fourier" and (
            padding != "circular" or any(not isinstance(op, RandomSubpixelShift) for op in ops)
        ):
            raise InputError("kernel 'fourier' expects padding 'circular' and RandomSubpixelShift ops alone")
        if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            raise InputTypeError(f"dtype: expected a floating dtype, got {dtype}")
        self.ops = nn.ModuleList(ops)
        self.kernel, self.padding, self.antialias, self.out_dtype = kernel, padding, antialias, dtype
        mean, std = (None, None) if normalize is None else _channel_statistics(normalize)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)

    def sample(
        self,
        batch: int,
        size: Size,
        *,
        strength: float | Tensor | None = None,
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
    ) -> Tensor:
        """Draw ``(B, 3, 3)`` matrices for images of ``size``: all randomness, in one call."""
        device = torch.device(device or "cpu")
        ops = self._geometry()
        draws = draw(batch, sum(op.draws for op in ops), device, generator)
        strength = self.strength if strength is None else strength
        return self.matrix(draws, strengths(strength, batch, device), size)

    def matrix(self, draws: Tensor, strength: Tensor, size: Size) -> Tensor:
        """The composed ``(B, 3, 3)`` from draws ``(B, n)`` in [0, 1) and strength ``(B,)``; pure."""
        total = geometry.identity(draws.shape[0], device=draws.device)
        first = 0
        for op in self._geometry():
            total = op.matrix(draws[:, first : first + op.draws], strength, size) @ total
            first, size = first + op.draws, op.output_size(size)
        return total

    def forward(
        self,
        images: Tensor,
        *,
        masks: Tensor | None = None,
        boxes: Tensor | None = None,
        keypoints: Tensor | None = None,
        strength: float | Tensor | None = None,
        generator: torch.Generator | None = None,
        matrix: Tensor | None = None,
    ) -> Any:
        """Augment images, and the targets that are passed, with one draw.

        Args:
            images: ``(B, C, H, W)``, floating in [0, 1] or uint8.
            masks: ``(B, C, H, W)`` of any floating dtype or uint8; resampled to the nearest pixel.
            boxes: ``(B, N, 4)`` as x0, y0, x1, y1 along pixel edges (0, 0, W, H is all); clipped to the image.
            keypoints: ``(B, N, 2)`` as x, y in pixels, an integer is a pixel's centre; not clipped.
            strength: scalar or ``(B,)`` in [0, 1]; the constructor's when None.
            generator: source of the draws, on the device of the images; torch's global state when None.
            matrix: ``(B, 3, 3)`` or ``(3, 3)`` to replay instead of drawing.

        Returns:
            The images; an `Augmented` tuple when any target is passed.
        """
        check_images(images)
        size = (images.shape[-2], images.shape[-1])
        if not self.training or not len(self.ops):
            matrix = geometry.identity(images.shape[0], device=images.device)
            size_out, out = size, finished(images, images.dtype, self._finish(images))
        else:
            size_out = self.output_size(size)
            if matrix is None:
                matrix = self.sample(
                    images.shape[0], size, strength=strength, generator=generator, device=images.device
                )
                out = self._resample(images, matrix, size_out, self.kernel)
            else:
                out = resample(
                    images,
                    matrix,
                    size_out,
                    kernel=self.kernel,
                    padding=self.padding,
                    antialias=self.antialias,
                    finish=self._finish(images),
                )
                matrix = matrix.expand(images.shape[0], 3, 3)
        if masks is None and boxes is None and keypoints is None:
            return out
        if masks is not None:
            check_images(masks, "masks")
            if (masks.shape[0], *masks.shape[-2:]) != (images.shape[0], *size):
                raise InputError(
                    f"masks: expected the batch, height and width of the images {tuple(images.shape)},"
                    f" got {tuple(masks.shape)}"
                )
            masks = resample_checked(masks, matrix, size_out, "nearest", self.padding, 1.0)
        if boxes is not None:
            _check_target("boxes", boxes, images.shape[0], 4)
            limit = torch.tensor([size_out[1], size_out[0]] * 2, device=boxes.device, dtype=boxes.dtype)
            boxes = _moved(geometry.apply_to_boxes, matrix, boxes).clamp(min=0).minimum(limit)
        if keypoints is not None:
            _check_target("keypoints", keypoints, images.shape[0], 2)
            keypoints = _moved(geometry.apply_to_points, matrix, keypoints)
        return Augmented(out, masks, boxes, keypoints, matrix)

    def output_size(self, size: Size) -> Size:
        """The size that images of ``size`` leave with."""
        for op in self._geometry():
            size = op.output_size(size)
        return size

    def extra_repr(self) -> str:
        return f"kernel={self.kernel!r}, padding={self.padding!r}, strength={self.strength}"

    def _geometry(self) -> list[RandomGeometry]:
        return [op for op in self.ops if isinstance(op, RandomGeometry)]

    def _resample(self, images: Tensor, matrix: Tensor, size: Size, kernel: str) -> Tensor:
        finish = self._finish(images)
        if kernel == "fourier":
            return fourier_shift_checked(images, matrix[:, :2, 2], finish)
        shrink, current = 1.0, (images.shape[-2], images.shape[-1])
        for op in self._geometry():
            shrink, current = shrink * op.max_shrink(current), op.output_size(current)
        shrink = shrink if self.antialias else 1.0
        return resample_checked(images, matrix, size, kernel, self.padding, shrink, finish=finish)

    def _finish(self, images: Tensor) -> Finish:
        if self.mean is not None and len(self.mean) not in (1, images.shape[1]):
            raise InputError(f"normalize: expected images of {len(self.mean)} channels, got {images.shape[1]}")
        return Finish(self.out_dtype, self.mean, self.std)


def draw(batch: int, columns: int, device: torch.device, generator: torch.Generator | None) -> Tensor:
    """Uniform draws ``(batch, columns)`` in [0, 1) on ``device``."""
    if generator is not None and not isinstance(generator, torch.Generator):
        raise InputTypeError(f"generator: expected a torch.Generator, got {type(generator).__name__}")
    if generator is not None and generator.device.type != device.type:
        raise InputError(f"generator: expected one on {device}, got one on {generator.device}")
    return torch.rand(batch, columns, device=device, generator=generator)


def strengths(strength: float | Tensor, batch: int, device: torch.device) -> Tensor:
    """``strength`` as ``(batch,)`` on ``device``.

    Raises:
        InputError: a scalar outside [0, 1] or a tensor of another shape. Values of a tensor on an accelerator
            are clamped instead of checked, because a check would wait for the device.
    """
    if not isinstance(strength, Tensor):
        return torch.full((batch,), check_range("strength", strength, 0.0, 1.0), device=device)
    if strength.shape not in {(), (batch,)}:
        raise InputError(f"strength: expected a scalar or shape ({batch},), got {tuple(strength.shape)}")
    if strength.device.type == "cpu" and not bool(((strength >= 0) & (strength <= 1)).all()):
        raise InputError("strength: expected values in [0, 1], got a tensor with values outside")
    return strength.to(device=device, dtype=torch.float32).clamp(0, 1).expand(batch)


def check_range(name: str, value: float, low: float, high: float) -> float:
    """``value`` as a float; raises where it is not a number in ``[low, high]``."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise InputTypeError(f"{name}: expected a number, got {value!r}")
    if not low <= value <= high or value == math.inf:
        bounds = f"at least {low:g}" if high == math.inf else f"in [{low:g}, {high:g}]"
        raise InputError(f"{name}: expected a number {bounds}, got {value:g}")
    return float(value)


def _ordered(name: str, pair: tuple[float, float], low: float, high: float) -> tuple[float, float]:
    if not isinstance(pair, Sequence) or len(pair) != 2:
        raise InputError(f"{name}: expected (low, high), got {pair!r}")
    first, last = (check_range(name, value, low, high) for value in pair)
    if first > last:
        raise InputError(f"{name}: expected low <= high, got {pair!r}")
    return first, last


def _channel_statistics(normalize: tuple[Any, Any]) -> tuple[Tensor, Tensor]:
    try:
        mean, std = (torch.as_tensor(v, dtype=torch.float32).reshape(-1, 1, 1) for v in normalize)
    except (TypeError, ValueError, RuntimeError):
        raise InputTypeError("normalize: expected (mean, std), each a number or one number per channel") from None
    if mean.shape != std.shape or not bool((std > 0).all()):
        raise InputError("normalize: expected (mean, std) of equal length with std above 0")
    return mean, std


def _check_target(name: str, target: Tensor, batch: int, last: int) -> None:
    if not isinstance(target, Tensor) or not target.is_floating_point():
        got = target.dtype if isinstance(target, Tensor) else type(target).__name__
        raise InputTypeError(f"{name}: expected a floating tensor ({batch}, N, {last}), got {got}")
    if target.ndim != 3 or target.shape[0] != batch or target.shape[2] != last:
        raise InputError(f"{name}: expected shape ({batch}, N, {last}), got {tuple(target.shape)}")


def _moved(move: Callable[[Tensor, Tensor], Tensor], matrix: Tensor, target: Tensor) -> Tensor:
    """``target`` moved in float32 at least: a coordinate of 224 is up to half a pixel off in bfloat16."""
    dtype = torch.promote_types(matrix.dtype, target.dtype)
    return move(matrix.to(dtype), target.to(dtype)).to(target.dtype)
