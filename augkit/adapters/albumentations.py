"""The CPU twin of a policy: an albumentations transform with the same distribution, for DataLoader workers.

The draws come from albumentations' own generator and pass through the matrices of `augkit.Augment`, so the
distribution is the same by construction; and the default backend ``torch`` resamples with `augkit.resample`,
so, given one matrix, twin and device transform give one image: every kernel, antialiasing included.

The backend ``opencv`` calls one ``cv2.warpAffine`` where OpenCV computes the same (kernel ``bilinear``, nothing
shrunk, at most 4 channels) and falls back to torch elsewhere: OpenCV's bicubic has a = -0.75, its Lanczos has 4
lobes, and it does not antialias. OpenCV 5 agrees to rounding; OpenCV 4 places pixels to 1/32.

Albumentations 2.0.8 draws the same augmentations in every DataLoader worker and every epoch. `Compose` here
seeds itself in workers; `worker_init_fn` does so for every other albumentations pipeline in a dataset.

>>> import augkit, numpy
>>> policy = augkit.Policy(shift={"max_pixels": 2.0}, flip={})
>>> twin = policy.albumentations(size=(32, 32), seed=0)
>>> twin(image=numpy.zeros((32, 32, 3), numpy.uint8))["image"].shape
(32, 32, 3)
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterator
from types import ModuleType
from typing import Any, Literal

import albumentations
import cv2
import numpy as np
import torch
from albumentations.core.type_definitions import ALL_TARGETS
from torch.utils.data import get_worker_info

from augkit import targets
from augkit.errors import InputError, unknown_name
from augkit.policy import Policy
from augkit.schema import validate

_BORDERS = {
    "zeros": cv2.BORDER_CONSTANT,
    "border": cv2.BORDER_REPLICATE,
    "reflection": cv2.BORDER_REFLECT_101,
    "circular": cv2.BORDER_WRAP,
}
_LONGEST_CONTAINER = 64  # a longer list holds samples, not pipelines
_DEEPEST = 12  # steps from a dataset to its pipeline: a few wrappers, a Compose, a closure


class PolicyTransform(albumentations.DualTransform):
    """One policy as one albumentations transform: one draw, one matrix, one resampling.

    Boxes are moved by their edges and left to ``BboxParams`` to clip and filter (``min_visibility`` is `Augment`'s
    ``min_visible_area``; note that its ``min_width`` and ``min_height`` are not 0 everywhere). Keypoints are moved
    by pixel centres and left to ``KeypointParams``, which calls 0 <= x < W visible (`Augment`: -0.5 <= x < W - 0.5).

    Args:
        policy: the fields of an `augkit.Policy`.
        size: ``(H, W)`` of the output where the policy crops; the input's when None.
        backend: ``torch`` or ``opencv``, see the module.
        p: probability that anything happens at all; the policy has its own per op.

    Raises:
        InputError: a field that is not a policy's, an unknown backend.
    """

    _targets = ALL_TARGETS

    def __init__(
        self,
        policy: Policy | dict[str, Any],
        size: tuple[int, int] | None = None,
        backend: Literal["torch", "opencv"] = "torch",
        p: float = 1.0,
    ) -> None:
        super().__init__(p=p)
        if backend not in ("torch", "opencv"):
            raise unknown_name("backend", backend, ("torch", "opencv"))
        checked = policy if isinstance(policy, Policy) else validate(Policy, policy, "policy")
        # Attributes bear the names of the arguments, in plain types: albumentations serialises them.
        self.policy = checked.model_dump(exclude_none=True)
        self.size = None if size is None else (int(size[0]), int(size[1]))
        self.backend = backend
        self._strength = checked.strength
        self._augment = checked.augment(self.size)

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        """Draw: ``matrix`` ``(3, 3)`` from input to output pixels, and ``blur`` ``(2,)`` pixels or None."""
        del data
        augment = self._augment
        draws = torch.from_numpy(self.random_generator.random((1, augment.draws), dtype=np.float32))
        blur = augment.blur(draws, self._strength)
        return {
            "matrix": augment.matrix(draws, self._strength, _hw(params)).numpy()[0],
            "blur": None if blur is None else blur.numpy()[0],
        }

    def apply(self, img: np.ndarray, *args: Any, **params: Any) -> np.ndarray:
        """``img`` ``(H, W)`` or ``(H, W, C)``, uint8 or floating, through ``params["matrix"]``."""
        del args
        matrix, blur = params["matrix"], params.get("blur")
        size = self._augment.output_size((img.shape[0], img.shape[1]))
        if blur is None and size == img.shape[:2] and np.array_equal(matrix, np.eye(3)):
            return img.copy()
        if self._opencv_is_exact(img, matrix, blur):
            border = _BORDERS[self._augment.padding]
            out = cv2.warpAffine(img, matrix[:2], size[::-1], flags=cv2.INTER_LINEAR, borderMode=border)
            return out.reshape(*size, *img.shape[2:])  # OpenCV drops the axis of a single channel
        pixels = None if blur is None else _batch_of_one(blur)
        return _from_tensor(self._augment.render(_to_tensor(img), _batch_of_one(matrix), pixels), img.ndim)

    def apply_to_mask(self, mask: np.ndarray, *args: Any, **params: Any) -> np.ndarray:
        """``mask`` ``(H, W)`` or ``(H, W, C)`` of any dtype, nearest pixel."""
        del args
        size = self._augment.output_size((mask.shape[0], mask.shape[1]))
        padding, aligned = self._augment.padding, self._augment.axis_aligned
        moved = targets.move_masks(
            _to_tensor(mask), _batch_of_one(params["matrix"]), size, padding, axis_aligned=aligned
        )
        return _from_tensor(moved, mask.ndim)

    def apply_to_bboxes(self, bboxes: np.ndarray, *args: Any, **params: Any) -> np.ndarray:
        """``bboxes`` ``(N, 4 + n)``, the first four normalised as albumentations has them."""
        del args
        if not len(bboxes):  # without a second axis
            return bboxes
        height, width = _hw(params)
        new_height, new_width = self._augment.output_size((height, width))
        pixels = bboxes[:, :4].astype(np.float32) * np.array([width, height] * 2, np.float32)
        moved = targets.move_boxes(_batch_of_one(params["matrix"]), torch.from_numpy(pixels)[None])[0].numpy()
        return np.concatenate([moved / np.array([new_width, new_height] * 2, np.float32), bboxes[:, 4:]], axis=1)

    def apply_to_keypoints(self, keypoints: np.ndarray, *args: Any, **params: Any) -> np.ndarray:
        """``keypoints`` ``(N, 2 + n)`` as x, y, z, angle (radians), scale (pixels), the rest untouched."""
        del args
        if not len(keypoints):
            return keypoints
        matrix, moved = params["matrix"], keypoints.astype(np.float32, copy=True)
        points = torch.from_numpy(moved[:, :2])[None]
        moved[:, :2] = targets.move_points(_batch_of_one(matrix), points)[0].numpy()
        if moved.shape[1] >= 5:
            x, y = np.cos(moved[:, 3]) * matrix[0, 0], np.sin(moved[:, 3]) * matrix[1, 1]
            moved[:, 3] = np.mod(np.arctan2(y, x), 2 * np.pi)
            moved[:, 4] *= max(abs(matrix[0, 0]), abs(matrix[1, 1]))
        return moved

    def _opencv_is_exact(self, img: np.ndarray, matrix: np.ndarray, blur: np.ndarray | None) -> bool:
        return (
            self.backend == "opencv"
            and self._augment.kernel == "bilinear"
            and blur is None
            and img.dtype in (np.uint8, np.float32)
            and (img.ndim == 2 or img.shape[2] <= 4)
            # A unit scale can come out of float32 a digit short; a shrink of 1e-4 moves no tap.
            and bool(np.abs(np.diagonal(matrix))[:2].min() >= 1 - 1e-4)
        )


class Compose(albumentations.Compose):
    """``albumentations.Compose`` that seeds itself in DataLoader workers; nothing else differs.

    In a worker the stream follows from this pipeline's ``seed`` and the worker's own, which torch derives from
    the loader's generator (else ``torch.manual_seed``), the epoch and the worker: workers differ, epochs differ,
    the same seed repeats. Outside workers it is albumentations' own.
    """

    _seeded_for: int | None = None

    def __call__(self, *args: Any, force_apply: bool = False, **data: Any) -> dict[str, Any]:
        worker = get_worker_info()
        if worker is not None and worker.seed != self._seeded_for:
            self._seeded_for = worker.seed
            seed_pipeline(self, worker.seed)
        return super().__call__(*args, force_apply=force_apply, **data)


def seed_pipeline(pipeline: albumentations.BaseCompose, seed: int) -> None:
    """Start the random stream of ``pipeline``, and of all in it, from ``seed`` and the pipeline's own seed."""
    mixed = np.random.SeedSequence([pipeline.seed or 0, seed])
    # One generator for all ops: `set_random_seed` would give each its own with the same draws.
    pipeline.set_random_state(np.random.default_rng(mixed), random.Random(int(mixed.generate_state(1)[0])))


