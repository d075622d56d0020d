"""The stages and the head of augkit's own networks, to freeze them or to take weights for one of them."""

from __future__ import annotations

from torch import nn

from augkit.core.errors import InputError

LISTS = ("features", "layers", "blocks")  # where networks keep their blocks, in order
HEAD = "head"


def parts_of(model: nn.Module) -> tuple[list[list[str]], list[str]]:
    """Return the names of the weights and buffers of each stage, and those of the head.

    A stage is a block of the network. The first also has what comes before the blocks, and the last what comes between
    the blocks and the head.

    Raises:
        InputError: the network has no blocks or no head.

    >>> from augkit.architectures import build_model
    >>> stages, head = parts_of(build_model("small_cnn", 10, 1))
    >>> len(stages), head
    (3, ['head.2.weight', 'head.2.bias'])
    """
    listed = (nn.Sequential, nn.ModuleList)
    blocks = next((name for name in LISTS if isinstance(getattr(model, name, None), listed)), "")
    if not blocks or not isinstance(getattr(model, HEAD, None), nn.Module):
        raise InputError(f"stages: expected one of augkit's own networks, got {type(model).__name__}")
    stages: list[list[str]] = [[] for _ in getattr(model, blocks)]
    head: list[str] = []
    after = False
    for name in model.state_dict():
        first, _, rest = name.partition(".")
        if first == HEAD:
            head.append(name)
        elif first == blocks:
            after = True
            stages[int(rest.partition(".")[0])].append(name)
        else:
            stages[-1 if after else 0].append(name)
    return stages, head


def freeze(model: nn.Module, stages: int, head: bool) -> None:
    """Freeze the first ``stages`` of a network, and its head if ``head``: their weights need no gradients.

    Raises:
        InputError: there are fewer stages, or nothing is left to train.
    """
    of_stages, of_head = parts_of(model)
    if stages > len(of_stages):
        most = f"{len(of_stages)}, the stages of the network"
        raise InputError(f"train.freeze.stages: expected at most {most}, got {stages}")
    if stages == len(of_stages) and head:
        raise InputError("train.freeze: expected a part that is trained, got all stages and the head")
    frozen = {name for part in of_stages[:stages] for name in part} | (set(of_head) if head else set())
    for name, weight in model.named_parameters():
        if name in frozen:
            weight.requires_grad_(False)
