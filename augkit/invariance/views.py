"""The views of a batch of images under a plan, each the input of one forward pass."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from augkit.invariance.plan import Plan
from augkit.invariance.protocols import Protocol, Scene

NOISE_STREAM = 3  # purpose of these random numbers; `augkit.invariance.plan` has 0 to 2


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


class NoisyViews:
    """Views with Gaussian noise in place of displacements, each with the norm by which the displacement changes it.

    They show whether a network is steadier under displacements or under any change of its input. The noise is drawn
    from the seed, the number of the image and the column, so it does not depend on the batch size.

    Args:
        views: the views of the batch under its displacements.
        seed: seed of the noise.
        start: number of the first image of the batch.
    """

    def __init__(self, views: Views, seed: int, start: int) -> None:
        self._views, self._seed, self._start = views, seed, start
        self._still = views(0)

    def __call__(self, k: int) -> Tensor:
        """Return column ``k``; column 0 is the unshifted image, without noise."""
        if k == 0:
            return self._still
        still, moved = self._still, self._views(k)
        size = (moved - still).flatten(1).norm(dim=1)
        noise = torch.stack([self._drawn(number, k, still[0]) for number in range(len(still))])
        share = size / noise.flatten(1).norm(dim=1)
        return still + noise * share[:, None, None, None]

    def _drawn(self, number: int, column: int, like: Tensor) -> Tensor:
        rng = np.random.default_rng([self._seed, NOISE_STREAM, self._start + number, column])
        drawn = rng.standard_normal(tuple(like.shape), dtype=np.float32)
        return torch.from_numpy(drawn).to(like)
