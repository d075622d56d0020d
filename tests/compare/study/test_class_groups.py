"""Statistics of the images of some classes, against slow loops over the answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from augkit.compare.study.class_groups import group_columns
from augkit.core.errors import InputError
from augkit.invariance.information import shift_information
from augkit.invariance.plan import Pairs, Plan

LAYOUT = Plan(pairs=Pairs(2, -1.0, 1.0)).layout  # the unshifted image and two pairs
RNG = np.random.default_rng(0)
LOGITS = torch.from_numpy(RNG.normal(0, 2, (40, 5, 6)))
ANSWERS = LOGITS.log_softmax(-1).to(torch.float16).numpy()
LABELS = torch.from_numpy(RNG.integers(0, 6, 40))


def share(columns: dict[str, np.ndarray]) -> float:
    whole = {name: torch.from_numpy(columns[name]).double() for name in ("shift_bits", "answer_bits", "answer_mean")}
    mean = whole["answer_mean"].mean(0)
    said = -(mean * mean.log2()).sum() - whole["answer_bits"].mean()
    return float(whole["shift_bits"].mean() / said)


@pytest.mark.parametrize("restricted", [False, True])
def test_columns_of_a_group_are_those_of_its_images_and_its_answers(restricted: bool) -> None:
    classes = [4, 1, 2]
    found = group_columns(ANSWERS, LABELS, classes, LAYOUT, restricted=restricted)
    here = [k for k in range(40) if int(LABELS[k]) in classes]
    assert len(found["shift_bits"]) == len(here)
    for row, k in enumerate(here):
        p = torch.from_numpy(ANSWERS[k]).double().exp()
        if restricted:
            p = p[:, sorted(classes)]
        p = p / p.sum(-1, keepdim=True)
        best = p.argmax(-1)
        names = sorted(classes) if restricted else list(range(6))
        assert found["correct"][row] == (names[int(best[0])] == int(LABELS[k]))
        assert found["changed"][row] == pytest.approx(np.mean([best[1] != best[2], best[3] != best[4]]))
    p = torch.from_numpy(ANSWERS[here]).double().exp()
    p = p[..., sorted(classes)] if restricted else p
    p = p / p.sum(-1, keepdim=True)
    assert share(found) == pytest.approx(float(shift_information(p[:, 1:])), rel=1e-5)


def test_answers_that_only_tell_the_group_are_the_same_within_it() -> None:
    """Evidence for the other group that depends on the shift disappears when answers are restricted."""
    moved = torch.zeros(20, 5, 4)
    moved[:, 0::2, 2:] += 3.0  # every other view speaks for classes 2 and 3
    moved[:, :, 0] += 1.0
    labels = torch.zeros(20, dtype=torch.int64)
    answers = moved.log_softmax(-1).to(torch.float16).numpy()
    free, bound = (group_columns(answers, labels, [0, 1], LAYOUT, restricted=on)["shift_bits"] for on in (False, True))
    assert free.mean() > 0.1
    assert bound.mean() < 1e-5


def test_groups_without_images_or_beyond_the_classes_are_refused() -> None:
    with pytest.raises(InputError, match="groups: expected classes from 0 to 5, got"):
        group_columns(ANSWERS, LABELS, [6], LAYOUT, restricted=False)
    with pytest.raises(InputError, match="there are none"):
        group_columns(ANSWERS[:1], torch.tensor([0]), [3], LAYOUT, restricted=False)
