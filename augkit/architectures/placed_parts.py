"""Position-dependent parts of transformers, which changes of strided layers do not fix: positions and windows.

They are found by their names in timm, torchvision and transformers. The list is a hint and proves nothing: only
`augkit.certify`, or the logits themselves, show whether the logits move.
"""

from __future__ import annotations

from torch import nn

from augkit.architectures.strided_calls import Unchanged

ADDED = "adds absolute positions to tokens"
UNWRAPPED = "scores depend on distances that do not wrap around the torus"
WINDOWS = "attends within windows that stay where they are"
TENSORS = {
    **dict.fromkeys(("pos_embed", "pos_embedding", "position_embeddings", "absolute_pos_embed"), ADDED),
    **dict.fromkeys(("positional_embedding", "position_embedding"), ADDED),
    **dict.fromkeys(("relative_position_bias_table", "attention_biases", "rel_pos_h", "rel_pos_w"), UNWRAPPED),
}
CLASSES = {
    "PositionalEncodingFourier": ADDED,
    "RelPosMlp": UNWRAPPED,
    "RelPosBias": UNWRAPPED,
    "RelPosBiasTf": UNWRAPPED,
    "WindowAttention": WINDOWS,
    "ShiftedWindowAttention": WINDOWS,
    "ShiftedWindowAttentionV2": WINDOWS,
    "PartitionAttention2d": WINDOWS,
    "PartitionAttentionCl": WINDOWS,
    "ParallelPartitionAttention": WINDOWS,
    "PatchMerging": "joins groups of 2 x 2 tokens that stay where they are",
    "PatchMergingV2": "joins groups of 2 x 2 tokens that stay where they are",
}


def find_placed(model: nn.Module) -> list[Unchanged]:
    """Return one entry for each kind of part, with the name of the first and how many there are."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, _ in model.named_parameters():
        kind = name.rpartition(".")[2]
        if kind in TENSORS:
            found.setdefault((kind, TENSORS[kind]), []).append(name)
    for name, module in model.named_modules():
        kind = type(module).__name__
        if kind in CLASSES:
            found.setdefault((kind, CLASSES[kind]), []).append(name)
    return [
        Unchanged(names[0], kind if len(names) == 1 else f"{kind}, and {len(names) - 1} more", reason)
        for (kind, reason), names in found.items()
    ]
