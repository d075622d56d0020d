"""What a recipe can ask of training, each against an independent statement of what it means."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

import augkit
from augkit.core.errors import InputError, RunError
from augkit.data import Dataset, Images
from augkit.train.checkpoint import read_checkpoint, stalled
from augkit.train.evaluate import evaluate
from augkit.train.load_model import load_model
from augkit.train.recipe import Recipe

CPU = torch.device("cpu")


class Plain(torch.nn.Module):
    """A linear network without batch norm: sums of gradients are exact."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(16 * 16, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.linear(images.flatten(1))


def with_train(recipe: Recipe, **fields: Any) -> Recipe:
    return recipe.replaced(train={**recipe.train.model_dump(), **fields})


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([value.flatten().double() for value in model.state_dict().values()])


def test_plain_sgd_equals_a_loop_written_out(tiny: Recipe, digits: Dataset) -> None:
    recipe = tiny.replaced(policy={}, optim={"lr": 0.1, "momentum": 0.9, "nesterov": False, "weight_decay": 0.0})
    recipe = recipe.replaced(schedule={"name": "constant", "warmup": 0.0}, train={"steps": 7, "batch_size": 32})
    run = augkit.fit(recipe, model=Plain())
    model, velocity = Plain(), None
    data = augkit.load_dataset("digits", limit=200).train
    images, labels = data.on_canvas(16), data.labels
    assert labels is not None
    from augkit.core.random_streams import ORDER, random_stream

    steps = [(epoch, k) for epoch in range(2) for k in range(len(images) // 32)][:7]
    for epoch, k in steps:
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(random_stream(0, ORDER, epoch)))
        chosen = order[32 * k : 32 * (k + 1)]
        loss = F.cross_entropy(model((images[chosen] / 255 - 0.5) / 0.5), labels[chosen])
        gradients = torch.autograd.grad(loss, list(model.parameters()))
        velocity = gradients if velocity is None else [0.9 * v + g for v, g in zip(velocity, gradients, strict=True)]
        with torch.no_grad():
            for parameter, v in zip(model.parameters(), velocity, strict=True):
                parameter.sub_(0.1 * v)
    torch.testing.assert_close(weights(run.model), weights(model), atol=1e-6, rtol=1e-5)
    assert run.history[-1]["step"] == 7


def test_accumulated_parts_equal_the_whole_batch(tiny: Recipe) -> None:
    whole = augkit.fit(tiny, model=Plain())
    parts = augkit.fit(with_train(tiny, accumulate=4), model=Plain())
    torch.testing.assert_close(weights(parts.model), weights(whole.model), atol=1e-6, rtol=1e-5)
    assert parts.history[-1]["loss"] == pytest.approx(whole.history[-1]["loss"], rel=1e-5)


def test_steps_take_the_place_of_epochs(tiny: Recipe) -> None:
    run = augkit.fit(with_train(tiny, steps=9))
    length = 200 // 32
    assert [row["step"] for row in run.history] == [length, 9]


def test_averaged_weights_are_what_the_formula_says(tiny: Recipe, tmp_path: Path) -> None:
    recipe = with_train(tiny.replaced(policy={}), ema=0.5, epochs=1)
    trained: list[torch.Tensor] = []
    model = Plain()

    def note(step: int, steps: int) -> None:
        trained.append(model.linear.weight.detach().clone())

    run = augkit.fit(recipe, model=model, output=tmp_path / "run", on_step=note)
    average = Plain().linear.weight.detach()
    for step, new in enumerate(trained, start=1):
        decay = min(0.5, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * new
    torch.testing.assert_close(run.model.linear.weight, average, atol=1e-6, rtol=1e-5)  # type: ignore[union-attr]
    kept = read_checkpoint(tmp_path / "run" / "checkpoint.pt")
    assert torch.equal(kept["model"]["linear.weight"], run.model.linear.weight)  # type: ignore[union-attr, arg-type]
    assert torch.equal(kept["trained"]["linear.weight"], trained[-1])


def test_clipping_bounds_the_first_move(tiny: Recipe) -> None:
    optim = {"lr": 1.0, "momentum": 0.0, "weight_decay": 0.0, "clip_norm": 1e-3}
    recipe = with_train(tiny.replaced(optim=optim, schedule={"name": "constant", "warmup": 0.0}), steps=1)
    moved = weights(augkit.fit(recipe, model=Plain()).model) - weights(Plain())
    assert moved.norm().item() == pytest.approx(1e-3, rel=1e-3)


@pytest.mark.parametrize("fields", [{"mixup": 0.4}, {"cutmix": 1.0}, {"mixup": 0.2, "cutmix": 1.0}])
def test_mixing_changes_training_and_repeats(tiny: Recipe, fields: dict[str, float]) -> None:
    first, second = augkit.fit(with_train(tiny, **fields)), augkit.fit(with_train(tiny, **fields))
    assert torch.equal(weights(first.model), weights(second.model))
    assert not torch.equal(weights(first.model), weights(augkit.fit(tiny).model))


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_lower_precision_keeps_float32_weights_and_comes_close(tiny: Recipe, precision: str) -> None:
    full, half = augkit.fit(tiny), augkit.fit(with_train(tiny, precision=precision))
    assert {value.dtype for value in half.model.parameters()} == {torch.float32}
    assert not torch.equal(weights(full.model), weights(half.model))
    assert half.history[-1]["loss"] == pytest.approx(full.history[-1]["loss"], rel=0.05)


def test_memory_format_changes_no_more_than_rounding(tiny: Recipe) -> None:
    last, first = augkit.fit(tiny), augkit.fit(with_train(tiny, channels_last=False))
    torch.testing.assert_close(weights(last.model), weights(first.model), atol=1e-3, rtol=1e-2)


def test_deterministic_mode_ends_with_the_run(tiny: Recipe) -> None:
    run = augkit.fit(with_train(tiny, deterministic=True))
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.equal(weights(run.model), weights(augkit.fit(tiny).model))


def test_evaluation_interval(tiny: Recipe) -> None:
    run = augkit.fit(with_train(tiny, epochs=5, evaluate_every=2))
    assert ["validation_accuracy" in row for row in run.history] == [False, True, False, True, True]


def test_early_stop_keeps_the_best_weights(tiny: Recipe, digits: Dataset, tmp_path: Path) -> None:
    # A rate at which the network gets no better: the first evaluation stays the best.
    recipe = with_train(tiny.replaced(optim={"lr": 1e-12}), epochs=9, patience=2)
    run = augkit.fit(recipe, output=tmp_path / "run", dataset=digits)
    accuracies = [row["validation_accuracy"] for row in run.history]
    assert stalled(run.history, 2)
    assert not stalled(run.history[:-1], 2)
    best = evaluate(run.model, digits.validation, recipe, CPU)
    assert best.accuracy == max(accuracies) == run.evaluation.accuracy
    again = augkit.fit(recipe, output=tmp_path / "run", dataset=digits, resume=True)
    assert len(again.history) == len(run.history)
    assert torch.equal(weights(again.model), weights(run.model))


def test_variability_is_measured_along_training(tiny: Recipe) -> None:
    invariance = {**tiny.invariance.model_dump(), "every": 2, "images": 40}
    run = augkit.fit(with_train(tiny.replaced(invariance=invariance), epochs=3))
    assert ["shift_information" in row for row in run.history] == [False, True, True]
    found = run.history[-1]["shift_information"]
    assert 0 <= found["low"] <= found["value"] <= found["high"] <= 1


def test_test_time_shifts_average_probabilities(tiny: Recipe, digits: Dataset) -> None:
    recipe = with_train(tiny.replaced(data={**tiny.data.model_dump(), "limit": None}), test_time_shift=2.0)
    model = Plain().eval()
    held_out = digits.validation
    assert held_out.labels is not None
    images = held_out.on_canvas(16).float() / 255
    moves = [(0, 0), (2, 0), (-2, 0), (0, 2), (0, -2)]
    # Whole pixels on a black canvas with room: a shift is a roll.
    seen = [model((images.roll((y, x), (-2, -1)) - 0.5) / 0.5).softmax(-1) for x, y in moves]
    probabilities = torch.stack(seen).mean(0)
    expected = F.nll_loss(probabilities.log(), held_out.labels)
    found = evaluate(model, held_out, recipe, CPU)
    assert found.loss == pytest.approx(expected.item(), rel=1e-5)
    assert int(found.confusion.sum()) == len(held_out)
    assert found.accuracy == pytest.approx((probabilities.argmax(-1) == held_out.labels).double().mean().item())


def test_own_module_and_loader_give_the_same_run(tiny: Recipe, digits: Dataset, tmp_path: Path) -> None:
    data = digits.train
    assert data.labels is not None
    pairs = torch.utils.data.TensorDataset(data.on_canvas(16)[:128], data.labels[:128])
    held_out = digits.validation
    assert held_out.labels is not None
    held = torch.utils.data.TensorDataset(held_out.on_canvas(16), held_out.labels)
    loaders = {
        "loader": torch.utils.data.DataLoader(pairs, batch_size=32, drop_last=True),
        "validation_loader": torch.utils.data.DataLoader(held, batch_size=50),
    }
    run = augkit.fit(tiny, model=Plain(), output=tmp_path / "run", **loaders)  # type: ignore[arg-type]
    assert [row["step"] for row in run.history] == [4, 8]
    assert run.history[-1]["validation_accuracy"] == pytest.approx(evaluate(run.model, held_out, tiny, CPU).accuracy)
    with pytest.raises(InputError, match=r"network of your own \(Plain\); give package.module:callable --weights"):
        load_model(str(tmp_path / "run"))
    mixed = augkit.fit(with_train(tiny, mixup=0.3), model=Plain(), **loaders)  # type: ignore[arg-type]
    assert len(mixed.history) == 2
    with pytest.raises(InputError, match="loader, validation_loader and model together"):
        augkit.fit(tiny, loader=loaders["loader"])
    for wrong in ([torch.rand(2, 1, 16, 16)], [{"image": 1}]):
        with pytest.raises(InputError, match=r"batches of \(images, labels\)"):
            augkit.fit(tiny, model=Plain(), loader=wrong, validation_loader=loaders["validation_loader"])
    with pytest.raises(InputError, match="one with a length"):
        augkit.fit(tiny, model=Plain(), loader=iter([]), validation_loader=loaders["validation_loader"])


@pytest.mark.integration
def test_streamed_data_train_to_the_same_weights(tiny: Recipe, tmp_path: Path) -> None:
    from PIL import Image

    for k in range(60):
        folder = tmp_path / "data" / str(k % 3)
        folder.mkdir(parents=True, exist_ok=True)
        pixels = torch.randint(0, 255, (16, 16), generator=torch.Generator().manual_seed(k)).to(torch.uint8)
        Image.fromarray(pixels.numpy()).save(folder / f"{k}.png")
    data = {"name": f"folder:{tmp_path / 'data'}", "workers": 0}
    held = tiny.replaced(data=data, train={"epochs": 2, "batch_size": 8})
    streamed = held.replaced(data={**data, "memory": 0})
    assert torch.equal(weights(augkit.fit(held).model), weights(augkit.fit(streamed).model))
    on_canvas = held.replaced(data={**data, "canvas": 20})
    streamed = held.replaced(data={**data, "canvas": 20, "memory": 0, "workers": 2})
    assert torch.equal(weights(augkit.fit(on_canvas).model), weights(augkit.fit(streamed).model))


def test_events_for_tensorboard(tiny: Recipe, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    augkit.fit(with_train(tiny, tensorboard=True), output=tmp_path / "run")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "run")).Reload()
    assert "validation_accuracy" in events.Tags()["scalars"]
    assert len(events.Scalars("loss")) == 2


def test_batches_that_do_not_divide_are_refused(tiny: Recipe) -> None:
    with pytest.raises(InputError, match="batch_size in 3 equal parts"):
        with_train(tiny, accumulate=3)


@pytest.mark.integration
def test_networks_of_torchvision_and_weights_to_begin_with(tiny: Recipe, tmp_path: Path) -> None:
    data = {**tiny.data.model_dump(), "channels": 3, "canvas": 32}
    recipe = tiny.replaced(data=data, model={"name": "torchvision:resnet18"}, train={"steps": 1, "batch_size": 8})
    run = augkit.fit(recipe, output=tmp_path / "run")
    loaded = load_model(str(tmp_path / "run"))
    assert torch.equal(weights(run.model), weights(loaded.model))
    import torchvision

    torch.manual_seed(5)
    other = torchvision.models.resnet18(num_classes=7)
    torch.save(other.state_dict(), tmp_path / "other.pt")
    model = {"name": "torchvision:resnet18", "weights": str(tmp_path / "other.pt"), "downsample": "blurpool"}
    frozen = recipe.replaced(model=model, optim={"lr": 1e-30, "weight_decay": 0.0})
    begun = augkit.fit(frozen).model.state_dict()
    assert torch.equal(begun["layer1.0.conv1.weight"], other.state_dict()["layer1.0.conv1.weight"])
    assert len(begun["fc.weight"]) == 10
    with pytest.raises(InputError, match=r"expected images of 3 channels, got 1; data\.channels=3"):
        augkit.fit(recipe.replaced(data=tiny.data))


@pytest.mark.integration
def test_runs_do_not_change_the_data(tiny: Recipe, digits: Dataset) -> None:
    before = copy.deepcopy(digits.train.images)
    augkit.fit(with_train(tiny, mixup=0.3), dataset=digits)
    assert isinstance(digits.train, Images)
    assert torch.equal(before, digits.train.images)


def test_what_cannot_be_measured_is_said_before_training(tiny: Recipe) -> None:
    recipe = tiny.replaced(invariance={"every": 2, "max_shift": 50.0})
    rows: list[dict[str, Any]] = []
    with pytest.raises(InputError, match=r"max_shift: protocol 'embed' .* got 50"):
        augkit.fit(recipe, on_epoch=rows.append)
    assert rows == []


def test_out_of_memory_is_one_line(tiny: Recipe) -> None:
    class Hungry(Plain):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(RunError, match="out of memory on cpu: a lower batch_size or more accumulate"):
        augkit.fit(tiny, model=Hungry())
