"""`augkit.Augment.from_torchvision`: torchvision's transforms, v1 and v2, as one resampling.

The distributions are torchvision's, with its whole pixels and its ten tries; the matrices are those of its functions
for tensors. Color ops become Kornia's with the same ranges and the same probability per sample.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from augkit.augment.base import Size
from augkit.augment.convert.converted_op import ConvertedOp
from augkit.augment.convert.pipeline import ConvertedPipeline, Options
from augkit.augment.convert.rules import (
    AffineRule,
    CenterCropRule,
    CropRule,
    PerspectiveRule,
    ResizedCropRule,
    ResizeRule,
    torchvision_linear,
)

_PADDINGS = {"constant": "zeros", "edge": "border", "reflect": "reflection"}


def convert(transform: Any, options: Options) -> ConvertedPipeline:
    """Read ``transform``, a transform or a ``Compose`` of torchvision."""
    found = ConvertedPipeline("from_torchvision", options)
    _read(transform, found, 1.0)
    return found


def _read(transform: Any, found: ConvertedPipeline, share: float) -> None:
    """Read ``transform``, which is applied with probability ``share``."""
    name, module = type(transform).__name__, type(transform).__module__
    if name in ("Compose", "Sequential"):
        for one in transform.transforms if name == "Compose" else transform:
            _read(one, found, share)
    elif name == "RandomApply" and module.startswith("torchvision."):
        if len(list(transform.transforms)) == 1:
            _read(next(iter(transform.transforms)), found, share * transform.p)
        else:
            found.refuse(name, "of several transforms, which share a coin")
    elif not module.startswith("torchvision."):
        found.refuse(name, "not torchvision's")
    elif name in _READERS:
        _READERS[name](transform, found, share)
    else:
        found.refuse(name, _REASONS.get(name, "no matrix, and no equivalent in Kornia"))


def _kernel(transform: Any, found: ConvertedPipeline) -> str:
    mode = str(getattr(transform.interpolation, "value", transform.interpolation))
    kernel = {"nearest-exact": "nearest", "lanczos": "lanczos3"}.get(mode, mode)
    if kernel not in ("nearest", "bilinear", "bicubic", "lanczos3"):
        found.refuse(type(transform).__name__, f"interpolation {mode}")
        return "bilinear"
    return kernel


def _padding(transform: Any, found: ConvertedPipeline) -> str:
    fill = transform.fill
    values = list(fill.values()) if isinstance(fill, dict) else fill
    flat = values if isinstance(values, Sequence) else [values]
    if any(value not in (0, None) for value in flat) and "padding" not in found.options:
        found.refuse(type(transform).__name__, "fill other than 0; choose padding=...")
    return "zeros"


def _center(transform: Any) -> tuple[float, float] | None:
    return None if transform.center is None else (transform.center[0] - 0.5, transform.center[1] - 0.5)


def _affine(transform: Any, found: ConvertedPipeline, share: float) -> None:
    shift, shear = transform.translate or (0.0, 0.0), transform.shear or (0.0, 0.0)
    rule = AffineRule(
        "RandomAffine",
        torchvision_linear,
        degrees=_pair(transform.degrees),
        shift_x=(-shift[0], shift[0]),
        shift_y=(-shift[1], shift[1]),
        scale_x=_pair(transform.scale or (1.0, 1.0)),
        shear_x=_pair(shear[:2]),
        shear_y=_pair(shear[2:] or (0.0, 0.0)),
        whole="nearest",
        center=_center(transform),
    )
    found.move(ConvertedOp(rule, share), _kernel(transform, found), _padding(transform, found))


def _rotation(transform: Any, found: ConvertedPipeline, share: float) -> None:
    if transform.expand:
        found.refuse("RandomRotation", "expand=True, a size that depends on the draw")
    low, high = _pair(transform.degrees)
    # Its `rotate` turns counter-clockwise, its `affine` clockwise.
    rule = AffineRule("RandomRotation", torchvision_linear, degrees=(-low, -high), center=_center(transform))
    found.move(ConvertedOp(rule, share), _kernel(transform, found), _padding(transform, found))


def _perspective(transform: Any, found: ConvertedPipeline, share: float) -> None:
    rule = PerspectiveRule("RandomPerspective", float(transform.distortion_scale), whole=True)
    found.move(ConvertedOp(rule, share * transform.p), _kernel(transform, found), _padding(transform, found))


def _resized_crop(transform: Any, found: ConvertedPipeline, share: float) -> None:
    rule = ResizedCropRule("RandomResizedCrop", _size(transform.size), _pair(transform.scale), _pair(transform.ratio))
    _resizes(transform, found, share)
    found.move(ConvertedOp(rule), _kernel(transform, found))


def _resize(transform: Any, found: ConvertedPipeline, share: float) -> None:
    size, most = transform.size, transform.max_size
    wanted = [size] if isinstance(size, int) else None if size is None else list(size)

    def after(before: Size) -> Size:
        height, width = before
        if wanted is not None and len(wanted) == 2:
            return wanted[0], wanted[1]
        short, long = min(height, width), max(height, width)
        if wanted is None:
            ends = (int(most * short / long), most)
        else:
            ends = (wanted[0], int(wanted[0] * long / short))
            if most is not None and ends[1] > most:
                ends = (int(most * ends[0] / ends[1]), most)
        return ends if height <= width else (ends[1], ends[0])

    _resizes(transform, found, share)
    found.move(ConvertedOp(ResizeRule("Resize", after)), _kernel(transform, found))


def _resizes(transform: Any, found: ConvertedPipeline, share: float) -> None:
    if share != 1:
        found.refuse(type(transform).__name__, "in RandomApply, as sizes would differ")
    found.antialias = found.antialias or getattr(transform, "antialias", False) is True


def _center_crop(transform: Any, found: ConvertedPipeline, share: float) -> None:
    _resizes(transform, found, share)
    rule = CenterCropRule("CenterCrop", _size(transform.size), _center_start)
    found.beyond = found.beyond or not found.fills(rule.size)  # it pads with 0 what is smaller
    found.move(ConvertedOp(rule), padding=None)


def _center_start(length: int, window: int) -> int:
    return -((window - length) // 2) if length < window else round((length - window) / 2)


def _crop(transform: Any, found: ConvertedPipeline, share: float) -> None:
    _resizes(transform, found, share)
    padding = transform.padding
    given = [0] if padding is None else [padding] if isinstance(padding, int) else list(padding)
    left, second, *rest = given if len(given) > 1 else given * 2
    if type(transform).__module__.startswith("torchvision.transforms.v2") and len(given) == 4:
        left, right, top, bottom = given  # v2 stores them in this order
    else:
        top, (right, bottom) = second, (rest if rest else (left, second))
    rule = CropRule("RandomCrop", _size(transform.size), (left, top, right, bottom), bool(transform.pad_if_needed))
    padded = any(rule.padding) or rule.pad_if_needed
    if padded and transform.padding_mode not in _PADDINGS:
        found.refuse("RandomCrop", f"padding_mode {transform.padding_mode!r}")
    outside = _PADDINGS.get(transform.padding_mode, "zeros")
    if padded and outside == "zeros":
        _padding(transform, found)
    found.move(ConvertedOp(rule), padding=outside if padded else None)


def _horizontal_flip(transform: Any, found: ConvertedPipeline, share: float) -> None:
    from augkit.augment.ops import RandomHorizontalFlip

    found.move(RandomHorizontalFlip(p=share * transform.p))


def _vertical_flip(transform: Any, found: ConvertedPipeline, share: float) -> None:
    from augkit.augment.ops import RandomVerticalFlip

    found.move(RandomVerticalFlip(p=share * transform.p))


def _to_float(transform: Any, found: ConvertedPipeline, share: float) -> None:
    del share
    dtype = getattr(transform, "dtype", torch.float32)
    dtype = _of_images(dtype) if isinstance(dtype, dict) else dtype
    if not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        return  # for example to uint8; nothing to do for Augment
    if type(transform).__name__ == "ToDtype" and not transform.scale:
        found.refuse("ToDtype", "scale=False; values of Augment are in [0, 1]")
    found.dtype = dtype


def _of_images(dtypes: dict[Any, Any]) -> Any:
    """The entry of a ``ToDtype`` for images; one for masks alone changes none."""
    from torchvision import tv_tensors

    kinds = (tv_tensors.Image, torch.Tensor, tv_tensors.Video, "others")
    return next((dtypes[kind] for kind in kinds if kind in dtypes), None)


def _normalize(transform: Any, found: ConvertedPipeline, share: float) -> None:
    if share != 1:
        found.refuse("Normalize", "in RandomApply")
    found.normalized(list(transform.mean), list(transform.std))


def _nothing(transform: Any, found: ConvertedPipeline, share: float) -> None:
    del transform, found, share


def _jitter(transform: Any, found: ConvertedPipeline, share: float) -> None:
    from kornia.augmentation import ColorJitter

    names = ("brightness", "contrast", "saturation", "hue")
    ranges = {name: _pair(getattr(transform, name)) for name in names if getattr(transform, name) is not None}
    found.color(ColorJitter(**ranges, p=share))


def _grayscale(transform: Any, found: ConvertedPipeline, share: float) -> None:
    from kornia.augmentation import RandomGrayscale

    found.color(RandomGrayscale(p=share * transform.p))


def _blur(transform: Any, found: ConvertedPipeline, share: float) -> None:
    from kornia.augmentation import RandomGaussianBlur

    width, height = _pair(transform.kernel_size)
    op = RandomGaussianBlur((int(height), int(width)), _pair(transform.sigma), "reflect", p=share)
    found.color(op, local=True)


def _solarize(transform: Any, found: ConvertedPipeline, share: float) -> None:
    from kornia.augmentation import RandomSolarize

    limit = transform.threshold / 255 if transform.threshold > 1 else transform.threshold
    found.color(RandomSolarize((limit, limit), (0.0, 0.0), p=share * transform.p))


def _posterize(transform: Any, found: ConvertedPipeline, share: float) -> None:
    from kornia.augmentation import RandomPosterize

    found.color(RandomPosterize((transform.bits, transform.bits), p=share * transform.p))


def _sharpness(transform: Any, found: ConvertedPipeline, share: float) -> None:
    from kornia.augmentation import RandomSharpness

    factor = float(transform.sharpness_factor)
    found.color(RandomSharpness((factor, factor), p=share * transform.p), local=True)


def _plain(kornia_name: str) -> Callable[[Any, ConvertedPipeline, float], None]:
    def read(transform: Any, found: ConvertedPipeline, share: float) -> None:
        import kornia.augmentation

        found.color(getattr(kornia.augmentation, kornia_name)(p=share * transform.p))

    return read


def _pair(values: Any) -> tuple[float, float]:
    first, second = (float(value) for value in values)
    return first, second


def _size(size: Any) -> Size:
    height, width = (size, size) if isinstance(size, int) else size if len(size) == 2 else (size[0], size[0])
    return int(height), int(width)


_REASONS = {
    "ElasticTransform": "no matrix",
    "RandomErasing": "use Kornia's RandomErasing after Augment",
    "FiveCrop": "several images of one",
    "TenCrop": "several images of one",
}
_READERS: dict[str, Callable[[Any, ConvertedPipeline, float], None]] = {
    "RandomAffine": _affine,
    "RandomRotation": _rotation,
    "RandomPerspective": _perspective,
    "RandomResizedCrop": _resized_crop,
    "Resize": _resize,
    "CenterCrop": _center_crop,
    "RandomCrop": _crop,
    "RandomHorizontalFlip": _horizontal_flip,
    "RandomVerticalFlip": _vertical_flip,
    "ToTensor": _to_float,
    "ToDtype": _to_float,
    "ConvertImageDtype": _to_float,
    "ToImage": _nothing,
    "PILToTensor": _nothing,
    "ToPureTensor": _nothing,
    "Identity": _nothing,
    "Normalize": _normalize,
    "ColorJitter": _jitter,
    "RandomGrayscale": _grayscale,
    "GaussianBlur": _blur,
    "RandomSolarize": _solarize,
    "RandomPosterize": _posterize,
    "RandomAdjustSharpness": _sharpness,
    "RandomInvert": _plain("RandomInvert"),
    "RandomAutocontrast": _plain("RandomAutoContrast"),
    "RandomEqualize": _plain("RandomEqualize"),
}
