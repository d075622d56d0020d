"""Images to which a network gave two answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Flip:
    """An image to which a network gave two answers.

    Attributes:
        image: number of the image.
        label: class of the image; None where it is not known.
        views: the two displacements (x, y, factor), x and y in pixels.
        answers, probabilities: the answer of the network to each view, and its probability.
        axis: axis of the displacements, ``shift`` or ``scale``.
    """

    image: int
    label: int | None
    views: Sequence[Sequence[float]]
    answers: Sequence[int]
    probabilities: Sequence[float]
    axis: str = "shift"

    @property
    def rank(self) -> tuple[float, int]:
        """Sort key that puts the most confident disagreement first, by the less probable of the two answers."""
        return -min(self.probabilities), self.image

    @property
    def is_rescaled(self) -> bool:
        """Whether a view is rescaled."""
        return self.axis == "scale" or any(view[2] != 1 for view in self.views)

    @classmethod
    def from_dict(cls, flip: Mapping[str, Any]) -> Flip:
        """The inverse of `to_dict`."""
        shifts, scales = (flip.get(key, default) for key, default in (("shifts", [(0, 0)] * 2), ("scales", [1.0] * 2)))
        views = [(float(x), float(y), float(scale)) for (x, y), scale in zip(shifts, scales, strict=True)]
        axis = "shift" if "shifts" in flip else "scale"
        return cls(flip["index"], flip["label"], views, flip["answers"], flip["probabilities"], axis)

    def to_dict(self) -> dict[str, object]:
        """For JSON: ``shifts`` in pixels for axis ``shift``, and ``scales`` where a view is rescaled."""
        where: dict[str, object] = {"shifts": [list(view[:2]) for view in self.views]} if self.axis == "shift" else {}
        if self.is_rescaled:
            where["scales"] = [view[2] for view in self.views]
        both = {"answers": list(self.answers), "probabilities": list(self.probabilities)}
        return {"index": self.image, "label": self.label, **where, **both}
