"""The CPU twin of a policy: an albumentations transform with the same distribution, for DataLoader workers.

The draws come from albumentations' generator and `augkit.Augment` converts them to matrices, so both have the same
distribution. The default backend ``torch`` resamples with `augkit.resample`, so that the twin and the
device transform give the same image for the same matrix, with every kernel and with antialiasing.

The backend ``opencv`` calls one ``cv2.warpAffine`` where OpenCV computes the same (kernel ``bilinear``, nothing
shrunk, at most 4 channels, no op of Kornia) and falls back to torch elsewhere: OpenCV's bicubic has a = -0.75, its
Lanczos has 4 lobes, and it does not antialias. OpenCV 5 agrees to rounding; OpenCV 4 places pixels to 1/32.

Albumentations 2.0.8 draws the same augmentations in every DataLoader worker and every epoch. `Compose` here
seeds itself in workers; `worker_init_fn` seeds any other albumentations pipeline in a dataset.

>>> import augkit, numpy
>>> policy = augkit.Policy(shift={"max_pixels": 2.0}, flip={})
>>> twin = policy.albumentations(size=(32, 32), seed=0)
>>> twin(image=numpy.zeros((32, 32, 3), numpy.uint8))["image"].shape
(32, 32, 3)
"""

from __future__ import annotations

import functools
import math
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

from augkit.augment import carry_targets, geometry, targets
from augkit.augment.arrays import check_array, from_tensor, restored, to_tensor, unit_of, working
from augkit.augment.base import RandomGeometry
from augkit.augment.checks import check_flag
from augkit.augment.color import Tail
from augkit.augment.policy import Policy
from augkit.augment.resample import check_size
from augkit.core.errors import InputError, InputTypeError, unknown_name
from augkit.core.random_streams import AUGMENTATION, random_stream
from augkit.core.ranks import draws_of_rank, place_among_processes
from augkit.core.schema import validate

Params = dict[str, Any]  # parameters that albumentations passes between the methods of a transform, and serializes
_BORDERS = {
    "zeros": cv2.BORDER_CONSTANT,
    "border": cv2.BORDER_REPLICATE,
    "reflection": cv2.BORDER_REFLECT_101,
    "circular": cv2.BORDER_WRAP,
}
_LONGEST_CONTAINER = 64  # a longer list holds samples, not pipelines
_DEEPEST = 12  # steps from a dataset to its pipeline: a few wrappers, a Compose, a closure


def check_twin(policy: Policy) -> None:
    """Raise InputError for a policy that only a training loop can follow, as it knows epochs and labels."""
    for name in ("schedule", "classes"):
        if getattr(policy, name) is not None:
            raise InputError(
                f"policy.{name}: expected none in the CPU twin, which knows neither epochs nor labels; leave it out,"
                " or train by a recipe"
            )


