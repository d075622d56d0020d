"""The shipped factorial study can be measured at every size; those of the benchmarks make the claims of shipped."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
import torch
from pictures import noise
from PIL import Image

from augkit.compare.study.cells import CellStore, cells_of
from augkit.compare.study.schema import Study
from augkit.core.errors import OddMapWarning

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
CLAIMS = {"partial-classes": {1, 2, 3}, "data-as-source": {1, "1b", 2, 3}}  # of the pilots


def test_the_factorial_study_on_clothes_is_the_shipped_one_without_rotation() -> None:
    here, shipped = Study.load(str(BENCHMARKS / "clothes-factorial.yaml")), Study.load("invariance", "standard")
    assert set(shipped.arms) - set(here.arms) == {"maxpool+rotate", "harmonic+none"}
    assert all(here.arms[name] == shipped.arms[name] for name in here.arms)
    assert list(here.claims) == [claim for claim in shipped.claims if claim.id != 12]
    assert here.measures == {name: value for name, value in shipped.measures.items() if name != "rotation"}
    assert (here.seeds, here.settings.floors) == (shipped.seeds, shipped.settings.floors)


@pytest.mark.parametrize("name", ["partial-classes", "data-as-source"])
def test_the_pilots_on_photographs_make_the_claims_of_the_shipped_studies(name: str) -> None:
    here, shipped = Study.load(str(BENCHMARKS / f"cifar10-{name}.yaml")), Study.load(name, "quick")
    assert {claim.id for claim in here.claims} == CLAIMS[name]
    assert here.settings.floors["default"] == shipped.settings.floors["default"]
    assert all(arm.floor for arm in here.arms.values())  # not one is exempt: the plain network is below the floor
    mirrored = {name for name, arm in here.arms.items() if arm.recipe.data.canvas_fill == "reflection"}
    assert {name for name in here.arms if not name.startswith("black")} == mirrored
    theirs = {claim.id: claim for claim in Study.load(name, "standard").claims}
    for claim in here.claims:
        same, parts = theirs[claim.id], {part.label: part for part in theirs[claim.id].parts}
        assert (claim.claim, claim.source) == (same.claim, same.source)
        assert claim.parts[claim.primary].label == same.parts[same.primary].label
        for part in claim.parts:
            if part.prediction.sign == "describe" and part.label not in parts:
                continue  # what the canvas does
            fields = (part.statistic, part.prediction, part.expected, part.groups, part.answers)
            other = parts[part.label]
            assert fields == (other.statistic, other.prediction, other.expected, other.groups, other.answers)


@pytest.mark.integration
@pytest.mark.parametrize(
    ("size", "shape"),
    [
        ("quick", (28, 28)),
        pytest.param("standard", (28, 28), marks=pytest.mark.slow),
        pytest.param("full", (32, 32, 3), marks=pytest.mark.slow),
    ],
)
def test_the_shipped_study_can_be_measured(size: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    for label in range(10):
        (tmp_path / f"{label}").mkdir()
        for k in range(4):
            Image.fromarray(noise(10 * label + k, shape)).save(tmp_path / f"{label}" / f"{k}.png")
    # Narrow networks suffice to test that images have room for displacements and that networks accept them.
    words = [f"data.name=folder:{tmp_path}", "data.limit=null", "model.width=4"]
    study = Study.load("invariance", size, seeds=1, overrides=words)
    place = CellStore(study, tmp_path, torch.device("cpu"))
    with warnings.catch_warnings():
        warnings.simplefilter("error", OddMapWarning)  # with odd maps polyphase networks lose their exact invariance
        for cell in {(cell.arm.architecture, *cell.measures): cell for cell in cells_of(study)}.values():
            place.check(cell)
