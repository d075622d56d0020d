"""Networks of anybody's: what draws, what is frozen, what computes its weights, what answers more than logits."""

from __future__ import annotations

import contextlib
import copy
import random
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
from torchvision.ops import StochasticDepth

import augkit
from augkit.checkpoints import State
from augkit.data import Dataset
from augkit.errors import InputError
from augkit.evaluation import evaluate
from augkit.invariance.layerwise import layerwise_equivariance
from augkit.invariance.lie import lie_derivative
from augkit.invariance.relative import relative_invariance
from augkit.modes import copied, evaluated, frozen_modules
from augkit.outputs import classification_loss, logits_in
from augkit.recipe import Recipe
from augkit.reproducible import MEASUREMENT, NETWORK, drawing, seeded

CPU = torch.device("cpu")
Make = Callable[[], nn.Module]


class Noise(nn.Module):
    """Draws in evaluation mode too."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps + 0.1 * torch.randn_like(maps)


class OtherNumbers(nn.Module):
    """Draws from Python's and numpy's numbers, as layers that are dropped at random do."""

    def forward(self, maps: Tensor) -> Tensor:
        return maps * random.random() + float(np.random.rand())  # noqa: NPY002 (what other people's layers do)


def net(*layers: nn.Module, side: int = 16) -> nn.Sequential:
    with seeded(0):
        return nn.Sequential(nn.Conv2d(1, 4, 3), *layers, nn.Flatten(), nn.Linear(4 * (side - 2) ** 2, 10))


def with_train(recipe: Recipe, **fields: Any) -> Recipe:
    return recipe.replaced(train={**recipe.train.model_dump(), **fields})


def weights(model: nn.Module) -> Tensor:
    return torch.cat([value.flatten().double() for value in model.state_dict().values() if isinstance(value, Tensor)])


def states() -> tuple[Any, ...]:
    numpy_state = np.random.get_state()  # noqa: NPY002
    return torch.get_rng_state().tolist(), [part.tolist() for part in numpy_state[1:2]], random.getstate()


@pytest.mark.parametrize(
    "layer",
    [lambda: nn.Dropout(0.5), lambda: StochasticDepth(0.5, "row"), Noise, OtherNumbers],
    ids=["dropout", "stochastic depth", "noise", "other numbers"],
)
@pytest.mark.parametrize("settings", [{}, {"precision": "bfloat16", "accumulate": 2, "ema": 0.9}], ids=str)
def test_a_network_that_draws_is_trained_to_the_same_bits(
    layer: Make, settings: dict[str, Any], tiny: Recipe, tmp_path: Path
) -> None:
    recipe = with_train(tiny, checkpoint_steps=4, **settings)
    whole = augkit.fit(recipe, model=net(layer()))
    assert not torch.equal(weights(whole.model), weights(augkit.fit(recipe, seed=1, model=net(layer())).model))

    def stop(step: int, steps: int) -> None:
        if step == 5:
            raise KeyboardInterrupt

    random.seed(5)
    torch.manual_seed(5)
    before = states()
    with pytest.raises(KeyboardInterrupt):
        augkit.fit(recipe, model=net(layer()), output=tmp_path / "run", on_step=stop)
    resumed = augkit.fit(recipe, model=net(layer()), output=tmp_path / "run", resume=True)
    assert torch.equal(weights(whole.model), weights(resumed.model))
    assert whole.evaluation.loss == resumed.evaluation.loss
    assert states() == before


def test_every_update_and_every_process_draws_other_numbers() -> None:
    def drawn(*place: int) -> float:
        with drawing(CPU, *place):
            return float(torch.rand(()))

    places = [(0, NETWORK, 0, 0), (0, NETWORK, 1, 0), (0, NETWORK, 0, 1), (1, NETWORK, 0, 0), (0, MEASUREMENT, 0, 0)]
    assert len({drawn(*place) for place in places}) == len(places)
    assert drawn(*places[0]) == drawn(*places[0])


def test_the_numbers_of_an_accelerator_are_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for ``torch.cuda``, with one number as its state."""

    class Accelerator:
        state, current = 7, 0

        def get_rng_state(self, device: torch.device) -> int:
            return self.state if device.index == 1 else -1

        def set_rng_state(self, state: int, device: torch.device) -> None:
            assert device.index == 1
            self.state = state

        def manual_seed(self, number: int) -> None:
            assert self.current == 1
            self.state = number

        @contextlib.contextmanager
        def device(self, device: torch.device) -> Any:
            self.current = device.index
            yield
            self.current = 0

    there = Accelerator()
    monkeypatch.setattr(torch, "get_device_module", lambda device: there)
    with seeded(123, torch.device("cuda", 1)):
        assert (there.state, there.current) == (123, 0)
    assert there.state == 7


