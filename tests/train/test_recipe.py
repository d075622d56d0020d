"""Recipes: reading, overriding, and the one line that each mistake gets."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from PIL import Image

import augkit
from augkit.architectures import NETWORKS
from augkit.core.errors import InputError
from augkit.train.recipe import Recipe, find_recipe, recipe_folders

SHIPPED = sorted(path for folder in recipe_folders() for path in folder.glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_recipes_say_what_they_claim_and_round_trip(path: Path, tmp_path: Path) -> None:
    recipe = augkit.Recipe.load(path)
    copy = tmp_path / "copy.yaml"
    copy.write_text(recipe.to_yaml("a header\n\nof several lines"))
    assert Recipe.load(copy) == recipe
    assert recipe.name == path.stem
    header = "".join(line for line in path.read_text().splitlines(keepends=True) if line.startswith("#"))
    for word in ("# Run: ", f"python -m augkit.train {recipe.name}", "# Expect: "):
        assert word in header.replace("-m augkit.train imagenet", "python -m augkit.train imagenet"), word


def folder_of_images(folder: Path, channels: int) -> Path:
    """Sixteen small images of two classes."""
    generator = torch.Generator().manual_seed(0)
    for k in range(16):
        (folder / "ab"[k % 2]).mkdir(parents=True, exist_ok=True)
        pixels = torch.randint(0, 256, (32, 32, channels), dtype=torch.uint8, generator=generator).numpy()
        Image.fromarray(pixels if channels == 3 else pixels[..., 0]).save(folder / "ab"[k % 2] / f"{k}.png")
    return folder


@pytest.mark.integration
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_recipes_build_and_repeat_two_steps(path: Path, tmp_path: Path) -> None:
    recipe = Recipe.load(path)
    if recipe.model.name.startswith("timm:"):
        pytest.importorskip("timm")
    images = folder_of_images(tmp_path / "images", len(recipe.data.mean))
    small = [f"data.name=folder:{images}", "data.limit=null", "train.steps=2", "train.batch_size=4"]
    small += ["train.compile=false", "model.pretrained=false", "data.workers=0", "invariance.max_shift=2"]
    small += ["data.image_size=96"] if recipe.data.image_size else []
    small += ["model.width=4"] if recipe.model.name in NETWORKS else []
    again = Recipe.load(path, small)
    first, second = augkit.fit(again, device="cpu"), augkit.fit(again, device="cpu")
    assert [row["loss"] for row in first.history] == [row["loss"] for row in second.history]
    for key, value in first.model.state_dict().items():
        assert torch.equal(value, second.model.state_dict()[key]), key
    assert first.history[-1]["step"] == 2


def test_there_are_recipes() -> None:
    assert {path.stem for path in SHIPPED} >= {
        "mnist5k",
        "fashion-mnist",
        "cifar10-resnet18",
        "cifar10-vgg13",
        "imagenet-resnet50",
        "finetune-timm",
    }


def test_overrides_reach_every_level() -> None:
    overrides = ["policy.shift.max_pixels=3", "train.epochs=2", "data.mean.0=0.25", "policy.flip.p=0.5", "seed=7"]
    recipe = Recipe.load("mnist5k", overrides=overrides)
    assert recipe.policy.shift is not None
    assert recipe.policy.flip is not None
    assert recipe.policy.shift.max_pixels == 3
    assert (recipe.train.epochs, recipe.data.mean, recipe.seed, recipe.policy.flip.p) == (2, [0.25], 7, 0.5)
    assert Recipe.load("mnist5k").train.epochs != 2


def test_digest_depends_on_every_field() -> None:
    recipe = Recipe.load("mnist5k")
    assert recipe.digest() == Recipe.load("mnist5k").digest()
    assert recipe.digest() != Recipe.load("mnist5k", ["policy.strength=0.5"]).digest()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("polcy.strength=1", "unknown key 'polcy': did you mean 'policy'"),
        ("policy.shift.max_pixel=1", "unknown key 'policy.shift.max_pixel': did you mean 'policy.shift.max_pixels'"),
        ("train.epochs=three", "train.epochs: expected a valid integer.*got 'three'"),
        ("train.epochs=0", "train.epochs: expected greater than or equal to 1, got 0"),
        ("policy.strength=1.5", "policy.strength: expected less than or equal to 1, got 1.5"),
        ("policy.kernel=cubic", "policy.kernel: expected 'nearest'.*got 'cubic'"),
        ("optim.lr=.nan", "optim.lr: expected a finite number, got nan"),
        ("data.std=[0.0]", "every std above 0"),
        ("data.mean=[1,2]", "as many values in mean"),
        ("train.epochs", "expected dotted.key=value"),
        ("train.epochs=[1", "not valid YAML"),
        ("name.first=x", "there is no 'first' in 'mnist5k'"),
        ("data.mean.3=1", "there is no '3' in a list of 1"),
        ("name=a/b", "name: expected"),
        ("model.name=resnet81", "model.name: expected a network; .*did you mean 'resnet18'"),
        ("model.name='timm:'", "model.name: expected a network"),
        ("model.name=torchvision:resnet18@", "expected the name of the weights after @"),
        ("model.pretrained=true", "pretrained with timm:NAME or torchvision:NAME only"),
        ("model={name: torchvision:resnet18, head: fc}", "no head with torchvision:resnet18"),
        ("train.accumulate=3", "batch_size in 3 equal parts, 64 came"),
        ("train.ema=1", "train.ema: expected less than 1, got 1"),
        ("train.mixup=-1", "train.mixup: expected greater than or equal to 0"),
        ("train.precision=half", "train.precision: expected 'float32', 'bfloat16' or 'float16', got 'half'"),
        ("schedule.name=cosin", "schedule.name: expected 'cosine'"),
        ("schedule.milestones=[0.5,0.2]", "rising shares between 0 and 1"),
        ("schedul.name=cosine", "unknown key 'schedul': did you mean 'schedule'"),
        ("optim.betas=[0.9,1]", "two numbers in"),
        ("data.mean.²=1", "there is no '²' in a list"),
        ("data=digits", "data: expected a mapping of keys to values, got 'digits'"),
        ("train.epochs=1e99", "train.epochs: expected a whole number of fewer digits"),
        ("train.mixup=on", "train.mixup: expected a number, got True"),
        ("data.mean=[yes]", "data.mean: expected a number"),
        ("data.channels=yes", "data.channels: expected a number, got True"),
        ("optim.lr=1e999", "optim.lr: expected a finite number"),
        ("name=1e3", "name: expected text, in quotes where YAML would read something else, got 1000.0"),
        ("data.name=!!binary x", "not valid YAML"),
    ],
)
def test_bad_overrides_get_one_line(override: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        Recipe.load("mnist5k", [override])
    assert "\n" not in str(caught.value)
    assert "mnist5k" in str(caught.value) or "override" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [", "line 2: not valid YAML"),
        ("- a\n- b", "expected a mapping"),
        ("name: x", "data: expected a value, the key is missing"),
        ("", "name: expected a value.*1 more"),
        ("name: x\nname: y", "line 2: not valid YAML: the key 'name' stands twice"),
        ("name: x\nseed: !!int x", "line 2: not valid YAML: 'x' is no whole number"),
        ("&a [*a]", "line 1: not valid YAML: a value that holds itself"),
        ("[" * 2000, "line 1: not valid YAML: more than 64 levels"),
    ],
)
def test_bad_files_are_named(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text + "\n")
    with pytest.raises(InputError, match=message) as caught:
        Recipe.load(path)
    assert "mine.yaml" in str(caught.value)


def test_missing_files_and_names(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        Recipe.load(tmp_path / "none.yaml")
    with pytest.raises(InputError, match="did you mean 'mnist5k'"):
        Recipe.load("mnist5")
    (tmp_path / "recipe.yaml").write_text("name: x")
    assert find_recipe(tmp_path) == tmp_path / "recipe.yaml"


def test_every_field_of_the_schema_is_described() -> None:
    schema = Recipe.model_json_schema()
    sections = {"Recipe": schema, **schema["$defs"]}
    missing = [
        f"{name}.{key}"
        for name, section in sections.items()
        for key, field in section.get("properties", {}).items()
        if not field.get("description")
    ]
    assert missing == []


@pytest.mark.integration
def test_vits_are_trained_by_a_recipe(tmp_path: Path) -> None:
    images = folder_of_images(tmp_path / "images", 1)
    model = "{name: vit_micro, width: 8, downsample: aps, padding_mode: circular, position: relative, head: token}"
    small = [f"data.name=folder:{images}", "data.workers=0", "train.steps=2", "train.batch_size=4"]
    run = augkit.fit(Recipe.load("mnist5k", [f"model={model}", *small, "invariance.max_shift=2"]), device="cpu")
    assert run.history[-1]["step"] == 2
    assert run.model.token is not None


def test_position_is_part_of_the_digest_only_where_it_is_given() -> None:
    assert "position" not in Recipe.load("mnist5k").model.model_dump()
    assert Recipe.load("mnist5k", ["model.position=none"]).digest() != Recipe.load("mnist5k").digest()
