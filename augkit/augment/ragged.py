"""`Ragged`: a batch of images of different sizes in one flat buffer, without padding.

>>> import augkit
>>> photos = [torch.zeros(3, 300, 400, dtype=torch.uint8), torch.zeros(3, 500, 375, dtype=torch.uint8)]
>>> batch = Ragged.from_list(photos)
>>> batch
Ragged(2 images of 3 channels, 300 x 400 to 500 x 375 pixels, torch.uint8, cpu)
>>> batch[1].shape, len(batch[:1])
(torch.Size([3, 500, 375]), 1)
>>> augment = augkit.Augment(augkit.RandomSubpixelCrop(), augkit.RandomHorizontalFlip(), size=(224, 224))
>>> augment(batch).shape
torch.Size([2, 3, 224, 224])
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Sequence
from typing import Any, SupportsIndex, overload

import torch
from torch import Tensor

from augkit.augment.checks import check_dense, is_float
from augkit.core.errors import InputError, InputTypeError, check_whole

Size = tuple[int, int]


class Ragged:
    """Images ``(C, H, W)`` of different sizes, uint8 or floating, in one flat buffer.

    Image b is ``values[offsets[b] : offsets[b] + C * H * W].view(C, H, W)``. Slices share the buffer. Pickling
    keeps only what the images span, and a ``DataLoader`` can pin a batch.

    Attributes:
        values: ``(n,)``, the pixels of all images, on any device.
        offsets: ``(B,)`` int64, where each image begins; on the CPU, as loops over images are started from there.
        sizes: ``(B, 2)`` int64 as (H, W); on the CPU.
        channels: C, the same for all images.

    Raises:
        InputError, InputTypeError: an image without pixels or beyond the buffer, images that overlap, a wrong shape
            or dtype; one line each. The same image may be in a batch more than once.
    """

    # Not a dataclass: Lightning and FSDP look for tensors in those, and cannot set fields of one that is frozen.
    __slots__ = ("channels", "offsets", "sizes", "values")
    values: Tensor
    offsets: Tensor
    sizes: Tensor
    channels: int

    def __init__(self, values: Tensor, offsets: Tensor, sizes: Tensor, channels: int) -> None:
        for name, value in (("values", values), ("offsets", offsets), ("sizes", sizes), ("channels", channels)):
            object.__setattr__(self, name, value)
        self._check_layout()

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"Ragged: expected no change of {name}, whose layout was checked; make another Ragged")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"Ragged: expected no change of {name}, whose layout was checked; make another Ragged")

    def _check_layout(self) -> None:
        """Check it once; compiled loops rely on it."""
        _check_values(self.values)
        for name, index, shape in (("offsets", self.offsets, "(B,)"), ("sizes", self.sizes, "(B, 2)")):
            if not isinstance(index, Tensor) or index.dtype != torch.int64:
                got = str(index.dtype) if isinstance(index, Tensor) else type(index).__name__
                raise InputTypeError(f"{name}: expected an int64 tensor {shape}, got {got}; use .long()")
            if index.device.type != "cpu":
                raise InputError(f"{name}: expected a tensor on the CPU, got one on {index.device}; use .cpu()")
        check_whole("channels", self.channels, 1)
        if self.offsets.ndim != 1 or self.sizes.shape != (len(self.offsets), 2):
            got = f"{tuple(self.offsets.shape)} and {tuple(self.sizes.shape)}"
            raise InputError(f"offsets and sizes: expected shapes (B,) and (B, 2), got {got}")
        if not len(self.offsets):
            raise InputError("Ragged: expected at least one image, got none")
        self._check_places()

    @classmethod
    def from_list(cls, images: Sequence[Tensor] | Ragged) -> Ragged:
        """A batch of ``images`` ``(C, H, W)``, copied one after the other into a buffer.

        Raises:
            InputError, InputTypeError: no image, an image without pixels, another number of channels, dtype or device
                than that of the first.
        """
        if not isinstance(images, Ragged):
            check_list(images)
        sizes = torch.tensor([tuple(image.shape[-2:]) for image in images], dtype=torch.int64)
        values = torch.cat([image.reshape(-1) for image in images])
        channels = images[0].shape[0]
        return cls(values, _packed_offsets(sizes, channels), sizes, channels)

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the pixels."""
        return self.values.dtype

    @property
    def device(self) -> torch.device:
        """The device of the pixels."""
        return self.values.device

    @property
    def nbytes(self) -> int:
        """The bytes of all images."""
        return int(self._lengths().sum()) * self.values.itemsize

    def __len__(self) -> int:
        return len(self.offsets)

    def __iter__(self) -> Iterator[Tensor]:
        for offset, (height, width) in zip(self.offsets.tolist(), self.sizes.tolist(), strict=True):
            yield self._view(offset, height, width)

    @overload
    def __getitem__(self, index: int) -> Tensor: ...

    @overload
    def __getitem__(self, index: slice | Sequence[int] | Tensor) -> Ragged: ...

    def __getitem__(self, index: Any) -> Tensor | Ragged:
        """An image ``(C, H, W)``, a view, at a number; the batch of several at a slice, or at numbers or flags."""
        if isinstance(index, Tensor) and index.ndim == 0:
            index = int(index)
        if isinstance(index, SupportsIndex) and not isinstance(index, Tensor):
            at = operator.index(index)
            if not -len(self) <= at < len(self):
                # Not an InputError: Python's loops over a sequence end with this error.
                raise IndexError(f"Ragged: expected an index below {len(self)}, got {at}")
            return self._view(int(self.offsets[at]), *self.sizes[at].tolist())
        if isinstance(index, slice):
            index = torch.tensor(range(len(self))[index], dtype=torch.int64)  # torch knows no negative steps
        else:
            try:
                index = torch.arange(len(self))[torch.as_tensor(index, device="cpu")]
            except (TypeError, ValueError, RuntimeError, IndexError) as error:
                raise InputError(
                    f"Ragged: expected indices below {len(self)}, or {len(self)} flags ({error})"
                ) from None
        return Ragged(self.values, self.offsets[index], self.sizes[index], self.channels)

    def to(self, device: torch.device | str | int, *, non_blocking: bool = False) -> Ragged:
        """The same images on ``device``; of a slice, its images alone are copied."""
        if isinstance(device, torch.dtype):
            raise InputTypeError(f"Ragged.to: expected a device, got {device}; give Augment the dtype of its output")
        if torch.empty(0, device=device).device == self.device:
            return self
        packed = self.packed()
        return packed.with_values(packed.values.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Ragged:
        """The same images in pinned memory, from which a GPU copies while the CPU goes on."""
        packed = self.packed()
        return packed.with_values(packed.values.pin_memory())

    def share_memory(self) -> Ragged:
        """The same images in memory that other processes can map."""
        packed = self.packed()
        return packed.with_values(packed.values.share_memory_())

    def packed(self) -> Ragged:
        """The same images one after the other in a buffer that holds nothing else; itself where that is so."""
        offsets = _packed_offsets(self.sizes, self.channels)
        start, total = int(self.offsets[0]), int(self._lengths().sum())
        if not torch.equal(self.offsets - start, offsets):
            return Ragged.from_list(self)
        if total == len(self.values):
            return self
        return Ragged(self.values[start : start + total], offsets, self.sizes, self.channels)

    def with_values(self, values: Tensor) -> Ragged:
        """Images of the same places and sizes with other ``values`` ``(n,)``, of any dtype and device."""
        return Ragged(values, self.offsets, self.sizes, self.channels)

    def __reduce__(self) -> tuple[Any, ...]:
        packed = self.packed()
        values = packed.values
        if values.untyped_storage().nbytes() > values.nbytes:  # of a view, torch pickles all that lies behind it
            values = values.clone()
        return Ragged, (values, packed.offsets, packed.sizes, packed.channels)

    def __repr__(self) -> str:
        areas = self.sizes.prod(dim=1)
        small, large = ("{} x {}".format(*self.sizes[int(k)].tolist()) for k in (areas.argmin(), areas.argmax()))
        count, sizes = len(self), small if small == large else f"{small} to {large}"
        plural = ("s" if count > 1 else "", "s" if self.channels > 1 else "")
        text = f"{count} image{plural[0]} of {self.channels} channel{plural[1]}, {sizes} pixels"
        return f"Ragged({text}, {self.dtype}, {self.device})"

    def _view(self, offset: int, height: int, width: int) -> Tensor:
        return self.values[offset : offset + self.channels * height * width].view(self.channels, height, width)

    def _lengths(self) -> Tensor:
        return self.sizes.prod(dim=1) * self.channels

    def _check_places(self) -> None:
        if bool((self.sizes < 1).any()):
            b = int((self.sizes < 1).any(dim=1).nonzero()[0])
            raise InputError(f"Ragged: expected at least one pixel, got image {b} of {tuple(self.sizes[b].tolist())}")
        # In float64 beforehand: the product of absurd numbers would overflow, and pass as a small image.
        lengths = self.sizes.double().prod(dim=1) * float(self.channels)
        if bool((lengths > len(self.values)).any()):
            b = int((lengths > len(self.values)).nonzero()[0])
            size = (self.channels, *self.sizes[b].tolist())
            raise InputError(f"sizes: expected images of at most {len(self.values)} values, got image {b} of {size}")
        ends = self.offsets + self._lengths()
        if bool((self.offsets < 0).any()) or int(ends.max()) > len(self.values):
            b = int(((self.offsets < 0) | (ends > len(self.values))).nonzero()[0])
            raise InputError(
                f"offsets: expected images within the {len(self.values)} values of the buffer, got image {b} at "
                f"{int(self.offsets[b])} to {int(ends[b])}"
            )
        begins, order = self.offsets.sort(stable=True)
        sizes = self.sizes[order]
        same = (begins[1:] == begins[:-1]) & (sizes[1:] == sizes[:-1]).all(dim=1)
        overlapping = (begins[1:] < ends[order][:-1]) & ~same
        if bool(overlapping.any()):
            k = int(overlapping.nonzero()[0])
            raise InputError(
                f"offsets: expected images that do not overlap, got images {int(order[k])} and {int(order[k + 1])} "
                "in the same values; give each its own"
            )


def check_list(images: Any, name: str = "images") -> None:
    """Raise unless ``images`` is a sequence of tensors ``(C, H, W)`` that differ in height and width alone."""
    if not isinstance(images, Sequence) or isinstance(images, (str, bytes)):
        raise InputTypeError(f"{name}: expected a list of tensors (C, H, W), got {type(images).__name__}")
    if not len(images):
        raise InputError(f"{name}: expected at least one image, got none")
    for k, image in enumerate(images):
        if not isinstance(image, Tensor):
            raise InputTypeError(f"{name}[{k}]: expected a tensor (C, H, W), got {type(image).__name__}")
        check_dense(f"{name}[{k}]", image, "(C, H, W)")
        if image.is_meta:
            raise InputError(f"{name}[{k}]: expected pixels, got a tensor on the device meta, which has none")
        if image.ndim != 3 or 0 in image.shape:
            raise InputError(f"{name}[{k}]: expected (C, H, W) with at least one pixel, got {tuple(image.shape)}")
        if not (is_float(image) or image.dtype == torch.uint8):
            raise InputTypeError(f"{name}[{k}]: expected a floating dtype or uint8, got {image.dtype}")
        first = images[0]
        for what, own, expected in (
            ("channels", image.shape[0], first.shape[0]),
            ("dtype", image.dtype, first.dtype),
            ("device", image.device, first.device),
        ):
            if own != expected:
                raise InputError(f"{name}[{k}]: expected the {what} of the first image, {expected}, got {own}")


def sizes_of(images: Ragged | Sequence[Tensor]) -> list[Size]:
    """``(H, W)`` of each image."""
    if isinstance(images, Ragged):
        return [(height, width) for height, width in images.sizes.tolist()]
    return [(image.shape[-2], image.shape[-1]) for image in images]


def _check_values(values: Any) -> None:
    if not isinstance(values, Tensor) or not (is_float(values) or values.dtype == torch.uint8):
        got = values.dtype if isinstance(values, Tensor) else type(values).__name__
        raise InputTypeError(f"values: expected a floating or uint8 tensor (n,), got {got}")
    check_dense("values", values, "(n,)")
    if values.is_meta:
        raise InputError("values: expected pixels, got a tensor on the device meta, which has none")
    if values.ndim != 1 or not values.is_contiguous():
        raise InputError(f"values: expected a contiguous tensor (n,), got {tuple(values.shape)}; use .flatten()")


def _packed_offsets(sizes: Tensor, channels: int) -> Tensor:
    lengths = sizes.prod(dim=1) * channels
    return lengths.cumsum(0) - lengths
