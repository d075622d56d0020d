"""Surgery on transformers: patches follow the image; positions and windows stay, and are said to."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import augkit
from augkit.architectures import antialias, surgery_report
from augkit.core.errors import InputError
from augkit.invariance import certify

SHIFTS = [(0, 1), (1, 0), (3, 5), (-7, 13)]


def timm_model(name: str, **options: Any) -> nn.Module:
    """A network of timm with random weights in all its branches."""
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=5, **options).eval()
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if parameter.numel() == max(parameter.shape, default=1):
                parameter.uniform_(*((-0.1, 0.1) if key.endswith("bias") else (0.5, 1.0)))
            elif key in ("cls_token", "pos_embed"):
                nn.init.normal_(parameter)
    return model


def moves(model: nn.Module, side: int) -> float:
    """The largest change of a logit over the largest logit, in float64."""
    images = torch.randn(2, 3, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    model = model.double().eval()
    with torch.no_grad():
        logits: Tensor = model(images)
        changes = [(model(images.roll(shift, (-2, -1))) - logits).abs().max() for shift in SHIFTS]
    return float(max(changes) / logits.abs().max())


SMALL = {"embed_dim": 24, "depth": 2, "num_heads": 2}
VIT = {**SMALL, "img_size": 32, "patch_size": 8}
AVERAGED = {"pos_embed": "none", "class_token": False, "global_pool": "avg"}
EXACT: dict[str, tuple[str, int, dict[str, Any]]] = {
    "vit without positions": ("vit_tiny_patch16_224", 32, {**VIT, "pos_embed": "none"}),
    "vit, averaged": ("vit_tiny_patch16_224", 32, {**VIT, **AVERAGED}),
    "xcit without positions": ("xcit_nano_12_p16_224", 32, {**SMALL, "use_pos_embed": False}),
    "pvt_v2": ("pvt_v2_b0", 64, {"depths": (1, 1, 1, 1), "embed_dims": (8, 16, 24, 32), "num_heads": (1, 1, 1, 1)}),
    "mobilevit": ("mobilevit_xxs", 64, {}),
}  # fmt: skip


@pytest.mark.integration
@pytest.mark.parametrize("method", ["aps", "lps"])
@pytest.mark.parametrize("name", EXACT)
def test_transformers_without_places_become_exactly_invariant(name: str, method: str) -> None:
    network, side, options = EXACT[name]
    model = timm_model(network, **options)
    changed = antialias(model, method, "circular", odd="raise", input_size=side)
    assert moves(changed, side) < 1e-12
    assert surgery_report(changed).placed == ()
    assert moves(model, side) > 1e-6
    changed.load_state_dict(model.state_dict())


MOVE: dict[str, tuple[str, int, dict[str, Any], list[str]]] = {
    "vit": ("vit_tiny_patch16_224", 32, VIT, ["pos_embed"]),
    "xcit": ("xcit_nano_12_p16_224", 32, SMALL, ["PositionalEncodingFourier"]),
    "swin": (
        "swin_tiny_patch4_window7_224",
        32,
        {"img_size": 32, "window_size": 4, "embed_dim": 8, "depths": (2, 2), "num_heads": (1, 1)},
        ["relative_position_bias_table", "WindowAttention", "PatchMerging"],
    ),
}


@pytest.mark.integration
@pytest.mark.parametrize("name", MOVE)
def test_positions_and_windows_still_move_the_logits_and_are_named(name: str) -> None:
    network, side, options, parts = MOVE[name]
    changed = antialias(timm_model(network, **options), "aps", "circular", input_size=side)
    report = surgery_report(changed)
    assert report.changed
    assert [layer.split(",")[0] for _, layer, _ in report.placed] == parts
    assert str(report).count("by place") == len(parts)
    assert moves(changed, side) > 1e-6


LEFT = {
    "vit": "the fixed values of 'pos_embed' that differ from place to place",
    "xcit": "fixed values that differ from place to place",
    "swin": "cuts a side of 8 places into 2 windows of 4 that stay where they are",
}


@pytest.mark.integration
@pytest.mark.parametrize("name", [*EXACT, *MOVE])
def test_the_certificate_agrees_with_the_logits_and_names_what_is_left(name: str) -> None:
    network, side, options = EXACT[name] if name in EXACT else MOVE[name][:3]
    certificate = certify(antialias(timm_model(network, **options), "aps", "circular", input_size=side), side)
    if name == "mobilevit":  # mixes images and groups of pixels in one dimension, which no rule follows
        assert certificate.verdict == "refused"
    else:
        assert certificate.verdict == ("integer" if name in EXACT else "none")
    assert certificate.check.integer_moves == (name in MOVE)
    assert LEFT.get(name, "") in certificate.reason


def test_patches_of_our_own_vit_are_those_of_its_polyphase_form() -> None:
    plain, theirs = (
        augkit.build_model("vit_micro", 5, 3, width=8, position="none", padding_mode="circular", seed=0, **options)
        for options in ({}, {"downsample": "aps"})
    )
    changed = antialias(plain, "aps", "circular", input_size=16).eval()
    images = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(changed(images), theirs.eval()(images), atol=1e-6, rtol=1e-5)


def test_patches_cannot_be_blurred() -> None:
    with pytest.raises(InputError, match="the embedding of patches: a low-pass for steps of 16 pixels would blur"):
        antialias(augkit.build_model("vit_micro", 5, 3, width=8, stem="imagenet"), "blurpool", input_size=32)
