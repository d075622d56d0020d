"""Certificates of attention, class tokens and positions: they agree with the logits, and say which piece breaks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from certified import C, Do, aps, conv, net
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import augkit
from augkit.architectures.aliasfree import IdealLowpass2d
from augkit.architectures.attention import RelativeBias
from augkit.invariance import Certificate, certify
from augkit.invariance.certificate import attention_rules

SIZE = (6, 4)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def bias(heads: int = 2, wraps: bool = True, grid: tuple[int, int] = SIZE) -> Tensor:
    layer = RelativeBias(heads, wraps)
    with torch.no_grad():
        layer.table.copy_(drawn(*layer.table.shape))
        return layer.double()(grid)


TORUS, PLANE, OTHER = bias(), bias(wraps=False), bias(grid=(4, 6))
TORUS_OF_ONE = bias(1)[0]


def split(tokens: Tensor) -> Tensor:
    return tokens.unflatten(-1, (2, C // 2)).transpose(1, 2)


def by_hand(tokens: Tensor, mask: Tensor | None = None) -> Tensor:
    """Attention as it is written without a fused kernel."""
    q = split(tokens)
    scores = (q * 0.7) @ q.transpose(-2, -1)
    if mask is not None:
        scores = scores + mask
    return (scores.softmax(dim=-1) @ q).transpose(1, 2).reshape(tokens.shape)


def fused(tokens: Tensor, mask: Tensor | None = None, **kwargs: Any) -> Tensor:
    q = split(tokens)
    return F.scaled_dot_product_attention(q, q, q, attn_mask=mask, **kwargs).transpose(1, 2).flatten(2)


def packed(tokens: Tensor, linear: nn.Module) -> Tensor:
    """Queries, keys and values cut from one tensor whose images are in dimension 1."""
    q, k, v = linear(tokens).reshape(*tokens.shape[:2], 3, 2, C // 2).permute(2, 0, 3, 1, 4).unbind(0)
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)


def cross_covariance(tokens: Tensor) -> Tensor:
    q = F.normalize(split(tokens).transpose(-2, -1), dim=-1)
    return ((q @ q.transpose(-2, -1)).softmax(-1) @ q).permute(0, 3, 1, 2).flatten(2)


def windowed(maps: Tensor) -> Tensor:
    """Attention within the left and the right half of a map."""
    windows = fused(maps.unflatten(3, (2, 2)).permute(0, 3, 2, 4, 1).reshape(-1, 12, C))
    return windows.view(-1, 2, 6, 2, C).permute(0, 4, 2, 1, 3).flatten(3)


def with_class(act: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Tokens behind two entries that do not move, which take part and are then cut off."""
    first = drawn(1, 2, C)

    def apply(tokens: Tensor) -> Tensor:
        return act(torch.cat([first.expand(len(tokens), -1, -1), tokens], 1))

    return apply


def tokens_of(function: Callable[..., Tensor], *layers: nn.Module) -> nn.Module:
    """A function of tokens, on maps."""

    def apply(maps: Tensor, *given: nn.Module) -> Tensor:
        return function(maps.flatten(2).transpose(1, 2), *given).transpose(1, 2).unflatten(2, SIZE)

    return Do(apply, *layers)


def head_of(function: Callable[[Tensor], Tensor]) -> nn.Module:
    """A function from tokens to a vector, repeated over a map so that it fits the head."""
    return Do(lambda maps: maps * 0 + function(maps.flatten(2).transpose(1, 2))[:, :, None, None])


