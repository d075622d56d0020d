"""The study file: expansion to arms, and one-line errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from made_up import bits_of

from augkit.compare.study.cells import cells_of
from augkit.compare.study.claim_results import ClaimResult, PartCount
from augkit.compare.study.column_table import ColumnTable
from augkit.compare.study.schema import SIZES, Study, floor_of, is_study, shipped_studies
from augkit.compare.study.sequential import InterimAnalysis, interim_analysis
from augkit.compare.study.verdicts import collapses, evaluate_claims
from augkit.core.errors import InputError
from augkit.train.recipe import find_recipe

BASE: dict[str, Any] = {
    "name": "small",
    "recipe": "mnist5k",
    "seeds": 2,
    "architectures": {"maxpool": {"model.downsample": "maxpool"}, "blurpool": {"model.downsample": "blurpool"}},
    "policies": {"shift": {"policy.shift.max_pixels": 3.0}},
    "arms": [
        {"architectures": ["maxpool", "blurpool"], "policies": ["none", "shift"]},
        {"architecture": "maxpool", "policy": "shift", "strengths": [0.25, 1.0]},
    ],
    "measures": {
        "shift": {"images": ["typical", "inverted"], "lengths": [1, 4]},
        "scale": {"axis": "scale", "reach": 1.2},
    },
}
SHIFT = {"policy.shift.max_pixels": 3.0}
CLAIM: dict[str, Any] = {
    "id": 6,
    "name": "augmentation",
    "claim": "It helps.",
    "source": "Azulay & Weiss 2019",
    "statistic": "learned_invariance",
    "arm": "maxpool+shift",
    "control": "maxpool+none",
    "prediction": "positive",
}


def load(tmp_path: Path, size: str = "quick", **changes: Any) -> Study:
    path = tmp_path / "small.yaml"
    path.write_text(yaml.safe_dump({**BASE, **changes}, sort_keys=False))
    return Study.load(path, size)


def with_claim(**changes: Any) -> list[dict[str, Any]]:
    claim = {**CLAIM, **changes}
    return [{key: value for key, value in claim.items() if value is not None}]


def test_arms_are_products_without_repetition(tmp_path: Path) -> None:
    study = load(tmp_path)
    assert list(study.arms) == [
        "maxpool+none",
        "maxpool+shift",
        "blurpool+none",
        "blurpool+shift",
        "maxpool+shift@0.25",
    ]
    weak = study.arms["maxpool+shift@0.25"].recipe
    assert (weak.policy.strength, weak.name) == (0.25, "maxpool-shift-0.25")
    assert weak.policy.shift is not None
    assert weak.policy.rescale is None  # the augmentation of the base recipe is not that of the arm
    assert study.arms["blurpool+none"].recipe.policy.is_identity
    assert study.reference == "maxpool"


def test_a_size_changes_recipe_seeds_arms_and_claims(tmp_path: Path) -> None:
    sizes = {
        "quick": {"seeds": 4, "overrides": {"train.epochs": 1}, "claims": [], "measures": {"shift": {"lengths": [2]}}},
        "full": {"arms": [{"architecture": "maxpool"}], "claims": []},
    }
    quick = load(tmp_path, sizes=sizes, claims=with_claim())
    assert (quick.seeds, quick.recipe.train.epochs, quick.claims) == (4, 1, [])
    assert (quick.measures["shift"].lengths, quick.measures["shift"].images) == ([2], ["typical", "inverted"])
    assert list(load(tmp_path, "full", sizes=sizes, claims=with_claim()).arms) == ["maxpool+none"]
    with pytest.raises(InputError, match=r"expected one of its sizes \(quick, full\), got 'standard'"):
        load(tmp_path, "standard", sizes=sizes)


def test_cells_take_what_their_claims_need(tmp_path: Path) -> None:
    study = load(tmp_path, claims=with_claim(measure="scale"))
    measures = {cell.name: list(cell.measures) for cell in cells_of(study)}
    assert len(measures) == 10
    assert measures["maxpool+shift-seed1"] == ["shift", "scale"]
    assert measures["blurpool+shift-seed0"] == ["shift"]


def test_a_claim_of_one_part_needs_no_parts(tmp_path: Path) -> None:
    (claim,) = load(tmp_path, claims=with_claim()).claims
    assert [part.statistic for part in claim.parts] == ["learned_invariance"]
    assert claim.prediction == (
        "learned invariance of maxpool+shift against maxpool+none: above 0 (share of variability removed)"
    )


def test_a_task_of_localisation_is_not_measured_along_training(tmp_path: Path) -> None:
    arms = [{"architecture": "maxpool"}, {"architecture": "maxpool", "task": "locate"}]
    study = load(tmp_path, arms=arms, overrides={"invariance.every": 1})
    every = {name: arm.recipe.invariance.every for name, arm in study.arms.items()}
    assert every == {"maxpool+none": 1, "maxpool+none+locate": None}


def test_a_callable_gives_the_network_of_an_arm(tmp_path: Path) -> None:
    own = {**BASE["architectures"], "mine": {"callable": "mynet:make"}}
    study = load(tmp_path, architectures=own, arms=[{"architecture": "mine"}])
    assert study.arms["mine+none"].callable == "mynet:make"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"arms": [{"architecture": "maxpol"}]}, r"arms: unknown architecture 'maxpol': did you mean 'maxpool'\?"),
        ({"arms": [{"architecture": "maxpool", "policy": "shft"}]}, "unknown policy 'shft': did you mean 'shift'"),
        ({"arms": [{"architecture": "maxpool", "strength": 2.0}]}, "strengths above 0 and at most 1"),
        ({"arms": []}, r"arms: expected at least 1 of them, got \[\]"),
        ({"armz": []}, "unknown key 'armz': did you mean 'arms'"),
        ({"sizes": {"quick": {"arms": []}}}, r"sizes\.quick\.arms: expected at least 1 of them"),
        ({"arms": [{"architecture": "maxpool", "architectures": ["fc"]}]}, "architecture or architectures, not both"),
        ({"policies": {"none": SHIFT}, "arms": [{"architecture": "maxpool"}]}, r"arm maxpool\+none: expected no augm"),
        ({"policies": {"shift": {**SHIFT, "policy.strength": 0.5}}}, r"in 'arms', .* got policy\.strength 0\.5"),
        ({"policies": {"shift": {"policy": {"shift": {}}}}}, r"arm maxpool\+shift@0\.25: expected its strength"),
        (
            {"arms": [{"architecture": "maxpool"}, {"architecture": "maxpool", "floor": False}]},
            r"expected arms of one name to be equal, those of maxpool\+none differ",
        ),
        ({"floors": {"default": 85}}, r"floors\.default: expected less than or equal to 1, got 85"),
        ({"measures": {"far off": {}, "far-off": {}}}, "expected names that differ .* 'far off' and 'far-off'"),
        ({"name": "a/b"}, r"name: expected text that matches .*, got 'a/b'"),
        ({"claims": with_claim(images=[])}, "one image set or several, none came"),
        (
            {"claims": with_claim(statistic="growth", control=None, near=4, far=1)},
            "near below far, 4 and 1 came",
        ),
        ({"sizes": {"quick": {"claims": [6, 6]}}, "claims": with_claim()}, "sizes: claims: expected every id once"),
        ({"reference": "vgg"}, "reference: unknown architecture 'vgg'"),
        ({"claims": with_claim(arm="maxpool+shft")}, r"claim 6: unknown arm 'maxpool\+shft': did you mean"),
        ({"claims": with_claim(statistic="learned_invarianc")}, "unknown statistic 'learned_invarianc': did you mean"),
        ({"claims": with_claim(control=None)}, "'control' with learned_invariance, which needs arm, control"),
        ({"claims": with_claim(primary=True, check=True)}, "a primary part that predicts something and is no check"),
        ({"claims": with_claim(near=1)}, "no 'near' with learned_invariance"),
        ({"claims": with_claim(prediction="zero")}, "a margin above 0 with sign zero"),
        ({"claims": with_claim(images="typcal")}, "unknown image set 'typcal': did you mean 'typical'"),
        ({"claims": with_claim(measure="scal")}, "unknown measure 'scal': did you mean 'scale'"),
        ({"claims": with_claim(metric="jss")}, "unknown metric 'jss': did you mean 'js'"),
        (
            {"claims": with_claim(statistic="growth", control=None, near=1, far=3)},
            r"expected a length of measure 'shift' \(1, 4\), got 3",
        ),
        ({"claims": [*with_claim(), *with_claim()]}, "expected every id once, got 6, 6"),
        ({"sizes": {"quick": {"claims": [7]}}, "claims": with_claim()}, "unknown claim '7'"),
        ({"measures": {"scale": {"axis": "scale"}}}, "a reach with axis scale"),
        ({"measures": {"shift": {"grid": "aligned"}}}, "a grid with axis layers only"),
        ({"measures": {"layers": {"axis": "layers", "grid": "on"}}}, "grid"),
        ({"measures": {"shift": {"images": ["odd"]}}}, "unknown image set 'odd'"),
        (
            {"architectures": {"a": {"model.nam": "vgg11"}}, "arms": [{"architecture": "a"}]},
            "did you mean 'model.name'",
        ),
        (
            {"architectures": {"a": {"model.name": "my.net:make"}}, "arms": [{"architecture": "a"}]},
            "give a network of your own under callable",
        ),
        ({"recipe": "mnist5"}, "unknown recipe 'mnist5': did you mean 'mnist5k'"),
    ],
)
def test_bad_studies_are_refused_in_one_line(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as error:
        load(tmp_path, **changes)
    assert "\n" not in str(error.value)


def test_studies_are_found_by_name(tmp_path: Path) -> None:
    assert is_study("invariance")
    assert not is_study("mnist5k")
    assert not is_study(str(tmp_path))
    load(tmp_path)
    assert is_study(str(tmp_path / "small.yaml"))
    with pytest.raises(InputError, match="unknown study 'invarianc': did you mean 'invariance'"):
        Study.load("invarianc")
    with pytest.raises(InputError, match="unknown size 'quik': did you mean 'quick'"):
        Study.load("invariance", "quik")


@pytest.mark.parametrize("size", SIZES)
def test_the_shipped_study_loads_in_all_sizes(size: str) -> None:
    study = Study.load("invariance", size)
    # 7, 9 and 14 have studies of their own.
    assert [claim.id for claim in study.claims] == [1, 2, 3, 4, 5, 6, 8, 10, 11, "11b", 12, 13]
    assert study.seeds >= 5
    assert yaml.safe_load(study.to_yaml())["name"] == "invariance"


@pytest.mark.parametrize("name", ["partial-classes", "on-the-line", "where-it-sits", "data-as-source", "real-borders"])
def test_every_claim_of_the_shipped_studies_says_what_gives_its_verdict(name: str) -> None:
    study = Study.load(name)
    assert study.looks == (5, 10)
    assert study.settings.floors
    for size in study.settings.sizes or ("quick",):
        for claim in Study.load(name, size).claims:
            assert sum(part.primary for part in claim.parts) == 1
            assert claim.source
    assert name == "on-the-line" or any(part.expected for claim in study.claims for part in claim.parts)


def test_floors_are_those_of_data_in_any_spelling(tmp_path: Path) -> None:
    settings = load(tmp_path, floors={"Fashion_MNIST": 0.8, "folder:mine": 0.7, "default": 0.5}).settings
    found = [
        floor_of(settings, name) for name in ("fashion-mnist", "FashionMNIST", "folder:mine", "digits", "folder:x")
    ]
    assert found == [0.8, 0.8, 0.7, 0.5, 0.5]
    with pytest.raises(InputError, match="floors: unknown dataset 'fashon-mnist': did you mean 'fashion-mnist'"):
        load(tmp_path, floors={"fashon-mnist": 0.8})
    with pytest.raises(InputError, match="floors: unknown dataset 'defaults': did you mean 'default'"):
        load(tmp_path, floors={"defaults": 0.8})
    with pytest.raises(InputError, match="expected one floor for the data cifar10, got two"):
        load(tmp_path, floors={"cifar10": 0.8, "CIFAR-10": 0.9})


def test_a_collapsed_network_is_no_evidence_of_invariance(tmp_path: Path) -> None:
    study = load(tmp_path, claims=with_claim())
    rng = np.random.default_rng(0)
    columns, accuracy = {}, {}
    for seed in range(4):
        for arm, level in (("maxpool+none", 0.2), ("maxpool+shift", 0.1)):
            fallen = (arm, seed) == ("maxpool+shift", 3)
            columns[arm, seed, "shift"] = bits_of(rng.uniform(0.9, 1.1, 50) * (1e-12 if fallen else level))
            accuracy[arm, seed] = 0.11 if fallen else 0.9
    view = ColumnTable(columns, range(4))
    assert collapses(study, accuracy, 0.1) == {("maxpool+shift", 3)}
    (row,) = evaluate_claims(study, view, accuracy, 0.1)
    assert row.n_seeds == 3
    assert row.effect is not None
    assert row.effect.value == pytest.approx(0.5, abs=0.05)
    assert "left out, as a network collapsed to guessing: maxpool+shift (seed 3)" in row.sentences[1]
    for seed in range(4):
        accuracy["maxpool+shift", seed] = 0.1
    (row,) = evaluate_claims(study, view, accuracy, 0.1)
    assert row.verdict == "not run"


def evaluated(
    tmp_path: Path, levels: dict[str, float], seeds: int = 6, interim: InterimAnalysis | None = None, **changes: Any
) -> list[ClaimResult]:
    """Evaluated claims of a study whose arms have these values of shift information."""
    study = load(tmp_path, **changes)
    rng = np.random.default_rng(0)
    columns = {
        (arm, seed, "shift"): bits_of(level * rng.uniform(0.9, 1.1, 50))
        for arm, level in levels.items()
        for seed in range(seeds)
    }
    accuracy = {(arm, seed): 0.9 for arm in levels for seed in range(seeds)}
    return evaluate_claims(study, ColumnTable(columns, range(seeds)), accuracy, 0.1, interim=interim)


LEVELS = {"maxpool+none": 0.2, "maxpool+shift": 0.1}


def test_the_primary_part_gives_the_verdict_and_the_number_of_parts_that_hold_is_stated(tmp_path: Path) -> None:
    (first,) = with_claim()
    of_claim = {key: first.pop(key) for key in ("id", "name", "claim", "source")}
    never = {**first, "prediction": {"sign": "below", "margin": 0.1}, "label": "never"}
    shown = {**first, "prediction": "describe", "label": "shown"}
    claims = [{**of_claim, "parts": [never, {**first, "label": "half", "primary": True}, shown]}]
    (row,) = evaluated(tmp_path, LEVELS, claims=claims)
    assert (row.verdict, row.primary, row.held) == ("supported", 1, PartCount(1, 2))
    assert row.effect is not None
    assert row.effect.value == pytest.approx(0.5, abs=0.05)
    assert "half (primary)" in row.sentences[0]
    assert "1 of 2 parts hold" in row.sentences[1]
    assert "p < 0.001 after correction" in row.sentences[1]
    claims[0]["parts"][1]["primary"] = False  # then the first part with a prediction is the primary one
    (row,) = evaluated(tmp_path, LEVELS, claims=claims)
    assert (row.verdict, row.primary) == ("refuted", 0)


def test_checks_do_not_count_among_the_tested_claims(tmp_path: Path) -> None:
    (first,) = with_claim()
    identity = {**first, "id": 1, "statistic": "variability", "control": None, "check": True}
    claims = [{**identity, "prediction": {"sign": "below", "margin": 0.5}}, *with_claim()]
    holds, tested = evaluated(tmp_path, LEVELS, claims=claims)
    assert (holds.verdict, holds.check, holds.p) == ("holds", True, None)
    (alone,) = evaluated(tmp_path, LEVELS, claims=with_claim())
    assert tested.p == alone.p  # Holm counts one claim
    (single,) = evaluated(tmp_path, LEVELS, seeds=1, claims=claims[:1])
    assert single.verdict == "holds"  # even with a single network
    claims[0]["prediction"] = {"sign": "below", "margin": 0.05}
    assert evaluated(tmp_path, LEVELS, claims=claims)[0].verdict == "fails"


def test_an_interim_analysis_is_stricter_and_an_undeclared_one_is_exploratory(tmp_path: Path) -> None:
    weak = {"maxpool+none": 0.2, "maxpool+shift": 0.197}
    (plain,) = evaluated(tmp_path, weak, claims=with_claim())
    strict = interim_analysis(5, (5, 10), (), "obrien-fleming")
    (first,) = evaluated(tmp_path, weak, interim=strict, claims=with_claim())
    assert first.p == pytest.approx(min(1.0, plain.p * 0.05 / strict.level))
    (row,) = evaluated(tmp_path, weak, interim=interim_analysis(7, (5, 10), (), "obrien-fleming"), claims=with_claim())
    assert row.exploratory
    assert "exploratory, because an analysis was made" in row.sentences[1]


def test_interim_analyses_are_declared_in_the_study_file(tmp_path: Path) -> None:
    assert load(tmp_path).looks == (load(tmp_path).seeds,)
    assert load(tmp_path, looks=[2, 4], spending="pocock").looks == (2, 4)
    assert load(tmp_path, sizes={"quick": {"looks": [3]}}, looks=[2, 4]).looks == (3,)
    with pytest.raises(InputError, match="looks: expected ascending numbers of seeds, got 4, 2"):
        load(tmp_path, looks=[4, 2])
    with pytest.raises(InputError, match="spending"):
        load(tmp_path, looks=[2, 4], spending="haybittle")


@pytest.mark.parametrize(("level", "easy"), [(1.0, True), (0.95, False)])
def test_a_task_that_all_arms_solve_is_noted_as_too_easy(tmp_path: Path, level: float, easy: bool) -> None:
    arms = [{"architectures": ["maxpool", "blurpool"], "task": "locate"}]
    claim = with_claim(statistic="accuracy_difference", arm="maxpool+none+locate", control="blurpool+none+locate")
    study = load(tmp_path, arms=arms, claims=claim)
    hits = (np.arange(100) < 100 * level).astype(np.float32)
    columns = {(arm, seed, "shift"): {"typical|correct": hits} for arm in study.arms for seed in range(3)}
    accuracy = {(arm, seed): level for arm in study.arms for seed in range(3)}
    (row,) = evaluate_claims(study, ColumnTable(columns, range(3)), accuracy, 1 / 9)
    assert row.verdict == "undetermined"
    assert ("at least 99 % right, so the task hardly distinguishes them" in row.sentences[1]) == easy


def test_the_command_suggests_a_study_for_a_mistyped_name() -> None:
    with pytest.raises(InputError, match=r"unknown recipe or study 'partial-clases': did you mean 'partial-classes'\?"):
        find_recipe("partial-clases", shipped_studies())