def worker_init_fn(worker_id: int) -> None:
    """Seed every albumentations pipeline of the worker's dataset: ``DataLoader(..., worker_init_fn=worker_init_fn)``.

    Pipelines are looked for in the dataset's attributes, in containers, wrapped datasets, partial functions and
    closures. Call `seed_pipeline` with ``torch.initial_seed()`` where one is kept elsewhere.

    Raises:
        InputError: outside a worker, or where the dataset holds no pipeline.
    """
    worker = get_worker_info()
    if worker is None:
        raise InputError(f"worker_init_fn({worker_id}): expected a DataLoader worker; pass it to the DataLoader")
    found = list(_pipelines(worker.dataset, set()))
    if not found:
        raise InputError(
            f"worker_init_fn: expected an albumentations pipeline in {type(worker.dataset).__name__}, found none; "
            "call augkit.adapters.albumentations.seed_pipeline(pipeline, torch.initial_seed()) in its place"
        )
    for pipeline in found:
        seed_pipeline(pipeline, worker.seed)


def _pipelines(holder: Any, seen: set[int], depth: int = 0) -> Iterator[albumentations.BaseCompose]:
    if id(holder) in seen or depth > _DEEPEST:
        return
    seen.add(id(holder))
    if isinstance(holder, albumentations.BaseCompose):
        yield holder
        return
    for child in _children(holder):
        yield from _pipelines(child, seen, depth + 1)