MHA = {"embed_dim": C, "num_heads": 2, "batch_first": True}
KEEPS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "fused": (lambda: tokens_of(fused), "integer"),
    "by hand": (lambda: tokens_of(by_hand), "integer"),
    "packed": (lambda: tokens_of(packed, nn.Linear(C, 3 * C)), "integer"),
    "module": (lambda: tokens_of(lambda x, m: m(x, x, x)[0], nn.MultiheadAttention(**MHA)), "integer"),
    "relative": (lambda: tokens_of(lambda x: fused(x, TORUS)), "integer"),
    "relative by hand": (lambda: tokens_of(lambda x: by_hand(x, TORUS)), "integer"),
    "relative, module": (
        lambda: tokens_of(lambda x, m: m(x, x, x, attn_mask=TORUS_OF_ONE)[0], nn.MultiheadAttention(**MHA)),
        "integer",
    ),
    "not on the torus": (lambda: tokens_of(lambda x: fused(x, PLANE)), "none"),
    "not on the torus, by hand": (lambda: tokens_of(lambda x: by_hand(x, PLANE)), "none"),
    "of another grid": (lambda: tokens_of(lambda x: fused(x, OTHER)), "none"),
    "causal": (lambda: tokens_of(lambda x: fused(x, is_causal=True)), "none"),
    "positions": (lambda: tokens_of(lambda x: fused(x + drawn(1, 24, C))), "none"),
    "one position for all": (lambda: tokens_of(lambda x: fused(x + drawn(1, 1, C))), "integer"),
    "layer norm": (lambda: tokens_of(lambda x, n: n(x), nn.LayerNorm(C)), "integer"),
    "class token": (lambda: tokens_of(with_class(lambda x: fused(x)[:, 2:])), "integer"),
    "class token, by hand": (lambda: tokens_of(with_class(lambda x: by_hand(x)[:, 2:])), "integer"),
    "class token alone": (lambda: head_of(with_class(lambda x: fused(x)[:, 0])), "integer"),
    "mean with class token": (lambda: head_of(with_class(lambda x: x.relu().mean(1))), "integer"),
    "one of two class tokens": (lambda: head_of(with_class(lambda x: fused(x)[:, 1:].mean(1))), "integer"),
    "place behind a class token": (lambda: head_of(with_class(lambda x: x.relu()[:, 2])), "none"),
    "tokens but the last": (lambda: head_of(with_class(lambda x: x.relu()[:, :-1].mean(1))), "none"),
    "positions of the class token": (
        lambda: tokens_of(with_class(lambda x: fused(x + F.pad(drawn(1, 2, C), (0, 0, 0, 24)))[:, 2:])),
        "integer",
    ),
    "positions behind a class token": (lambda: tokens_of(with_class(lambda x: (x + drawn(1, 26, C))[:, 2:])), "none"),
    "relative with a class token": (
        lambda: tokens_of(with_class(lambda x: fused(x, F.pad(TORUS, (2, 0, 2, 0)))[:, 2:])),
        "integer",
    ),
    "class attention": (
        lambda: head_of(lambda x: F.scaled_dot_product_attention(x.mean(1, keepdim=True), x, x)[:, 0]),
        "integer",
    ),
    "linear attention": (lambda: tokens_of(lambda x: x @ (x.transpose(1, 2) @ x)), "integer"),
    "linear attention, pairs first": (lambda: tokens_of(lambda x: (x @ x.transpose(1, 2)) @ x), "integer"),
    "cross-covariance": (lambda: tokens_of(cross_covariance), "integer"),
    "cross-covariance, low-passed": (
        lambda: nn.Sequential(IdealLowpass2d(), tokens_of(cross_covariance)),
        "fractional",
    ),
    "pairs, low-passed": (
        lambda: nn.Sequential(IdealLowpass2d(), tokens_of(lambda x: (x @ x.transpose(1, 2)) @ x)),
        "fractional",
    ),
    "windows": (
        lambda: Do(windowed),
        "none",
    ),
    "a weight for each place": (lambda: tokens_of(lambda x: drawn(24, 24) @ x), "none"),
    "a matrix of channels": (lambda: tokens_of(lambda x: x @ drawn(C, C)), "fractional"),
    "a matrix of channels, channels last": (
        lambda: Do(lambda x: (x.movedim(1, 3) @ drawn(C, C)).movedim(3, 1)),
        "fractional",
    ),
}  # fmt: skip


def judged(name: str) -> Certificate:
    make, _ = KEEPS[name]
    torch.manual_seed(0)
    return certify(net(make()), SIZE)


@pytest.mark.parametrize("name", KEEPS)
def test_rule_agrees_with_the_logits(name: str) -> None:
    certificate, expected = judged(name), KEEPS[name][1]
    assert certificate.verdict == expected, str(certificate)
    assert expected == "none" or not certificate.check.integer_moves
    if name != "one position for all":  # which shows behind a nonlinearity only
        assert expected != "integer" or certificate.check.fractional > 1e-12 * certificate.check.scale


MOVE = [name for name, (_, verdict) in KEEPS.items() if verdict == "none"]


@pytest.mark.parametrize("name", MOVE)
def test_what_is_said_to_break_moves_the_logits(name: str) -> None:
    torch.manual_seed(0)
    certificate = certify(net(KEEPS[name][0](), conv(), nn.Softplus()), SIZE)
    assert certificate.verdict == "none"
    assert certificate.check.integer_moves


