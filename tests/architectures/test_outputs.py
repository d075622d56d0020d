"""Outputs of networks: logits are found, auxiliary heads are trained, and other outputs are errors."""

from __future__ import annotations

import types
from collections import OrderedDict, namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import augkit
from augkit.architectures.outputs import classification_loss, logits_in
from augkit.core.errors import InputError
from augkit.core.random_streams import seeded
from augkit.invariance.layers.lie_derivative import lie_derivative
from augkit.invariance.layers.relative import relative_invariance
from augkit.train.build import build_recipe_model, describe_input, load_recipe_data
from augkit.train.recipe import Recipe


def net(*layers: nn.Module, side: int = 16) -> nn.Sequential:
    with seeded(0):
        return nn.Sequential(nn.Conv2d(1, 4, 3), *layers, nn.Flatten(), nn.Linear(4 * (side - 2) ** 2, 10))


def weights(model: nn.Module) -> Tensor:
    return torch.cat([value.flatten().double() for value in model.state_dict().values()])


Named = namedtuple("Named", ["logits", "aux_logits"])
FORMS: dict[str, Callable[[Tensor], Any]] = {
    "named tuple": lambda logits: Named(logits, None),
    "tuple": lambda logits: (logits, logits.flatten()),
    "list": lambda logits: [logits],
    "segmentation": lambda logits: OrderedDict(out=logits, other=logits.sum()),
    "attribute": lambda logits: types.SimpleNamespace(loss=None, logits=logits),
    "dict in dict": lambda logits: {"head": {"logits": logits}},
}


class Wrapped(nn.Module):
    def __init__(self, form: Callable[[Tensor], Any], network: nn.Module | None = None) -> None:
        super().__init__()
        self.network, self.form = network or net(nn.ReLU()), form

    def forward(self, images: Tensor) -> Any:
        return self.form(self.network(images))


@pytest.mark.parametrize("form", FORMS)
def test_logits_are_found_in_every_form_of_output(form: str, tiny: Recipe) -> None:
    plain = augkit.fit(tiny, model=net(nn.ReLU()))
    run = augkit.fit(tiny, model=Wrapped(FORMS[form]))
    assert torch.equal(weights(plain.model), weights(run.model))
    assert plain.evaluation.loss == run.evaluation.loss
    images = torch.rand(4, 1, 20, 20, generator=torch.Generator().manual_seed(0))
    for probe in (
        lambda model: augkit.measure_invariance(model, images, max_shift=2.0, pairs=1).to_dict(),
        lambda model: lie_derivative(model, images[..., :16, :16]).to_dict(),
        lambda model: relative_invariance(model, images, max_shift=2.0, draws=1).to_dict(),
        lambda model: augkit.certify(model, 16).verdict,
    ):
        assert probe(plain.model) == probe(run.model)


@pytest.mark.parametrize(
    ("form", "message"),
    [
        (lambda logits: "cat", r"expected logits \(2, K\), got str; wrap it so that it gives its logits"),
        (lambda logits: {"a": logits, "b": logits}, r"got a dict with a, b; wrap it"),
        (lambda logits: logits[..., None, None], r"expected logits \(2, K\), got \(2, 10, 1, 1\)"),
        (lambda logits: logits[:, :1], "at least 2 classes, got 1"),
        (lambda logits: logits.view(3, -1), r"fails on images \(2, 1, 16, 16\) \(shape '\[3, -1\]' is invalid"),
    ],
)
def test_other_answers_are_refused_before_training(
    form: Callable[[Tensor], Any], message: str, tiny: Recipe, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        augkit.fit(tiny, model=Wrapped(form), output=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError):
        augkit.measure_invariance(Wrapped(form, net(side=14)), torch.rand(2, 1, 18, 18), max_shift=2.0)


def test_auxiliary_heads_add_to_the_loss() -> None:
    a, b, c = torch.randn(3, 4, 5)
    labels, soft = torch.tensor([0, 1, 4, 2]), torch.rand(4, 5).softmax(1)
    google = namedtuple("google", ["logits", "aux_logits2", "aux_logits1"])
    for targets in (labels, soft):
        each = [F.cross_entropy(logits, targets, label_smoothing=0.1) for logits in (a, b, c)]
        for output, expected in (
            (a, each[0]),
            (google(a, b, c), each[0] + 0.3 * each[1] + 0.3 * each[2]),
            (Named(a, b), each[0] + 0.4 * each[1]),
            (Named(a, None), each[0]),
            ({"out": a, "aux": b}, each[0] + 0.5 * each[1]),
        ):
            torch.testing.assert_close(classification_loss(output, targets, 0.1), expected)
            assert logits_in(output) is a


@pytest.mark.integration
def test_googlenet_of_torchvision_is_trained(tiny: Recipe, tmp_path: Path) -> None:
    data = {**tiny.data.model_dump(), "channels": 3, "canvas": 32, "limit": 40}
    recipe = tiny.replaced(data=data, model={"name": "torchvision:googlenet"}, train={"steps": 1, "batch_size": 4})
    run = augkit.fit(recipe)
    assert run.history[0]["loss"] > 1.3 * np.log(10), "two auxiliary heads"
    # Weights to begin with, of other classes: the auxiliary heads stay as the final layer does.
    from torchvision.models import GoogLeNet

    torch.save(GoogLeNet(num_classes=7, init_weights=False).state_dict(), tmp_path / "w.pt")
    begun = recipe.replaced(model={"name": "torchvision:googlenet", "weights": str(tmp_path / "w.pt")})
    model = build_recipe_model(begun, describe_input(begun, load_recipe_data(begun)), 0)
    assert [len(model.get_parameter(f"{name}.bias")) for name in ("fc", "aux1.fc2", "aux2.fc2")] == [10] * 3
