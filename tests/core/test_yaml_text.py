"""YAML: numbers as people write them, text as text, and the same value again after writing."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import augkit
from augkit.compare.study.schema import Study
from augkit.core import yaml_text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("1E5", 1e5),
        ("+1e3", 1000.0),
        ("-2e+1", -20.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("-.5e1", -5.0),
        ("1_000", 1000),
        ("1_000.5", 1000.5),
        ("0o17", 15),
        ("017", 17),
        ("08", 8),
        ("0x1F", 31),
        ("-0b11", -3),
        ("12", 12),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("!!float 3", 3.0),
        ("off", False),
        ("Yes", True),
        ("~", None),
    ],
)
def test_numbers(text: str, value: Any) -> None:
    for found in (yaml_text.load(text), yaml_text.load(f"[{text}]")[0], yaml_text.load(f"key: {text}")["key"]):
        assert found == value
        assert type(found) is type(value)


@pytest.mark.parametrize(
    "text",
    ["1e", "e3", "1e3x", "1.2.3", "12:30", "2020-01-01", "1_", "_1", "1__0", "0o8", "7e1234567", "y", "--1", "+"],
)
def test_text(text: str) -> None:
    assert yaml_text.load(text) == text
    assert yaml_text.load(f"'{text}'") == text


@given(
    st.one_of(st.floats(allow_nan=False), st.integers(-(10**12), 10**12)),
    st.sampled_from(["{}", "{:e}", "{:E}", "{:+}"]),
)
def test_every_number_that_python_writes_is_read(value: float, form: str) -> None:
    text = form.format(value)
    expected = float(text) if math.isfinite(value) else text
    found = yaml_text.load(text)
    assert found == expected
    assert isinstance(found, str) == (not math.isfinite(value))


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**30), 10**30),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    st.from_regex(r"[-+.0-9eE_:xob]{1,8}", fullmatch=True),
)
TREES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text("ab1e.-~", max_size=3), inner, max_size=3)
    ),
)


@given(TREES)
def test_what_is_written_is_read_back_here_and_by_pyyaml(tree: Any) -> None:
    written = yaml_text.dump(tree)
    assert yaml_text.load(written) == tree
    assert yaml.safe_load(written) == tree


# Nine lines whose aliases stand for a thousand million values.
BOMB = "a0: &a0 [0, 0, 0]\n" + "".join(f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]\n" for k in range(1, 9))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{a: 1, b: 2, a: 3}", "the key 'a' stands twice"),
        ("a: &x {b: *x}", "a value that holds itself"),
        ("{1: a, 0x1: b}", "the keys '1' and '0x1' are one"),
        ("{1: a, 1.0: b}", "the keys '1' and '1.0' are one"),
        ("{yes: 1, on: 2}", "the keys 'yes' and 'on' are one"),
        ("{[a]: 1}", "a key that is a list or a mapping"),
        (BOMB, "more than 100,000 values"),
        ("!!bool x", "'x' is no truth value"),
        ("!!float x", "'x' is no number"),
        ("!!timestamp x", "could not determine a constructor"),
        ("!!python/name:os.system", "could not determine a constructor"),
        ('"\\UFFFFFFFF"', "no such character"),
    ],
)
def test_what_cannot_be_read_is_one_kind_of_error(text: str, problem: str) -> None:
    with pytest.raises(yaml.MarkedYAMLError) as caught:
        yaml_text.load(text)
    assert problem in str(caught.value.problem)


def test_a_merged_mapping_may_be_overridden() -> None:
    text = "base: &b {lr: 1e-1, momentum: .9}\nmine: {<<: *b, lr: 1e-2}"
    assert yaml_text.load(text)["mine"] == {"lr": 0.01, "momentum": 0.9}


def test_a_value_may_be_repeated_by_aliases() -> None:
    text = "a: &a [1, 2]\nb: [*a, *a]\nc: &c {x: 1}\nd: {<<: [*c, {x: 2}], y: *a}"
    assert yaml_text.load(text) == {"a": [1, 2], "b": [[1, 2]] * 2, "c": {"x": 1}, "d": {"x": 1, "y": [1, 2]}}


def test_every_door_reads_the_same_numbers(study_file: Path) -> None:
    text = "ops: [{op: RandomSubpixelShift, max_pixels: 1e1}, {op: RandomErasing, scale: [2e-2, 3e-1]}]"
    ops = augkit.Policy.from_yaml(text).ops
    assert [op.arguments for op in ops] == [{"max_pixels": 10.0}, {"scale": (0.02, 0.3)}]
    assert augkit.Policy.from_yaml(augkit.Policy.from_yaml(text).to_yaml()).ops == ops
    recipe = augkit.Recipe.load("mnist5k", ["policy.ops=[{op: RandomGaussianNoise, std: 5e-2}]", "train.steps=1e3"])
    assert (recipe.policy.ops[0].arguments, recipe.train.steps) == ({"std": 0.05}, 1000)
    study_file.write_text(study_file.read_text().replace("optim.lr: 0.2", "optim.lr: 2e-1"))
    study = Study.load(study_file, overrides=["optim.weight_decay=1e-3"])
    assert {arm.recipe.optim.lr for arm in study.arms.values()} == {0.2}
    assert {arm.recipe.optim.weight_decay for arm in study.arms.values()} == {0.001}


def test_a_file_that_is_no_text_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00name")
    for load in (augkit.Policy.from_yaml, augkit.Recipe.load, Study.load):
        with pytest.raises(ValueError, match=r"a\.yaml': cannot be read") as caught:
            load(str(tmp_path / "a.yaml"))
        assert "\n" not in str(caught.value)
        assert "(byte 0 is not UTF-8); save it as UTF-8" in str(caught.value)
