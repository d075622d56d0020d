"""Vision transformers: what moves under shifts and what does not, against independent references."""

from __future__ import annotations

import copy
import pickle
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import augkit
from augkit.architectures import ViT
from augkit.architectures.attention import CrossCovarianceAttention, RelativeBias, SelfAttention
from augkit.architectures.blocks import Style
from augkit.architectures.vit import Blocks, PatchEmbedding
from augkit.core.errors import InputError, OddMapWarning
from augkit.train.optimizer import make_optimizer
from augkit.train.recipe_sections import OptimSettings

INTEGER = [(0, 1), (1, 0), (3, 5), (-7, 13)]
FRACTIONAL = [(0.5, 0.5), (1 / 3, -2 / 3), (0.0, 0.5)]


def vit(name: str = "vit_micro", **arguments: object) -> nn.Module:
    """A network whose zero initial positions, biases and class token are drawn too."""
    model = augkit.build_model(name, 5, 2, **{"width": 16, "seed": 0, **arguments}).eval()  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for key, parameter in model.named_parameters():
            if key.endswith(("table", "token", "position", "bias")):
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
    return model


def moves(model: nn.Module, dtype: torch.dtype, size: tuple[int, int] = (32, 24), fractional: bool = False) -> float:
    """The largest change of a logit under circular shifts."""
    images = torch.rand(2, 2, *size, dtype=dtype, generator=torch.Generator().manual_seed(0))
    model = model.to(dtype)
    with torch.no_grad():
        logits = model(images)
        if fractional:
            moved = [augkit.fourier_shift(images, torch.tensor(s, dtype=torch.float64)) for s in FRACTIONAL]
        else:
            moved = [images.roll(shift, (-2, -1)) for shift in INTEGER]
        return max(float((model(each) - logits).abs().max()) for each in moved)


@pytest.mark.parametrize("method", ["aps", "lps"])
@pytest.mark.parametrize("position", ["relative", "none"])
@pytest.mark.parametrize("head", ["gap", "token"])
def test_polyphase_patches_do_not_move_under_any_integer_shift(method: str, position: str, head: str) -> None:
    model = vit(downsample=method, padding_mode="circular", position=position, head=head)
    assert moves(model, torch.float32) < 1e-5
    assert moves(model, torch.float64) < 1e-12


def test_every_integer_shift_of_a_small_image_keeps_the_logits() -> None:
    model = vit(downsample="aps", padding_mode="circular").double()
    image = torch.rand(1, 2, 12, 8, dtype=torch.float64)
    every = torch.cat([image.roll((y, x), (-2, -1)) for y in range(12) for x in range(8)])
    with torch.no_grad():
        logits = model(every)
    assert (logits - logits[:1]).abs().max() < 1e-12
    assert logits.std() > 0.01


@pytest.mark.parametrize(
    "arguments",
    [
        {"head": "token"},
        {"padding_mode": "circular"},
        {"padding_mode": "circular", "position": "none"},
        {"padding_mode": "circular", "downsample": "aps", "position": "learned"},
        {"downsample": "aps"},
        {"padding_mode": "circular", "downsample": "aps", "head": "fc", "input_size": 32},
        {"padding_mode": "circular", "downsample": "blurpool", "position": "none"},
        {"padding_mode": "circular", "downsample": "aliasfree"},
    ],
    ids=lambda arguments: " ".join(map(str, arguments.values())),
)
def test_each_piece_is_needed(arguments: dict[str, object]) -> None:
    assert moves(vit(**arguments), torch.float64, (32, 32)) > 1e-5


@pytest.mark.parametrize("position", ["relative", "none"])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-11)])
def test_alias_free_vits_do_not_move_under_fractions_of_a_pixel(
    position: str, dtype: torch.dtype, bound: float
) -> None:
    model = vit("vit_micro_aliasfree", padding_mode="circular", position=position)
    assert moves(model, dtype, fractional=True) < bound
    assert moves(model, dtype) < bound
    assert moves(model, dtype, (30, 35), fractional=True) < bound, "any size"


@pytest.mark.parametrize(
    ("style", "blocks"),
    [
        (Style("aliasfree", "circular"), Blocks(2, 2, "softmax", "aliasfree")),
        (Style("aliasfree", "circular"), Blocks(2, 2, "xca", "layer")),
        (Style("aliasfree", "circular", "gelu"), Blocks(2, 2, "xca", "aliasfree")),
        (Style("aliasfree", "circular", "aliasfree_gelu"), Blocks(2, 2, "xca", "aliasfree")),
        (Style("aliasfree", "zeros"), Blocks(2, 2, "xca", "aliasfree")),
        (Style("stride", "circular", "aliasfree"), Blocks(2, 2, "xca", "aliasfree")),
    ],
    ids=["softmax", "layer norm", "gelu", "finer gelu", "zeros", "stride"],
)
def test_every_alias_free_piece_is_needed(style: Style, blocks: Blocks) -> None:
    torch.manual_seed(0)
    model = ViT(5, 2, style, width=16, blocks=blocks, position="relative").eval()
    assert moves(model, torch.float64, fractional=True) > 1e-8


