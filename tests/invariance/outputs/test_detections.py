"""Flicker of detectors from end to end: exact ones on a torus, strided ones, torchvision's, and bad output."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_320_fpn

from augkit import measure_outputs
from augkit.core.errors import InputError

EXACT = {"lost": 0.0, "new": 0.0, "vanished": 0.0, "appeared": 0.0, "class_change": 0.0, "score_change": 0.0}


class Peaks(nn.Module):
    """Boxes around the local maxima of a circular convolution, at every pixel or at every ``stride``-th."""

    def __init__(self, stride: int = 1, form: str = "dicts") -> None:
        super().__init__()
        torch.manual_seed(0)
        self.filter = nn.Conv2d(1, 1, 5, padding=2, padding_mode="circular", bias=False)
        self.stride, self.form = stride, form

    def forward(self, images: Tensor) -> object:
        heat = self.filter(images)[:, :, :: self.stride, :: self.stride]
        around = F.max_pool2d(F.pad(heat, (1, 1, 1, 1), mode="circular"), 3, 1)
        out = []
        for one, highest in zip(heat[:, 0], around[:, 0], strict=True):
            y, x = torch.nonzero((one == highest) & (one > 0), as_tuple=True)
            center = self.stride * torch.stack([x, y], dim=1) + 0.5
            boxes, scores = torch.cat([center - 3, center + 3], dim=1).to(one), one[y, x]
            labels = (scores > 0.5).long()
            if self.form == "dicts":
                out.append({"boxes": boxes, "scores": scores, "labels": labels})
            else:
                out.append(torch.cat([boxes, scores[:, None], labels[:, None]], dim=1))
        return out


@pytest.fixture(scope="module")
def noise() -> Tensor:
    return torch.rand(6, 1, 24, 24, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("form", ["dicts", "rows"])
def test_a_detector_that_moves_with_the_image_does_not_flicker(noise: Tensor, form: str) -> None:
    report = measure_outputs(Peaks(form=form), noise, protocol="circular", max_shift=3, box_score=0.1)
    assert report.kind == "detections"
    found = {name: estimate.value for name, estimate in report.numbers.items()}
    assert {name: found[name] for name in EXACT} == pytest.approx(EXACT, abs=1e-6)
    assert found["box_iou"] == pytest.approx(1)
    assert found["equivariance_error"] == pytest.approx(0, abs=1e-6)
    assert report.statistics["first"].sum() > 20


def test_a_strided_detector_flickers_and_does_not_at_multiples_of_its_stride(noise: Tensor) -> None:
    report = measure_outputs(Peaks(4), noise, protocol="circular", max_shift=3, box_score=0.1)
    assert report.lost.value > 0.2
    assert report.lost.low > 0
    assert report.equivariance_error.value > 0.05
    exact = measure_outputs(Peaks(4), noise, protocol="circular", max_shift=8, quantum=4.0, box_score=0.1)
    assert exact.lost.value == exact.new.value == 0


def test_the_border_of_a_view_alone_is_no_flicker(noise: Tensor) -> None:
    # The filter and the search for maxima reach 3 pixels, so boxes further inside must not change.
    report = measure_outputs(Peaks(), noise, max_shift=3, box_score=0.1, box_border=4.0)
    assert report.lost.value == report.new.value == 0
    assert report.box_iou.value == pytest.approx(1)


def test_numbers_do_not_depend_on_the_batch_size_and_worst_cases_have_the_most(noise: Tensor) -> None:
    targets = [{"boxes": torch.tensor([[4.0, 4, 10, 10]]), "labels": torch.tensor([0])}] * len(noise)
    reports = [
        measure_outputs(Peaks(2), noise, targets, max_shift=2, box_score=0.1, batch_size=size) for size in (1, 4, 6)
    ]
    for report in reports[1:]:
        assert report.numbers == reports[0].numbers
        assert report.worst == reports[0].worst
    scores = [case.score for case in reports[0].worst]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0


def test_average_precision_under_shift_is_one_for_a_detector_that_is_right() -> None:
    """White squares on black; the detector boxes each white region exactly."""

    class Whites(nn.Module):
        def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
            out = []
            for image in images[:, 0]:
                y, x = torch.nonzero(image > 0.5, as_tuple=True)
                box = torch.stack([x.min(), y.min(), x.max() + 1, y.max() + 1])[None].to(images)
                out.append({"boxes": box, "scores": torch.ones(1), "labels": torch.ones(1, dtype=torch.int64)})
            return out

    images, targets = torch.zeros(4, 1, 30, 30), []
    for k, image in enumerate(images):
        image[:, 8 + k : 14 + k, 9 : 17 + k] = 1
        box = torch.tensor([[9.0, 8 + k, 17 + k, 14 + k]])
        targets.append({"boxes": box, "labels": torch.ones(1, dtype=torch.int64)})
    for protocol in ("crop", "embed", "circular"):
        report = measure_outputs(Whites(), images, targets, protocol=protocol, max_shift=3)
        assert report.ap.value == report.ap50.value == 1, protocol
        assert report.ap_spread.value == report.lost.value == 0, protocol


def test_torchvision_detector_with_random_weights() -> None:
    torch.manual_seed(0)
    model = fasterrcnn_mobilenet_v3_large_320_fpn(
        weights=None, weights_backbone=None, num_classes=3, min_size=64, max_size=64, box_detections_per_img=10
    )
    report = measure_outputs(model, torch.rand(2, 3, 72, 72), max_shift=2, pairs=1, box_score=0.01, box_iou=0.1)
    assert report.kind == "detections"
    assert report.equivariance_error.value > 0.01  # strides, and a resize from 68 to 64 pixels
    assert 0 < report.box_iou.value < 1
    assert report.settings.of_kind["box_score"] == 0.01


def test_images_without_boxes_are_allowed_and_none_on_all_images_is_one_line(noise: Tensor) -> None:
    some = torch.cat([noise, torch.zeros(2, 1, 24, 24)])
    with_empty = measure_outputs(Peaks(2), some, max_shift=2, box_score=0.1)
    assert 0 < with_empty.lost.value < 1
    with pytest.raises(InputError, match=r"got none on all 6 images \(\d+ boxes of any score\); lower box_score"):
        measure_outputs(Peaks(), noise, max_shift=2, box_score=100.0)
    with pytest.raises(InputError, match=r"\(0 boxes of any score\); lower the detector's own threshold"):
        measure_outputs(Peaks(), torch.zeros(2, 1, 24, 24), max_shift=2)


def test_boxes_at_the_edges_alone_are_noted(noise: Tensor) -> None:
    report = measure_outputs(Peaks(), noise, max_shift=2, box_score=0.1, box_border=11.0)
    assert not report.lost.defined
    assert "No box was compared" in report.notes[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [({"box_iou": 0.0}, "box_iou: expected"), ({"neighbors": 3}, "neighbors: it belongs to outputs of kind 'embed")],
)
def test_wrong_options_are_one_line(noise: Tensor, options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        measure_outputs(Peaks(), noise, max_shift=1, **options)


def test_labels_of_another_form_are_one_line(noise: Tensor) -> None:
    with pytest.raises(InputError, match="labels: expected a dict of boxes and labels for each of 6 images"):
        measure_outputs(Peaks(), noise, torch.zeros(6, dtype=torch.int64), max_shift=1)
