"""Recipes: reading, overriding, and the one line that each mistake gets."""

from __future__ import annotations

from pathlib import Path

import pytest

import augkit
from augkit.building import build_recipe_model
from augkit.errors import InputError
from augkit.recipe import Recipe, find_recipe, recipe_folders

SHIPPED = sorted(path for folder in recipe_folders() for path in folder.glob("*.yaml"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_recipes_load_round_trip_and_build(path: Path, tmp_path: Path) -> None:
    recipe = augkit.Recipe.load(path)
    copy = tmp_path / "copy.yaml"
    copy.write_text(recipe.to_yaml("a header\n\nof several lines"))
    assert Recipe.load(copy) == recipe
    assert path.read_text().startswith("#"), "every recipe says on top what it claims"
    model = build_recipe_model(recipe, {"classes": ["a", "b"], "channels": len(recipe.data.mean), "side": 40}, 0)
    assert sum(parameter.numel() for parameter in model.parameters()) > 100


def test_there_are_recipes() -> None:
    assert {path.stem for path in SHIPPED} >= {"mnist5k", "fashion-mnist"}


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
