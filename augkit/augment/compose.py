"""`Augment`: several random ops whose geometry is composed as matrices and resampled once.

In a plain training loop (`augkit.adapters` has the adapters for other loops):

>>> from augkit.augment.ops import RandomHorizontalFlip, RandomSubpixelShift
>>> augment = Augment(RandomSubpixelShift(2.0), RandomHorizontalFlip(), normalize=([0.5], [0.25]))
>>> model, loader = nn.Linear(64, 2), [(torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8), torch.arange(4) % 2)]
>>> for images, labels in loader:
...     logits = model(augment(images).flatten(1))  # on the device of the images; drawn anew for each batch
...     loss = nn.functional.cross_entropy(logits, labels)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from augkit.augment import geometry, targets
from augkit.augment.backends.values import laid_out
from augkit.augment.base import Size, View
from augkit.augment.blur import shift_blur, shift_blur_checked
from augkit.augment.carry_targets import carried_masks, check_followed, moved_fields
from augkit.augment.checks import channel_statistics
from augkit.augment.color import Tail, check_unit_range, draw_tail, is_color
from augkit.augment.composed_geometry import ComposedGeometry
from augkit.augment.fit import fit, fit_shrink
from augkit.augment.inverse import Inverted, inverted
from augkit.augment.matrix_checks import is_axis_aligned
from augkit.augment.op_strengths import KORNIA, Strength, checked_strengths, of_op
from augkit.augment.ops.random_shift_blur import RandomShiftBlur
from augkit.augment.ragged import Ragged, sizes_of
from augkit.augment.ragged_augment import Call, augment_each
from augkit.augment.resample import (
    Finish,
    check_images,
    check_pixels,
    finished,
    fourier_shift_checked,
    output_dtype,
    replay,
    resample_checked,
)
from augkit.augment.resample_each import Images, Way, replay_each, resample_each
from augkit.core.errors import InputError, InputTypeError, check_number

Target = Any  # a tensor for images of one size, else a list with a tensor for each image; None where there is none


class Augmented(NamedTuple):
    """Augmented images and targets, with their matrices; the fields of targets that were not passed are None.

    ``matrix`` ``(B, 3, 3)`` and ``blur`` ``(B, 2)`` (None without a `RandomShiftBlur`) replay the same draw of augkit's
    own ops; they do not include Kornia's ops after them. Of images of different sizes, targets and their flags are
    lists with a tensor for each image.
    """

    images: Tensor
    masks: Tensor | list[Tensor] | None
    boxes: Tensor | list[Tensor] | None
    keypoints: Tensor | list[Tensor] | None
    matrix: Tensor
    boxes_valid: Tensor | list[Tensor] | None = None
    keypoints_visible: Tensor | list[Tensor] | None = None
    blur: Tensor | None = None


class Augment(ComposedGeometry):
    """Several random ops whose geometry is composed as matrices and resampled once.

    In ``eval()`` the geometry is the identity; ``normalize`` and ``dtype`` still apply.

    Args:
        *ops: applied in this order; the blur of a `RandomShiftBlur` comes before all geometry. Kornia's color ops,
            such as ``ColorJitter``, may come after it (`augkit.augment.color`); a ``matrix`` does not replay them,
            nor the colors of `RandAugment` and its like.
            So may Kornia's ops that move pixels, but each resamples once more. Masks, boxes and keypoints follow
            those that have a matrix (rotation, affine, perspective, flips, crops); others are refused with targets.
        kernel, padding: see `augkit.resample`.
        antialias: stretch the kernel along the direction that shrinks.
        normalize: ``(mean, std)`` per channel, applied after the geometry to images in [0, 1].
        dtype: floating dtype of the output; uint8 input is then divided by 255. Without ``dtype`` and
            ``normalize`` the output has the dtype of the input.
        strength: default strength of a call; one for each op by name, as ``{"shift": 0.5}``, keeps the others at 1.
        min_visible_area: share of a moved box's own area, in [0, 1], that must lie on the image for it to be valid.
        mask_fill: value of pixels of masks from outside of the input, such as 255 for a loss to ignore; when None they
            follow ``padding``.
        same_on_batch: value set on every op, as by Kornia's containers; with True all samples share one draw (such as
            the frames of a clip), and None keeps the value of each op.
        size: ``(H, W)`` of the output. Images of any size are fitted to it in the same resampling, in ``eval()`` too:
            the shorter side fits and the center is seen. The ops act on what is fitted, so that their pixels are those
            of the output; a crop, which must have no size of its own, may show any part of the whole image.

    Raises:
        InputError, InputTypeError: an argument of the constructor or of ``forward`` is invalid.

    >>> from augkit.augment.ops import RandomRescale, RandomSubpixelCrop, RandomSubpixelShift
    >>> augment = Augment(RandomSubpixelShift(2.0), RandomRescale(1.2), RandomSubpixelCrop(size=(24, 24)))
    >>> augment(torch.rand(4, 3, 32, 32)).shape
    torch.Size([4, 3, 24, 24])
    >>> out = augment(torch.rand(4, 3, 32, 32), boxes=torch.tensor([[[4.0, 4.0, 20.0, 28.0]]]).expand(4, 1, 4))
    >>> out.boxes.shape, out.boxes_valid.shape
    (torch.Size([4, 1, 4]), torch.Size([4, 1]))
    >>> photos = [torch.rand(3, 30, 40), torch.rand(3, 50, 25)]  # or an augkit.Ragged
    >>> Augment(RandomSubpixelCrop(), size=(24, 24))(photos).shape
    torch.Size([2, 3, 24, 24])
    """

    mean: Tensor | None
    std: Tensor | None

    def __init__(  # noqa: PLR0913 (options by keyword, each with a default)
        self,
        *ops: nn.Module,
        kernel: str = "bicubic",
        padding: str = "zeros",
        antialias: bool = True,
        normalize: tuple[Any, Any] | None = None,
        dtype: torch.dtype | None = None,
        strength: float | Mapping[str, float] = 1.0,
        min_visible_area: float = 0.0,
        mask_fill: float | None = None,
        same_on_batch: bool | None = None,
        size: Size | None = None,
    ) -> None:
        super().__init__(
            *ops,
            kernel=kernel,
            padding=padding,
            antialias=antialias,
            strength=strength,
            same_on_batch=same_on_batch,
            size=size,
        )
        if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
            raise InputTypeError(f"dtype: expected a floating dtype, got {dtype}")
        self.min_visible_area = check_number("min_visible_area", min_visible_area, 0.0, 1.0)
        self.mask_fill = targets.check_fill(mask_fill)
        self.out_dtype = dtype
        self.normalize = None if normalize is None else channel_statistics("normalize", normalize)
        mean, std = self.normalize or (None, None)
        for name, values in (("mean", mean), ("std", std)):
            buffer = None if values is None else torch.tensor(values, dtype=torch.float32).reshape(-1, 1, 1)
            self.register_buffer(name, buffer, persistent=False)

    def _apply(self, fn: Any, *args: Any, **kwargs: Any) -> Augment:
        # Torch calls this in `to`, `half` and `bfloat16`, also of a module that contains this one. Rounded statistics
        # would change all images, so they are computed again from the numbers, in float32 or wider.
        super()._apply(fn, *args, **kwargs)
        if self.normalize is not None and self.mean is not None:
            device, dtype = self.mean.device, torch.promote_types(self.mean.dtype, torch.float32)
            mean, std = (torch.tensor(values, device=device, dtype=dtype) for values in self.normalize)
            self.mean, self.std = mean.reshape(-1, 1, 1), std.reshape(-1, 1, 1)
        return self

    def forward(  # noqa: PLR0913 (targets and options by keyword, each with a default)
        self,
        images: Tensor | Ragged | list[Tensor] | tuple[Tensor, ...],
        *,
        masks: Target = None,
        boxes: Target = None,
        keypoints: Target = None,
        strength: Strength | None = None,
        generator: torch.Generator | None = None,
        draws: Tensor | None = None,
        matrix: Tensor | None = None,
        blur: Tensor | None = None,
        return_matrix: bool = False,
    ) -> Any:
        """Augment images, and the targets that are passed, with one draw.

        Args:
            images: ``(B, C, H, W)``, floating in [0, 1] or uint8; or images of different sizes, an `augkit.Ragged` or a
                list of ``(C, H, W)``, where ``size`` or that of a crop says to which they are resampled. Masks, boxes
                and keypoints are then lists with a tensor for each image, and so are those returned.
            masks: ``(B, C, H, W)``, floating, integer or bool; resampled to the nearest pixel.
            boxes: ``(B, N, 4)`` as x0, y0, x1, y1 along pixel edges (0, 0, W, H is all); clipped to the image.
                ``boxes_valid`` ``(B, N)`` is true where enough of a box is visible (see ``min_visible_area``).
            keypoints: ``(B, N, 2)`` as x, y in pixels, an integer is a pixel's center; not clipped.
                ``keypoints_visible`` ``(B, N)`` is true where a keypoint lies on the image.
            strength: scalar or ``(B,)`` in [0, 1], for all ops or for each that a mapping names, as
                ``{"shift": 0.5, "rescale": weights}`` (names as in a policy; ``ops`` are Kornia's); the constructor's
                for the others, or when None.
            generator: source of draws, on the device of the images; torch's global state (`augkit.core.ranks`) when
                None.
            draws: ``(B, n)`` float32 in [0, 1) in place of those of augkit's own ops (`augkit.augment.even_draws`).
            matrix: ``(B, 3, 3)`` or ``(3, 3)`` to replay instead of drawing.
            blur: ``(B, 2)`` to replay beside ``matrix``; no blur when None.
            return_matrix: return an `Augmented` tuple, which has the matrices, also without targets.

        Returns:
            The images; an `Augmented` tuple when any target is passed, or with ``return_matrix``.
        """
        if isinstance(images, (Ragged, list, tuple)):
            call = Call(masks, boxes, keypoints, strength, generator, draws, matrix, blur, return_matrix)
            out, fields = augment_each(self, images, call)
            return Augmented(out, **{"masks": None, **fields}) if fields else out  # type: ignore[arg-type]
        tail: Tail | None = None
        check_images(images)
        check_pixels(images)
        size: Size = (images.shape[-2], images.shape[-1])
        aligned: bool | None = self.axis_aligned
        if not self.training and self.fixed:
            strength, draws, matrix, blur = 0.0, self.middle(images.shape[0], images.device), None, None
        still = (not self.training and not self.fixed) or (not len(self.ops) and matrix is None)
        if still and self.size is not None:
            blur, aligned, size_out = None, True, self.size
            out, matrix = self.fitted(images, size_out)
        elif still:
            matrix, blur, aligned = geometry.identity(images.shape[0], device=images.device), None, True
            size_out, out = size, finished(images, images.dtype, self._finish(images))
        elif matrix is None:
            size_out = self.output_size(size)
            draws, factors = self.draw_geometry(images.shape[0], strength, generator, images.device, draws)
            matrix, blur = self.matrix(draws, factors, size), self.blur(draws, factors, size)
            tail = self.draw_tail(images, factors, generator, draws)
            out = self.render(images, matrix, blur, tail)
        else:
            size_out, shrink, finish = self.output_size(size), self.max_shrink(size), self._resampled(images)
            out = images if blur is None else shift_blur(images, blur, kernel=self.kernel, padding=self.padding)
            out = replay(out, matrix, size_out, self.kernel, self.padding, shrink, finish)
            checked = checked_strengths(self.every_strength(strength), images.shape[0], images.device)
            tail = self.draw_tail(images, checked, generator)
            out = self._with_kornia_ops(out, images, tail)
            matrix, aligned = matrix.expand(images.shape[0], 3, 3), None
        given = not (masks is None and boxes is None and keypoints is None)
        if not given and not return_matrix:
            return out
        if given and self.training:
            check_followed(self.kornia_ops, "Augment")
        if masks is not None:
            targets.check_masks(masks, images.shape[0], size, images.device)
            if not still or self.size is not None:
                aligned = is_axis_aligned(matrix) if aligned is None else aligned
                fill = None if self.mask_fill is None else targets.fill_like(masks, self.mask_fill)
                how = (matrix, size_out, self.padding, tail)
                masks = carried_masks(masks, *how, axis_aligned=aligned, fill=fill)
        points = moved_fields(boxes, keypoints, matrix, size_out, tail, self.min_visible_area)
        return Augmented(out, masks, matrix=matrix, blur=blur, **points)

    def inverse(
        self,
        matrix: Tensor,
        *,
        images: Tensor | None = None,
        masks: Tensor | None = None,
        boxes: Tensor | None = None,
        keypoints: Tensor | None = None,
        size: Size | None = None,
    ) -> Inverted:
        """Map predictions on augmented images back to the pixels of the input.

        Args:
            matrix: ``(B, 3, 3)`` or ``(3, 3)``: the ``matrix`` of the `Augmented` whose images were predicted on.
            images: ``(B, C, h, w)``, such as class scores per pixel; resampled with the kernel of this transform. A
                normalization is not undone.
            masks: ``(B, C, h, w)`` of any real dtype; the nearest pixel.
            boxes: ``(B, N, 4)`` along pixel edges; the upright boxes around the mapped ones, not clipped.
            keypoints: ``(B, N, 2)`` pixels.
            size: ``(H, W)`` of the input; that of ``images`` or ``masks`` when None. Boxes and keypoints need none.

        Raises:
            InputError, InputTypeError: nothing to map, or as ``forward``; Kornia's ops that move pixels, of which
                ``matrix`` does not know.

        >>> from augkit.augment.ops import RandomSubpixelCrop
        >>> augment = Augment(RandomSubpixelCrop(size=(24, 24)))
        >>> out = augment(torch.rand(1, 3, 32, 32), keypoints=torch.full((1, 1, 2), 9.0))
        >>> augment.inverse(out.matrix, keypoints=out.keypoints).keypoints.round(decimals=3).tolist()
        [[[9.0, 9.0]]]
        """
        moving = [type(op).__name__ for op in self.kornia_ops if not is_color(op)]
        if moving:
            raise InputError(f"inverse: expected no op of Kornia that moves pixels, got {', '.join(moving)}")
        given = {"images": images, "masks": masks, "boxes": boxes, "keypoints": keypoints}
        return inverted(matrix, **given, size=size, kernel=self.kernel, antialias=self.antialias)

    def draw_tail(
        self,
        images: Tensor,
        strength: Strength | None = None,
        generator: torch.Generator | None = None,
        draws: Tensor | None = None,
    ) -> Tail | None:
        """Draw the parameters of Kornia's ops for ``images`` ``(B, C, H, W)``, for `render`; None without such ops.

        With ``draws`` ``(B, n)`` of augkit's own ops it holds the colors too that these change.
        """
        size_out = self.output_size((images.shape[-2], images.shape[-1]))
        own = of_op(self.every_strength(strength), KORNIA)
        colors = () if draws is None else self.recolorings(draws, self.every_strength(strength))
        return draw_tail(self.kornia_ops, (*images.shape[:2], *size_out), own, generator, images.device, colors)

    def render(self, images: Tensor, matrix: Tensor, blur: Tensor | None = None, tail: Tail | None = None) -> Tensor:
        """Apply a ``matrix`` ``(B, 3, 3)`` of this transform and ``tail`` to images, then normalize and cast; pure.

        Unlike ``forward(matrix=...)`` it does not check the matrix. Without ``tail`` no colors change.
        """

        def view(extra: Tensor | None) -> Tensor:
            total = matrix if extra is None else geometry.compose(matrix, extra)
            return self._moved(images, total, blur, self._resampled(images))

        return self._with_kornia_ops(view(None), images, tail, view)

    def render_each(
        self,
        images: Images,
        matrix: Tensor,
        blur: Tensor | None = None,
        tail: Tail | None = None,
        *,
        checked: bool = False,
    ) -> Tensor:
        """Do as `render` for images of different sizes, to one size; ``checked`` checks the matrices first."""
        like, sizes = images[0][None], sizes_of(images)
        bounds = [self.max_shrink(size) for size in sizes]
        way = Way(self.output_size(sizes[0]), self.kernel, self.padding, bounds, self._resampled(like))

        def view(extra: Tensor | None) -> Tensor:
            total = matrix if extra is None else geometry.compose(matrix, extra)
            return resample_each(images, total, blur, way, axis_aligned=self.axis_aligned, affine=self.affine)

        out = replay_each(images, matrix, blur, way) if checked else view(None)
        for image in () if tail is None else images:
            check_unit_range(image, self._color_ops)
        return self._with_kornia_ops(out, like, tail, view)

    def fit_each(self, images: Images, size: Size) -> tuple[Tensor, Tensor]:
        """Images of different sizes fitted to ``size``, normalized and cast, and the matrices ``(B, 3, 3)`` of that."""
        like, sizes = images[0][None], sizes_of(images)
        matrix = fit(sizes, size, torch.empty(len(sizes), 1, device=like.device, dtype=torch.float32)).matrix(size)
        bounds = [fit_shrink(own, size) if self.antialias else None for own in sizes]
        way = Way(size, self.kernel, self.padding, bounds, self._finish(like))
        return resample_each(images, matrix, None, way, axis_aligned=True), matrix

    def fitted(self, images: Tensor, size: Size) -> tuple[Tensor, Tensor]:
        """`fit_each` for a batch ``(B, C, H, W)``."""
        own: Size = (images.shape[-2], images.shape[-1])
        matrix = fit(own, size, torch.empty(len(images), 1, device=images.device, dtype=torch.float32)).matrix(size)
        how = (size, self.kernel, self.padding, fit_shrink(own, size) if self.antialias else 1.0)
        return resample_checked(images, matrix, *how, finish=self._finish(images), axis_aligned=True), matrix

    def _moved(self, images: Tensor, matrix: Tensor, blur: Tensor | None, finish: Finish) -> Tensor:
        size: Size = (images.shape[-2], images.shape[-1])
        if blur is not None:
            images = shift_blur_checked(images, blur, self.kernel, self.padding)
        if self.size is None and all(isinstance(op, RandomShiftBlur) for op in self.geometry):
            return finished(images, images.dtype, finish)
        if self.kernel == "fourier":
            return fourier_shift_checked(images, matrix[:, :2, 2], finish)
        how = (self.output_size(size), self.kernel, self.padding, self.max_shrink(size) or 1.0)
        aligned, affine = self.axis_aligned, self.affine
        return resample_checked(images, matrix, *how, finish=finish, axis_aligned=aligned, affine=affine)

    def _resampled(self, images: Tensor) -> Finish:
        """Return the `Finish` of the resampling: the final one, or floats in [0, 1] where Kornia's ops follow."""
        if not self._color_ops:
            return self._finish(images)
        return Finish(torch.float64 if images.dtype == torch.float64 else torch.float32)

    @property
    def _color_ops(self) -> list[nn.Module]:
        return [*self.recoloring_ops, *self.kornia_ops]

    def _with_kornia_ops(self, out: Tensor, images: Tensor, tail: Tail | None, view: View | None = None) -> Tensor:
        if not self._color_ops:
            return out
        if tail is not None:
            check_unit_range(images, self._color_ops)
            out = laid_out(tail.images(out, view), images)
        finish = self._finish(images)
        if images.dtype == torch.uint8 and finish.mean is None and finish.dtype is None:
            return (255 * out).round_().clamp_(0, 255).to(torch.uint8)
        return finished(out, out.dtype, finish).to(output_dtype(images.dtype, finish))

    def finish(self, images: Tensor) -> Tensor:
        """Apply only ``normalize`` and ``dtype`` to images ``(B, C, H, W)``."""
        return finished(images, images.dtype, self._finish(images))

    def __repr__(self) -> str:
        usual: dict[str, object] = {"antialias": True, "normalize": None, "dtype": None, "min_visible_area": 0.0}
        usual |= {"mask_fill": None, "same_on_batch": None, "size": None}
        options: dict[str, object] = {"antialias": self.antialias, "normalize": self.normalize, "dtype": self.out_dtype}
        options |= {"min_visible_area": self.min_visible_area, "mask_fill": self.mask_fill}
        options |= {"same_on_batch": self.same_on_batch, "size": self.size}
        named: dict[str, object] = {"kernel": self.kernel, "padding": self.padding, "strength": self.strength}
        named |= {name: value for name, value in options.items() if value != usual[name]}
        return f"Augment({', '.join([*map(repr, self.ops), *(f'{name}={value!r}' for name, value in named.items())])})"

    def _finish(self, images: Tensor) -> Finish:
        if self.mean is not None and len(self.mean) not in (1, images.shape[1]):
            raise InputError(f"normalize: expected images of {len(self.mean)} channels, got {images.shape[1]}")
        return Finish(self.out_dtype, self.mean, self.std)
