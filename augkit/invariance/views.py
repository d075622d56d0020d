"""The views of a batch of images under a plan, each the input of one forward pass."""

from __future__ import annotations

from torch import Tensor

from augkit.invariance.plan import Plan
from augkit.invariance.protocols import Protocol, Scene


class Views:
    """Views of a batch; ``views(k)`` is column k of the plan's layout, ``(B, C, *input_size)``.

    Args:
        plan: the displacements of every image.
        protocol: the protocol that applies them.
        images: float images ``(B, C, *image_size)`` on the device of the computation.
        places: ``(B, S, 3)`` on that device, the displacement (x, y, factor) of every column.
    """

    def __init__(self, plan: Plan, protocol: Protocol, images: Tensor, places: Tensor) -> None:
        self._plan, self._places, self._scene = plan, places, Scene(protocol, images)
        self._smallest = plan.factors[0]

    def __call__(self, k: int) -> Tensor:
        """Return column ``k``. Views that all images share by whole pixels are copied, whatever the kernel."""
        column, shift, factor = self._plan.layout.columns[k], self._places[:, k, :2], self._places[:, k, 2]
        if column.blurred:
            return self._scene.blurred(shift)
        if column.place[2] != 1 or (self._plan.axis == "scale" and column.source != "fixed"):
            return self._scene.rescale(factor, self._smallest)
        x, y, _ = column.place
        if column.source == "fixed" and x == round(x) and y == round(y):
            return self._scene.shift_whole(round(x), round(y))
        return self._scene.shift(shift)