@pytest.mark.parametrize(
    "probe",
    [
        lambda net, images: augkit.measure_invariance(net, images, max_shift=2.0, pairs=1),
        lambda net, images: lie_derivative(net, images[..., :16, :16]),
        lambda net, images: layerwise_equivariance(net, images[..., :16, :16], shares=False),
        lambda net, images: relative_invariance(net, images, max_shift=2.0, draws=1),
        lambda net, images: augkit.certify(net, 16),
    ],
    ids=["measure", "lie", "layerwise", "relative", "certify"],
)
def test_probes_leave_modes_and_random_numbers_alone(probe: Callable[[nn.Module, Tensor], Any]) -> None:
    network = net(nn.BatchNorm2d(4), nn.Sequential(nn.Dropout(), nn.MaxPool2d(3, 1, 1)), Noise())
    network[1].eval()
    modes, before = [module.training for module in network.modules()], states()
    found = [probe(network, torch.rand(4, 1, 20, 20, generator=torch.Generator().manual_seed(0))) for _ in range(2)]
    assert [module.training for module in network.modules()] == modes
    assert states() == before
    assert repr(found[0]) == repr(found[1])


def test_evaluation_leaves_modes_and_random_numbers_alone(tiny: Recipe, digits: Dataset) -> None:
    network, before = net(Noise(), nn.Dropout()), states()
    network[2].eval()
    losses = {evaluate(network, digits.validation, tiny, CPU).loss for _ in range(2)}
    assert (network.training, network[2].training) == (True, False)
    assert states() == before
    assert len(losses) == 1


def test_modes_come_back_through_modules_that_do_work_in_train() -> None:
    class Merging(nn.Linear):
        """As adapters of low rank do, it merges its weights for evaluation."""

        merged = False

        def train(self, mode: bool = True) -> Merging:
            self.merged = not mode
            return super().train(mode)

    shared = nn.Dropout()
    network = nn.Sequential(Merging(2, 2), nn.Sequential(shared), nn.Sequential(shared, nn.ReLU()))
    network[2].eval()
    modes = [module.training for module in network.modules()]
    with evaluated(network):
        assert network[0].merged
        assert not any(module.training for module in network.modules())
    assert not network[0].merged
    assert [module.training for module in network.modules()] == modes


@pytest.mark.parametrize("ema", [None, 0.5])
def test_frozen_norms_stay_frozen(ema: float | None, tiny: Recipe) -> None:
    network = net(nn.BatchNorm2d(4), nn.BatchNorm2d(4), nn.BatchNorm2d(4))
    network[1].eval()
    network[2].requires_grad_(False)
    assert frozen_modules(network) == [network[1], network[2]]
    before = copy.deepcopy(network)
    trained = augkit.fit(with_train(tiny, ema=ema, evaluate_every=1), model=network).model
    for k in (1, 2, 3):
        moved = not torch.equal(trained[k].running_mean, before[k].running_mean)
        assert moved == (k == 3), k
    assert not torch.equal(trained[1].weight, before[1].weight), "only its statistics were frozen"
    assert torch.equal(trained[2].weight, before[2].weight)
    assert not any(module.training for module in trained.modules())
    assert frozen_modules(network.eval()) == [network[2]], "a network in eval() as a whole is trained as a whole"


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning")
@pytest.mark.parametrize(
    "wrap",
    [
        nn.utils.weight_norm,
        nn.utils.spectral_norm,
        nn.utils.parametrizations.weight_norm,
        nn.utils.parametrizations.spectral_norm,
    ],
    ids=["old weight norm", "old spectral norm", "weight norm", "spectral norm"],
)
@pytest.mark.parametrize("used", [False, True])
def test_weights_that_are_computed_are_averaged(wrap: Callable[..., nn.Module], used: bool, tiny: Recipe) -> None:
    network = nn.Sequential(nn.Flatten(), wrap(nn.Linear(256, 10)))
    if used:
        network(torch.rand(2, 1, 16, 16))
    run = augkit.fit(with_train(tiny, ema=0.5, epochs=1), model=network)
    assert run.model is not network
    for (name, mean), last in zip(run.model.named_parameters(), network.parameters(), strict=True):
        assert not torch.equal(mean, last), name
    found = run.model(torch.rand(2, 1, 16, 16))
    weight = run.model[1].weight
    assert weight.shape == (10, 256)
    assert not torch.equal(weight, network[1].weight)
    assert found.shape == (2, 10)


