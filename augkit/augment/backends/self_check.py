"""A check of the Triton kernels against torch, before they are used on a device.

Triton's interpreter tests the arithmetic of the kernels, but a driver, a compiler or a GPU may still break it. So the
first call for each device, kernel, padding, pair of dtypes, and kind of matrices and batch resamples a small random
batch of the call's sizes with both. Where they differ, or Triton raises, torch is used from then on, and one warning
per device says so.
"""

from __future__ import annotations

import math
import warnings
from typing import NamedTuple

import torch
from torch import Tensor

from augkit.augment import geometry
from augkit.augment.backends import general, separable
from augkit.augment.backends.triton_call import How, Source
from augkit.core.errors import BackendWarning

Size = tuple[int, int]
Shape = tuple[int, int, int]  # (C, H, W)
# Largest side in pixels of the compared images; off the axes float64 on the CPU takes a square of taps for each pixel.
LARGEST, LARGEST_TURNED = 256, 48


class Case(NamedTuple):
    """The kind of call that one comparison covers."""

    device: torch.device
    kernel: str
    padding: str
    source: torch.dtype
    target: torch.dtype
    antialiased: bool
    normalized: bool
    matrices: str  # aligned, affine or any
    ragged: bool


VERDICTS: dict[Case, bool] = {}
_WARNED: set[torch.device] = set()


def resample(source: Source, how: How) -> Tensor | None:
    """Resample as `augkit.augment.backends.cuda_triton.resample`, or return None where the kernel failed the check."""
    matrices = "aligned" if how.axis_aligned else "affine" if how.affine else "any"
    flags = (how.shrink > 1, how.gain is not None, matrices, source.sizes is not None)
    case = Case(source.values.device, how.kernel, how.padding, source.values.dtype, how.dtype, *flags)
    unknown = case not in VERDICTS and source.values.numel() > 0
    if unknown and _capturing(source.values.device):
        return None  # no values can be read while a CUDA graph is captured: check at a later call
    try:
        from augkit.augment.backends import cuda_triton

        if unknown:
            VERDICTS[case] = _agrees(case, _shapes(source), how)
        if VERDICTS.get(case, True):
            return cuda_triton.resample(source, how)
    except (torch.OutOfMemoryError, BackendWarning):
        raise  # the first is unrelated to the kernel; the second occurs where warnings are errors
    except Exception as error:  # Triton's compiler raises many kinds of errors
        VERDICTS[case] = False
        _warn(case, f"fails with {type(error).__name__} ({' '.join(str(error).split())[:120]})")
    return None


