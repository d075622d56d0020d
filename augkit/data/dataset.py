"""A dataset: train and validation images as attributes, the test split behind a call."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from augkit.core.class_names import class_mask
from augkit.core.errors import InputError
from augkit.data.decode import RESIZE
from augkit.data.images import Images
from augkit.data.splits import SHARES, limited, partition, sample
from augkit.data.stream import Reading, Stream
from augkit.data.whole import WholeImages, whole_images

NAMED = 3  # files left out that a note names


@dataclass(frozen=True)
class Found:
    """The images of a dataset by split: ``train``, ``validation``, ``test``, or only ``all``.

    ``left_out`` maps the names of omitted files to reasons.
    """

    name: str
    classes: list[str]
    splits: Mapping[str, Images]
    shares: Mapping[str, float] | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)


class Dataset:
    """Train and validation images, and the test split behind a call, so that its use is visible in the code.

    Splits are decoded when they are first used. A split of at most ``Reading.memory`` bytes is then kept in memory, a
    larger one is a `Stream`. If all splits together are that small, all are decoded at the first use of ``train``, so
    that a broken file is an error before any training.

    Attributes:
        name: name of the dataset, as given.
        classes: names of the classes, in the order of the labels.
        skipped: omitted files, name to reason: files that are not images, and broken files of the splits used so far.
        cut: whether the test split is a share of the files, because they bring none.
    """

    def __init__(
        self,
        found: Found,
        classes: list[str],
        *,
        reading: Reading,
        limit: int | None = None,
        mapping: Tensor | None = None,
        only: Sequence[int | str] | None = None,
        background: float | str = 0.0,
    ) -> None:
        self.name, self.classes = found.name, classes
        self.skipped: dict[str, str] = dict(found.left_out)
        self._reading = reading
        parts = partition(_alike(found, reading.channels), found.shares or SHARES)
        if mapping is not None:
            parts = {name: part.relabeled(mapping) for name, part in parts.items()}
        self.cut = (
            set(found.splits) <= {"all", "train"} and isinstance(parts["test"], Stream) and len(parts["train"]) > 0
        )
        mask = class_mask(only, classes, "data.classes")
        if mask is not None:
            parts |= {name: _of_classes(parts[name], mask) for name in ("train", "validation")}
        parts["train"] = limited(parts["train"], limit)
        if background:
            parts = {name: replace(part, background=background) for name, part in parts.items()}
        self._parts = parts
        self._opened: dict[str, Images] = {}
        self._whole: tuple[int, WholeImages] | None = None  # the last of `whole_train`, and its shorter side

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of the images of `train` and the other splits, known before any is decoded."""
        return self._parts["train"].shape

    @property
    def fitted(self) -> bool:
        """Whether the images have several sizes and were fitted to ``Reading.mixed_size``."""
        parts = self._parts.values()
        return self._reading.image_size is None and any(isinstance(p, Stream) and p.form.fit for p in parts)

    @property
    def train(self) -> Images:
        """The training split."""
        self._open_small(self._parts)
        return self._part("train")

    @property
    def listed_train(self) -> Images:
        """The training split for its number of images, its labels and a few pictures.

        It is `train`, but after `whole_train` a `Stream` of the same images, as all have been decoded once.
        """
        if self._whole is None or "train" in self._opened:
            return self.train
        return self._whole[1].squares

    def whole_train(self, shorter: int) -> WholeImages | None:
        """Return the training images uncropped, with a shorter side of at most ``Reading.decode_size`` pixels.

        Without a ``decode_size`` it is at most ``shorter``.

        None where images are not encoded files, or without an ``image_size``, as `train` then has whole images. Images
        that fit into memory are decoded once, with the other splits as for `train`, and kept until another side is
        asked for.
        """
        part, shorter = self._parts["train"], self._reading.decode_size or shorter
        if not isinstance(part, Stream) or not part.form.fit or not len(part):
            return None
        if self._whole is None or self._whole[0] != shorter:
            self._whole = None  # its memory is needed for the next
            self._whole = shorter, self._read_whole(part, shorter)
        return self._whole[1]

    def _read_whole(self, part: Stream, shorter: int) -> WholeImages:
        memory, skipped = self._reading.memory, self._skipped
        whole = whole_images(part, shorter, memory, skipped)
        if whole.held is not None:
            self._open_small([name for name in self._parts if name != "train"])
            return whole
        train = self.train  # names broken files before any training
        if isinstance(train, Stream):
            return whole_images(train, shorter, memory)
        names = map(part.source.name, part.indices.tolist())
        kept = [k for k, name in enumerate(names) if skipped is None or name not in skipped]
        return whole_images(part.take(torch.tensor(kept)), shorter, memory)

    @property
    def validation(self) -> Images:
        """The validation split, for choices."""
        return self._part("validation")

    @property
    def notes(self) -> list[str]:
        """Return a list of one line about the omitted files, or an empty list."""
        if not self.skipped:
            return []
        listed = "; ".join(f"{name} ({reason})" for name, reason in itertools.islice(self.skipped.items(), NAMED))
        more = f"; and {len(self.skipped) - NAMED:,} more" if len(self.skipped) > NAMED else ""
        return [f"left out {len(self.skipped):,} of the files: {listed}{more}"]

    def open_test(self, limit: int | None = None, *, seed: int = 0) -> Images:
        """Return the test split, or a stratified sample of ``limit`` images drawn by ``seed``.

        Only `measure`, `compare` and the last step of `tune` call this. A sample of a large split is kept in memory if
        it fits.
        """
        if limit is None or "test" in self._opened:
            test = self._part("test")
            return test if limit is None else self._open(sample(test, limit, seed=seed))
        return self._open(sample(self._parts["test"], limit, seed=seed))

    def open_all(self, limit: int | None = None, *, seed: int = 0) -> Images:
        """Return the images of all splits, or a sample as in `open_test`: for networks that were trained on none.

        Raises:
            InputError: the splits are folders or files of their own, and too large for the memory.
        """
        parts = list(self._parts.values())
        first = parts[0]
        if isinstance(first, Stream) and all(isinstance(p, Stream) and p.source is first.source for p in parts):
            joined: Images = first.beside([p for p in parts[1:] if isinstance(p, Stream)])
            return self._open(joined if limit is None else sample(joined, limit, seed=seed))
        joined = in_memory([self._part(name) for name in self._parts], self.name)
        return joined if limit is None else sample(joined, limit, seed=seed)

    def _part(self, name: str) -> Images:
        if name not in self._opened:
            self._opened[name] = self._open(self._parts[name])
        return self._opened[name]

    def _open(self, images: Images) -> Images:
        """Load a split that fits into memory, without broken files if the settings allow it."""
        if not isinstance(images, Stream):
            return images
        skipped = self._skipped
        small = images.images.nbytes <= self._reading.memory
        opened = images.load(skipped) if small else images if skipped is None else images.readable(skipped)
        if len(opened) == 0 < len(images):
            raise InputError(f"dataset '{self.name}': expected images, none of {len(images)} of a split can be read")
        return opened

    def _open_small(self, names: Iterable[str]) -> None:
        """Decode the splits ``names`` if all splits together fit into memory."""
        if sum(part.images.nbytes for part in self._parts.values()) <= self._reading.memory:
            for name in names:
                self._part(name)

    @property
    def _skipped(self) -> dict[str, str] | None:
        """Where broken files are listed; None where they are errors."""
        return self.skipped if self._reading.skip_corrupt else None


