"""Images of different sizes that cannot be used are refused in one line, and none reads beyond its buffer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from augkit import Augment, Ragged, RandomSubpixelShift
from augkit.adapters.collate import Collate
from augkit.core.errors import InputError

VALUES = torch.rand(600)
SIZES = torch.tensor([[10, 10], [10, 10]])
PHOTOS = [torch.rand(3, 9, 10), torch.rand(3, 12, 8)]
AUGMENT, PLAIN = Augment(RandomSubpixelShift(2.0), size=(8, 8)), Augment(RandomSubpixelShift(2.0))
EYE = torch.eye(3)


def ragged(offsets: Any = (0, 300), sizes: Any = SIZES, channels: Any = 3, values: Tensor = VALUES) -> Ragged:
    return Ragged(values, torch.tensor(offsets), torch.as_tensor(sizes), channels)


def collated(*images: Any) -> Any:
    return Collate(AUGMENT, ragged=True)([(image, 0) for image in images])


CASES: dict[str, tuple[Callable[[], Any], str]] = {
    "a size that overflows": (lambda: ragged(sizes=[[2**40, 2**40], [10, 10]]), "at most 600 values, got image 0"),
    "another": (lambda: ragged(sizes=[[2**62, 4], [10, 10]]), "at most 600 values, got image 0"),
    "channels that overflow": (lambda: ragged((0,), [[1, 1]], 2**63), "at most 600 values"),
    "a negative size": (lambda: ragged(sizes=[[10, -10], [10, 10]]), r"got image 0 of \(10, -10\)"),
    "two negative sizes": (lambda: ragged(sizes=[[-10, -10], [10, 10]]), r"got image 0 of \(-10, -10\)"),
    "overlapping": (lambda: ragged((0, 150)), "do not overlap, got images 0 and 1"),
    "overlapping, descending": (lambda: ragged((150, 0)), "do not overlap, got images 1 and 0"),
    "beyond the buffer": (lambda: ragged((0, 400)), "got image 1 at 400 to 700"),
    "before the buffer": (lambda: ragged((-1, 300)), "got image 0 at -1 to 299"),
    "bool": (lambda: ragged(values=VALUES > 0), "got torch.bool"),
    "complex": (lambda: ragged(values=VALUES.cfloat()), "got torch.complex64"),
    "sizes elsewhere": (lambda: ragged(sizes=SIZES.to("meta")), "sizes: expected a tensor on the CPU"),
    "values without pixels": (lambda: ragged(values=VALUES.to("meta")), "values: expected pixels"),
    "images without pixels": (lambda: AUGMENT([PHOTOS[0].to("meta")]), r"images\[0\]: expected pixels"),
    "size 0": (lambda: Augment(size=0), "two integers of at least 1, got 0"),
    "one number": (lambda: Augment(size=(224,)), "two integers of at least 1"),  # type: ignore[arg-type]
    "flags": (lambda: Augment(size=(True, True)), "two integers of at least 1"),
    "NaN": (lambda: AUGMENT(PHOTOS, matrix=EYE * float("nan")), "expected finite numbers"),
    "singular": (lambda: AUGMENT(PHOTOS, matrix=EYE * 0), "singular"),
    "blur": (lambda: AUGMENT(PHOTOS, matrix=EYE, blur=torch.rand(5, 2)), r"blur: expected shape \(2, 2\)"),
    "inverse of a Ragged": (lambda: PLAIN.inverse(EYE, images=ragged()), "got images as a Ragged"),  # type: ignore[arg-type]
    "inverse of lists": (
        lambda: PLAIN.inverse(EYE, keypoints=[torch.rand(3, 2)]),  # type: ignore[arg-type]
        "got keypoints as a list",
    ),
    "inverse of a size": (
        lambda: PLAIN.inverse(EYE, keypoints=torch.rand(2, 3, 2), size=(224,)),  # type: ignore[arg-type]
        "two integers of at least 1",
    ),
    "no samples": (collated, "Collate: expected at least one sample"),
    "text": (lambda: collated(np.array(["a"])), "expected arrays of numbers at 0, got one of <U1"),
    "mixed channels": (lambda: collated(PHOTOS[0], PHOTOS[1][:1]), "expected the channels of the first image, 3"),
    "mixed dtypes": (lambda: collated(PHOTOS[0], PHOTOS[1].half()), "expected the dtype of the first image"),
    "a zero-sized image": (lambda: collated(PHOTOS[0], PHOTOS[1][:, :0]), r"images\[1\]: expected \(C, H, W\) with at"),
}


@pytest.mark.parametrize("name", CASES)
def test_one_line_says_what_is_wrong(name: str) -> None:
    call, message = CASES[name]
    with pytest.raises(InputError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_descending_offsets_without_an_overlap_are_fine() -> None:
    swapped = ragged((300, 0))
    assert torch.equal(swapped[0], ragged()[1])
    assert torch.equal(AUGMENT.eval()(swapped), AUGMENT.eval()(ragged()).flip(0))
    AUGMENT.train()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_every_floating_dtype_is_taken(dtype: torch.dtype) -> None:
    assert AUGMENT(ragged(values=VALUES.to(dtype))).dtype == dtype
