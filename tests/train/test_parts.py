"""Training of a part of a network, with weights of another for a part."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import augkit
from augkit.core.errors import InputError
from augkit.train.recipe import Recipe


def with_fields(tiny: Recipe, model: dict[str, object], freeze: dict[str, object] | None) -> Recipe:
    short = {"epochs": 1, "batch_size": 64, "freeze": freeze}
    return tiny.replaced(model={**tiny.model.model_dump(), **model}, train=short)


def test_a_fresh_head_is_trained_on_the_frozen_features_of_another_run(tiny: Recipe, tmp_path: Path) -> None:
    first = augkit.fit(with_fields(tiny, {}, None), 0, output=tmp_path / "first")
    weights = {"weights": str(tmp_path / "first" / "checkpoint.pt"), "weights_of": "features"}
    second = augkit.fit(with_fields(tiny, weights, {"stages": 3}), 1)
    alone = augkit.fit(with_fields(tiny, {}, {"stages": 3}), 1)
    before, after, random = (run.model.state_dict() for run in (first, second, alone))
    for name in before:
        same = torch.equal(before[name], after[name])
        assert same != name.startswith("head."), name  # running statistics are frozen too
        if name.endswith(".conv.weight"):
            assert not torch.equal(before[name], random[name])


def test_head_and_features_together_are_all_weights(tiny: Recipe, tmp_path: Path) -> None:
    augkit.fit(with_fields(tiny, {}, None), 0, output=tmp_path / "first")
    path = str(tmp_path / "first" / "checkpoint.pt")
    given = torch.load(path, weights_only=True)["model"]
    for part in ("head", "features", "all"):
        found = augkit.fit(
            with_fields(tiny, {"weights": path, "weights_of": part}, {"stages": 3}), 1
        ).model.state_dict()
        conv = "features.0.conv.weight"
        assert torch.equal(found[conv], given[conv]) == (part != "head")
    frozen = with_fields(tiny, {"weights": path, "weights_of": "head"}, {"stages": 0, "head": True})
    assert torch.equal(augkit.fit(frozen, 1).model.state_dict()["head.2.weight"], given["head.2.weight"])


def test_parts_of_runs_that_cannot_be_are_one_line(tiny: Recipe) -> None:
    with pytest.raises(InputError, match=r"expected weights, a path, with weights_of head"):
        with_fields(tiny, {"weights_of": "head"}, None)
    with pytest.raises(InputError, match=r"model\.weights: .*'cell:maxpool\+none'.* names an arm of a study"):
        augkit.fit(with_fields(tiny, {"weights": "cell:maxpool+none"}, None))
    with pytest.raises(InputError, match=r"train\.freeze\.stages: expected at most 3"):
        augkit.fit(with_fields(tiny, {}, {"stages": 5}))
    with pytest.raises(InputError, match=r"train\.freeze\.stages"):
        with_fields(tiny, {}, {"stages": -1})
