"""No float64 reaches Apple's GPU in augmenting, training and measuring, and its numbers are those of the CPU.

The device is simulated (`apple_gpu`): nothing here has run on a Mac.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from apple_gpu import MPS, apple_gpu
from dense_networks import autoencoder, embedder, segmenter
from measured import CircularNet, photo_like
from torch import Tensor, nn

import augkit
from augkit.adapters import torchmetrics as metrics
from augkit.augment.ops import MODULES as OPS
from augkit.data import load_dataset
from augkit.invariance import (
    Pairs,
    Plan,
    layerwise_equivariance,
    lie_derivative,
    make_protocol,
    relative_invariance,
)
from augkit.invariance.probes import PROBES
from augkit.train.evaluate import measure_model
from augkit.train.recipe import Recipe

KERNELS = ("nearest", "bilinear", "bicubic", "lanczos3", "sinc", "fourier")


@pytest.fixture
def device(monkeypatch: pytest.MonkeyPatch) -> Iterator[torch.device]:
    with apple_gpu(monkeypatch) as place:
        yield place


def test_the_device_refuses_what_apples_gpu_refuses(device: torch.device) -> None:
    values = torch.rand(3, 4).to(device)
    assert (values + 1)[0].device == device
    assert values.cpu().device.type == "cpu"
    assert nn.Linear(4, 2).to(device)(values).device == device
    for faulty in (
        values.double,
        lambda: values.to("cpu", torch.float64),
        lambda: torch.zeros(3, device=device, dtype=torch.float64),
        lambda: torch.zeros(3, dtype=torch.float64).to(device),
        lambda: values * torch.rand(4),
        values.numpy,
    ):
        with pytest.raises((TypeError, RuntimeError), match=r"MPS|mps"):
            faulty()
    assert values.cpu().double().dtype == torch.float64


def close(found: Any, expected: Any) -> None:
    """Both are the same up to rounding to float32; one lies on the device."""
    if expected is None:
        assert found is None
    elif isinstance(expected, Tensor):
        assert found.device == MPS
        torch.testing.assert_close(found.cpu(), expected, atol=2e-3, rtol=1e-3)
    else:
        for one, other in zip(found, expected, strict=True):
            close(one, other)


def augmented(op: nn.Module, place: torch.device | str, **options: Any) -> Any:
    images = photo_like(4, 14).expand(-1, 3, -1, -1).contiguous()
    targets: dict[str, Any] = {}
    if options.pop("targets", False):
        targets["masks"] = (images[:, :1] > 0.5).long().to(place)
        targets["boxes"] = torch.tensor([[2.0, 3.0, 9.0, 10.0]]).repeat(4, 1, 1).to(place)
        targets["keypoints"] = torch.tensor([[6.0, 7.0]]).repeat(4, 1, 1).to(place)
    augment = augkit.Augment(op, normalize=((0.5,) * 3, (0.2,) * 3), **options).to(place)
    generator = torch.Generator(device=place)
    generator.manual_seed(3)
    return augment(images.to(place), generator=generator, **targets)


OPTIONS: dict[str, dict[str, Any]] = {
    "RandomPerspective": {"max_distortion": 0.2},
    "RandomRescale": {"max_factor": 1.4},
    "RandomRotation": {"max_degrees": 30.0},
    "RandomShear": {"max_degrees": 20.0},
    "RandomShiftBlur": {"max_pixels": 2.0},
    "RandomSubpixelCrop": {"size": (9, 9)},
    "RandomSubpixelShift": {"max_pixels": 2.0},
}
UNTARGETED = ("AugMix",)


@pytest.mark.parametrize("name", OPS)
def test_every_op_augments(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(place: torch.device | str) -> Any:
        op = getattr(augkit, name)(**OPTIONS.get(name, {}))
        return augmented(op, place, kernel="lanczos3", targets=name not in UNTARGETED)

    expected = run("cpu")
    with apple_gpu(monkeypatch):
        close(run(MPS), expected)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("degrees", [0.0, 20.0])
def test_every_kernel_resamples(kernel: str, degrees: float, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(place: torch.device | str) -> Any:
        angle = torch.tensor(degrees).deg2rad()
        matrix = torch.eye(3)
        matrix[0, 0] = matrix[1, 1] = angle.cos()
        matrix[0, 1], matrix[1, 0] = angle.sin(), -angle.sin()
        matrix[0, 2] = 1.25
        if kernel == "fourier":
            return augkit.fourier_shift(photo_like(2, 12).to(place), torch.tensor([1.25, -0.5]).to(place))
        return augkit.resample(photo_like(2, 12).to(place), matrix.to(place), size=(8, 9), kernel=kernel)

    expected = run("cpu")
    with apple_gpu(monkeypatch):
        close(run(MPS), expected)


def many_ways(place: torch.device | str) -> list[Tensor]:
    """Strength per sample, replay, inverse, blur alone, images of different sizes, ops of Kornia and AugMix's views."""
    ops = [augkit.RandomRotation(20.0), augkit.RandomSubpixelShift(2.0), augkit.RandomHorizontalFlip()]
    images, generator = photo_like(3, 12).to(place), torch.Generator(device=place)
    augment = augkit.Augment(*ops, size=(12, 12), kernel="bicubic", padding="reflection").to(place)
    generator.manual_seed(1)
    strength = torch.tensor([0.0, 0.5, 1.0]).to(place)
    first = augment(images, strength=strength, generator=generator, keypoints=torch.rand(3, 2, 2).to(place) * 10)
    back = augment.inverse(first.matrix, keypoints=first.keypoints)
    again = augment(images, matrix=first.matrix)
    ragged = augkit.Ragged.from_list([images[0], images[1, :, :9], images[2, :, :, :7]])
    generator.manual_seed(1)
    mixed = augment(ragged, generator=generator)
    blurred = augkit.shift_blur(images, torch.tensor([0.5, 0.25]).to(place), kernel="bilinear")
    return [first.images, first.keypoints, back.keypoints, torch.as_tensor(again), torch.as_tensor(mixed), blurred]