class PolicyTransform(albumentations.DualTransform):
    """One policy as one albumentations transform: one draw, one matrix, one resampling, then Kornia's ops.

    Images may have any real dtype: integers are rounded to the nearest (halves to even) and kept in their range. For
    Kornia's ops they are divided by the largest value of their dtype. Targets are moved as in `Augment`.

    Boxes are moved by their edges and left to ``BboxParams`` to clip and filter (``min_visibility`` is `Augment`'s
    ``min_visible_area``; note that its ``min_width`` and ``min_height`` are not 0 everywhere). Keypoints are moved
    by pixel centers and left to ``KeypointParams``, which calls 0 <= x < W visible (`Augment`: -0.5 <= x < W - 0.5).

    Args:
        policy: the fields of an `augkit.Policy` without ``worker_ops``, which ``policy.albumentations()`` puts first.
        size: ``(H, W)`` of the output where the policy crops; the input's when None.
        backend: ``torch`` or ``opencv``, explained in the module's docstring.
        fit: fit images of any size to ``size`` first, see `augkit.Policy.augment`.
        mask_fill: value of pixels of masks from outside of the input, see `Augment`.
        p: probability that the policy is applied; each of its ops has another probability of its own.

    Raises:
        InputError, InputTypeError: the policy has an unknown field, the backend is unknown, or the size is invalid;
            when called, an image is missing or empty, or has a dtype or shape that cannot be transformed.
    """

    _targets = ALL_TARGETS

    def __init__(
        self,
        policy: Policy | dict[str, object],
        size: tuple[int, int] | None = None,
        backend: Literal["torch", "opencv"] = "torch",
        p: float = 1.0,
        *,
        fit: bool = False,
        mask_fill: float | None = None,
    ) -> None:
        super().__init__(p=p)
        if backend not in ("torch", "opencv"):
            raise unknown_name("backend", backend, ("torch", "opencv"))
        checked = policy if isinstance(policy, Policy) else validate(Policy, policy, "policy")
        check_twin(checked)
        if checked.worker_ops:
            names = ", ".join(op.op for op in checked.worker_ops)
            raise InputError(
                f"PolicyTransform: expected a policy without worker_ops, got {names}; use policy.albumentations(), "
                "which puts them before this transform"
            )
        # Albumentations serializes the attributes named like the arguments, so they have plain types.
        self.policy = checked.model_dump(exclude_none=True)
        self.size = None if size is None else check_size(size)
        self.backend = backend
        self._strength = checked.strength
        self.fit = check_flag("fit", fit)
        self.mask_fill = targets.check_fill(mask_fill)
        self._augment = checked.augment(self.size, fit=self.fit)
        self._colors = any(not isinstance(op, RandomGeometry) or op.recolors for op in self._augment.ops)

    def update_transform_params(self, params: Params, data: Params) -> Params:
        """Check the images before albumentations reads their size, since without images it raises a KeyError."""
        found = [data[name] for name in ("volume", "volumes", "image", "images") if data.get(name) is not None]
        arrays = [array for value in found for array in (value if isinstance(value, (list, tuple)) else [value])]
        if not arrays:
            raise InputError(f"PolicyTransform: expected an image, images or a volume, got {sorted(data) or 'nothing'}")
        for array in arrays:
            if not isinstance(array, np.ndarray):
                raise InputTypeError(f"PolicyTransform: expected numpy arrays as images, got {type(array).__name__}")
            if not array.size:
                raise InputError(f"PolicyTransform: expected at least one pixel, got {array.shape}")
        updated: Params = super().update_transform_params(params, data)
        if len(updated["shape"]) not in (2, 3):
            raise InputError(f"PolicyTransform: expected images (H, W) or (H, W, C), got {tuple(updated['shape'])}")
        return updated

    def get_params_dependent_on_data(self, params: Params, data: Params) -> Params:
        """Draw ``matrix`` ``(3, 3)`` from input to output pixels, ``blur`` ``(2,)`` pixels or None, and ``tail``."""
        augment, rank = self._augment, place_among_processes()[0]
        del data
        uniform = torch.from_numpy(self.random_generator.random((1, augment.draws), dtype=np.float32))
        draws = draws_of_rank(uniform, rank)
        blur = augment.blur(draws, self._strength, _hw(params))
        return {
            "matrix": augment.matrix(draws, self._strength, _hw(params)).numpy()[0],
            "blur": None if blur is None else blur.numpy()[0],
            "tail": self._draw_tail((1, _channels(params), *_hw(params)), rank, draws),
        }

    def _draw_tail(self, shape: tuple[int, ...], rank: int, draws: torch.Tensor) -> Tail | None:
        if not self._colors:
            return None
        seed = random_stream(int(self.random_generator.integers(2**62)), AUGMENTATION, 0, rank)
        generator = torch.Generator().manual_seed(seed)
        return self._augment.draw_tail(torch.zeros(()).expand(shape), None, generator, draws)

    def apply(self, img: np.ndarray, *args: Any, **params: Any) -> np.ndarray:
        """Transform ``img`` ``(H, W)`` or ``(H, W, C)`` of any real dtype as ``params`` define."""
        del args
        check_array(img)  # before the identity returns any array unchecked
        matrix, blur, tail = params["matrix"], params.get("blur"), params.get("tail")
        size = self._augment.output_size((img.shape[0], img.shape[1]))
        if blur is None and tail is None and size == img.shape[:2] and np.array_equal(matrix, np.eye(3)):
            return img.copy()
        if tail is None and self._opencv_is_exact(img, matrix, blur):
            border = _BORDERS[self._augment.padding]
            out = cv2.warpAffine(img, matrix[:2], size[::-1], flags=cv2.INTER_LINEAR, borderMode=border)
            return out.reshape(*size, *img.shape[2:])  # OpenCV drops the axis of a single channel
        pixels = None if blur is None else _batch_of_one(blur)
        unit = unit_of(img.dtype) if self._colors else 1.0
        moved = self._augment.render(to_tensor(working(img, unit)), _batch_of_one(matrix), pixels, tail)
        return restored(from_tensor(moved, img.ndim), img.dtype, unit)

    def apply_to_mask(self, mask: np.ndarray, *args: Any, **params: Any) -> np.ndarray:
        """Transform ``mask`` ``(H, W)`` or ``(H, W, C)`` of any dtype by the nearest pixel."""
        del args
        carry_targets.check_followed(self._augment.ops, "PolicyTransform")
        if not isinstance(mask, np.ndarray):
            raise InputTypeError(f"mask: expected a numpy array, got {type(mask).__name__}")
        if mask.ndim not in (2, 3):
            raise InputError(f"mask: expected (H, W) or (H, W, C), got {mask.shape}")
        size = self._augment.output_size((mask.shape[0], mask.shape[1]))
        if mask.dtype.hasobject or mask.dtype.itemsize not in (1, 2, 4, 8):
            raise InputTypeError(f"mask: expected a dtype of 8, 16, 32 or 64 bits, got {mask.dtype}")
        # Pixels are only copied, so any dtype can be viewed as integers of the same width, which torch supports.
        bits = np.ascontiguousarray(mask).view(f"i{mask.dtype.itemsize}")
        matrix, aligned = _batch_of_one(params["matrix"]), self._augment.axis_aligned
        fill = None if self.mask_fill is None else torch.from_numpy(_bits_of(self.mask_fill, mask.dtype))
        how = (matrix, size, self._augment.padding, params.get("tail"))
        moved = carry_targets.carried_masks(to_tensor(bits), *how, axis_aligned=aligned, fill=fill)
        return from_tensor(moved, mask.ndim).view(mask.dtype)

    def apply_to_bboxes(self, bboxes: np.ndarray, *args: Any, **params: Any) -> np.ndarray:
        """Transform ``bboxes`` ``(N, 4 + n)``, whose first four columns are normalized as in albumentations."""
        del args
        if not len(bboxes):  # without a second axis
            return bboxes
        carry_targets.check_followed(self._augment.ops, "PolicyTransform")
        height, width = _hw(params)
        own_size, tail = self._augment.output_size((height, width)), params.get("tail")
        new_height, new_width = own_size if tail is None else tail.sizes[-1]
        pixels = torch.from_numpy(bboxes[:, :4].astype(np.float32) * np.array([width, height] * 2, np.float32))
        moved = carry_targets.moved_boxes(_batch_of_one(params["matrix"]), pixels[None], own_size, tail)[0].numpy()
        return np.concatenate([moved / np.array([new_width, new_height] * 2, np.float32), bboxes[:, 4:]], axis=1)

    def apply_to_keypoints(self, keypoints: np.ndarray, *args: Any, **params: Any) -> np.ndarray:
        """Transform ``keypoints`` ``(N, 2 + n)``: x, y, z, angle (radians), scale (pixels); other columns stay."""
        del args
        if not len(keypoints):
            return keypoints
        carry_targets.check_followed(self._augment.ops, "PolicyTransform")
        tail, total, moved = (
            params.get("tail"),
            _batch_of_one(params["matrix"]),
            keypoints.astype(np.float32, copy=True),
        )
        if tail is not None:
            total = geometry.compose(total, tail.matrix(total.device))
        points = torch.from_numpy(moved[:, :2])[None].clone()
        moved[:, :2] = targets.move_points(total, points)[0].numpy()
        if moved.shape[1] >= 5:
            stretch = _stretch(total[0].numpy(), keypoints[:, :2])
            x, y = np.moveaxis(stretch @ np.stack([np.cos(moved[:, 3]), np.sin(moved[:, 3])], 1)[..., None], 1, 0)
            moved[:, 3] = np.mod(np.arctan2(y, x)[:, 0], 2 * np.pi)
            moved[:, 4] *= np.linalg.norm(stretch, 2, axis=(1, 2))  # along the direction that grows most
        return moved

    def _opencv_is_exact(self, img: np.ndarray, matrix: np.ndarray, blur: np.ndarray | None) -> bool:
        return (
            self.backend == "opencv"
            and self._augment.kernel == "bilinear"
            and blur is None
            and img.dtype in (np.uint8, np.float32)
            and (img.ndim == 2 or img.shape[2] <= 4)
            and _shrinks_nothing(matrix)
        )


