"""The gallery of flips: two views of each image with the two answers and their probabilities, worst first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from augkit.invariance.flips import Flip
from augkit.invariance.protocols import Protocol, Scene

SMALLEST = 112  # pixels of the screen; smaller pictures are enlarged by whole factors, so that pixels stay sharp


@dataclass(frozen=True)
class FlipPicture:
    """One flip: two pictures with their captions.

    Attributes:
        pictures: the first and the second view, as the network received them.
        captions: per view its displacement, and the answer with its probability.
        title: number of the image and, where it is known, its class.
    """

    pictures: tuple[Image.Image, Image.Image]
    captions: tuple[str, str]
    title: str


def flip_pictures(
    flips: Sequence[Flip], images: Tensor, protocol: Protocol, classes: Sequence[str] | None
) -> list[FlipPicture]:
    """Draw both views of each flip.

    Args:
        flips: flips of a report.
        images: the images of the flips, in the same order: ``(len(flips), C, H, W)``, uint8 or in [0, 1].
        protocol: protocol of the measurement.
        classes: names of the network's classes; their numbers when None.

    Returns:
        One `FlipPicture` per flip, in the same order.
    """
    out = []
    for flip, image in zip(flips, images, strict=True):
        views = [_view(flip, k) for k in (0, 1)]
        pictures = tuple(picture_of(_seen(image, protocol, shift, scale)) for shift, scale in views)
        captions = tuple(
            f"{place_of(shift, scale)}: {_name(answer, classes)}, {100 * p:.0f} %"
            for (shift, scale), answer, p in zip(views, flip.answers, flip.probabilities, strict=True)
        )
        truth = "" if flip.label is None else f", is {_name(flip.label, classes)}"
        title = f"image {flip.image:,}{truth}"
        out.append(FlipPicture((pictures[0], pictures[1]), (captions[0], captions[1]), title))
    return out


def _view(flip: Flip, k: int) -> tuple[tuple[float, float], float]:
    x, y, scale = flip.views[k]
    if flip.is_rescaled:
        return (0.0, 0.0), float(scale)
    return (float(x), float(y)), 1.0


def _seen(image: Tensor, protocol: Protocol, shift: tuple[float, float], scale: float) -> Tensor:
    batch = image[None].float() / 255 if image.dtype == torch.uint8 else image[None].float()
    scene = Scene(protocol, batch)
    if scale != 1:
        return scene.rescale(torch.tensor([scale]), scale)[0]
    return (scene.unshifted() if shift == (0.0, 0.0) else scene.shift(torch.tensor([shift])))[0]


def picture_of(image: Tensor) -> Image.Image:
    """Return an image ``(C, H, W)`` in [0, 1] as a picture, small ones enlarged by whole factors."""
    pixels = (255 * image).round().clamp(0, 255).to(torch.uint8).permute(1, 2, 0).numpy()
    picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels[..., :3])
    zoom = max(1, -(-SMALLEST // max(picture.size)))
    return picture.resize((zoom * picture.width, zoom * picture.height), Image.Resampling.NEAREST)


def place_of(shift: tuple[float, float], scale: float = 1.0) -> str:
    """Return a displacement as text, in pixels or as a factor."""
    if scale != 1:
        return f"× {scale:.3g}"
    if shift == (0.0, 0.0):
        return "as it is"
    x, y = (f"{value:+.2f}".replace("-", "−") for value in shift)
    return f"x {x}, y {y} px"


def _name(index: int, classes: Sequence[str] | None) -> str:
    return classes[index] if classes is not None and index < len(classes) else f"class {index}"
