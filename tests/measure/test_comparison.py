"""The closing table and its conclusion in words."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from made_up_settings import SETTINGS

from augkit.core.errors import InputError
from augkit.core.json import jsonable
from augkit.invariance import CarryOver, Estimate, InvarianceReport
from augkit.invariance.information import FACTORS
from augkit.measure.comparison import (
    TABLE_METRICS,
    ComparisonRow,
    Contrast,
    RunGroup,
    closing_table,
    conclusion,
    response_curve,
)
from augkit.measure.tables import cells, headings, page_table, print_table
from augkit.train.recipe import Recipe


def report(level: float, images: str, seed: int, labeled: bool = True, said: float = 1.0) -> InvarianceReport:
    """A report with known variability: ``level`` on average, a little different for every seed."""
    rng = np.random.default_rng(seed)
    shared = np.random.default_rng(99).exponential(1.0, 200)
    js = torch.from_numpy(level * shared * math.exp(0.02 * rng.normal()))[:, None]
    statistics = {"changed": js, "mac": js, "js": js, "shares": torch.full((200, 2), 0.5, dtype=torch.float64)}
    statistics |= {"shift_bits": js, "answer_bits": torch.full_like(js, 2.0 - said)}
    statistics["answer_mean"] = torch.full((200, 4), 0.25, dtype=torch.float64)
    factors = torch.tensor(FACTORS, dtype=torch.float64)
    statistics |= {"tempered_js": js * factors**2, "tempered_bits": (1 / factors).expand(200, -1)}
    if labeled:
        correct = torch.from_numpy((np.random.default_rng(5).random(200) < 0.9).astype(float))[:, None]
        statistics |= {"correct": correct, "shifted_correct": correct}
    return InvarianceReport(SETTINGS, statistics, {1.0: {"js": js, "changed": js}}, images, {})


def arm(name: str, levels: dict[str, float], first: int) -> RunGroup:
    labeled = {"photographs": False}
    return RunGroup(
        name,
        [
            {images: report(level, images, first + k, labeled.get(images, True)) for images, level in levels.items()}
            for k in range(3)
        ],
    )


CONTROL = {"typical": 0.1, "inverted": 0.1, "upside down": 0.1, "photographs": 0.1}


def table(**levels: float) -> list[ComparisonRow]:
    best = {images.replace("_", " "): level for images, level in levels.items()}
    return closing_table([arm("control", {k: CONTROL[k] for k in best}, 0), arm("best", best, 10)])


def test_rows_and_their_numbers() -> None:
    rows = table(typical=0.02, upside_down=0.06, photographs=0.1)
    assert [(row["arm"], row["images"]) for row in rows][:3] == [
        ("control", "typical"),
        ("control", "upside down"),
        ("control", "photographs"),
    ]
    best = {row["images"]: row for row in rows if row["arm"] == "best"}
    assert best["typical"]["learned_invariance"].value == pytest.approx(0.8, abs=0.02)
    assert best["upside down"]["learned_invariance"].value == pytest.approx(0.4, abs=0.05)
    assert best["upside down"]["transfer"].value == pytest.approx(-0.4, abs=0.05)
    assert best["typical"]["transfer"] is None
    assert best["photographs"]["accuracy"] is None
    assert best["typical"]["accuracy_gain"].value == 0
    assert rows[0]["learned_invariance"] is None


@pytest.mark.parametrize(
    ("levels", "expected"),
    [
        ({"typical": 0.02, "upside_down": 0.06}, "Upside down: only in part"),
        ({"typical": 0.05, "upside_down": 0.02}, "Upside down: yes, and more"),
        ({"typical": 0.02, "upside_down": 0.02}, "Upside down: undetermined"),
        ({"typical": 0.02, "inverted": 0.15}, "Inverted: no, it does harm there"),
        ({"typical": 0.02, "photographs": 0.1}, "whether at all is undetermined"),
        ({"typical": 0.02}, "made the network more invariant, though not invariant"),
        ({"typical": 0.15}, "made the network less invariant"),
        ({"typical": 0.1}, "more invariant is undetermined"),
        ({"typical": 0.02}, "Accuracy changed in an undetermined direction: +0.0 points"),
    ],
)
def test_words_follow_the_intervals(levels: dict[str, float], expected: str) -> None:
    assert expected in conclusion(table(**levels), "best", 6.0)


def test_a_control_that_does_not_vary_leaves_it_undefined() -> None:
    rows = closing_table([arm("control", {"typical": 1e-15}, 0), arm("best", {"typical": 1e-15}, 10)])
    assert "learned invariance is undefined" in conclusion(rows, "best", 6.0)
    assert "undefined" in cells(rows[1])


def test_the_conclusion_is_more_invariant_if_all_variabilities_agree() -> None:
    def twisted(level: float, changed: float, seed: int) -> InvarianceReport:
        made = report(level, "typical", seed).statistics
        return InvarianceReport(SETTINGS, made | {"changed": made["changed"] * changed}, {}, "typical", {})

    control = RunGroup("control", [{"typical": twisted(0.1, 1.0, k)} for k in range(3)])
    best = RunGroup("best", [{"typical": twisted(0.02, 10.0, 10 + k)} for k in range(3)])
    text = conclusion(closing_table([control, best]), "best", 6.0)
    assert "whether augmentation made the network more invariant is disputed: shift information says 80." in text
    assert "top-1 change (-" in text
    assert "more invariant, though" not in text


def test_invariance_is_undefined_if_answers_carry_no_information() -> None:
    arms = [
        RunGroup(name, [{"typical": report(level, "typical", k), "inverted": report(level, "inverted", k, said=0.02)}
                   for k in range(first, first + 3)])
        for name, level, first in (("control", 0.1, 0), ("best", 0.02, 10))
    ]  # fmt: skip
    row = closing_table(arms)[-1]
    assert not row["learned_invariance"].defined
    assert not row["transfer"].defined
    words = "Inverted: undefined: the networks say 0.02 bits about these images, 1 about typical ones, less than 10 %."
    assert words in conclusion(closing_table(arms), "best", 6.0)


def test_how_much_arrives_comes_before_the_difference() -> None:
    rows = table(typical=0.02, upside_down=0.06)
    carried = {"upside down": CarryOver(Estimate(0.4, 0.3, 0.5), 0.0, [0.1] * 9, [0.1] * 9, ["n"] * 9)}
    text = conclusion(rows, "best", 6.0, carried=carried)
    assert "Upside down: only in part: 40.0 % [30.0, 50.0] of it arrives (slope over 9 networks); learned" in text


BASE = {"name": "x", "data": {"name": "digits"}}


@pytest.mark.parametrize(
    ("treated", "words"),
    [
        ({"policy": {"shift": {"max_pixels": 2.0}}}, "augmentation"),
        ({"policy": {"shift": {"max_pixels": 0.0}}}, "nothing"),
        ({"train": {"label_smoothing": 0.41}}, "train.label_smoothing 0.41 instead of 0), without augmentation,"),
        (
            {"policy": {"shift": {"max_pixels": 2.0}}, "optim": {"lr": 0.5}},
            "augmentation together with the other fields (optim.lr 0.5 instead of",
        ),
    ],
)
def test_the_conclusion_names_the_differing_fields(treated: dict[str, Any], words: str) -> None:
    mine, its = (Recipe.model_validate({**BASE, **fields}) for fields in (treated, {}))
    assert words in str(Contrast.between(mine, its))
    smoothing = Contrast.between(Recipe.model_validate({**BASE, "train": {"label_smoothing": 0.41}}), its)
    text = conclusion(table(typical=0.02, upside_down=0.06), "best", 6.0, smoothing)
    assert "augmentation removed" not in text
    assert "carry over" not in text


def test_seeds_are_kept_one_by_one() -> None:
    row = table(typical=0.02)[-1]
    assert len(row["per_seed"]["shift_information"]) == 3
    assert np.mean(row["per_seed"]["accuracy"]) == pytest.approx(row["accuracy"].value)


def test_arms_need_the_same_seeds() -> None:
    short = arm("best", {"typical": 0.1}, 10)
    with pytest.raises(InputError, match="as many seeds"):
        closing_table([arm("control", {"typical": 0.1}, 0), RunGroup("best", short.reports[:2])])


def test_response_curves_pool_the_seeds() -> None:
    points = response_curve(arm("control", {"typical": 0.1}, 0))
    assert list(points) == [1.0]
    assert points[1.0].low < points[1.0].value < points[1.0].high


def test_rows_have_the_json_that_results_files_have() -> None:
    control, best = (row.to_dict() for row in table(typical=0.02))
    keys = ["arm", "images", "n_images", "n_seeds", *TABLE_METRICS, "per_seed", "undefined", "learned_invariance"]
    assert list(best) == list(control) == [*keys, "comparison", "transfer", "accuracy_gain"]
    assert control["comparison"] is None
    assert set(best["accuracy"]) == {"value", "low", "high"}
    assert json.loads(json.dumps(best, allow_nan=False)) == best


def test_a_control_has_no_conclusion() -> None:
    with pytest.raises(InputError, match="'control' is one itself"):
        conclusion(table(typical=0.02), "control", 6.0)


def test_cells_fit_the_headings_and_html_is_escaped() -> None:
    rows = table(typical=0.02, photographs=0.1)
    assert all(len(cells(row)) == len(headings()) for row in rows)
    assert page_table(rows, "what it is").rows == [cells(row) for row in rows]


def test_json_has_no_nan() -> None:
    undefined = Estimate(math.nan, math.nan, math.nan)
    assert jsonable({"a": [undefined, (1, math.nan)], 2.5: "x"}) == {
        "a": [{"value": None, "low": None, "high": None}, [1, None]],
        "2.5": "x",
    }


def test_the_terminal_gets_80_columns_or_all(capsys: pytest.CaptureFixture[str]) -> None:
    rows = closing_table([arm("a-control-of-long-name", CONTROL, 0), arm("best", {key: 0.05 for key in CONTROL}, 7)])
    print_table(rows)
    short = capsys.readouterr().out
    assert max(map(len, short.splitlines())) <= 80
    typical = next(row for row in rows if row.arm == "best" and row.images == "typical")
    assert typical.learned_invariance is not None
    learned = f"{100 * typical.learned_invariance.value:.1f}"
    assert learned in short
    assert ("kappa" in short, "transfer" in short, "--full has all columns" in short) == (False, False, True)
    print_table(rows, full=True)
    whole = capsys.readouterr().out
    for title in ("kappa", "transfer", "top-1", learned):
        assert title in whole
    assert "--full" not in whole


@pytest.mark.parametrize(("seeds", "says"), [(1, "over images alone"), (2, "up to 12.7 standard errors"), (3, "")])
def test_few_seeds_are_said_in_the_terminal_and_on_the_page(
    seeds: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    arms = [arm("control", CONTROL, 0), arm("best", CONTROL, 10)]
    rows = closing_table([RunGroup(one.name, one.reports[:seeds]) for one in arms])
    print_table(rows)
    printed = " ".join(capsys.readouterr().out.split())
    caption = page_table(rows, "Means.").caption
    assert caption.startswith("Means.")
    assert ("warning: Intervals from" in printed) == ("Intervals from" in caption) == bool(says)
    assert says in printed
    assert says in caption
