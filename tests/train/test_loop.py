"""Training: same numbers twice, resumption, and what stops a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import augkit
from augkit.core.errors import InputError, RunError
from augkit.data import Dataset
from augkit.train.build import choose_device
from augkit.train.checkpoint import memory_format, read_checkpoint
from augkit.train.load_model import load_model
from augkit.train.recipe import Recipe


def weights(run: augkit.train.loop.Run) -> torch.Tensor:
    return torch.cat([value.flatten().double() for value in run.model.state_dict().values()])


def test_same_recipe_and_seed_give_the_same_run(tiny: Recipe) -> None:
    first, second = augkit.fit(tiny, seed=1), augkit.fit(tiny, seed=1)
    assert torch.equal(weights(first), weights(second))
    assert not torch.equal(weights(first), weights(augkit.fit(tiny, seed=2)))
    assert [row["loss"] for row in first.history] == [row["loss"] for row in second.history]


def test_it_learns(tiny: Recipe) -> None:
    longer = tiny.replaced(data={"name": "digits", "canvas": 16}, train={"epochs": 6, "batch_size": 32})
    history = augkit.fit(longer).history
    assert history[-1]["loss"] < 0.7 * history[0]["loss"]
    assert history[-1]["validation_accuracy"] > 0.5


def test_global_random_state_is_neither_used_nor_disturbed(tiny: Recipe) -> None:
    torch.manual_seed(123)
    before = torch.random.get_rng_state()
    first = augkit.fit(tiny)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(456)
    assert torch.equal(weights(augkit.fit(tiny)), weights(first))


def test_policies_share_initial_weights_and_order(tiny: Recipe) -> None:
    # With a learning rate that changes nothing, only order and initial weights could differ.
    frozen = tiny.replaced(optim={"lr": 1e-30, "weight_decay": 0.0})
    plain = frozen.replaced(policy={})
    started, other = augkit.fit(frozen).model, augkit.fit(plain).model
    for a, b in zip(started.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-20, rtol=0)


def test_interrupted_and_resumed_equals_uninterrupted(tiny: Recipe, tmp_path: Path) -> None:
    three = tiny.replaced(train={"epochs": 3, "batch_size": 32})
    whole = augkit.fit(three, output=tmp_path / "whole")

    def stop(row: dict[str, object]) -> None:
        if row["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        augkit.fit(three, output=tmp_path / "parts", on_epoch=stop)
    resumed = augkit.fit(three, output=tmp_path / "parts", resume=True)
    assert torch.equal(weights(whole), weights(resumed))
    assert [row["loss"] for row in whole.history] == [row["loss"] for row in resumed.history]


def test_run_folder_holds_what_it_promises(tiny: Recipe, tmp_path: Path) -> None:
    run = augkit.fit(tiny, seed=3, output=tmp_path / "run")
    folder = tmp_path / "run"
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoint.pt",
        "environment.json",
        "metrics.jsonl",
        "recipe.yaml",
    ]
    assert Recipe.load(folder) == tiny.replaced(seed=3)
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert rows == run.history
    assert "torch" in json.loads((folder / "environment.json").read_text())["versions"]
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    for name, value in run.model.state_dict().items():
        assert torch.equal(state["model"][name], value)
    loaded = load_model(str(folder))
    assert loaded.recipe == tiny.replaced(seed=3)
    assert loaded.input_size == 16
    assert torch.equal(weights(run), torch.cat([v.flatten().double() for v in loaded.model.state_dict().values()]))


def test_nothing_is_overwritten_unless_asked(tiny: Recipe, tmp_path: Path) -> None:
    augkit.fit(tiny, output=tmp_path / "run")
    before = (tmp_path / "run" / "checkpoint.pt").read_bytes()
    with pytest.raises(InputError, match="exists: add --resume"):
        augkit.fit(tiny, output=tmp_path / "run")
    with pytest.raises(InputError, match="another recipe or seed"):
        augkit.fit(tiny, seed=9, output=tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() == before
    augkit.fit(tiny, seed=9, output=tmp_path / "run", overwrite=True)
    assert (tmp_path / "run" / "checkpoint.pt").read_bytes() != before
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match="augkit wrote"):
        augkit.fit(tiny, output=tmp_path / "foreign", overwrite=True)
    assert (tmp_path / "foreign" / "thesis.tex").read_text() == "precious"
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="it is a file"):
        augkit.fit(tiny, output=tmp_path / "file")


def test_a_loss_that_is_not_finite_stops_the_run(tiny: Recipe) -> None:
    wild = tiny.replaced(optim={"name": "sgd", "lr": 1e20})
    with pytest.raises(RunError, match=r"loss is (nan|inf) at step 2, learning rate 5\.88e\+19; try a lower optim.lr"):
        augkit.fit(wild)


def test_a_loss_that_is_not_finite_names_the_checkpoint_and_keeps_it(tiny: Recipe, tmp_path: Path) -> None:
    # Harmless for an epoch, then far too fast.
    late = tiny.replaced(
        train={"epochs": 4, "batch_size": 32},
        optim={"lr": 1e20},
        schedule={"name": "step", "warmup": 0.0, "milestones": [0.3], "gamma": 1.0},
    )
    folder = tmp_path / "run"

    def poison(row: dict[str, object]) -> None:
        state["checkpoint"] = (folder / "checkpoint.pt").read_bytes()

    state: dict[str, bytes] = {}
    images = augkit.load_dataset("digits", limit=200)
    model = augkit.build_model("small_cnn", 10, 1, width=4, seed=0)
    calls = [0]

    def broken_after_an_epoch(
        module: torch.nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor
    ) -> torch.Tensor:
        calls[0] += module.training
        return output * (float("nan") if calls[0] > 8 else 1.0)

    model.register_forward_hook(broken_after_an_epoch)
    gentle = late.replaced(optim={"lr": 1e-3})
    with pytest.raises(RunError, match=r"nan at step 9, learning rate 0\.001; '.*checkpoint\.pt' keeps epoch 1"):
        augkit.fit(gentle, output=folder, dataset=images, model=model, on_epoch=poison)
    assert (folder / "checkpoint.pt").read_bytes() == state["checkpoint"]


def test_broken_checkpoints_are_refused(tmp_path: Path, tiny: Recipe) -> None:
    (tmp_path / "broken.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match=r"broken\.pt.*cannot be read"):
        read_checkpoint(tmp_path / "broken.pt")
    torch.save({"weights": 1}, tmp_path / "other.pt")
    with pytest.raises(InputError, match="expected a dict with 'model'"):
        read_checkpoint(tmp_path / "other.pt")


def test_both_optimizers_spare_norms_and_biases(tiny: Recipe, digits: Dataset) -> None:
    # With decay alone at work (a rate so small that gradients change nothing), only weights shrink.
    for name in ("sgd", "adamw"):
        start = augkit.fit(tiny.replaced(optim={"name": name, "lr": 1e-9, "weight_decay": 0.0}))
        decayed = augkit.fit(tiny.replaced(optim={"name": name, "lr": 1e-9, "weight_decay": 1e7}))
        for (key, a), b in zip(start.model.named_parameters(), decayed.model.parameters(), strict=True):
            shrunk = (b.norm() / a.norm()).item() if a.norm() > 1e-6 else 1.0
            assert (shrunk < 0.999) == (a.ndim > 1), key


def test_unusable_devices_are_named() -> None:
    for device in ("cuda:99", "nonsense"):
        with pytest.raises(InputError, match=f"device '{device}': cannot be used here"):
            choose_device(device)


def test_head_fc_and_missing_channels(tiny: Recipe) -> None:
    assert augkit.fit(tiny.replaced(model={"head": "fc", "width": 4})).history
    with pytest.raises(InputError, match=r"data\.mean: expected 1 or 1 values"):
        augkit.fit(tiny.replaced(data={"name": "digits", "mean": [0.5] * 3, "std": [0.5] * 3}))
    with pytest.raises(InputError, match=r"data\.canvas: expected at least 8"):
        augkit.fit(tiny.replaced(data={"name": "digits", "canvas": 4}))


def test_channels_last_is_not_used_where_its_gradient_is_wrong(tiny: Recipe) -> None:
    """Strided 1x1 convolutions of few channels crash the process: https://github.com/uxlfoundation/oneDNN/issues/6035."""

    def form(downsample: str, width: int, device: str = "cpu") -> torch.memory_format:
        model = augkit.build_model("resnet18", num_classes=10, in_channels=3, downsample=downsample, width=width)
        return memory_format(model, tiny, torch.device(device))

    assert form("stride", 8) == torch.contiguous_format
    assert form("stride", 16) == form("maxpool", 8) == form("stride", 8, "meta") == torch.channels_last
    seen: list[bool] = []

    def maps_are(layer: torch.nn.Module, maps: tuple[torch.Tensor]) -> None:
        if layer.training:
            seen.append(maps[0].is_contiguous(memory_format=torch.channels_last))

    for downsample, expected in (("stride", False), ("maxpool", True)):
        settings = {"name": "resnet18", "downsample": downsample, "width": 4}
        recipe = tiny.replaced(model=settings, train={"epochs": 1, "batch_size": 64})
        model = augkit.build_model("resnet18", 10, 1, downsample=downsample, width=4, seed=0)
        model.layers[1].conv1.register_forward_pre_hook(maps_are)
        seen.clear()
        augkit.fit(recipe, model=model, device="cpu")
        assert set(seen) == {expected}


def test_alive_is_called_at_every_batch_of_training_and_of_evaluation(tiny: Recipe) -> None:
    called: list[int] = []
    run = augkit.fit(tiny, alive=lambda: called.append(1) or "what it returns is nobody's")
    steps = 2 * (200 // 32)
    assert len(called) > steps, "the validation images too"
    last = len(called)
    run.model(torch.zeros(1, 1, 16, 16))
    assert len(called) == last, "the network that comes back does not call any more"


@pytest.mark.filterwarnings("ignore:.torch.jit.script:FutureWarning")
def test_a_scripted_network_is_trained(tiny: Recipe) -> None:
    network = torch.jit.script(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 10)))
    called: list[int] = []
    assert len(augkit.fit(tiny, model=network).history) == 2
    augkit.fit(tiny, model=network, alive=lambda: called.append(1))
    assert len(called) == 2 * (200 // 32), "at every update, but not in evaluations"