@pytest.mark.parametrize("method", ["stride", "aps"])
def test_patches_are_those_of_the_image_that_begins_at_the_phase(method: str) -> None:
    """A slow reference: cut each patch, multiply it by the filters."""
    torch.manual_seed(0)
    embedding = PatchEmbedding(2, 3, 4, Style(method, "circular"))
    images = torch.rand(2, 2, 8, 12)
    out, phases = embedding(images), torch.zeros(2, dtype=torch.long)
    if method == "aps":
        dense = embedding.conv(embedding.pad(images))
        _, phases = embedding.pool(dense, return_phase=True)  # type: ignore[operator]
    for n, phase in enumerate(phases.tolist()):
        image = images[n].roll((-(phase // 4), -(phase % 4)), (-2, -1))
        for y in range(2):
            for x in range(3):
                patch = image[:, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4]
                expected = (embedding.conv.weight * patch).sum((1, 2, 3)) + embedding.conv.bias
                torch.testing.assert_close(out[n, :, y, x], expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("wraps", [True, False])
def test_relative_bias_is_a_number_of_the_distance(wraps: bool) -> None:
    bias = RelativeBias(2, wraps, reach=2)
    nn.init.normal_(bias.table)
    h, w = 5, 8
    out = bias((h, w))
    assert out.shape == (2, 40, 40)

    def step(a: int, b: int, side: int) -> int:
        d = b - a
        if wraps:
            d = min((d + k * side for k in (-1, 0, 1)), key=lambda value: (abs(value), value))
        return max(-2, min(2, d)) + 2

    for i in range(0, 40, 7):
        for j in range(40):
            y, x = step(i // w, j // w, h), step(i % w, j % w, w)
            assert torch.equal(out[:, i, j], bias.table[:, y, x])


def test_softmax_attention_agrees_with_a_loop() -> None:
    torch.manual_seed(0)
    layer = SelfAttention(6, 2, RelativeBias(2, wraps=True))
    nn.init.normal_(layer.bias.table)  # type: ignore[union-attr]
    tokens = torch.randn(1, 7, 6)  # a class token and 2 x 3 places
    q, k, v = layer.qkv(tokens)[0].split(6, -1)
    bias = layer.bias((2, 3))  # type: ignore[misc]
    heads = []
    for n in range(2):
        part = slice(3 * n, 3 * n + 3)
        scores = q[:, part] @ k[:, part].T / 3**0.5
        scores[1:, 1:] += bias[n]
        heads.append(scores.exp() / scores.exp().sum(1, keepdim=True) @ v[:, part])
    torch.testing.assert_close(layer(tokens, (2, 3))[0], layer.project(torch.cat(heads, 1)), atol=1e-5, rtol=1e-5)


def test_cross_covariance_attention_agrees_with_timm() -> None:
    xcit = pytest.importorskip("timm.models.xcit")
    theirs, ours = xcit.XCA(12, num_heads=3, qkv_bias=True), CrossCovarianceAttention(12, 3)
    state = theirs.state_dict()
    ours.load_state_dict({key.replace("proj.", "project."): value for key, value in state.items()})
    tokens = torch.randn(2, 20, 12)
    torch.testing.assert_close(ours(tokens, (4, 5)), theirs(tokens), atol=1e-5, rtol=1e-5)


def test_the_plain_network_agrees_with_timm() -> None:
    timm = pytest.importorskip("timm")
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=5, img_size=32, depth=2).eval()
    ours = ViT(5, 3, head="token", stem="imagenet", input_size=32, blocks=Blocks(2, 3)).eval()
    nn.init.normal_(theirs.pos_embed)
    nn.init.normal_(theirs.cls_token)
    with torch.no_grad():
        theirs.cls_token += theirs.pos_embed[:, :1]  # ours has no position for the class token
        position = theirs.pos_embed[:, 1:].mT.unflatten(2, (2, 2)).clone()
        theirs.pos_embed[:, :1] = 0
    names = {"patches.conv": "patch_embed.proj", "norm1": "norm1", "attention.qkv": "attn.qkv"}
    names |= {"attention.project": "attn.proj", "expand": "mlp.fc1", "project": "mlp.fc2", "token": "cls_token"}
    state = theirs.state_dict()

    def their(key: str) -> str:
        head, _, rest = key.partition(".")
        if head == "blocks":
            index, _, inner = rest.partition(".")
            layer, _, kind = inner.rpartition(".")
            return f"blocks.{index}.{names.get(layer, layer)}.{kind}"
        layer, _, kind = key.rpartition(".")
        return names.get(key) or f"{names.get(layer, layer)}.{kind}"

    mine = {key: position if key == "position.position" else state[their(key)] for key in ours.state_dict()}
    ours.load_state_dict(mine)
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(ours(images), theirs(images), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["vit_micro", "vit_micro_aliasfree"])
@pytest.mark.parametrize("method", ["stride", "aps", "lps", "aliasfree"])
def test_they_learn_copy_pickle_and_work_in_halves(name: str, method: str) -> None:
    images, labels = torch.rand(8, 2, 16, 16), torch.arange(8) % 4
    images[torch.arange(8), 0, 2 + labels, 5] += 4
    model = vit(name, downsample=method, padding_mode="circular").train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    losses = []
    for _ in range(4):
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    assert all(parameter.grad is not None for parameter in model.parameters())
    model.eval()
    with torch.no_grad():
        logits = model(images)
        for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
            assert torch.equal(other(images), logits)
        with torch.autocast("cpu", torch.bfloat16):
            torch.testing.assert_close(model(images).float(), logits, atol=0.5, rtol=0.1)
        half = copy.deepcopy(model).bfloat16()(images.bfloat16())
    assert half.dtype == torch.bfloat16
    assert half.isfinite().all()


@pytest.mark.integration
@pytest.mark.parametrize("head", ["token", "gap"])
def test_they_compile_and_export(head: str) -> None:
    style = Style("aps", "circular", "gelu")
    model = ViT(5, 2, style, head, width=8, blocks=Blocks(1, 2), position="relative").eval()
    images = torch.rand(2, 2, 16, 16)
    with torch.no_grad():
        logits = model(images)
        compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(images), logits)
        exported = torch.export.export(model, (images,)).module()
        torch.testing.assert_close(exported(images), logits)


def test_stored_positions_are_resampled_for_other_sizes() -> None:
    model = vit(input_size=16)
    assert model.position.position.shape == (1, 16, 4, 4)  # type: ignore[union-attr]
    for size in ((16, 16), (28, 28), (24, 40)):
        assert model(torch.rand(1, 2, *size)).shape == (1, 5)
    same = F.interpolate(model.position.position, size=(4, 4), mode="bicubic")  # type: ignore[union-attr]
    torch.testing.assert_close(same, model.position.position)  # type: ignore[union-attr]


@pytest.mark.parametrize("side", [16, 28, 32])
def test_sizes_of_digits(side: int) -> None:
    model = vit(downsample="aps", padding_mode="circular")
    with warnings.catch_warnings():
        warnings.simplefilter("error", OddMapWarning)
        assert moves(model, torch.float64, (side, side)) < 1e-12


def test_the_standard_size_is_that_of_deit_tiny() -> None:
    with torch.device("meta"):
        model = augkit.build_model("vit_tiny", 1000, 3, stem="imagenet", head="token")
    assert sum(p.numel() for p in model.parameters()) == 5_717_416 - 192  # without a position of the class token
    assert model(torch.empty(1, 3, 224, 224, device="meta")).shape == (1, 1000)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"position": "relativ"}, "did you mean 'relative'"),
        ({"name": "resnet18", "position": "none"}, "position 'none': expected one of vit_micro"),
        ({"name": "resnet18", "head": "token"}, "unknown head 'token'"),
        ({"padding_mode": "full"}, "padding_mode 'full': expected"),
        ({"name": "vit_micro_aliasfree", "head": "token"}, "head 'token': alias-free"),
        ({"stem": "imagenet", "input_size": 8}, "input_size >= 16"),
    ],
)
def test_bad_arguments_get_one_line(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message) as error:
        augkit.build_model(**{"name": "vit_micro", "num_classes": 3, **arguments})  # type: ignore[arg-type]
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("kind", "bad"), [("attention", "softmx"), ("norm", "layr")])
def test_unknown_blocks_get_one_line(kind: str, bad: str) -> None:
    with pytest.raises(InputError, match=f"unknown {kind}"):
        Blocks(**{kind: bad})  # type: ignore[arg-type]


def test_attention_is_blind_to_the_order_of_tokens() -> None:
    tokens, order = torch.randn(1, 12, 16), torch.randperm(12)
    for layer in (SelfAttention(16, 2), CrossCovarianceAttention(16, 2)):
        out: Tensor = layer(tokens, (3, 4))
        torch.testing.assert_close(layer(tokens[:, order], (3, 4)), out[:, order], atol=1e-5, rtol=1e-5)


def test_positions_and_class_tokens_are_spared_by_weight_decay() -> None:
    model = augkit.build_model("vit_micro", 5, 2, width=8, head="token")
    relative = augkit.build_model("vit_micro_aliasfree", 5, 2, width=8)
    for network, spared in ((model, {"token", "position.position"}), (relative, {"blocks.0.attention.temperature"})):
        groups = make_optimizer(network, OptimSettings(weight_decay=0.1)).param_groups
        free = {id(p) for group in groups if group["weight_decay"] == 0 for p in group["params"]}
        named = dict(network.named_parameters())
        assert all(id(named[name]) in free for name in spared)
        assert id(named["blocks.0.expand.weight"]) not in free