def _children(holder: Any) -> list[Any]:
    """What ``holder`` refers to and may be, or hold, a pipeline."""
    if isinstance(holder, (str, bytes, int, float, np.ndarray, torch.Tensor, type, ModuleType)) or holder is None:
        return []
    if isinstance(holder, (list, tuple, dict)):
        values = list(holder.values()) if isinstance(holder, dict) else list(holder)
        return values if len(values) <= _LONGEST_CONTAINER else []
    if isinstance(holder, functools.partial):
        return [holder.func, *holder.args, *holder.keywords.values()]
    cells = [cell.cell_contents for cell in getattr(holder, "__closure__", None) or ()]
    return [getattr(holder, "__self__", None), *cells, *getattr(holder, "__dict__", {}).values()]


def _hw(params: dict[str, Any]) -> tuple[int, int]:
    return int(params["shape"][0]), int(params["shape"][1])


def _batch_of_one(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values, np.float32))[None]


def _to_tensor(image: np.ndarray) -> torch.Tensor:
    """``(H, W)`` or ``(H, W, C)`` to ``(1, C, H, W)``, a view."""
    tensor = torch.from_numpy(image)
    return tensor[None, None] if image.ndim == 2 else tensor.permute(2, 0, 1)[None]


def _from_tensor(images: torch.Tensor, ndim: int) -> np.ndarray:
    return images[0, 0].numpy() if ndim == 2 else images[0].permute(1, 2, 0).contiguous().numpy()
