"""Networks that write into their input, return unusual outputs or fail: one-line errors, and unchanged images."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import augkit
from augkit.core.errors import InputError, InputTypeError, RunError
from augkit.core.random_streams import seeded
from augkit.data import Dataset
from augkit.invariance import make_protocol, probes
from augkit.invariance.layers.equivariance import layerwise_equivariance
from augkit.invariance.layers.lie_derivative import lie_derivative
from augkit.invariance.layers.relative import relative_invariance
from augkit.train.evaluate import evaluate
from augkit.train.recipe import Recipe

TORUS = make_protocol("circular", (16, 16))


def net() -> nn.Sequential:
    with seeded(0):
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 10))


class Answers(nn.Module):
    """A network whose answer, or whose input, goes through a function; ``calls`` counts."""

    def __init__(self, answer: Callable[[Answers, Tensor], Any], first: Callable[[Tensor], Tensor] | None = None):
        super().__init__()
        self.net, self.answer, self.first, self.calls = net(), answer, first, 0

    def forward(self, images: Tensor) -> Any:
        self.calls += 1
        return self.answer(self, self.net(images if self.first is None else self.first(images)))


def images() -> Tensor:
    return torch.rand(4, 1, 16, 16, generator=torch.Generator().manual_seed(0))


def measured(model: nn.Module, pixels: Tensor) -> Any:
    report = augkit.measure_invariance(model, pixels, max_shift=2.0, pairs=2, protocol="circular")
    return report.shift_information.value, report.top1_change.value


PROBES: dict[str, Callable[[nn.Module, Tensor], Any]] = {
    "measure": measured,
    "lie": lambda model, pixels: repr(lie_derivative(model, pixels, protocol=TORUS)),
    "layers": lambda model, pixels: [each.decibels for each in layerwise_equivariance(model, pixels, draws=1)][-1],
    "relative": lambda model, pixels: repr(relative_invariance(model, pixels, protocol=TORUS)),
    "exactness": lambda model, pixels: probes.exactness(model, pixels, TORUS).tolist(),
}


def same(_: Answers, logits: Tensor) -> Tensor:
    return logits


@pytest.mark.parametrize("probe", PROBES)
def test_networks_that_write_into_their_input_change_nobodys_images(probe: str) -> None:
    pixels = images()
    written = PROBES[probe](Answers(same, lambda given: given.sub_(0.5).div_(0.2)), pixels)
    assert torch.equal(pixels, images())
    assert written == PROBES[probe](Answers(same, lambda given: (given - 0.5) / 0.2), pixels)


def test_gray_images_that_are_repeated_can_be_written_to() -> None:
    with seeded(0):
        model = nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    pixels = images()
    measured(nn.Sequential(nn.Hardtanh(0.4, 0.6, inplace=True), *model), pixels)
    assert torch.equal(pixels, images())


def late(error: Exception) -> Callable[[Answers, Tensor], Tensor]:
    def answer(model: Answers, logits: Tensor) -> Tensor:
        if model.calls > 1:
            raise error
        return logits

    return answer


ODD: dict[str, tuple[Callable[[Answers, Tensor], Any], str]] = {
    "complex": (lambda _, logits: logits.to(torch.complex64), "floating point, got complex64; wrap it"),
    "whole": (lambda _, logits: (100 * logits).long(), "floating point, got int64; wrap it"),
    "flags": (lambda _, logits: logits > 0, "floating point, got bool; wrap it"),
    "eight bits": (lambda _, logits: logits.to(torch.float8_e4m3fn), "floating point, got float8_e4m3fn; wrap it"),
    "sparse": (lambda _, logits: logits.to_sparse(), "floating point, got sparse float(32|64); wrap it"),
    "no values": (lambda _, logits: logits.to("meta"), r"got without values \(device meta\)"),
    "no classes": (lambda _, logits: logits[:, :0], "at least [12] class(es)?, got 0"),
    "key error": (late(KeyError("x")), "it fails on images .*'x'"),
    "nothing to say": (late(AssertionError()), "AssertionError"),
    "two lines": (late(ValueError("one\ntwo")), r"it fails on images .*\(one\)"),
}


@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize("kind", ODD)
def test_odd_answers_and_failures_are_one_line(kind: str, probe: str) -> None:
    answer, message = ODD[kind]
    if probe == "lie":  # which tries another method first
        message = message.replace("it fails on images .*", "central differences need float64, in which it fails .*")
        message = message.replace(r"\(one\)", "one")
    with pytest.raises(InputError, match=message) as caught:
        PROBES[probe](Answers(answer), images())
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["complex", "flags", "eight bits", "sparse", "no values", "no classes"])
def test_certificates_refuse_odd_answers(kind: str) -> None:
    answer, message = ODD[kind]
    with pytest.raises(InputError, match=message):
        augkit.certify(Answers(answer), 16)


@pytest.mark.parametrize("kind", ODD)
def test_fit_refuses_odd_answers(kind: str, tiny: Recipe) -> None:
    answer, message = ODD[kind]
    with pytest.raises(InputError, match=message if "late" not in answer.__qualname__ else "model: "):
        augkit.fit(tiny, model=Answers(answer))


def fewer(model: Answers, logits: Tensor) -> Tensor:
    return logits[:, : 10 - (model.calls > 1)]


def test_the_number_of_classes_may_not_change(tiny: Recipe, digits: Dataset) -> None:
    for ask in (measured, PROBES["exactness"]):
        with pytest.raises(InputError, match="expected 10 logits as before, got 9"):
            ask(Answers(fewer), images())
    with pytest.raises(InputError, match="expected 10 logits as before, got 9"):
        augkit.certify(Answers(fewer), 16)
    with pytest.raises(InputError, match="expected the same layers"):
        PROBES["layers"](Answers(fewer), images())
    loader = [(images(), torch.arange(4)), (images(), torch.arange(4))]
    with pytest.raises(InputError, match="expected 10 logits as before, got 9"):
        evaluate(Answers(fewer), loader, tiny, torch.device("cpu"))
    with pytest.raises(InputError, match="expected 10 logits as before, got 5"):
        augkit.fit(tiny, model=Answers(lambda model, logits: logits[:, :5] if model.training else logits))


def test_nan_in_evaluation_is_no_answer(tiny: Recipe, digits: Dataset) -> None:
    model = Answers(lambda model, logits: logits if model.training or model.calls < 2 else logits * float("nan"))
    with pytest.raises(RunError, match="the network gives NaN in evaluation mode"):
        augkit.fit(tiny, model=model)


def test_a_late_failure_in_evaluation_is_one_line(tiny: Recipe) -> None:
    loader = [(images(), torch.arange(4)), (images(), torch.arange(4))]
    with pytest.raises(InputError, match=r"it fails on images \(4, 1, 16, 16\) \(gone\)"):
        evaluate(Answers(late(OSError("gone"))), loader, tiny, torch.device("cpu"))


ASKS: dict[str, Callable[[Any, Recipe], Any]] = {
    **{name: lambda model, _, probe=probe: probe(model, images()) for name, probe in PROBES.items()},
    "fit": lambda model, recipe: augkit.fit(recipe, model=model),
    "certify": lambda model, _: augkit.certify(model, 16),
    "antialias": lambda model, _: augkit.antialias(model),
}


@pytest.mark.parametrize("ask", ASKS)
def test_no_network_and_weights_without_values_are_said(ask: str, tiny: Recipe) -> None:
    for wrong in ("resnet18", nn.Linear, lambda given: given):
        with pytest.raises(InputTypeError, match=r"expected a torch\.nn\.Module, got (str|type|function)"):
            ASKS[ask](wrong, tiny)
    model = net()
    model[4] = nn.Linear(16, 10, device="meta")
    with pytest.raises(InputError, match=r"'4\.weight' is on the device 'meta'; model\.to_empty"):
        ASKS[ask](model, tiny)


class Keeps(nn.Module):
    """Adds what it gave before, with its gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.last = net(), torch.zeros(1, 10)

    def forward(self, given: Tensor) -> Tensor:
        self.last = self.net(given) + self.last.mean(0)
        return self.last


