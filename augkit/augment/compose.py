"""`Augment`: the geometry of several random ops, composed as matrices and resampled once.

In a plain training loop (`augkit.adapters` has the adapters for other loops):

>>> from augkit.augment.ops import RandomHorizontalFlip, RandomSubpixelShift
>>> augment = Augment(RandomSubpixelShift(2.0), RandomHorizontalFlip(), normalize=([0.5], [0.25]))
>>> model, loader = nn.Linear(64, 2), [(torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8), torch.arange(4) % 2)]
>>> for images, labels in loader:
...     logits = model(augment(images).flatten(1))  # on the device of the images; drawn anew for each batch
...     loss = nn.functional.cross_entropy(logits, labels)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from augkit.augment import geometry, targets
from augkit.augment.backends.values import laid_out
from augkit.augment.base import Size, check_range
from augkit.augment.blur import shift_blur, shift_blur_checked
from augkit.augment.carry_targets import check_followed, moved_fields, moved_masks
from augkit.augment.checks import channel_statistics
from augkit.augment.color import Tail, check_unit_range, draw_tail
from augkit.augment.composed_geometry import ComposedGeometry
from augkit.augment.op_strengths import KORNIA, Strength, checked_strengths, of_op
from augkit.augment.ops.random_shift_blur import RandomShiftBlur
from augkit.augment.resample import (
    Finish,
    check_images,
    finished,
    fourier_shift_checked,
    is_axis_aligned,
    output_dtype,
    replay,
    resample_checked,
)
from augkit.core.errors import InputError, InputTypeError


class Augmented(NamedTuple):
    """Augmented images and targets, with the matrices that moved them; fields of targets not passed are None.

    ``matrix`` ``(B, 3, 3)`` and ``blur`` ``(B, 2)`` (None without a `RandomShiftBlur`) replay the same draw of augkit's
    own ops; they do not include Kornia's ops after them.
    """

    images: Tensor
    masks: Tensor | None
    boxes: Tensor | None
    keypoints: Tensor | None
    matrix: Tensor
    boxes_valid: Tensor | None = None
    keypoints_visible: Tensor | None = None
    blur: Tensor | None = None


class Augment(ComposedGeometry):
    """Several random ops whose geometry is composed as matrices and resampled once.

    In ``eval()`` the geometry is the identity; ``normalize`` and ``dtype`` still apply.

    Args:
        *ops: applied in this order; the blur of a `RandomShiftBlur` comes before all geometry. Kornia's color ops,
            such as ``ColorJitter``, may come after it (`augkit.augment.color`); a ``matrix`` does not replay them.
            So may Kornia's ops that move pixels, but each resamples once more. Masks, boxes and keypoints follow
            those that have a matrix (rotation, affine, perspective, flips, crops); others are refused with targets.
        kernel, padding: see `augkit.resample`.
        antialias: stretch the kernel where an axis shrinks.
        normalize: ``(mean, std)`` per channel, applied after the geometry to images in [0, 1].
        dtype: floating dtype of the output; uint8 input is then divided by 255. Without ``dtype`` and
            ``normalize`` the output has the dtype of the input.
        strength: the strength of calls that pass none; one for each op by name, as ``{"shift": 0.5}``, leaves the
            others at 1.
        min_visible_area: share of a moved box's own area, in [0, 1], that must lie on the image for it to be valid.
        same_on_batch: set on every op, as by Kornia's containers; with True all samples share one draw (the frames of
            a clip, say), and None leaves each op as it is.

    Raises:
        InputError, InputTypeError: from the constructor and from ``forward``, one line each.

    >>> from augkit.augment.ops import RandomRescale, RandomSubpixelCrop, RandomSubpixelShift
    >>> augment = Augment(RandomSubpixelShift(2.0), RandomRescale(1.2), RandomSubpixelCrop(size=(24, 24)))
    >>> augment(torch.rand(4, 3, 32, 32)).shape
    torch.Size([4, 3, 24, 24])
    >>> out = augment(torch.rand(4, 3, 32, 32), boxes=torch.tensor([[[4.0, 4.0, 20.0, 28.0]]]).expand(4, 1, 4))
    >>> out.boxes.shape, out.boxes_valid.shape
    (torch.Size([4, 1, 4]), torch.Size([4, 1]))
    """

    mean: Tensor | None
    std: Tensor | None

    def __init__(
        self,
        *ops: nn.Module,
        kernel: str = "bicubic",
        padding: str = "zeros",
        antialias: bool = True,
        normalize: tuple[Any, Any] | None = None,
        dtype: torch.dtype | None = None,
        strength: float | Mapping[str, float] = 1.0,
        min_visible_area: float = 0.0,
        same_on_batch: bool | None = None,
    ) -> None:
        super().__init__(
            *ops,
            kernel=kernel,
            padding=padding,
            antialias=antialias,
            strength=strength,
            same_on_batch=same_on_batch,
        )
        if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            raise InputTypeError(f"dtype: expected a floating dtype, got {dtype}")
        self.min_visible_area = check_range("min_visible_area", min_visible_area, 0.0, 1.0)
        self.out_dtype = dtype
        self.normalize = None if normalize is None else channel_statistics("normalize", normalize)
        mean, std = self.normalize or (None, None)
        for name, values in (("mean", mean), ("std", std)):
            buffer = None if values is None else torch.tensor(values, dtype=torch.float32).reshape(-1, 1, 1)
            self.register_buffer(name, buffer, persistent=False)

    def _apply(self, fn: Any, *args: Any, **kwargs: Any) -> Augment:
        # Torch's hook behind `to`, `half` and `bfloat16`, also of a module that contains this one. Rounded statistics
        # would shift and stretch all images, so they are made anew from the numbers, in float32 at least.
        super()._apply(fn, *args, **kwargs)
        if self.normalize is not None and self.mean is not None:
            device, dtype = self.mean.device, torch.promote_types(self.mean.dtype, torch.float32)
            mean, std = (torch.tensor(values, device=device, dtype=dtype) for values in self.normalize)
            self.mean, self.std = mean.reshape(-1, 1, 1), std.reshape(-1, 1, 1)
        return self

    def forward(
        self,
        images: Tensor,
        *,
        masks: Tensor | None = None,
        boxes: Tensor | None = None,
        keypoints: Tensor | None = None,
        strength: Strength | None = None,
        generator: torch.Generator | None = None,
        draws: Tensor | None = None,
        matrix: Tensor | None = None,
        blur: Tensor | None = None,
    ) -> Any:
        """Augment images, and the targets that are passed, with one draw.

        Args:
            images: ``(B, C, H, W)``, floating in [0, 1] or uint8.
            masks: ``(B, C, H, W)``, floating, integer or bool; resampled to the nearest pixel.
            boxes: ``(B, N, 4)`` as x0, y0, x1, y1 along pixel edges (0, 0, W, H is all); clipped to the image.
                ``boxes_valid`` ``(B, N)`` is true where enough of a box is visible (see ``min_visible_area``).
            keypoints: ``(B, N, 2)`` as x, y in pixels, an integer is a pixel's centre; not clipped.
                ``keypoints_visible`` ``(B, N)`` is true where a keypoint lies on the image.
            strength: scalar or ``(B,)`` in [0, 1], for all ops or for each that a mapping names, as
                ``{"shift": 0.5, "rescale": weights}`` (names as in a policy; ``ops`` are Kornia's); the constructor's
                for the others, or when None.
            generator: source of draws, on the device of the images; torch's global state (`augkit.core.ranks`) when
                None.
            draws: ``(B, n)`` float32 in [0, 1) in place of those of augkit's own ops (`augkit.augment.even_draws`).
            matrix: ``(B, 3, 3)`` or ``(3, 3)`` to replay instead of drawing.
            blur: ``(B, 2)`` to replay beside ``matrix``; no blur when None.

        Returns:
            The images; an `Augmented` tuple when any target is passed.
        """
        tail: Tail | None = None
        check_images(images)
        size: Size = (images.shape[-2], images.shape[-1])
        aligned: bool | None = self.axis_aligned
        if not self.training or not len(self.ops):
            matrix, blur, aligned = geometry.identity(images.shape[0], device=images.device), None, True
            size_out, out = size, finished(images, images.dtype, self._finish(images))
        elif matrix is None:
            size_out = self.output_size(size)
            draws, factors = self.draw_geometry(images.shape[0], strength, generator, images.device, draws)
            matrix, blur = self.matrix(draws, factors, size), self.blur(draws, factors)
            tail = self.draw_tail(images, factors, generator)
            out = self.render(images, matrix, blur, tail)
        else:
            size_out, shrink, finish = self.output_size(size), self._max_shrink(size), self._resampled(images)
            out = images if blur is None else shift_blur(images, blur, kernel=self.kernel, padding=self.padding)
            out = replay(out, matrix, size_out, self.kernel, self.padding, shrink, finish)
            checked = checked_strengths(self.every_strength(strength), len(images), images.device)
            tail = self.draw_tail(images, checked, generator)
            out = self._with_kornia_ops(out, images, tail)
            matrix, aligned = matrix.expand(images.shape[0], 3, 3), None
        if masks is None and boxes is None and keypoints is None:
            return out
        if self.training:
            check_followed(self.kornia_ops, "Augment")
        if masks is not None:
            targets.check_masks(masks, images.shape[0], size, images.device)
            if self.training and len(self.ops):
                aligned = is_axis_aligned(matrix) if aligned is None else aligned
                masks = targets.move_masks(masks, matrix, size_out, self.padding, axis_aligned=aligned)
            masks = moved_masks(masks, tail)
        points = moved_fields(boxes, keypoints, matrix, size_out, tail, self.min_visible_area)
        return Augmented(out, masks, matrix=matrix, blur=blur, **points)

    def draw_tail(
        self, images: Tensor, strength: Strength | None = None, generator: torch.Generator | None = None
    ) -> Tail | None:
        """One draw of Kornia's ops for ``images`` ``(B, C, H, W)``, for `render`; None where there are none."""
        size_out = self.output_size((images.shape[-2], images.shape[-1]))
        own = of_op(self.every_strength(strength), KORNIA)
        return draw_tail(self.kornia_ops, (*images.shape[:2], *size_out), own, generator, images.device)

    def render(self, images: Tensor, matrix: Tensor, blur: Tensor | None = None, tail: Tail | None = None) -> Tensor:
        """Images through ``matrix`` ``(B, 3, 3)`` of this transform's own making and ``tail``, normalised and cast.

        Pure, and the matrix is not checked as in ``forward(matrix=...)``. Without ``tail`` Kornia's ops are left out.
        """
        return self._with_kornia_ops(self._moved(images, matrix, blur, self._resampled(images)), images, tail)

    def render_each(
        self,
        images: Sequence[Tensor],
        matrix: Tensor,
        size: Size,
        shrinks: Sequence[float],
        blur: Tensor | None = None,
        tail: Tail | None = None,
    ) -> Tensor:
        """`render` for images ``(C, H, W)`` of different sizes, through ``matrix`` ``(B, 3, 3)`` to one size.

        Each matrix first maps its image into a frame of ``size``, in which the image is ``shrinks`` times smaller.
        """
        finish, parts = self._resampled(images[0][None]), []
        for k, image in enumerate(images):
            own = None if blur is None else blur[k : k + 1]
            parts.append(self._moved(image[None], matrix[k : k + 1], own, finish, size, shrinks[k]))
        return self._with_kornia_ops(torch.cat(parts), images[0][None], tail)

    def _moved(
        self,
        images: Tensor,
        matrix: Tensor,
        blur: Tensor | None,
        finish: Finish,
        frame: Size | None = None,
        reduced: float = 1.0,
    ) -> Tensor:
        size = frame or (images.shape[-2], images.shape[-1])
        if blur is not None:
            images = shift_blur_checked(images, blur, self.kernel, self.padding)
        if frame is None and all(isinstance(op, RandomShiftBlur) for op in self.geometry):
            return finished(images, images.dtype, finish)
        if self.kernel == "fourier":
            return fourier_shift_checked(images, matrix[:, :2, 2], finish)
        bound = self._max_shrink(size)
        how = (self.output_size(size), self.kernel, self.padding, 1.0 if bound is None else bound * reduced)
        return resample_checked(images, matrix, *how, finish=finish, axis_aligned=self.axis_aligned)

    def _resampled(self, images: Tensor) -> Finish:
        """The `Finish` of the resampling: the final one, or floats in [0, 1] where Kornia's ops come after it."""
        if not self.kornia_ops:
            return self._finish(images)
        return Finish(torch.float64 if images.dtype == torch.float64 else torch.float32)

    def _with_kornia_ops(self, out: Tensor, images: Tensor, tail: Tail | None) -> Tensor:
        if not self.kornia_ops:
            return out
        if tail is not None:
            check_unit_range(images, tail.ops)
            out = laid_out(tail.images(out), images)
        finish = self._finish(images)
        if images.dtype == torch.uint8 and finish.mean is None and finish.dtype is None:
            return (255 * out).round().clamp(0, 255).to(torch.uint8)
        return finished(out, out.dtype, finish).to(output_dtype(images.dtype, finish))

    def finish(self, images: Tensor) -> Tensor:
        """Apply ``normalize`` and ``dtype`` alone, for images that keep their geometry."""
        return finished(images, images.dtype, self._finish(images))

    def __repr__(self) -> str:
        usual: dict[str, object] = {"antialias": True, "normalize": None, "dtype": None, "min_visible_area": 0.0}
        usual["same_on_batch"] = None
        options: dict[str, object] = {"antialias": self.antialias, "normalize": self.normalize, "dtype": self.out_dtype}
        options |= {"min_visible_area": self.min_visible_area, "same_on_batch": self.same_on_batch}
        named: dict[str, object] = {"kernel": self.kernel, "padding": self.padding, "strength": self.strength}
        named |= {name: value for name, value in options.items() if value != usual[name]}
        return f"Augment({', '.join([*map(repr, self.ops), *(f'{name}={value!r}' for name, value in named.items())])})"

    def _finish(self, images: Tensor) -> Finish:
        if self.mean is not None and len(self.mean) not in (1, images.shape[1]):
            raise InputError(f"normalize: expected images of {len(self.mean)} channels, got {images.shape[1]}")
        return Finish(self.out_dtype, self.mean, self.std)
