"""The kinds of output: one row each, from which recognition, options, commands and documents are derived."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from augkit.core.errors import InputError, unknown_name
from augkit.invariance.outputs.base import OutputMeasure, tensor_in
from augkit.invariance.outputs.boxes import is_detections
from augkit.invariance.outputs.detections import DetectionMeasure
from augkit.invariance.outputs.embeddings import EmbeddingMeasure
from augkit.invariance.outputs.images import ImageMeasure
from augkit.invariance.outputs.keypoints import KeypointMeasure, is_keypoints
from augkit.invariance.outputs.logits import LogitMeasure
from augkit.invariance.outputs.maps import MapMeasure

CLASS_INDICES = "class indices (N,)"
Recognizer = Callable[[Any, Tensor], bool]


@dataclass(frozen=True)
class OutputKind:
    """One kind of output.

    Attributes:
        name: as in ``output="map"`` and ``--output-kind map``.
        meaning: what the output is, with its shape.
        measure: the class that measures it.
        recognizes: whether an output of the network is of this kind, given the network's input ``(B, C, H, W)``.
        options: names of the fields of `OutputOptions` that it takes.
        targets: what labels it takes, for messages; empty without any.
        no_derivative: why it has no Lie derivative of its own; empty where it has one.
    """

    name: str
    meaning: str
    measure: type[OutputMeasure]
    recognizes: Recognizer
    options: tuple[str, ...] = ()
    targets: str = ""
    no_derivative: str = ""


def _dimensions(count: int) -> Recognizer:
    def recognizes(output: Any, inputs: Tensor) -> bool:
        found = tensor_in(output)
        return isinstance(found, Tensor) and found.ndim == count and len(found) == len(inputs)

    return recognizes


def _is_image(output: Any, inputs: Tensor) -> bool:
    found = tensor_in(output)
    return _dimensions(4)(output, inputs) and found.shape[1] == inputs.shape[1] and found.shape[-1] >= inputs.shape[-1]


# The first that recognizes an output takes it.
def _never(output: Any, inputs: Tensor) -> bool:
    del output, inputs
    return False


_MAP = ("map_kernel", "border")
ROWS = (
    # Logits look like embeddings, so they are named; `augkit.measure_invariance` is their own measurement.
    OutputKind("logits", "logits (B, K) of classes", LogitMeasure, _never, (), CLASS_INDICES,
               "that of logits is `augkit.invariance.lie_derivative`"),
    OutputKind(
        "detections", "detections (boxes, scores and labels of each image, or rows (N, 6))", DetectionMeasure,
        lambda output, inputs: is_detections(output), ("box_score", "box_iou", "box_border"),
        "dicts of boxes and labels, one per image",
        "boxes come and go in steps, which have no derivative",
    ),
    OutputKind(
        "keypoints", "keypoints (B, K, 2) or, with scores, (B, K, 3)", KeypointMeasure,
        lambda output, inputs: is_keypoints(output, len(inputs)), ("keypoint_score",),
        no_derivative="most networks read keypoints off the largest value of a map, a step without a derivative",
    ),
    OutputKind(
        "embedding", "embeddings (B, D)", EmbeddingMeasure, _dimensions(2),
        ("gallery", "gallery_labels", "class_embeddings", "neighbors"), CLASS_INDICES,
    ),
    OutputKind("image", "images (B, C, H, W) with the input's channels", ImageMeasure, _is_image, _MAP),
    OutputKind("map", "maps (B, C, h, w), or patches (B, h w, D)", MapMeasure, _dimensions(4), (*_MAP, "scores")),
)  # fmt: skip
KINDS: dict[str, OutputKind] = {row.name: row for row in ROWS}


def find_kind(name: str | None, output: Any, inputs: Tensor) -> OutputKind:
    """Return the kind ``name``, or the first that recognizes an output of the network.

    Raises:
        InputError: the name is unknown, or no kind recognizes the output.
    """
    if name is not None:
        if name not in KINDS:
            raise unknown_name("output", name, KINDS)
        return KINDS[name]
    for row in ROWS:
        if row.recognizes(output, inputs):
            return row
    found = tensor_in(output)
    if isinstance(found, Tensor) and found.ndim == 3:
        raise InputError(
            f"model: expected a known output, got tokens {tuple(found.shape)}; wrap it so that it gives"
            " its class token or the mean of its tokens, an embedding; or name output 'map' if they are patches only"
        )
    got = tuple(found.shape) if isinstance(found, Tensor) else f"a {type(found).__name__}"
    known = "; ".join(f"{row.name}: {row.meaning}" for row in ROWS)
    raise InputError(f"model: expected a known output, got {got}; wrap it so that it gives one of: {known}")