def in_memory(parts: Sequence[Images], name: str) -> Images:
    """Return the images of several splits as one.

    Raises:
        InputError: one of them is streamed; the message begins with the ``name`` of the dataset.
    """
    parts = [part for part in parts if len(part)]
    if any(isinstance(part, Stream) for part in parts):
        raise InputError(f"dataset '{name}': its splits together do not fit into memory; take one split")
    labels = [part.labels for part in parts if part.labels is not None]
    joined = torch.cat([part.images for part in parts])
    return replace(parts[0], images=joined, labels=torch.cat(labels) if len(labels) == len(parts) else None)


def _of_classes(images: Images, mask: Tensor) -> Images:
    """Return the images whose class is in ``mask`` ``(K,)``.

    Raises:
        InputError: the images have no labels.
    """
    if images.labels is None:
        raise InputError("data.classes: expected images with labels, these have none")
    return images.take(mask[images.labels].nonzero()[:, 0])


def _alike(found: Found, channels: int | None) -> dict[str, Images]:
    """Return the splits with the same number of channels.

    Raises:
        InputError: the splits have images of different sizes.
    """
    if channels not in (None, 1, 3):
        raise InputError(f"channels: expected 1 or 3, got {channels}")
    common = channels or max(part.shape[0] for part in found.splits.values())
    sizes = {name: part.shape[1:] for name, part in found.splits.items()}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name} {width} x {height}" for name, (height, width) in sizes.items())
        raise InputError(f"dataset '{found.name}': expected one size, got {listed} pixels; {RESIZE}")
    return {name: part.with_channels(common) for name, part in found.splits.items()}
