"""Measurements agree with loops over images and displacements, on networks whose invariance is known."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from measured import CircularNet, photo_like
from torch import Tensor, nn

import augkit
from augkit.invariance import Pairs, Plan, make_protocol
from augkit.invariance.plan import full_plan, one_shift


@pytest.mark.parametrize(("image", "window"), [(20, 12), (21, 12), (20, 13)])
def test_crop_moves_a_window_over_the_image(image: int, window: int) -> None:
    images = photo_like(3, image)
    protocol = make_protocol("crop", (image, image), max_shift=3, input_size=window)
    left = (image - window) // 2
    assert torch.equal(
        protocol.shift(images, torch.zeros(3, 2)), images[..., left : left + window, left : left + window]
    )
    moved = protocol.shift(images, torch.tensor([[2.0, -3.0]]).expand(3, 2))
    expected = images[..., left + 3 : left + 3 + window, left - 2 : left - 2 + window]
    torch.testing.assert_close(moved, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("background", [0.0, 0.7])
def test_embed_moves_the_image_over_a_canvas(background: float) -> None:
    images = photo_like(2, 9)
    protocol = make_protocol("embed", (9, 9), max_shift=4, input_size=17, background=background)
    moved = protocol.shift(images, torch.tensor([[1.0, -2.0], [4.0, 4.0]]))
    expected = torch.full((2, 1, 17, 17), background)
    expected[0, :, 2:11, 5:14] = images[0]
    expected[1, :, 8:17, 8:17] = images[1]
    torch.testing.assert_close(moved, expected, atol=1e-6, rtol=0)


def test_circular_rolls() -> None:
    images = photo_like(2, 11)
    for kernel in ("fourier", "sinc", "lanczos3", "bicubic", "bilinear"):
        moved = make_protocol("circular", (11, 11), kernel=kernel).shift(images, torch.tensor([3.0, -2.0]).expand(2, 2))
        torch.testing.assert_close(moved, images.roll((-2, 3), (-2, -1)), atol=1e-6, rtol=0)


@pytest.mark.parametrize("protocol", ["crop", "embed", "circular"])
def test_half_pixel_shifts_move_the_centroid_by_half_a_pixel(protocol: str) -> None:
    grid = torch.arange(33.0)
    blob = torch.exp(-((grid[:, None] - 16) ** 2 + (grid - 16) ** 2) / 8)[None, None]
    operator = make_protocol(protocol, (33, 33), max_shift=2)
    size = operator.input_size[0]
    out = operator.shift(blob, torch.tensor([[0.5, -1.25]])) - operator.shift(blob, torch.zeros(1, 2))
    place = torch.arange(float(size))
    mass = blob.sum()
    assert (out.sum(-2) @ place / mass).item() == pytest.approx(0.5, abs=1e-3)
    assert (out.sum(-1) @ place / mass).item() == pytest.approx(-1.25, abs=1e-3)


def test_exactly_invariant_network_measures_zero_and_a_strided_one_does_not() -> None:
    # An odd side: at the Nyquist frequency of an even one a shift by a fraction loses energy.
    images = photo_like(8, 17)
    exact = augkit.measure_invariance(CircularNet().double(), images.double(), protocol="circular", max_shift=8)
    assert exact.js.value < 1e-15
    assert exact.top1_change.value == 0
    strided = augkit.measure_invariance(CircularNet(stride=2).double(), images.double(), protocol="circular")
    assert strided.js.value > 1e-9
    padded = augkit.measure_invariance(CircularNet(padding_mode="zeros"), images, protocol="circular")
    assert padded.js.value > 1e-9


def test_result_does_not_depend_on_the_batch_size() -> None:
    images, model = photo_like(13, 20), CircularNet(stride=2, padding_mode="zeros")
    labels = torch.arange(13) % 4
    reports = [
        augkit.measure_invariance(model, images, labels, max_shift=3, batch_size=size, lengths=(1.0, 2.5))
        for size in (1, 7, 13)
    ]
    for other in reports[1:]:
        for name, values in reports[0].statistics.items():
            torch.testing.assert_close(values, other.statistics[name], atol=1e-6, rtol=1e-4)
        assert reports[0].curve[2.5]["js"].shape == (13, 1)
        assert reports[0].fingerprint == other.fingerprint


def test_measurement_equals_a_loop_over_images_and_shifts() -> None:
    images, model = photo_like(5, 20), CircularNet(stride=2).eval()
    report = augkit.measure_invariance(model, images, max_shift=3, pairs=2, seed=7, input_size=12, kernel="lanczos3")
    plan = Plan(pairs=Pairs(2, -3.0, 3.0))
    shifts = plan.displacements(7, 0, 5)[..., :2]
    protocol = make_protocol("crop", (20, 20), max_shift=3, input_size=12, kernel="lanczos3")
    total = 0.0
    with torch.inference_mode():
        for n in range(5):
            answers = [
                model(protocol.shift(images[n : n + 1], shifts[n : n + 1, s])).double().softmax(-1) for s in range(5)
            ]
            for s, t in ((1, 2), (3, 4)):
                middle = (answers[s] + answers[t]) / 2
                entropies = [-(p * p.log2()).sum().item() for p in (middle, answers[s], answers[t])]
                total += entropies[0] - (entropies[1] + entropies[2]) / 2
    assert report.js.value == pytest.approx(total / 10, rel=1e-4)


def test_grid_path_and_curves_equal_a_loop() -> None:
    images, model = photo_like(4, 20), CircularNet(stride=2).eval()
    labels = torch.tensor([0, 1, 2, 3])
    plan = full_plan("shift", 2.0, 2)
    report = augkit.measure_invariance(model, images, labels, plan=plan, seed=3, kernel="bicubic", batch_size=3)
    protocol = make_protocol("crop", (20, 20), max_shift=2, kernel="bicubic")
    moved = plan.displacements(3, 0, 4)[..., :2]

    def answer(n: int, shift: Tensor) -> int:
        with torch.inference_mode():
            return int(model(protocol.shift(images[n : n + 1], shift[None])).argmax())

    here = [answer(n, torch.zeros(2)) for n in range(4)]
    grid = [[answer(n, torch.tensor(place)) for place in plan.grid] for n in range(4)]
    assert report.worst_case.value == sum(any(k != here[n] for k in grid[n]) for n in range(4)) / 4
    assert report.worst_accuracy.value == sum(all(k == n for k in [here[n], *grid[n]]) for n in range(4)) / 4
    path = [[answer(n, torch.tensor(place)) for place in plan.path] for n in range(4)]
    assert report.jaggedness.value == sum(a != b for k in path for a, b in pairwise(k)) / 4
    column = plan.layout.curves["fraction"][0.25]
    changed = sum(answer(n, moved[n, column]) != here[n] for n in range(4)) / 4
    assert report.response("top1_change", "fraction")[0.25].value == changed
    shares = [row.share.value for row in report.jaggedness_distribution()]
    assert sum(shares) == pytest.approx(1)


def test_rescaling_is_measured_like_shifting() -> None:
    plan = full_plan("scale", 1.25, 3)
    blurry = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 3))
    report = augkit.measure_invariance(CircularNet(stride=2), photo_like(6, 30), plan=plan)
    assert report.settings.axis == "scale"
    assert report.settings.input_size == [24, 24]
    assert report.js.value > 1e-9
    response = report.response("js", "scale")
    assert response[1.0].value == 0
    assert response[1.25].value > response[1.25**0.25].value
    constant = augkit.measure_invariance(blurry, torch.full((3, 1, 30, 30), 0.5), plan=plan)
    assert constant.js.value < 1e-12


def test_a_displacement_against_none() -> None:
    images = photo_like(5, 16)
    still = augkit.measure_invariance(CircularNet(stride=2), images, plan=one_shift(0.0, 0.0))
    assert (still.js.value, still.mac.value, still.top1_change.value, still.logit_change.value) == (0, 0, 0, 0)
    assert still.settings.views == 1
    moved = augkit.measure_invariance(CircularNet(stride=2), images, plan=one_shift(1.0, 0.0))
    assert moved.settings.views == 2
    assert moved.logit_change.value > 0


class Counting(nn.Module):
    """Counts how many images it has seen."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.seen = CircularNet(stride=2), 0

    def forward(self, images: Tensor) -> Tensor:
        self.seen += len(images)
        return self.net(images)


