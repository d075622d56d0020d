"""A check of the Triton kernel against torch, before it is used on a device.

Triton's interpreter tests the arithmetic of the kernel, but a driver, a compiler or a GPU may still break it. So the
first call for each device, kernel, padding and pair of dtypes resamples a small random batch of the call's sizes with
both. Where they differ, or Triton raises, torch is used from then on, and one warning per device says so.
"""

from __future__ import annotations

import warnings
from typing import NamedTuple

import torch
from torch import Tensor

from augkit.augment import geometry
from augkit.augment.backends import separable
from augkit.core.errors import BackendWarning

Size = tuple[int, int]
LARGEST = 256  # largest side in pixels of the compared images


class Case(NamedTuple):
    """The kind of call that one comparison covers."""

    device: torch.device
    kernel: str
    padding: str
    source: torch.dtype
    target: torch.dtype
    antialiased: bool
    normalised: bool


VERDICTS: dict[Case, bool] = {}
_WARNED: set[torch.device] = set()


def resample(
    images: Tensor,
    matrix: Tensor,
    size: Size,
    kernel: str,
    padding: str,
    max_shrink: float,
    *,
    dtype: torch.dtype,
    gain: Tensor | None = None,
    bias: Tensor | None = None,
) -> Tensor | None:
    """Resample as `augkit.augment.backends.cuda_triton.resample`, or return None where the kernel failed the check."""
    case = Case(images.device, kernel, padding, images.dtype, dtype, max_shrink > 1, gain is not None)
    unknown = case not in VERDICTS and images.numel() > 0
    if unknown and _capturing(images.device):
        return None  # no values can be read while a CUDA graph is captured: check at a later call
    try:
        from augkit.augment.backends import cuda_triton

        if unknown:
            VERDICTS[case] = _agrees(case, images, size, max_shrink)
        if VERDICTS.get(case, True):
            how = (matrix, size, kernel, padding, max_shrink)
            return cuda_triton.resample(images, *how, dtype=dtype, gain=gain, bias=bias)
    except (torch.OutOfMemoryError, BackendWarning):
        raise  # the first is unrelated to the kernel; the second occurs where warnings are errors
    except Exception as error:  # Triton's compiler raises many kinds of errors
        VERDICTS[case] = False
        _warn(case, f"fails with {type(error).__name__} ({' '.join(str(error).split())[:120]})")
    return None


def _capturing(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def _agrees(case: Case, images: Tensor, size: Size, max_shrink: float) -> bool:
    """Whether the kernel agrees with float64 on the CPU up to rounding, for two random images."""
    from augkit.augment.backends import cuda_triton

    sample, size = _sample(images), (min(size[0], LARGEST), min(size[1], LARGEST))
    matrix = _matrices((sample.shape[-2], sample.shape[-1]), size).to(images.device)
    affine = torch.tensor([[2.0, 0.5], [-0.4, 0.3]], device=images.device, dtype=torch.float32)[:, : sample.shape[1]]
    gain, bias = affine if case.normalised else (None, None)
    how = (size, case.kernel, case.padding, max_shrink)
    out = cuda_triton.resample(sample, matrix, *how, dtype=case.target, gain=gain, bias=bias).cpu().double()
    expected = separable.resample(sample.cpu().double(), matrix.cpu().double(), *how, finite=True)
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


def _sample(images: Tensor) -> Tensor:
    """Two random images of the size and dtype of ``images``, of one or two channels."""
    shape = (2, min(images.shape[1], 2), *(min(side, LARGEST) for side in images.shape[-2:]))
    generator = torch.Generator(images.device).manual_seed(0)  # the global random state belongs to the user
    sample = torch.rand(shape, generator=generator, device=images.device, dtype=torch.float32)
    return (sample * 255 if images.dtype == torch.uint8 else sample).to(images.dtype)


def _matrices(size: Size, size_out: Size) -> Tensor:
    """One image mirrored and stretched to about ``size_out``, one shifted; both reach beyond all four edges."""
    x, y = size_out[1] / size[1], size_out[0] / size[0]
    rows = [[-1.05 * x, 1.1 * x], [size_out[1] - 0.7, -1.7], [0.97 * y, 1.0], [0.4, -2.0]]
    return geometry.axis_aligned(*torch.tensor(rows, dtype=torch.float32))


def _warn(case: Case, what: str) -> None:
    if case.device in _WARNED:
        return
    _WARNED.add(case.device)
    name = torch.cuda.get_device_name(case.device) if case.device.type == "cuda" else str(case.device)
    what = f"'{case.kernel}' with padding '{case.padding}' ({case.source} to {case.target}) {what} on {name}"
    remedy = "please report this line to augkit's authors, with the output of `python -m torch.utils.collect_env`"
    stand_in = "torch's own path stands in, slower but right"
    warnings.warn(f"the Triton kernel: {what}; {stand_in}; {remedy}", BackendWarning, stacklevel=2)
