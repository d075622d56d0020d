"""Parts of networks: every weight is in one stage or in the head."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from augkit.architectures import NETWORKS, build_model
from augkit.architectures.stages import freeze, parts_of
from augkit.core.errors import InputError

STAGES = {"small_cnn": 3, "resnet18": 8, "wide_resnet16": 6, "vgg11": 8, "vit_micro": 4, "convnext": 15, "harmonic": 8}


@pytest.mark.parametrize("name", STAGES)
def test_every_weight_is_in_one_part(name: str) -> None:
    model = build_model(name, 5, 1, input_size=32, width=16 if name == "vit_micro" else 4)
    stages, head = parts_of(model)
    listed = [key for part in (*stages, head) for key in part]
    assert sorted(listed) == sorted(model.state_dict())
    assert all(key.startswith("head.") for key in head)
    assert len(stages) == STAGES[name] or name == "convnext"
    assert name in NETWORKS


def test_a_frozen_part_does_not_learn_and_its_norms_do_not_either() -> None:
    model = build_model("small_cnn", 5, 1, width=4)
    freeze(model, 2, head=True)
    needs = {name: weight.requires_grad for name, weight in model.named_parameters()}
    assert {name.split(".")[1] for name, on in needs.items() if on and name.startswith("features")} == {"2"}
    assert not needs["head.2.weight"]


def test_features_of_the_frozen_stages_are_those_of_before() -> None:
    """The stages are named in the order of the data: a change of the last leaves what comes before it as it was."""
    model = build_model("resnet18", 5, 1, width=4)
    stages, _ = parts_of(model)
    seen: list[torch.Tensor] = []
    model.layers[6].register_forward_hook(lambda *given: seen.append(given[2]))  # type: ignore[operator, union-attr]
    model.eval()
    images = torch.rand(2, 1, 16, 16)
    for _ in range(2):
        model(images)
        for name in stages[-1]:
            model.state_dict()[name].mul_(2)
    assert torch.equal(seen[0], seen[1])


def test_parts_that_a_network_does_not_have_are_refused() -> None:
    model = build_model("small_cnn", 5, 1, width=4)
    with pytest.raises(InputError, match=r"train\.freeze\.stages: expected at most 3, .* got 4"):
        freeze(model, 4, head=False)
    with pytest.raises(InputError, match=r"train\.freeze: expected a part that is trained"):
        freeze(model, 3, head=True)
    with pytest.raises(InputError, match=r"stages: expected one of augkit's own networks, got Linear"):
        parts_of(nn.Linear(2, 2))