def test_no_forward_pass_is_made_twice() -> None:
    plan, model = full_plan("shift", 2.0, 2), Counting()
    augkit.measure_invariance(model, photo_like(7, 16), plan=plan, batch_size=3)
    assert model.seen == 7 * len(plan.layout.columns)


def test_an_untrained_network_is_consistent_though_its_logits_move() -> None:
    """A plain strided ResNet-18, untrained, on the torus: top-1 change cannot measure it."""
    from torchvision.models import resnet18

    torch.manual_seed(0)
    model = resnet18(weights=None, num_classes=10)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d) and layer.padding != (0, 0):
            layer.padding_mode = "circular"
            layer._reversed_padding_repeated_twice = [layer.padding[1]] * 2 + [layer.padding[0]] * 2
    images = torch.randn(6, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    plan = Plan(pairs=Pairs(2, -8.0, 8.0, quantum=1.0))
    report = augkit.measure_invariance(model, images, protocol="circular", plan=plan)
    assert report.consistency.value >= 0.98
    assert 0.5 <= report.logit_change_max.value <= 1.0
    assert report.largest_logit_change >= report.logit_change_max.value


def test_accuracy_is_that_of_the_unshifted_images_and_needs_labels() -> None:
    images, model = photo_like(12, 16), CircularNet()
    with torch.inference_mode():
        answers = model((images[..., 2:14, 2:14] - 0.3) / 0.5).argmax(-1)
    report = augkit.measure_invariance(model, images, answers, max_shift=2, mean=[0.3], std=[0.5])
    assert report.accuracy.value == 1
    assert not hasattr(augkit.measure_invariance(model, images, max_shift=2), "accuracy")


def test_report_holds_all_that_repeats_it() -> None:
    report = augkit.measure_invariance(CircularNet(stride=2), photo_like(6, 16), max_shift=2, lengths=(1, 2))
    tree = report.to_dict()
    assert tree["settings"]["protocol"] == "crop"
    assert tree["settings"]["kernel"] == "sinc"
    assert [point["length"] for point in tree["response"]] == [1, 2]
    assert set(tree["js"]) == {"value", "low", "high"}
    assert report.js.low <= report.js.value <= report.js.high
