"""A dataset: train and validation at hand, the test split behind a call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from torch import Tensor

from augkit.data.images import SLICE, Images
from augkit.data.splits import SHARES, limited, partition, sample
from augkit.data.stream import Reading, Stream
from augkit.errors import InputError


@dataclass(frozen=True)
class Found:
    """What a form of DATA found: the images by split (``train``, ``validation``, ``test``, or ``all`` alone)."""

    name: str
    classes: list[str]
    splits: Mapping[str, Images]
    shares: Mapping[str, float] | None = None


class Dataset:
    """Train and validation images at hand; the test split behind a call, so that opening it is visible.

    A dataset whose splits take at most ``Reading.memory`` bytes decoded is decoded at once, and a broken file of
    any split is an error at once. The splits of a larger one are `Stream`, opened when they are first used.

    Attributes:
        name: as it was asked for.
        classes: names of the classes, in the order of the labels.
        skipped: the broken files left out of the splits used so far, name to reason.
    """

    def __init__(
        self,
        found: Found,
        classes: list[str],
        *,
        reading: Reading,
        limit: int | None = None,
        mapping: Tensor | None = None,
    ) -> None:
        self.name, self.classes = found.name, classes
        self.skipped: dict[str, str] = {}
        self._reading = reading
        splits = _alike(found, reading.channels)
        parts = partition(splits, found.shares or SHARES)
        parts["train"] = limited(parts["train"], limit)
        whole = splits.get("all", parts["test"])
        if mapping is not None:
            parts = {name: part.relabelled(mapping) for name, part in parts.items()}
            whole = whole.relabelled(mapping)
        if sum(part.images.nbytes for part in parts.values() if isinstance(part, Stream)) <= reading.memory:
            parts = self._decoded(parts)
            if isinstance(whole, Stream):
                whole = whole.with_channels(parts["test"].shape[0])
        self._parts, self._whole = parts, whole

    @cached_property
    def train(self) -> Images:
        """What training may see."""
        return self._opened(self._parts["train"])

    @cached_property
    def validation(self) -> Images:
        """What choices may be made by."""
        return self._opened(self._parts["validation"])

    def open_test(self, limit: int | None = None, *, seed: int = 0) -> Images:
        """The test split, or a stratified sample of it. `measure`, `compare` and the last step of `tune` call this."""
        return self._sampled(self._parts["test"], limit, seed)

    def open_whole(self, limit: int | None = None, *, seed: int = 0) -> Images:
        """All images where the data bring no splits of their own, else the test split; or a sample of these.

        For measuring networks that were trained on other data. It opens the test split.
        """
        return self._sampled(self._whole, limit, seed)

    def _sampled(self, images: Images, limit: int | None, seed: int) -> Images:
        return self._opened(images if limit is None else sample(images, limit, seed=seed))

    def _opened(self, images: Images) -> Images:
        """Held where it fits, with broken files left out where they may be."""
        if not isinstance(images, Stream):
            return images
        skipped = self.skipped if self._reading.skip_corrupt else None
        if images.images.nbytes <= self._reading.memory:
            return images.load(skipped)
        return images if skipped is None else images.readable(skipped)

    def _decoded(self, parts: dict[str, Images]) -> dict[str, Images]:
        """All parts in memory; of one channel where every image is grey, whatever the files say."""
        look = self._reading.channels is None
        rgb = {
            name: part.with_channels(3) if look and isinstance(part, Stream) else part for name, part in parts.items()
        }
        held = {name: self._opened(part) for name, part in rgb.items()}
        for name, part in held.items():
            if len(part) == 0 < len(parts[name]):
                raise InputError(f"dataset '{self.name}': none of the {len(parts[name])} {name} images can be read")
        if look and all(part.shape[0] == 3 and _grey(part.images) for part in held.values()):
            return {name: replace(part, images=part.images[:, :1].contiguous()) for name, part in held.items()}
        return held


def _alike(found: Found, channels: int | None) -> dict[str, Images]:
    """The splits, all with the same number of channels.

    Raises:
        InputError: they differ in size.
    """
    if channels not in (None, 1, 3):
        raise InputError(f"data.channels: expected 1 or 3, got {channels}")
    common = channels or max(part.shape[0] for part in found.splits.values())
    sizes = {name: part.shape[1:] for name, part in found.splits.items()}
    if len(set(sizes.values())) > 1:
        listed = ", ".join(f"{name} {width} x {height}" for name, (height, width) in sizes.items())
        raise InputError(
            f"dataset '{found.name}': expected one size, got {listed} pixels; set data.image_size to resize"
        )
    return {name: part.with_channels(common) for name, part in found.splits.items()}


def _grey(pixels: Tensor) -> bool:
    return all(bool((part == part[:, :1]).all()) for part in pixels.split(SLICE))
