"""Photographs of mixed sizes to one batch: the contenders of that row of `benchmarks/augment.py`.

Decoded uint8 images become one normalized float batch of 224 pixels by a random resized crop and a flip. Without a
folder of parquet files the photographs are smooth noise of the sizes that ImageNet has most; values do not matter to
the time. Every contender gets the images in the layout that it takes: flat CHW for augkit, CHW tensors for torchvision,
HWC arrays for albumentations and DALI. On a GPU the images lie there already, and a second row turns them too.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from peers import AREA, DEGREES, MEAN, RATIO, STD, Run, UnavailableError, degrees
from torch import Tensor

import augkit
from augkit.augment import geometry
from augkit.augment.backends import native
from augkit.augment.resample import Finish
from augkit.augment.resample_each import Way, resample_each

COUNT, OUT, FRAME = 64, 224, (375, 500)
SIZES = [(375, 500), (333, 500), (500, 375), (400, 500), (500, 333), (360, 480)]


@dataclass(frozen=True)
class Photographs:
    """Decoded images ``(3, H, W)``, uint8, and whether they are to be turned as well."""

    images: Sequence[Tensor]
    turn: bool = False

    def to(self, device: str, *, turn: bool) -> Photographs:
        return replace(self, images=[image.to(device) for image in self.images], turn=turn)

    @property
    def flat(self) -> tuple[Tensor, Tensor, Tensor]:
        """All values one after the other, where each image begins, and sizes ``(B, 2)``."""
        lengths = torch.tensor([image.numel() for image in self.images])
        sizes = torch.tensor([image.shape[-2:] for image in self.images])
        return torch.cat([image.reshape(-1) for image in self.images]), lengths.cumsum(0) - lengths, sizes

    @property
    def arrays(self) -> list[np.ndarray]:
        return [np.ascontiguousarray(image.permute(1, 2, 0).numpy()) for image in self.images]


def load(folder: Path | None, count: int = COUNT) -> Photographs:
    """The first images of the parquet files in ``folder``, or smooth noise."""
    if folder is None:
        return Photographs([_smooth(SIZES[k % len(SIZES)]) for k in range(count)])
    from pyarrow import parquet
    from torchvision.io import ImageReadMode, decode_image

    images: list[Tensor] = []
    for path in sorted(folder.glob("*.parquet")):
        for batch in parquet.ParquetFile(path).iter_batches(count, columns=["image"]):
            for row in batch.to_pylist():
                data = io.BytesIO(row["image"]["bytes"]).getbuffer()
                images.append(decode_image(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.RGB))
                if len(images) == count:
                    return Photographs(images)
    raise SystemExit(f"{folder}: expected {count} images in parquet files, got {len(images)}")


def _smooth(size: tuple[int, int]) -> Tensor:
    coarse = torch.rand(1, 3, size[0] // 8, size[1] // 8)
    return (F.interpolate(coarse, size, mode="bicubic").clamp(0, 1)[0] * 255).to(torch.uint8)


def ours(photographs: Photographs) -> Run:
    """The matrices are drawn for one frame, onto which each image is stretched by its own matrix."""
    values, offsets, sizes = photographs.flat
    crop = augkit.RandomSubpixelCrop(size=(OUT, OUT), area=AREA, ratio=RATIO)
    augment = augkit.Augment(crop, augkit.RandomHorizontalFlip(), kernel="bilinear")
    scale_y, scale_x = (torch.tensor([n]) / sizes[:, k] for k, n in enumerate(FRAME))
    fitted = geometry.axis_aligned(scale_x, scale_x / 2 - 0.5, scale_y, scale_y / 2 - 0.5)
    gain, bias = 1 / (255 * torch.tensor(STD)), -torch.tensor(MEAN) / torch.tensor(STD)

    def run() -> Tensor:
        matrix = geometry.compose(fitted, augment.sample(len(sizes), FRAME))
        how = (3, matrix, (OUT, OUT), "bilinear", "zeros", 4.0)
        return native.resample_ragged(values, offsets, sizes, *how, dtype=torch.float32, gain=gain, bias=bias)

    return run


def ours_on_device(photographs: Photographs, *, one_by_one: bool = False) -> Run:
    """As `ours`, where the images are; ``one_by_one`` without the kernel for images of different sizes."""
    batch = augkit.Ragged.from_list(photographs.images)
    device, turn, size = batch.device, photographs.turn, (OUT, OUT)
    crop = augkit.RandomSubpixelCrop(size=size, area=AREA, ratio=RATIO)
    augment = augkit.Augment(crop, augkit.RandomHorizontalFlip(), kernel="bilinear").to(device)
    scale_y, scale_x = (torch.tensor([n], device=device) / batch.sizes[:, k].to(device) for k, n in enumerate(FRAME))
    fitted = geometry.axis_aligned(scale_x, scale_x / 2 - 0.5, scale_y, scale_y / 2 - 0.5)
    finish = Finish(torch.float32, *(torch.tensor(values, device=device) for values in (MEAN, STD)))
    way = Way(size, "bilinear", "zeros", [4.0] * len(batch), finish)
    images = list(batch) if one_by_one else batch

    def run() -> Tensor:
        moved = augment.sample(len(batch), FRAME, device=device)
        turned = [geometry.rotate(degrees(len(batch), device), FRAME)] if turn else []
        matrix = geometry.compose(fitted, *turned, moved)
        return resample_each(images, matrix, None, way, axis_aligned=not turn, affine=True)

    return run


def ours_one_by_one(photographs: Photographs) -> Run:
    return ours_on_device(photographs, one_by_one=True)


def torchvision(photographs: Photographs) -> Run:
    from torchvision.transforms import v2

    crop = v2.RandomResizedCrop((OUT, OUT), AREA, RATIO, antialias=True)
    steps = [crop, v2.RandomHorizontalFlip(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    turn = [v2.RandomRotation(DEGREES, v2.InterpolationMode.BILINEAR)] if photographs.turn else []
    augment = v2.Compose([*turn, *steps])
    return lambda: torch.stack([augment(image) for image in photographs.images])


def albumentations(photographs: Photographs) -> Run:
    import albumentations as A
    import cv2

    cv2.setNumThreads(torch.get_num_threads())
    crop = A.RandomResizedCrop((OUT, OUT), scale=AREA, ratio=RATIO, p=1.0)
    augment, arrays = A.Compose([crop, A.HorizontalFlip(p=0.5), A.Normalize(MEAN, STD)]), photographs.arrays
    images = lambda: np.stack([augment(image=array)["image"] for array in arrays])  # noqa: E731
    return lambda: torch.from_numpy(images()).movedim(-1, 1).contiguous()


def dali(photographs: Photographs) -> Run:
    try:
        from nvidia.dali import fn, pipeline_def, types
    except ImportError as error:
        raise UnavailableError(f"not installed: {error}") from None
    arrays, threads = photographs.arrays, torch.get_num_threads()
    mean, std = ([255 * v for v in values] for values in (MEAN, STD))

    @pipeline_def(batch_size=len(arrays), num_threads=threads, device_id=None, prefetch_queue_depth=1)
    def build() -> Any:
        images = fn.external_source(source=lambda: arrays, layout="HWC", no_copy=True)
        out = fn.random_resized_crop(
            images, size=(OUT, OUT), random_area=AREA, random_aspect_ratio=RATIO, interp_type=types.INTERP_LINEAR
        )
        how = {"mean": mean, "std": std, "dtype": types.FLOAT, "output_layout": "CHW"}
        return fn.crop_mirror_normalize(out, mirror=fn.random.coin_flip(), **how)

    pipeline = build()
    pipeline.build()
    return lambda: torch.from_numpy(pipeline.run()[0].as_array())


CONTENDERS: dict[str, Callable[[Photographs], Run]] = {
    "augkit": ours,
    "torchvision per image": torchvision,
    "albumentations per image": albumentations,
    "NVIDIA DALI": dali,
}
ON_DEVICE: dict[str, Callable[[Photographs], Run]] = {
    "augkit": ours_on_device,
    "augkit image by image": ours_one_by_one,
    "torchvision per image": torchvision,
}
