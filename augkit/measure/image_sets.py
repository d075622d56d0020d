"""The image sets of a measurement: those of the dataset first, then others."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from augkit.augment.fit import decode_size_problem
from augkit.core.errors import InputError
from augkit.data import Images, atypical_versions, load_dataset, sample
from augkit.data import batches as decoded
from augkit.invariance import Plan
from augkit.measure.settings import MeasureSettings
from augkit.measure.views import size_of_mixed_images
from augkit.train.load_model import LoadedModel


@dataclass(frozen=True)
class ImageSet:
    """Images in memory or streamed, with the class names of their labels.

    ``notes`` are sentences about their preparation, such as omitted broken files.
    """

    images: Images
    classes: list[str]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def batches(self, size: int) -> Iterator[tuple[Tensor, Tensor | None]]:
        """Yield pixels ``(B, C, H, W)`` uint8 with labels ``(B,)`` or None."""
        labels = self.images.labels
        start = 0
        for pixels in decoded(self.images, size):
            yield pixels, None if labels is None else labels[start : start + len(pixels)]
            start += len(pixels)

    def pixels(self, indices: list[int]) -> Tensor:
        """Return the images at ``indices``, decoded: ``(len(indices), C, H, W)`` uint8."""
        return torch.cat(list(decoded(self.images.take(torch.tensor(indices)), max(1, len(indices)))))


def load_image_sets(
    settings: MeasureSettings, data: str | None, loaded: LoadedModel, protocol: str
) -> dict[str, ImageSet]:
    """Load images by name: those of ``data`` (the run's own dataset when None), then those of ``settings.ood``.

    Raises:
        InputError: no dataset is given, one is given twice, or one cannot be loaded.
    """
    own = loaded.recipe.data if loaded.recipe is not None else None
    if data is None and own is None:
        raise InputError("--data: expected a dataset, such as --data mnist5k or --data folder:DIR")
    names = [data or (own.name if own is not None else ""), *settings.ood]
    if len(set(names)) != len(names):
        raise InputError("--ood: expected other images than those of --data, each once")
    return {name: _load(settings, loaded, protocol, name) for name in names}


def load_gallery(settings: MeasureSettings, loaded: LoadedModel, protocol: str) -> ImageSet | None:
    """Load the images among whose embeddings neighbors are looked for; None where no gallery is set."""
    return None if settings.gallery is None else _load(settings, loaded, protocol, settings.gallery)


def _load(settings: MeasureSettings, loaded: LoadedModel, protocol: str, name: str) -> ImageSet:
    own = loaded.recipe.data if loaded.recipe is not None else None
    own_size = own.image_size if own else None
    # An input that is given beside a run needs room for the displacements, as beside other networks.
    room = size_of_mixed_images(settings, loaded, protocol) if settings.input_size and protocol == "crop" else None
    enlarged = max(own_size, room or 0) if own_size else None
    # The run's decode_size may be too small for another size.
    refit = settings.image_size or settings.crop_share or enlarged != own_size
    size, share = settings.image_size or enlarged, settings.crop_share or (own.crop_share if own else 1.0)
    problem = decode_size_problem(settings.decode_size, size, share)
    if problem:
        raise InputError(f"--decode-size: expected {'--image-size with it, got none' if size is None else problem}")
    dataset = load_dataset(
        name,
        root=settings.root or (own.root if own is not None and name == own.name else None),
        image_size=size,
        crop_share=share,
        decode_size=settings.decode_size or (own.decode_size if own and not refit else None),
        labels_file=settings.labels if name not in settings.ood else None,
        skip_corrupt=settings.skip_corrupt,
        channels=own.channels if own else None,
        max_megapixels=settings.max_megapixels or (own.max_megapixels if own else None),
        mixed_size=None if own is not None else size_of_mixed_images(settings, loaded, protocol),
    )
    limit, seed = settings.limit, settings.seed
    if settings.split == "validation":
        images = dataset.validation if limit is None else sample(dataset.validation, limit, seed=seed)
    else:
        images = (dataset.open_all if settings.split == "all" else dataset.open_test)(limit, seed=seed)
    if not len(images):
        raise InputError(
            f"--split {settings.split}: expected images, '{name}' has none there; --split all has every image"
        )
    notes = list(dataset.notes)
    if loaded.recipe is None and settings.split == "test" and dataset.cut:
        notes.append("the test split, a part of the images; --split all for a network that was trained on none of them")
    if dataset.fitted:
        side = images.shape[-1]
        notes.append(f"images of several sizes: resized to a shorter side of {side} px, the center is seen")
    if enlarged != own_size and not settings.image_size:
        notes.append(f"images of {enlarged} px instead of the run's {own_size}, so that its input can be shifted")
    if own is not None and own.canvas is not None and protocol != "embed":
        images = images.put_on_canvas(own.canvas)
    return ImageSet(images, dataset.classes, tuple(notes))


def atypical_sets(typical: ImageSet, plan: Plan, seed: int) -> dict[str, ImageSet]:
    """Return atypical versions of the images, with placement beyond the plan's range if the canvas allows."""
    notes: tuple[str, ...] = ()
    try:
        reach = plan.max_shift or None
        versions = atypical_versions(typical.images, seed=seed, max_shift=reach, max_factor=max(1.0, plan.factors[1]))
    except InputError as error:
        versions, notes = atypical_versions(typical.images, seed=seed), (f"no placement out of range: {error}",)
    return {name: ImageSet(images, typical.classes, notes) for name, images in versions.items()}