def _capturing(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def _shapes(source: Source) -> list[Shape]:
    """The shapes of two images to compare, of one or two channels: of one size, or the first and the smallest."""
    sizes = [source.size] * 2
    if source.sizes is not None:
        sizes = [(height, width) for height, width in source.sizes.tolist()]
        sizes = [sizes[0], min(sizes, key=math.prod)]
    return [(min(source.channels, 2), *size) for size in sizes]


def _agrees(case: Case, shapes: list[Shape], given: How) -> bool:
    """Whether the kernel agrees with float64 on the CPU up to rounding, for two random images."""
    largest = LARGEST if case.matrices == "aligned" else LARGEST_TURNED
    images = [_sample(case, (shape[0], min(shape[1], largest), min(shape[2], largest))) for shape in shapes]
    size = (min(given.size[0], largest), min(given.size[1], largest))
    matrix = torch.cat([_matrix(case.matrices, k, image, size) for k, image in enumerate(images)])
    affine = torch.tensor([[2.0, 0.5], [-0.4, 0.3]], device=case.device, dtype=torch.float32)[:, : len(images[0])]
    gain, bias = affine if case.normalized else (None, None)
    bounds = [given.shrink] * (2 if case.ragged else 1)
    how = given._replace(matrix=matrix.to(case.device), size=size, bounds=bounds, gain=gain, bias=bias)
    out = _by_triton(case, images, how).cpu().double()
    alone = [how._replace(matrix=own.double(), bounds=[given.shrink]) for own in matrix.split(1)]
    expected = torch.cat([_by_torch(image.cpu().double()[None], own) for image, own in zip(images, alone, strict=True)])
    if gain is not None and bias is not None:
        expected = expected * gain.cpu()[:, None, None] + bias.cpu()[:, None, None]
    if case.target == torch.uint8:
        expected, allowed = expected.clamp(0, 255), 1.0  # a value next to a half may round either way
    else:
        allowed = max(1e-4, 4 * torch.finfo(case.target).eps) * max(1.0, float(expected.abs().max()))
    difference = float((out - expected).abs().max())
    if difference <= allowed:  # a NaN is not
        return True
    VERDICTS[case] = False  # before the warning, which may be an error
    _warn(case, f"differs by {difference:.2g} from torch")
    return False


def _by_triton(case: Case, images: list[Tensor], how: How) -> Tensor:
    from augkit.augment.backends import cuda_triton

    if not case.ragged:
        return cuda_triton.resample(Source.of(torch.stack(images)), how)
    sizes = torch.tensor([image.shape[1:] for image in images])
    offsets = torch.tensor([images[1].numel(), 0])  # the second image comes first
    values = torch.cat([image.flatten() for image in reversed(images)])
    return cuda_triton.resample(Source.ragged(values, offsets, sizes, len(images[0])), how)


def _by_torch(images: Tensor, how: How) -> Tensor:
    way = (how.matrix, how.size, how.kernel, how.padding, how.shrink)
    if how.axis_aligned:
        return separable.resample(images, *way, finite=True)
    return general.resample(images, *way, finite=True, affine=how.affine)


def _sample(case: Case, shape: Shape) -> Tensor:
    """A random image of ``shape``."""
    generator = torch.Generator(case.device).manual_seed(0)  # the global random state belongs to the user
    sample = torch.rand(shape, generator=generator, device=case.device, dtype=torch.float32)
    return (sample * 255 if case.source == torch.uint8 else sample).to(case.source)


def _matrix(kind: str, k: int, image: Tensor, size_out: Size) -> Tensor:
    """Image 0 mirrored and stretched to about ``size_out``, image 1 shifted; both reach beyond all four edges.

    Unless ``kind`` is aligned they are turned too, and tilted where it is any.
    """
    x, y = size_out[1] / image.shape[2], size_out[0] / image.shape[1]
    rows = [[-1.05 * x, 1.1 * x], [size_out[1] - 0.7, -1.7], [0.97 * y, 1.0], [0.4, -2.0]]
    matrix = geometry.axis_aligned(*torch.tensor(rows, dtype=torch.float32)[:, k : k + 1])
    if kind == "aligned":
        return matrix
    degrees = torch.tensor([[25.0, -110.0][k]], dtype=torch.float32)
    # Turned before it is stretched: the footprint of a pixel lies oblique.
    matrix = geometry.compose(geometry.rotate(degrees, (image.shape[1], image.shape[2])), matrix)
    if kind == "affine":
        return matrix
    tilt = torch.eye(3, dtype=torch.float32)[None].clone()
    tilt[:, 2, :2] = torch.tensor([0.2 / size_out[1], -0.15 / size_out[0]])
    return geometry.compose(matrix, tilt)


def _warn(case: Case, what: str) -> None:
    if case.device in _WARNED:
        return
    _WARNED.add(case.device)
    name = torch.cuda.get_device_name(case.device) if case.device.type == "cuda" else str(case.device)
    kind = f"{case.source} to {case.target}, {case.matrices} matrices{', ragged' if case.ragged else ''}"
    what = f"'{case.kernel}' with padding '{case.padding}' ({kind}) {what} on {name}"
    remedy = "please report this line to augkit's authors, with the output of `python -m torch.utils.collect_env`"
    stand_in = "torch's own path stands in, slower but right"
    warnings.warn(f"the Triton kernel: {what}; {stand_in}; {remedy}", BackendWarning, stacklevel=2)
