"""Pictures of the worst cases: what is drawn is what the network returned."""

from __future__ import annotations

import numpy as np
import torch
from dense_networks import Returns, autoencoder, embedder, segmenter
from measured import photo_like
from torch import nn

from augkit.invariance import Network
from augkit.invariance.outputs import OutputMeasurement, WorstCase
from augkit.invariance.outputs.measurement import shift_plan
from augkit.invariance.outputs.pictures import PALETTE, WorstPicture, with_classes, with_mask
from augkit.invariance.protocols import ProtocolOptions

IMAGES = photo_like(7, 20)


def drawn(network: nn.Module, output: str | None = None) -> tuple[WorstCase, WorstPicture]:
    plan = shift_plan(2.0, 1.0, 3)
    measurement = OutputMeasurement(Network(network), plan, ProtocolOptions("crop"), output=output)
    measurement.run([(IMAGES[:4], None), (IMAGES[4:], None)])
    case = measurement.report().worst[0]
    return case, measurement.pictures([case], lambda numbers: IMAGES[numbers])[0]


def test_a_map_is_drawn_on_both_views_with_the_pixels_that_change() -> None:
    case, found = drawn(segmenter(2))
    assert found.title == f"image {case.image}: share of pixels changed {case.score:.3g}"
    assert [picture.size for picture, _ in found.pictures] == [(112, 112)] * 3  # 16 pixels, each seven times as wide
    red = np.asarray(found.pictures[2][0])[3::7, 3::7]
    mask = (red[..., 0] > 200) & (red[..., 1] < 60)
    shown = np.asarray(found.pictures[2][0])[3::7, 3::7].max(-1) > 60  # not dark, so compared
    assert found.pictures[2][1] == f"{100 * case.score:.1f} % of the shared pixels change, red"
    assert abs(mask.sum() / shown.sum() - case.score) < 1e-6


def test_an_image_is_shown_itself_with_the_difference() -> None:
    case, found = drawn(autoencoder(2))
    assert [caption.split(",")[0] for _, caption in found.pictures][::2] == ["as it is", "difference"]
    assert found.title.startswith(f"image {case.image}: relative error")


def test_embeddings_are_shown_by_their_views_and_neighbors() -> None:
    _, found = drawn(embedder(2))
    captions = [caption for _, caption in found.pictures]
    assert [caption.startswith("its neighbor, image ") for caption in captions] == [False, True, True] * 2
    assert found.title.split(": ")[1].startswith("1 - cosine")


def test_neighbors_in_pictures_are_the_nearest_and_never_the_image_itself() -> None:
    plan = shift_plan(0.0, 1.0, 1)
    measurement = OutputMeasurement(Network(Returns(lambda x: x.flatten(1))), plan, ProtocolOptions("circular"))
    measurement.run([(IMAGES, None)])
    flat = nn.functional.normalize(IMAGES.flatten(1), dim=-1)
    order = (flat @ flat.T).fill_diagonal_(-1).argsort(1, descending=True)
    for image in range(7):
        assert measurement.measure.neighbors_of(IMAGES.flatten(1), image, image) == order[image, :2].tolist()


def test_depth_is_drawn_in_gray_and_color_as_it_is() -> None:
    _, found = drawn(nn.Conv2d(1, 1, 3, 2, 1), "map")
    assert len(found.pictures) == 3
    assert np.asarray(found.pictures[0][0]).max() == 255
    network = nn.Conv2d(1, 3, 3, 1, 1)
    case, found = drawn(network, "image")
    with torch.no_grad():
        wanted = network(IMAGES[case.image : case.image + 1, :, 2:18, 2:18])[0].clamp(0, 1)
    shown = torch.from_numpy(np.asarray(found.pictures[0][0])[::7, ::7].copy()).movedim(-1, 0) / 255
    assert torch.allclose(shown, wanted, atol=1 / 255)


def test_classes_have_the_colors_of_the_palette() -> None:
    classes = torch.arange(9)[None]
    picture = with_classes(torch.zeros(1, 1, 9), classes)
    assert torch.allclose(picture[:, 0, :7].T / 0.55, torch.tensor(PALETTE) / 255, atol=1e-6)
    assert torch.allclose(picture[:, 0, 7] / 0.55, 0.7 * torch.tensor(PALETTE[0]) / 255, atol=1e-6)


def test_a_mask_is_red_and_what_lies_outside_dark() -> None:
    inside, outside = torch.tensor([[True, False]]), torch.tensor([[False, True]])
    picture = with_mask(torch.ones(3, 2, 4), inside, outside)
    assert torch.allclose(picture[:, 0, 0], torch.tensor([0.9, 0.1, 0.1]))
    assert float(picture[:, 0, 3].max()) < 0.3