def test_a_copy_shares_nothing_and_keeps_what_is_tied() -> None:
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    network[1].weight = network[0].weight
    network.kept = {"maps": [network(torch.rand(1, 3))]}  # what a hook kept, with its history
    other = copied(network)
    assert other[1].weight is other[0].weight
    assert other[0].weight is not network[0].weight
    assert torch.equal(other.kept["maps"][0], network.kept["maps"][0])
    with torch.inference_mode():
        network.kept = network(torch.rand(1, 3))
    assert not copied(network).kept.is_inference()


class Growing(nn.Module):
    """Its buffers are counts and flags, and a queue that grows."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(256, 10)
        self.kind = nn.Parameter(torch.arange(3), requires_grad=False)
        self.register_buffer("count", torch.zeros((), dtype=torch.long))
        self.register_buffer("queue", torch.zeros(0, dtype=torch.float16))

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self.count += 1
            self.queue = torch.cat([self.queue, images.flatten()[:1].half()])
            if not hasattr(self, "late"):
                self.register_buffer("late", torch.ones(2, dtype=torch.bool), persistent=False)
        return self.head(images.flatten(1))

    def get_extra_state(self) -> dict[str, int]:
        return {"version": 1}

    def set_extra_state(self, state: dict[str, int]) -> None:
        assert state == {"version": 1}


def test_averages_keep_up_with_any_buffers(tiny: Recipe) -> None:
    network = Growing()
    run = augkit.fit(with_train(tiny, ema=0.5, patience=5, epochs=1), model=network)
    kept = dict(run.model.named_buffers())
    assert int(kept["count"]) == 6
    assert torch.equal(kept["queue"], network.queue)
    assert kept["late"].all()
    assert set(run.model.state_dict()) == set(network.state_dict())


def lazy() -> nn.Module:
    return nn.Sequential(nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.Flatten(), nn.LazyLinear(10))


def test_lazily_made_weights_are_trained(tiny: Recipe) -> None:
    first, second = (augkit.fit(with_train(tiny, ema=0.5), model=lazy()).model for _ in range(2))
    assert torch.equal(weights(first), weights(second))
    measured = lazy()
    augkit.measure_invariance(measured, torch.rand(2, 1, 20, 20), max_shift=2.0, pairs=1)
    assert measured[3].in_features == 4 * 14 * 14
    assert augkit.fit(tiny, model=measured).history, "weights made by a measurement can be trained"


def test_a_network_in_double_precision_is_trained_in_it(tiny: Recipe) -> None:
    run = augkit.fit(with_train(tiny, mixup=0.4), model=net().double())
    assert {p.dtype for p in run.model.parameters()} == {torch.float64}


def test_nothing_to_train_is_said(tiny: Recipe) -> None:
    with pytest.raises(InputError, match="expected weights that require gradients, got none"):
        augkit.fit(tiny, model=net().requires_grad_(False))


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
def test_logits_are_found_in_what_a_network_gives(form: str, tiny: Recipe) -> None:
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


def test_googlenet_of_torchvision_is_trained(tiny: Recipe, tmp_path: Path) -> None:
    data = {**tiny.data.model_dump(), "channels": 3, "canvas": 32, "limit": 40}
    recipe = tiny.replaced(data=data, model={"name": "torchvision:googlenet"}, train={"steps": 1, "batch_size": 4})
    run = augkit.fit(recipe)
    assert run.history[0]["loss"] > 1.3 * np.log(10), "two auxiliary heads"
    state = State.begin(run.model, recipe, CPU)
    assert not state.frozen
    # Weights to begin with, of other classes: the auxiliary heads stay as the final layer does.
    from torchvision.models import GoogLeNet

    torch.save(GoogLeNet(num_classes=7, init_weights=False).state_dict(), tmp_path / "w.pt")
    from augkit.building import build_recipe_model, describe_input, load_recipe_data

    begun = recipe.replaced(model={"name": "torchvision:googlenet", "weights": str(tmp_path / "w.pt")})
    model = build_recipe_model(begun, describe_input(begun, load_recipe_data(begun)), 0)
    assert [len(model.get_parameter(f"{name}.bias")) for name in ("fc", "aux1.fc2", "aux2.fc2")] == [10] * 3


def test_layers_of_timm_that_draw(tiny: Recipe) -> None:
    drop_path = pytest.importorskip("timm.layers").DropPath
    first, second = (augkit.fit(tiny, model=net(drop_path(0.5))).model for _ in range(2))
    assert torch.equal(weights(first), weights(second))