def exported() -> nn.Module:
    whole = torch.export.export(net(), (torch.rand(2, 1, 16, 16),)).module()
    assert isinstance(whole, nn.Module)
    return whole


def without_gradients() -> nn.Module:
    with torch.inference_mode():
        return net()


def quantized() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.ao.quantization.quantize_dynamic(net(), {nn.Linear})


CANNOT: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "detached": (lambda: Answers(lambda _, logits: logits.detach()), "these have no gradient; its forward must not"),
    "keeps": (Keeps, "it keeps tensors of the update before with their gradients; detach"),
    "exported": (exported, "was exported by torch.export; give the network from before export"),
    "inference mode": (without_gradients, r"'0\.weight' was made under torch\.inference_mode\(\)"),
    "quantized": (quantized, r"'4\._packed_params\._packed_params' is quantized; train it before that"),
    "no weights": (nn.Flatten, "expected weights that require gradients, got none"),
}


@pytest.mark.parametrize("kind", CANNOT)
@pytest.mark.parametrize("every", [None, 1])
def test_networks_that_cannot_be_trained_are_errors(kind: str, every: int | None, tiny: Recipe) -> None:
    make, message = CANNOT[kind]
    recipe = tiny.replaced(invariance={**tiny.invariance.model_dump(), "every": every})
    with pytest.raises(InputError, match=message):
        augkit.fit(recipe, model=make())


