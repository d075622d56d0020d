"""The parts of benchmarks/rivals.py whose answers are known."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

import augkit

FOLDER = Path(__file__).parent.parent.parent / "benchmarks"
sys.path.insert(0, str(FOLDER))
try:
    import rivals
finally:
    sys.path.remove(str(FOLDER))


def network() -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return augkit.build_model("small_cnn", num_classes=10, in_channels=1, width=4).eval()


def test_a_network_that_was_told_nothing_yet_answers_as_before() -> None:
    images, plain, told_one = torch.linspace(0, 1, 4 * 256).view(4, 1, 16, 16), network(), network()
    told = rivals.condition(told_one, 8)
    told["strengths"] = torch.linspace(0, 1, 32).view(4, 8)
    assert torch.equal(told_one(images), plain(images))


def test_after_a_step_its_answers_depend_on_what_it_is_told() -> None:
    images, told_one = torch.linspace(0, 1, 4 * 256).view(4, 1, 16, 16), network()
    told = rivals.condition(told_one, 8)
    assert sum(isinstance(module, rivals.ToldNorm) for module in told_one.modules()) == 3
    for module in told_one.modules():
        if isinstance(module, rivals.ToldNorm):
            module.film.weight.data.fill_(0.1)
    answers = []
    for strength in (0.0, 1.0):
        told["strengths"] = torch.full((1, 8), strength)
        answers.append(told_one(images))
    assert not torch.allclose(*answers)


def test_the_table_is_that_of_the_results() -> None:
    results = FOLDER / "results" / "rivals.json"
    assert results.with_suffix(".md").read_text() == rivals.table(json.loads(results.read_text()))
