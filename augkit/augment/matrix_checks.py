"""Facts about matrices before a resampling: whether they are valid, aligned or affine, and how far they shrink.

All of them read values, which waits for the device. A traced graph has no values to read: there every check passes,
and a matrix counts as a perspective, which is the general case.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from augkit.augment import geometry
from augkit.augment.backends.values import concrete, differentiated, traced
from augkit.augment.checks import check_dense, check_same_device, is_float
from augkit.core.errors import InputError, InputTypeError
from augkit.core.precision import on_cpu

Size = tuple[int, int]
CELLS = 8  # parts of each side of an output, in which the shrink of a perspective is bounded


def checked_matrix(matrix: Tensor, images: Tensor) -> Tensor:
    """``matrix`` as ``(B, 3, 3)``, one for each of ``images``; values are left to `check_values`.

    Raises:
        InputError, InputTypeError: another kind, device or shape.
    """
    if not isinstance(matrix, Tensor) or not is_float(matrix):
        got = matrix.dtype if isinstance(matrix, Tensor) else type(matrix).__name__
        raise InputTypeError(f"matrix: expected a floating tensor (B, 3, 3), got {got}")
    check_dense("matrix", matrix, "(B, 3, 3)")
    check_same_device("matrix", matrix, images.device)
    batch = images.shape[0]
    # Not `in`: a graph of any batch must not ask whether its length is 3.
    if matrix.ndim not in (2, 3) or matrix.shape[-2:] != (3, 3) or (matrix.ndim == 3 and matrix.shape[0] != batch):
        raise InputError(f"matrix: expected shape ({batch}, 3, 3) or (3, 3), got {tuple(matrix.shape)}")
    return matrix.expand(batch, 3, 3)


def check_values(matrix: Tensor, size: Size) -> None:
    """Raise unless each of ``matrix`` ``(B, 3, 3)`` can be resampled through to an output of ``size``; reads values.

    Raises:
        InputError: as `check_invertible`, or a perspective with its horizon in the output.
    """
    check_invertible(matrix)
    if traced() or _straight(matrix):
        return
    depth = _depth(on_cpu(concrete(matrix, 2)), size)
    if bool((depth.amax(dim=1) < 0).any()):
        raise InputError("matrix: expected a perspective of positive depth, got a negative one; multiply it by -1")
    if bool((depth <= 0).any()):
        raise InputError(
            "matrix: expected a perspective whose horizon lies outside the output, got one that crosses the "
            f"{size[0]} x {size[1]} pixels; use a weaker perspective or a smaller window"
        )


def check_invertible(matrix: Tensor) -> None:
    """Raise where a number of ``matrix`` ``(B, 3, 3)`` is not finite or a matrix is singular; reads values.

    Raises:
        InputError: one line.
    """
    if traced():
        return
    values = concrete(matrix, 2)
    if not bool(torch.isfinite(values).all()):
        raise InputError("matrix: expected finite numbers, got NaN or infinity")
    values = on_cpu(values)
    (a, b), (c, d) = values[:, :2, :2].permute(1, 2, 0)
    # Of an affine matrix by its four entries alone: rounding must not hide that they are singular.
    flat = a * d == b * c if _straight(matrix) else geometry.determinant(values) == 0
    if bool(flat.any()):
        raise InputError("matrix: expected an invertible matrix, got a singular one, such as scale 0")


def is_axis_aligned(matrix: Tensor) -> bool:
    """Whether none of the matrices ``(B, 3, 3)`` rotates, shears or is a perspective; waits for the device."""
    return not traced() and _straight(matrix) and not bool(concrete(matrix, 2)[:, [0, 1], [1, 0]].any())


def is_affine(matrix: Tensor) -> bool:
    """Whether the last row of all matrices ``(B, 3, 3)`` is 0, 0, 1 and needs no gradient; waits for the device."""
    return not traced() and not differentiated(matrix) and _straight(matrix)


def reads_four_entries(matrix: Tensor) -> bool:
    """Whether the axis-aligned path, which leaves the other entries without a gradient, may take ``matrix``."""
    return not differentiated(matrix) and is_axis_aligned(matrix)


def _straight(matrix: Tensor) -> bool:
    last = concrete(matrix, 2)[:, 2]
    return bool((last[:, :2] == 0).all()) and bool((last[:, 2] == 1).all())


def strongest_shrink(matrix: Tensor, size: Size) -> float:
    """The most pixels of the input, along any direction, that one pixel of an output of ``size`` spans; at least 1.

    The largest singular value of the maps ``(B, 3, 3)`` from output to input. For a perspective, which has one in each
    place, a bound on the largest over the output. Waits for the device.
    """
    values = on_cpu(concrete(matrix, 2))
    if not len(values):
        return 1.0
    last = values[:, 2]
    straight = (last == last.new_tensor([0, 0, 1])).all(dim=1)
    (a, b), (c, d) = values[straight, :2, :2].permute(1, 2, 0)
    found = [geometry.largest_stretch(a, b, c, d) / (a * d - b * c).abs(), _perspective_shrink(values[~straight], size)]
    strongest = float(torch.cat(found).max())
    # A float32 rotation spans 1 pixel but for rounding; and a bound a little wide never cuts the strongest shrink.
    return 1.0 if strongest < 1 + 1e-6 else strongest * (1 + 1e-12)


def _perspective_shrink(matrix: Tensor, size: Size) -> Tensor:
    """A bound ``(B,)`` on the local shrink of perspectives ``(B, 3, 3)`` in float64, over an output of ``size``."""
    inverse = geometry.adjugate(matrix) / geometry.determinant(matrix)[:, None, None]
    depth, numerator = geometry.local_scale(inverse, _grid(size).to(inverse))
    # The derivative is a numerator, linear along the output, over the square of the depth, which is linear too: in a
    # cell neither goes beyond its values at the corners.
    most = _over_cells(geometry.largest_stretch(*numerator), torch.maximum)
    least = _over_cells(depth, torch.minimum)
    return (most / least.square()).flatten(1).amax(dim=1) if len(matrix) else matrix.new_zeros(0)


def _grid(size: Size) -> Tensor:
    """Homogeneous points ``(3, CELLS + 1, CELLS + 1)`` on an output of ``size``, from edge to edge."""
    y, x = (torch.linspace(-0.5, n - 0.5, CELLS + 1, dtype=torch.float64) for n in size)
    return torch.stack(torch.broadcast_tensors(x[None], y[:, None], torch.ones((), dtype=torch.float64)))


def _over_cells(values: Tensor, pick: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """``pick`` of the four corners of each cell: ``(B, n + 1, n + 1)`` to ``(B, n, n)``."""
    rows = pick(values[:, 1:], values[:, :-1])
    return pick(rows[:, :, 1:], rows[:, :, :-1])


def _depth(matrix: Tensor, size: Size) -> Tensor:
    """The depth ``(B, 4)`` of the inverse at the corners of the output: positive in front of the horizon."""
    corners = _grid(size)[:, ::CELLS, ::CELLS].flatten(1)
    return (geometry.adjugate(matrix)[:, 2] / geometry.determinant(matrix)[:, None]) @ corners.to(matrix)
