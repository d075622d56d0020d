"""Networks of anybody's: what draws, what is frozen, what computes its weights or makes them late."""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.ops import StochasticDepth

import augkit
from augkit.architectures.modes import copied, evaluated, frozen_modules
from augkit.core.errors import InputError
from augkit.core.random_streams import MEASUREMENT, NETWORK, drawing, seeded
from augkit.data import Dataset
from augkit.invariance import make_protocol, probes
from augkit.invariance.layers.equivariance import layerwise_equivariance
from augkit.invariance.layers.lie_derivative import lie_derivative
from augkit.invariance.layers.relative import relative_invariance
from augkit.train.evaluate import evaluate
from augkit.train.recipe import Recipe

CPU = torch.device("cpu")
TORUS = make_protocol("circular", (16, 16))
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


@pytest.mark.gpu
@pytest.mark.parametrize("settings", [{}, {"compile": True}, {"precision": "float16"}], ids=str)
def test_what_draws_on_a_gpu_is_named_by_the_seed(settings: dict[str, Any], tiny: Recipe) -> None:
    recipe = with_train(tiny, deterministic=True, **settings)
    torch.rand(3, device="cuda")
    before = torch.get_rng_state(), torch.cuda.get_rng_state()
    first = augkit.fit(recipe, model=net(nn.Dropout(0.5), Noise()), device="cuda").model
    torch.rand(3, device="cuda")
    second = augkit.fit(recipe, model=net(nn.Dropout(0.5), Noise()), device="cuda").model
    assert torch.equal(weights(first), weights(second))
    torch.cuda.set_rng_state(before[1])
    augkit.fit(recipe, model=net(nn.Dropout(0.5)), device="cuda")
    augkit.measure_invariance(second, torch.rand(4, 1, 20, 20, generator=torch.Generator()), max_shift=2.0, pairs=1)
    assert torch.equal(torch.cuda.get_rng_state(), before[1])
    assert torch.equal(torch.get_rng_state(), before[0])


def test_every_update_and_every_part_draws_other_numbers(tiny: Recipe) -> None:
    drawn: list[float] = []

    class Kept(nn.Module):
        def forward(self, maps: Tensor) -> Tensor:
            if self.training:
                drawn.append(float(torch.rand(())))
            return maps

    augkit.fit(with_train(tiny, accumulate=2), model=net(Kept()))
    assert len(set(drawn)) == len(drawn) == 2 * (200 // 32) * 2


def test_streams_of_other_names_places_and_processes_differ() -> None:
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
        lambda net, images: probes.exactness(net, images[..., :16, :16], TORUS, max_shift=1),
        lambda net, images: probes.layer_variability(net, images[..., :16, :16], TORUS, max_shift=1),
        lambda net, images: probes.layer_loss(net, images[..., :16, :16], max_shift=1.0, draws=1),
    ],
    ids=["measure", "lie", "layerwise", "relative", "certify", "exactness", "variability of layers", "loss of layers"],
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
    shared.train()
    modes = [module.training for module in network.modules()]
    with evaluated(network):
        assert network[0].merged
        assert not any(module.training for module in network.modules())
    assert not network[0].merged
    assert [module.training for module in network.modules()] == modes


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning", "ignore:.*torch.jit:DeprecationWarning")
def test_networks_that_are_fixed_in_evaluation_mode_are_measured() -> None:
    network = net(nn.BatchNorm2d(4)).eval()
    images = torch.rand(4, 1, 20, 20)
    exported = torch.export.export(network, (images[..., 2:-2, 2:-2].contiguous(),)).module()
    for fixed in (torch.jit.freeze(torch.jit.script(network)), exported, nn.Sequential(exported)):
        found = [augkit.measure_invariance(each, images, max_shift=2.0, pairs=1) for each in (network, fixed)]
        assert found[0].js.value == pytest.approx(found[1].js.value, abs=1e-6)


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


def test_a_network_that_cannot_be_trained_is_said_at_the_first_update(tiny: Recipe) -> None:
    class Narrow(nn.Module):
        def forward(self, maps: Tensor) -> Tensor:
            return nn.functional.avg_pool2d(maps, 99) if self.training else maps

    with pytest.raises(InputError, match=r"model: update 1 fails, of 32 images \(.*Output size is too small\)"):
        augkit.fit(tiny, model=net(Narrow()))


def test_batch_norm_of_a_single_image_is_said(tiny: Recipe) -> None:
    network = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(1, 10))
    pairs = DataLoader(TensorDataset(torch.rand(17, 1, 4, 4), torch.arange(17) % 10), 8)
    with pytest.raises(InputError, match=r"model: update 3 fails, of 1 images \(Expected more than 1 value"):
        augkit.fit(tiny, model=network, loader=pairs, validation_loader=pairs)


def test_nothing_to_train_is_said(tiny: Recipe) -> None:
    with pytest.raises(InputError, match="expected weights that require gradients, got none"):
        augkit.fit(tiny, model=net().requires_grad_(False))


def test_layers_of_timm_that_draw(tiny: Recipe) -> None:
    drop_path = pytest.importorskip("timm.layers").DropPath
    first, second = (augkit.fit(tiny, model=net(drop_path(0.5))).model for _ in range(2))
    assert torch.equal(weights(first), weights(second))
