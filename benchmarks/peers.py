"""The contenders of `benchmarks/augment.py`: each a function from a batch to an augmented batch, at its best.

All draw their own parameters, one set per sample, inside the timed call. A peer that cannot run raises
`UnavailableError` with the reason, which stands in the results.

Shift: up to 4 px along each axis. Pipeline: the shift, rescale by up to 1.25, crop of 35 to 100 % of the area, flip.
uint8 input leaves as float32, normalized; float32 input leaves as it is. Where a library has one op for two of the
steps (`RandomAffine` moves and scales), that op is used. Rotation: up to 15 degrees, the shift and the crop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import augkit
from augkit.augment import backends, geometry
from augkit.augment.resample import resample_checked

PIXELS, FACTOR, AREA, RATIO, DEGREES = 4.0, 1.25, (0.35, 1.0), (3 / 4, 4 / 3), 15.0
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Run = Callable[[], Any]


class UnavailableError(Exception):
    """A peer that cannot run here, and why."""


@dataclass(frozen=True)
class Case:
    """What is to be done: ``task`` is ``shift``, ``pipeline`` or ``rotation``; ``images`` is the batch."""

    task: str
    images: Tensor

    @property
    def size(self) -> tuple[int, int]:
        return self.images.shape[-2], self.images.shape[-1]

    @property
    def integer(self) -> bool:
        return self.images.dtype == torch.uint8

    def floats(self) -> Tensor:
        return self.images.float() / 255 if self.integer else self.images


def augment_of(case: Case, kernel: str = "bilinear", antialias: bool = False) -> augkit.Augment:
    ops: list[Any] = [augkit.RandomSubpixelShift(PIXELS)]
    if case.task == "pipeline":
        ops += [augkit.RandomRescale(FACTOR), augkit.RandomSubpixelCrop(area=AREA, ratio=RATIO)]
        ops += [augkit.RandomHorizontalFlip()]
    normalize = (MEAN, STD) if case.integer else None
    return augkit.Augment(*ops, kernel=kernel, antialias=antialias, normalize=normalize).to(case.images.device)


def ours(case: Case) -> Run:
    if case.task == "rotation":
        how = (case.size, "bilinear", "zeros", 1.0)
        return lambda: resample_checked(case.images, turned(case), *how, affine=True)
    augment = augment_of(case)
    return lambda: augment(case.images)


def turned(case: Case) -> Tensor:
    """Matrices of a rotation, a shift and a crop, one for each image."""
    crop = augkit.RandomSubpixelCrop(area=AREA, ratio=RATIO)
    device = case.images.device
    moved = augkit.Augment(augkit.RandomSubpixelShift(PIXELS), crop).sample(len(case.images), case.size, device=device)
    return geometry.compose(geometry.rotate(degrees(len(moved), device), case.size), moved)


def degrees(count: int, device: torch.device) -> Tensor:
    return (2 * torch.rand(count, device=device) - 1) * DEGREES


def ours_lanczos(case: Case) -> Run:
    augment = augment_of(case, "lanczos3", antialias=True)
    return lambda: augment(case.images)


def ours_without_extras(case: Case) -> Run:
    augment = augment_of(case)

    def run() -> Tensor:
        installed, backends.installed = backends.installed, lambda _: False  # type: ignore[assignment]
        try:
            return augment(case.images)
        finally:
            backends.installed = installed

    return run


def grid_sample(case: Case) -> Run:
    augment = augment_of(case)
    height, width = case.size
    norm = torch.tensor([[2 / (width - 1), 0, -1], [0, 2 / (height - 1), -1], [0, 0, 1]], device=case.images.device)
    back, (mean, std) = torch.linalg.inv(norm), statistics(case)

    def run() -> Tensor:
        if case.task == "rotation":
            return sampled(case.images, turned(case), norm, back)
        matrix = augment.sample(len(case.images), case.size, device=case.images.device)
        return normalized(sampled(case.floats(), matrix, norm, back), case, mean, std)

    return run


def sampled(images: Tensor, matrix: Tensor, norm: Tensor, back: Tensor) -> Tensor:
    theta = (norm @ torch.linalg.inv(matrix) @ back)[:, :2]
    grid = F.affine_grid(theta, list(images.shape), align_corners=True)
    return F.grid_sample(images, grid, mode="bilinear", align_corners=True)


def statistics(case: Case) -> tuple[Tensor, Tensor]:
    device = case.images.device
    return torch.tensor(MEAN, device=device)[:, None, None], torch.tensor(STD, device=device)[:, None, None]


def normalized(out: Tensor, case: Case, mean: Tensor, std: Tensor) -> Tensor:
    return (out - mean) / std if case.integer else out


def _kornia_ops(case: Case) -> list[Any]:
    import kornia.augmentation as K

    height, width = case.size
    translate = (PIXELS / width, PIXELS / height)
    if case.task == "shift":
        return [K.RandomAffine(0.0, translate=translate, p=1.0)]
    crop = K.RandomResizedCrop(case.size, scale=AREA, ratio=RATIO, p=1.0, cropping_mode="resample")
    if case.task == "rotation":
        return [K.RandomAffine(DEGREES, translate=translate, p=1.0), crop]
    moved = K.RandomAffine(0.0, translate=translate, scale=(1 / FACTOR, FACTOR), p=1.0)
    return [moved, K.RandomHorizontalFlip(p=0.5), crop]


def kornia_eager(case: Case) -> Run:
    import kornia.augmentation as K

    finish = [K.Normalize(torch.tensor(MEAN), torch.tensor(STD))] if case.integer else []
    augment = K.AugmentationSequential(*_kornia_ops(case), *finish, data_keys=["input"]).to(case.images.device)
    return lambda: augment(case.floats())


def kornia_compiled(case: Case) -> Run:
    import torch._dynamo
    from torch import nn

    augment = nn.Sequential(*_kornia_ops(case)).to(case.images.device)
    torch._dynamo.reset()
    compiled, (mean, std) = torch.compile(augment, dynamic=False), statistics(case)
    try:
        compiled(case.floats())
    except Exception as error:  # whatever the compiler raises is the reason
        raise UnavailableError(f"torch.compile: {type(error).__name__}: {str(error).splitlines()[0][:120]}") from None
    return lambda: normalized(compiled(case.floats()), case, mean, std)


def _torchvision_ops(case: Case) -> Any:
    from torchvision.transforms import InterpolationMode, v2

    bilinear = InterpolationMode.BILINEAR
    translate = (PIXELS / case.size[1], PIXELS / case.size[0])
    if case.task == "shift":
        ops: list[Any] = [v2.RandomAffine(0, translate=translate, interpolation=bilinear)]
    else:
        ops = [
            v2.RandomAffine(0, translate=translate, scale=(1 / FACTOR, FACTOR), interpolation=bilinear),
            v2.RandomResizedCrop(case.size, AREA, RATIO, interpolation=bilinear, antialias=False),
            v2.RandomHorizontalFlip(),
        ]
    finish = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)] if case.integer else []
    return v2.Compose(ops + finish)


def torchvision_per_sample(case: Case) -> Run:
    augment = _torchvision_ops(case)
    return lambda: torch.stack([augment(image) for image in case.images])


def torchvision_per_batch(case: Case) -> Run:
    augment = _torchvision_ops(case)
    return lambda: augment(case.images)


def _albumentations(case: Case) -> Callable[[], list[Any]]:
    import albumentations as A
    import cv2

    if case.images.is_cuda:
        raise UnavailableError("runs on the CPU only")
    cv2.setNumThreads(torch.get_num_threads())
    pixels = {"x": (-PIXELS, PIXELS), "y": (-PIXELS, PIXELS)}
    ops: list[Any] = [A.Affine(translate_px={k: (-4, 4) for k in pixels}, p=1.0)]
    if case.task == "pipeline":
        ops = [
            A.Affine(translate_px={k: (-4, 4) for k in pixels}, scale=(1 / FACTOR, FACTOR), p=1.0),
            A.RandomResizedCrop(case.size, scale=AREA, ratio=RATIO, p=1.0),
            A.HorizontalFlip(p=0.5),
        ]
    augment = A.Compose(ops + ([A.Normalize(MEAN, STD)] if case.integer else []))
    arrays = [np.ascontiguousarray(image) for image in case.images.movedim(1, -1).numpy()]
    return lambda: [augment(image=image)["image"] for image in arrays]


def albumentations_raw(case: Case) -> Run:
    return _albumentations(case)


def albumentations_to_batch(case: Case) -> Run:
    augment = _albumentations(case)
    return lambda: torch.from_numpy(np.stack(augment())).movedim(-1, 1).contiguous()


def fuse_augmentations(case: Case) -> Run:
    try:
        import fuse_augmentations as fuse
    except ImportError:
        raise UnavailableError("not installed: pip install --pre fuse-augmentations") from None
    augment, (mean, std) = fuse.Compose(_kornia_ops(case)).to(case.images.device), statistics(case)
    return lambda: normalized(augment(case.floats()), case, mean, std)


def dali(case: Case) -> Run:
    """``warp_affine``, bilinear; matrices drawn by augkit, because DALI takes them as an input all the same."""
    try:
        from nvidia.dali import fn, pipeline_def, types
    except ImportError as error:
        raise UnavailableError(f"not installed: {error}") from None
    if case.images.is_cuda:
        raise UnavailableError("its device pipeline was not wired up here; measured on the CPU only")
    augment, arrays = augment_of(case), case.images.movedim(1, -1).contiguous().numpy()

    def matrices() -> np.ndarray:
        matrix = augment.sample(len(arrays), case.size)
        center = torch.eye(3).repeat(len(arrays), 1, 1)
        center[:, :2, 2] = 0.5  # DALI counts from the corner of the first pixel
        moved = center @ torch.linalg.inv(matrix) @ torch.linalg.inv(center)
        return moved[:, :2].contiguous().numpy()

    @pipeline_def(batch_size=len(arrays), num_threads=torch.get_num_threads(), device_id=None, prefetch_queue_depth=1)
    def build() -> Any:
        images = fn.external_source(source=lambda: arrays, layout="HWC", no_copy=True)
        out = fn.warp_affine(
            images, matrix=fn.external_source(source=matrices), interp_type=types.INTERP_LINEAR, fill_value=0
        )
        if not case.integer:
            return fn.transpose(out, perm=[2, 0, 1])
        mean, std = ([255 * v for v in values] for values in (MEAN, STD))
        return fn.crop_mirror_normalize(out, mean=mean, std=std, dtype=types.FLOAT, output_layout="CHW")

    pipeline = build()
    pipeline.build()
    return lambda: torch.from_numpy(pipeline.run()[0].as_array())


POLICIES = ("RandAugment", "TrivialAugment", "AugMix")  # tasks, with the settings of their papers


def policy(case: Case) -> Run:
    augment = augkit.Augment(getattr(augkit, case.task)(), kernel="bilinear", antialias=False)
    return lambda: augment(case.images)


def torchvision_policy(case: Case) -> Run:
    from torchvision.transforms import InterpolationMode, v2

    name = {"TrivialAugment": "TrivialAugmentWide"}.get(case.task, case.task)
    augment = getattr(v2, name)(interpolation=InterpolationMode.BILINEAR)
    return lambda: torch.stack([augment(image) for image in case.images])


def copy(case: Case) -> Run:
    return (lambda: case.images.to(torch.float32)) if case.integer else case.images.clone


POLICY_CONTENDERS: dict[str, Callable[[Case], Run]] = {
    "augkit": policy,
    "torchvision per sample": torchvision_policy,
    "copy": copy,
}
CONTENDERS: dict[str, Callable[[Case], Run]] = {
    "augkit": ours,
    "augkit lanczos3 antialias": ours_lanczos,
    "augkit without numba and triton": ours_without_extras,
    "grid_sample": grid_sample,
    "kornia": kornia_eager,
    "kornia compiled": kornia_compiled,
    "torchvision per sample": torchvision_per_sample,
    "albumentations": albumentations_raw,
    "albumentations to a float batch": albumentations_to_batch,
    "fuse-augmentations": fuse_augmentations,
    "NVIDIA DALI": dali,
    "copy": copy,
    "torchvision, one draw per batch (another task)": torchvision_per_batch,
}