def scripted() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch would have us use something else
        return torch.jit.script(net())


def test_scripted_networks_are_not_compiled_again() -> None:
    with pytest.raises(InputError, match=r"compiled: expected a network that torch\.compile takes, torch\.jit has"):
        augkit.measure_invariance(scripted(), images(), max_shift=1.0, compiled=True)


def test_scripted_networks_are_averaged(tiny: Recipe) -> None:
    recipe = tiny.replaced(train={**tiny.train.model_dump(), "patience": 5, "ema": 0.9})
    found, plain = (augkit.fit(recipe, model=model).evaluation.loss for model in (scripted(), net()))
    assert found == pytest.approx(plain, rel=1e-4)


def compiled_in_place() -> nn.Module:
    model = net()
    model.compile(backend="eager")
    return model


@pytest.mark.parametrize("make", [compiled_in_place, lambda: torch.compile(net(), backend="eager")])
def test_layers_of_compiled_networks_are_watched(make: Callable[[], nn.Module]) -> None:
    found, plain = (layerwise_equivariance(model, images(), draws=1) for model in (make(), net()))
    assert [each.name.removeprefix("_orig_mod.") for each in found] == [each.name for each in plain]
    assert [each.decibels for each in found] == [each.decibels for each in plain]


def test_layers_that_cannot_be_watched_are_said() -> None:
    with pytest.raises(InputError, match=r"torch\.jit has compiled them; give the network before scripting"):
        layerwise_equivariance(scripted(), images())

    class Frozen(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = net()

        def forward(self, given: Tensor) -> Tensor:
            with torch.no_grad():
                maps = self.layers[:4](given)
            return self.layers[4](maps)

    with pytest.raises(InputError, match=r"shares need gradients, 'layers\.0' runs without; pass shares=False"):
        layerwise_equivariance(Frozen(), images(), draws=1)
    assert layerwise_equivariance(Frozen(), images(), draws=1, shares=False)


def test_certificates_of_wrapped_and_lazy_networks() -> None:
    whole = augkit.certify(nn.DataParallel(net()), 16)
    assert (whole.verdict, whole.layer) == ("none", "0")
    lazy = nn.Sequential(nn.LazyConv2d(4, 3), nn.Flatten(), nn.LazyLinear(10))
    with pytest.raises(InputError, match="lazy layers; run it on one image first"):
        augkit.certify(copy.deepcopy(lazy), 16)