def _bits_of(fill: float, dtype: np.dtype[Any]) -> np.ndarray:
    """Return ``fill`` as an array without dimensions of ``dtype``, viewed as an integer of the same width.

    Raises:
        InputError: the dtype has no such value.
    """
    if dtype.kind not in "biuf":
        raise InputError(f"mask_fill: expected masks of numbers, got {dtype}; leave it out")
    if dtype.kind == "f" and math.isfinite(fill) and abs(fill) > float(np.finfo(dtype).max):
        raise InputError(f"mask_fill: expected a finite value of masks of {dtype}, got {fill:g}")
    if dtype.kind != "f":
        low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        if not low <= fill <= high or fill != int(fill):
            raise InputError(f"mask_fill: expected a value of masks of {dtype}, {low} to {high}, got {fill:g}")
    return np.array([fill]).astype(dtype).view(f"i{dtype.itemsize}").reshape(())


class Compose(albumentations.Compose):
    """An ``albumentations.Compose`` that seeds itself in DataLoader workers and is otherwise unchanged.

    In a worker the random stream depends on this pipeline's ``seed`` and the worker's seed, which torch derives from
    the loader's generator (else ``torch.manual_seed``), the epoch and the worker. So workers and epochs differ, and the
    same seed repeats the run. Each process of a distributed training has its own stream. Outside of workers
    albumentations seeds the pipeline.
    """

    _seeded_for: tuple[int, int] | None = None

    def __call__(self, *args: Any, force_apply: bool = False, **data: Any) -> dict[str, Any]:
        worker, rank = get_worker_info(), place_among_processes()[0]
        stream = (0 if worker is None else worker.seed, rank)
        if stream != self._seeded_for and (worker is not None or (rank and self.seed is not None)):
            self._seeded_for = stream
            seed_pipeline(self, stream[0])
        return super().__call__(*args, force_apply=force_apply, **data)

    def set_random_seed(self, seed: int | None) -> None:
        """Restart the random stream from ``seed``, at least 0; in workers and ranks also from their own seeds."""
        super().set_random_seed(seed)
        self._seeded_for = None