def test_every_way_of_augmenting(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    expected = many_ways("cpu")
    with apple_gpu(monkeypatch):
        torch.manual_seed(0)
        close(many_ways(MPS), expected)


TRAININGS: dict[str, dict[str, Any]] = {
    "plain": {"invariance": {"every": 1, "images": 4}},
    "mixed": {
        "train": {"mixup": 0.2, "cutmix": 0.2, "ema": 0.9, "test_time_shift": 1.0},
        "optim": {"name": "adamw"},
        "policy": {"draws": "even", "schedule": {"all": [[0.0, 0.0], [1.0, 1.0]]}, "ops": [{"op": "RandomBrightness"}]},
    },
    "AugMix": {"policy": {"augmix": {"js_weight": 12.0}}},
    "constrained": {"constraint": {"learned_invariance": 0.5, "control": 0.1}, "policy": {"shift": None}},
}


@pytest.mark.integration
@pytest.mark.parametrize("kind", TRAININGS)
def test_a_run_trains_and_is_measured(kind: str, tiny: Recipe, device: torch.device) -> None:
    raw = tiny.model_dump(exclude_defaults=True)
    raw["train"] |= {"epochs": 1}
    raw["data"] |= {"limit": 60}
    for section, fields in TRAININGS[kind].items():
        raw[section] = {**(raw.get(section) or {}), **fields}
    dataset = load_dataset("digits", limit=60)
    run = augkit.fit(Recipe.model_validate(raw), device=device, dataset=dataset)
    assert next(run.model.parameters()).device == device
    assert 0 <= run.history[-1]["validation_accuracy"] <= 1
    report = measure_model(run.model, run.recipe, dataset.validation.take(torch.arange(8)), device=device)
    assert 0 <= report.js.value <= 1


@pytest.fixture
def images() -> Tensor:
    return photo_like(5, 20)


@pytest.mark.parametrize("protocol", ["crop", "embed", "circular"])
def test_measurements_are_those_of_the_cpu(protocol: str, images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    net, plan = CircularNet(2), Plan(pairs=Pairs(3, -2, 2))

    def run() -> Any:
        place = next(net.parameters()).device
        return augkit.measure_invariance(net, images, torch.arange(5) % 4, protocol=protocol, plan=plan, device=place)

    expected = run()
    with apple_gpu(monkeypatch):
        net.to(MPS)
        found = run()
    assert found.settings.device == "mps"
    for name, values in expected.statistics.items():
        torch.testing.assert_close(found.statistics[name], values, atol=1e-5, rtol=1e-4)


class Boxes(nn.Module):
    """One box around the brightest pixel of each image."""

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        at = images[:, 0].flatten(1).argmax(1)
        center = torch.stack([at % images.shape[-1], at // images.shape[-1]], dim=1).float()
        boxes = torch.cat([center - 3, center + 3], dim=1)
        one = torch.ones(1, device=images.device)
        return [{"boxes": box[None], "scores": one, "labels": one.long()} for box in boxes]


class Points(nn.Module):
    """The brightest pixel of each image."""

    def forward(self, images: Tensor) -> Tensor:
        at = images[:, 0].flatten(1).argmax(1)
        return torch.stack([at % images.shape[-1], at // images.shape[-1]], dim=1).float()[:, None]


OUTPUTS: dict[str, Callable[[], nn.Module]] = {
    "logits": CircularNet,
    "embedding": lambda: embedder(2),
    "map": lambda: segmenter(2),
    "image": lambda: autoencoder(2),
    "detections": Boxes,
    "keypoints": Points,
}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_every_kind_of_output_is_measured(kind: str, images: Tensor, device: torch.device) -> None:
    report = augkit.measure_outputs(OUTPUTS[kind]().to(device), images, output=kind, max_shift=3.0, device=device)
    assert report.kind == kind
    assert report.numbers


def layers(net: nn.Module, images: Tensor, device: torch.device) -> None:
    layerwise_equivariance(net, images, max_shift=2.0, draws=1, device=device)
    relative_invariance(net, images, max_shift=2.0, draws=2, device=device)


def derivatives(net: nn.Module, images: Tensor, device: torch.device) -> None:
    lie_derivative(net, images, directions=("shift_x",), device=device)


def certificate(net: nn.Module, images: Tensor, device: torch.device) -> None:
    assert augkit.certify(net, 12).verdict


def probes(net: nn.Module, images: Tensor, device: torch.device) -> None:
    protocol = make_protocol("circular", (20, 20))
    for name in ("exactness", "diagonal_pixel", "layer_variability"):
        PROBES[name](net, images, protocol, device=device)
    PROBES["rotation_variability"](net, images, device=device)
    PROBES["layer_loss"](net, images, max_shift=2.0, draws=1, device=device)


def streaming(net: nn.Module, images: Tensor, device: torch.device) -> None:
    """The metrics of torchmetrics, on the device."""
    with torch.no_grad():
        p, q = (net(x.to(device)).softmax(-1) for x in (images, images.roll(1, -1)))
    for metric in (metrics.TopOneChange(), metrics.JensenShannon(), metrics.Kappa(4), metrics.ShiftInformation(4)):
        on_device = metric.to(device)
        on_device.update(p, q)
        assert on_device.compute().device == device


@pytest.mark.parametrize("measure", [layers, derivatives, certificate, probes, streaming])
def test_networks_on_the_device_are_measured(
    measure: Callable[[nn.Module, Tensor, torch.device], None], images: Tensor, device: torch.device
) -> None:
    measure(CircularNet(2).to(device), images, device)