REASONS = {
    "not on the torus": ("positions", "RelativeBias"),
    "positions": ("fixed values", "relative ones on the torus"),
    "causal": ("only those before it", "without a causal mask"),
    "windows": ("2 windows of 2 that stay where they are", "whole map"),
    "place behind a class token": ("picks some places", "class token"),
    "a weight for each place": ("a weight of its own", "average"),
}


@pytest.mark.parametrize("name", REASONS)
def test_reasons_name_the_piece(name: str) -> None:
    certificate, (why, remedy) = judged(name), REASONS[name]
    assert why in certificate.reason
    assert remedy in str(certificate.remedy)


REFUSED: dict[str, Callable[[], nn.Module]] = {
    "behind": lambda: tokens_of(lambda x: fused(torch.cat([x, drawn(1, 1, C).expand(2, -1, -1)], 1))[:, :-1]),
    "scores": lambda: tokens_of(lambda x: (x @ x.transpose(1, 2)).cumsum(-1) @ x),
    "their maximum": lambda: tokens_of(lambda x: (x @ x.transpose(1, 2)).amax(-1, keepdim=True) * x),
    "flip of a sequence": lambda: tokens_of(with_class(lambda x: x.flip(1)[:, :24])),
    "mask of the image": lambda: tokens_of(lambda x: fused(x, x @ x.transpose(1, 2))[:, :24]),
    "images elsewhere": lambda: tokens_of(lambda x: x.transpose(0, 1).relu().transpose(0, 1)),
    "padding mask": lambda: tokens_of(
        lambda x, m: m(x, x, x, key_padding_mask=torch.zeros(2, 24, dtype=torch.bool))[0], nn.MultiheadAttention(**MHA)
    ),
    "random": lambda: tokens_of(lambda x: fused(x, dropout_p=0.5)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_rule_is_refused(name: str) -> None:
    certificate = certify(net(REFUSED[name]()), SIZE)
    assert certificate.verdict == "refused", str(certificate)


# Networks

MODELS: dict[str, tuple[dict[str, Any], str, str]] = {
    "plain": ({"head": "token"}, "none", "patches.conv"),
    "aps": ({"downsample": "aps", "padding_mode": "circular"}, "integer", "patches.pool"),
    "aps, no position, class token": (
        {"downsample": "aps", "padding_mode": "circular", "position": "none", "head": "token"},
        "integer",
        "patches.pool",
    ),
    "lps": ({"downsample": "lps", "padding_mode": "circular"}, "integer", "patches.pool"),
    "learned": (
        {"downsample": "aps", "padding_mode": "circular", "position": "learned", "input_size": 16},
        "none",
        "position.add",
    ),
    "zeros": ({"downsample": "aps"}, "none", "patches.pad"),
    "softmax": ({"downsample": "aliasfree", "padding_mode": "circular"}, "none", "blocks.0.norm1"),
}


def vit(name: str = "vit_micro", **arguments: Any) -> nn.Module:
    model = augkit.build_model(name, 5, 3, width=8, seed=0, **arguments)
    for key, parameter in model.named_parameters():
        if key.endswith(("table", "token", "position", "bias")):
            nn.init.normal_(parameter)
    return model


@pytest.mark.parametrize("name", MODELS)
def test_our_vits_are_judged(name: str) -> None:
    arguments, verdict, layer = MODELS[name]
    certificate = certify(vit(**arguments), 16)
    assert (certificate.verdict, certificate.layer) == (verdict, layer), str(certificate)
    assert certificate.check.integer_moves == (verdict == "none")
    if name == "learned":
        assert "'position.position'" in certificate.reason


@pytest.mark.parametrize("size", [(16, 16), (14, 18), (15, 12)])
def test_alias_free_vits_are_certified_at_any_size(size: tuple[int, int]) -> None:
    certificate = certify(vit("vit_micro_aliasfree", padding_mode="circular"), size)
    assert (certificate.verdict, certificate.layer) == ("fractional", None), str(certificate)


def test_patches_say_which_shifts_they_keep() -> None:
    certificate = certify(vit(), 16)
    assert "stride 4 cuts patches of 4 that stay where they are (only shifts by 4 pixels fit)" in certificate.reason
    assert "AdaptivePolyphaseSampling(4)" in str(certificate.remedy)


def test_torchvision_and_timm_break_at_their_patches() -> None:
    from torchvision.models import VisionTransformer

    certificate = certify(VisionTransformer(32, 8, 1, 2, 16, 32, num_classes=5), 32)
    assert (certificate.verdict, certificate.layer) == ("none", "conv_proj")
    timm = pytest.importorskip("timm")
    for name, options in (
        ("vit_tiny_patch16_224", {"img_size": 32, "depth": 1}),
        ("swin_tiny_patch4_window7_224", {"img_size": 28, "window_size": 7, "depths": (1, 1), "num_heads": (1, 1)}),
    ):
        certificate = certify(timm.create_model(name, num_classes=5, embed_dim=24, **options), (32, 28)["swin" in name])
        assert (certificate.verdict, certificate.layer) == ("none", "patch_embed.proj")


def anchored(model: nn.Module, name: str, patch: int) -> nn.Module:
    """The model with its patch convolution at every pixel, then polyphase sampling."""
    parent, _, attribute = name.rpartition(".")
    old = model.get_submodule(name)
    dense = nn.Conv2d(3, old.out_channels, patch)  # type: ignore[arg-type]
    circular = nn.CircularPad2d((0, patch - 1, 0, patch - 1))
    setattr(model.get_submodule(parent), attribute, nn.Sequential(circular, dense, aps(0)))
    model.get_submodule(f"{name}.2").stride = patch  # type: ignore[assignment]
    return model


def test_transformers_of_torchvision_break_next_at_their_positions() -> None:
    from torchvision.models import VisionTransformer

    model = anchored(VisionTransformer(16, 4, 2, 2, 16, 32, num_classes=5), "conv_proj", 4)
    nn.init.normal_(model.heads.head.weight)
    certificate = certify(model, 16)
    assert (certificate.verdict, certificate.layer) == ("none", "encoder.add")
    assert "'encoder.pos_embedding'" in certificate.reason
    nn.init.zeros_(model.encoder.pos_embedding)
    assert certify(model, 16).verdict == "integer"


@pytest.mark.parametrize("fuse", [True, False])
def test_attention_of_timm_is_walked_through(fuse: bool) -> None:
    timm = pytest.importorskip("timm")
    model = timm.create_model("vit_tiny_patch16_224", num_classes=5, embed_dim=24, depth=2, img_size=32, patch_size=4)
    model = anchored(model, "patch_embed.proj", 4)
    for block in model.blocks:
        block.attn.fused_attn = fuse
    certificate = certify(model, 32)
    assert (certificate.verdict, certificate.type) == ("none", "function add")
    assert "'pos_embed'" in certificate.reason
    nn.init.zeros_(model.pos_embed)
    nn.init.normal_(model.cls_token)
    assert certify(model, 32).verdict == "integer", "class token and all"


# Random networks of tokens

MENU = {name: make for name, (make, _) in KEEPS.items() if name != "windows"}
MENU |= {"relu": nn.ReLU, "conv": conv, "norm": lambda: nn.GroupNorm(2, C)}


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(names=st.lists(st.sampled_from(sorted(MENU)), min_size=1, max_size=4), seed=st.integers(0, 1000))
def test_certificates_of_random_transformers_hold_on_fresh_images(names: list[str], seed: int) -> None:
    torch.manual_seed(seed)
    model = net(*(MENU[name]() for name in names))
    certificate = certify(model, SIZE)
    assert "a layer hides something" not in certificate.reason, (names, str(certificate))
    if certificate.verdict not in ("integer", "fractional"):
        return
    model, images = model.double().eval(), drawn(3, 3, *SIZE, seed=seed + 1000)
    shifts = [(1.0, 0.0), (0.0, 1.0), (3.0, -2.0)] + [(0.5, 0.5), (-0.37, 1.21)] * (certificate.verdict == "fractional")
    with torch.no_grad():
        logits = model(images)
        for shift in shifts:
            moved = augkit.fourier_shift(images, torch.tensor(shift, dtype=torch.float64))
            if all(each.is_integer() for each in shift):
                moved = images.roll((int(shift[1]), int(shift[0])), (-2, -1))
            assert (model(moved) - logits).abs().max() < 1e-9 * logits.abs().max().clamp_min(1e-30)


def test_a_wrong_rule_is_found_by_the_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_rules, "_check_positions", lambda *_: None)
    certificate = judged("not on the torus")
    assert certificate.verdict == "refused"
    assert "a layer hides something" in certificate.reason