def seed_pipeline(pipeline: albumentations.BaseCompose, seed: int) -> None:
    """Restart the random stream of ``pipeline`` and its transforms from ``seed``, its own seed and the process rank."""
    rank = place_among_processes()[0]
    mixed = np.random.SeedSequence([pipeline.seed or 0, seed, *([rank] if rank else [])])
    # One generator for all ops: `set_random_seed` would give each its own with the same draws.
    pipeline.set_random_state(np.random.default_rng(mixed), random.Random(int(mixed.generate_state(1)[0])))


def worker_init_fn(worker_id: int) -> None:
    """Seed every albumentations pipeline of the worker's dataset: ``DataLoader(..., worker_init_fn=worker_init_fn)``.

    Pipelines are searched in the dataset's attributes, in containers, wrapped datasets, partial functions and closures.
    For a pipeline elsewhere, call `seed_pipeline` with ``torch.initial_seed()``.

    Raises:
        InputError: the call is outside a worker, or the dataset holds no pipeline.
    """
    worker = get_worker_info()
    if worker is None:
        raise InputError(f"worker_init_fn({worker_id}): expected a DataLoader worker; pass it to the DataLoader")
    found = list(_pipelines(worker.dataset, set()))
    if not found:
        raise InputError(
            f"worker_init_fn: expected an albumentations pipeline in {type(worker.dataset).__name__}, found none; "
            "call augkit.adapters.albumentations.seed_pipeline(pipeline, torch.initial_seed()) instead"
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
    """The objects that ``holder`` refers to and that may be or contain a pipeline."""
    if isinstance(holder, (str, bytes, int, float, np.ndarray, torch.Tensor, type, ModuleType)) or holder is None:
        return []
    if isinstance(holder, (list, tuple, dict)):
        values = list(holder.values()) if isinstance(holder, dict) else list(holder)
        return values if len(values) <= _LONGEST_CONTAINER else []
    if isinstance(holder, functools.partial):
        return [holder.func, *holder.args, *holder.keywords.values()]
    cells = [cell.cell_contents for cell in getattr(holder, "__closure__", None) or ()]
    return [getattr(holder, "__self__", None), *cells, *getattr(holder, "__dict__", {}).values()]


def _hw(params: Params) -> tuple[int, int]:
    return int(params["shape"][0]), int(params["shape"][1])


def _channels(params: Params) -> int:
    return int(params["shape"][2]) if len(params["shape"]) > 2 else 1


def _stretch(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The Jacobian ``(N, 2, 2)`` of the map ``matrix`` ``(3, 3)`` at each of ``points`` ``(N, 2)``."""
    moved = np.concatenate([points, np.ones((len(points), 1))], 1) @ matrix.T
    depth = moved[:, 2, None, None]
    return (matrix[:2, :2] - moved[:, :2, None] / depth * matrix[2, :2]) / depth


def _shrinks_nothing(matrix: np.ndarray) -> bool:
    """Whether an affine map spans at most one pixel of the input, along any direction, by a pixel of the output."""
    (a, b), (c, d) = matrix[:2, :2].tolist()
    most = (math.hypot(a + d, b - c) + math.hypot(a - d, b + c)) / 2  # the larger singular value
    # A unit scale can come out of float32 a digit short; a shrink of 1e-4 moves no tap.
    return matrix[2].tolist() == [0, 0, 1] and most <= abs(a * d - b * c) * (1 + 1e-4)


def _batch_of_one(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.asarray(values, np.float32))[None]
