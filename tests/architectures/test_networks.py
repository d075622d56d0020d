"""Networks by name: shapes, initial weights, old checkpoints, and invariance of the logits to shifts."""

from __future__ import annotations

import copy
import itertools
import pickle
import warnings

import pytest
import torch
from torch import Tensor, fx, nn

import augkit
from augkit.architectures import DOWNSAMPLES, HEADS, NETWORKS, ResNet, Style, initialize
from augkit.architectures.blocks import Stage
from augkit.core.errors import InputError, OddMapWarning

WIDTH = {"small_cnn": 8, "resnet50": 2, "resnet34": 2}
EXACT = ("aps", "lps", "aliasfree")

# The harmonic network has pools, activation and head of its own (tests/test_harmonic.py).
IN_ALL_STYLES = [name for name in NETWORKS if name != "harmonic"]


def build(name: str = "small_cnn", **arguments: object) -> nn.Module:
    settings = {"num_classes": 5, "in_channels": 2, "width": WIDTH.get(name, 4), "seed": 0, **arguments}
    return augkit.build_model(name, **settings)  # type: ignore[arg-type]


def calibrated(model: nn.Module, images: Tensor) -> nn.Module:
    """The model in evaluation mode, with batch norm statistics of the images."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the mean over passes
    model.train()
    with torch.no_grad():
        model(images)
    return model.eval()


@pytest.fixture(autouse=True)
def _odd_maps_are_not_at_issue() -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", OddMapWarning)
        yield


@pytest.mark.parametrize("name", IN_ALL_STYLES)
@pytest.mark.parametrize("method", DOWNSAMPLES)
@pytest.mark.parametrize("head", HEADS)
def test_logits_have_the_right_shape(name: str, method: str, head: str) -> None:
    model = None
    for side in (33, 40):
        if model is None or head == "fc":  # whose weights are for one size
            model = build(name, downsample=method, head=head, input_size=side).eval()
        assert model(torch.rand(3, 2, side, side)).shape == (3, 5)
    if head != "fc":
        assert model(torch.rand(2, 2, 45, 32)).shape == (2, 5)


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("method", DOWNSAMPLES)
def test_imagenet_stems_divide_by_32(name: str, method: str) -> None:
    model = build(name, downsample=method, stem="imagenet", head="fc", input_size=64).eval()
    sizes = []
    model.layers.register_forward_hook(lambda _, inputs, out: sizes.extend([inputs[0].shape[-1], out.shape[-1]]))
    assert model(torch.rand(2, 2, 64, 64)).shape == (2, 5)
    assert sizes == [16, 2]


def test_the_wide_resnet_has_the_stages_of_wrn_16_4() -> None:
    """Table 1 of Zagoruyko & Komodakis 2016 with k = 4 and N = 2, but for the channels of the stem (16 there)."""
    model = augkit.build_model("wide_resnet16", 10, downsample="stride").eval()
    maps = list[tuple[int, ...]]()
    for block in model.layers:  # type: ignore[union-attr]
        block.register_forward_hook(lambda _, inputs, out: maps.append(tuple(out.shape[1:])))
    model(torch.rand(1, 3, 32, 32))
    assert maps == [(64, 32, 32)] * 2 + [(128, 16, 16)] * 2 + [(256, 8, 8)] * 2
    pairs = [(64, 64), (64, 128), (128, 256)]
    convolutions = 9 * 3 * 64 + sum(9 * before * after + 3 * 9 * after**2 for before, after in pairs)
    shortcuts = 64 * 128 + 128 * 256
    assert sum(w.numel() for w in model.parameters() if w.ndim == 4) == convolutions + shortcuts


@pytest.mark.parametrize("name", IN_ALL_STYLES)
def test_a_seed_gives_the_same_weights_for_every_downsampling(name: str) -> None:
    own = {"position": "none"} if name.startswith("vit") else {}  # whose default depends on the downsampling
    states = {m: dict(build(name, downsample=m, seed=3, **own).named_parameters()) for m in DOWNSAMPLES}
    for (first, one), (second, other) in itertools.combinations(states.items(), 2):
        for key in one.keys() & other.keys():
            assert torch.equal(one[key], other[key]), key
        if "lps" not in (first, second):
            assert one.keys() == other.keys()
    assert states["maxpool"].keys() < states["lps"].keys()
    reseeded = build(name, seed=4, **own).state_dict()
    assert not torch.equal(reseeded["head.2.weight"], states["maxpool"]["head.2.weight"])


def test_seeded_networks_leave_the_global_state_alone() -> None:
    before = torch.get_rng_state()
    build("resnet18", downsample="lps")
    assert torch.equal(torch.get_rng_state(), before)


def test_initial_weights_have_the_variance_of_he_2015() -> None:
    model = ResNet(10, 3, width=32)
    initialize(model, 0)
    for name, parameter in model.named_parameters():
        if parameter.ndim == 4 and parameter.numel() > 5000:
            fan_in = parameter[0].numel()
            assert parameter.var().item() == pytest.approx(2 / fan_in, rel=0.1), name


def test_names_of_weights_are_those_of_old_checkpoints() -> None:
    keys = build("resnet18", downsample="blurpool").state_dict().keys()
    assert {"conv.weight", "norm.running_mean", "layers.2.conv1.weight", "layers.2.norm2.bias"} < keys
    assert {"layers.2.shortcut.conv.weight", "layers.2.shortcut.norm.weight", "head.2.weight"} < keys
    keys = build("small_cnn", head="fc", input_size=28).state_dict().keys()
    assert {"features.1.conv.weight", "features.2.norm.running_var", "head.1.bias"} < keys


@pytest.mark.parametrize("method", DOWNSAMPLES)
def test_networks_are_invariant_to_shifts_by_their_total_stride_on_the_torus(method: str) -> None:
    images = torch.rand(16, 2, 32, 32)
    model = calibrated(build(downsample=method, padding_mode="circular"), images)
    logits = model(images)
    torch.testing.assert_close(model(images.roll((8, 16), (-2, -1))), logits, atol=1e-5, rtol=0)
    moved = (model(images.roll(1, -1)) - logits).abs().max()
    assert moved < 1e-5 if method in EXACT else moved > 1e-3


def test_blur_pool_moves_logits_less_than_stride() -> None:
    images = torch.rand(8, 2, 32, 32)
    moves = {}
    for method in ("stride", "blurpool"):
        model = calibrated(build("resnet18", downsample=method, padding_mode="circular", width=8), images)
        logits = model(images)
        moves[method] = ((model(images.roll(1, -1)) - logits).pow(2).mean() / logits.var(0).mean()).item()
    assert moves["blurpool"] < 0.5 * moves["stride"]


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_shortcuts_keep_the_phase_of_the_branch(name: str) -> None:
    images = torch.rand(4, 2, 32, 32)
    model = calibrated(build(name, downsample="lps", padding_mode="circular", width=8), images)
    logits = model(images)
    torch.testing.assert_close(model(images.roll((3, 1), (-2, -1))), logits, atol=1e-4, rtol=1e-5)
    for module in model.modules():
        if hasattr(module, "shares_phase"):
            pool, module.pool.forward = module.pool.forward, None  # type: ignore[union-attr, assignment]
            module.pool.forward = _with_first_phase(pool)  # type: ignore[union-attr, assignment]
    assert (model(images.roll((3, 1), (-2, -1))) - model(images)).abs().max() > 1e-3


def _with_first_phase(pool: object) -> object:
    def forward(maps: Tensor, return_phase: bool = False) -> object:
        if not return_phase:
            return pool(maps)  # type: ignore[operator]
        out, phase = pool(maps, return_phase=True)  # type: ignore[operator]
        return out, torch.zeros_like(phase)

    return forward


def test_full_convolutions_do_not_depend_on_the_position_of_an_object() -> None:
    """Kayhan & van Gemert 2020, figure 1: a filter that overlaps the border responds as elsewhere."""
    images = torch.zeros(9, 1, 12, 12)
    for k, (top, left) in enumerate(itertools.product((0, 5, 10), repeat=2)):
        images[k, 0, top : top + 2, left : left + 2] = torch.tensor([[1.0, -2.0], [0.5, 3.0]])
    means = {}
    for padding_mode in ("full", "zeros"):
        torch.manual_seed(0)
        stage = Stage(1, 6, Style(padding_mode=padding_mode), halve=False).eval()
        means[padding_mode] = stage(images).sum((-2, -1))
    torch.testing.assert_close(means["full"], means["full"][:1].expand(9, -1), atol=1e-5, rtol=0)
    assert (means["zeros"] - means["zeros"][4]).abs().max() > 0.1


@pytest.mark.parametrize("method", DOWNSAMPLES)
@pytest.mark.parametrize("name", ["small_cnn", "vgg11"])
def test_full_convolutions_grow_maps(name: str, method: str) -> None:
    model = build(name, padding_mode="full", downsample=method, head="fc", input_size=28).eval()
    assert model(torch.rand(2, 2, 28, 28)).shape == (2, 5)


@pytest.mark.parametrize("method", DOWNSAMPLES)
def test_networks_pickle_copy_and_train(method: str) -> None:
    images = torch.rand(4, 2, 16, 16)
    model = build("resnet18", downsample=method)
    model(images).square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    model.eval()
    for other in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert torch.equal(other(images), model(images))
    one_by_one = torch.cat([model(image[None]) for image in images])
    torch.testing.assert_close(one_by_one, model(images), atol=1e-5, rtol=1e-5)


class _Tracer(fx.Tracer):
    """Goes into networks and blocks, not into layers that pad, filter or choose."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        layers = ("downsampling", "polyphase", "aliasfree", "attention", "strided")
        own = type(module).__module__.rpartition(".")[2] in layers and not isinstance(module, nn.Sequential)
        return own or super().is_leaf_module(module, name)


@pytest.mark.integration
@pytest.mark.parametrize("name", IN_ALL_STYLES)
@pytest.mark.parametrize("method", DOWNSAMPLES)
def test_networks_can_be_traced_and_call_each_layer_once(name: str, method: str) -> None:
    model = build(name, downsample=method).eval()
    graph = _Tracer().trace(model)
    images = torch.rand(2, 2, 32, 32)
    assert torch.equal(fx.GraphModule(model, graph)(images), model(images))
    called = [node.target for node in graph.nodes if node.op == "call_module"]
    assert len(set(called)) == len(called)


@pytest.mark.slow
def test_networks_compile_as_one_graph() -> None:
    model = build("resnet18", downsample="blurpool").eval()
    images = torch.rand(2, 2, 16, 16)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(images), model(images))


@pytest.mark.parametrize("own", [("convnext", "stride", "gelu"), ("convnext_aliasfree", "aliasfree", "aliasfree")])
def test_networks_have_pieces_of_their_own(own: tuple[str, str, str]) -> None:
    name, downsample, activation = own
    images = torch.rand(2, 2, 24, 24)
    explicit = build(name, downsample=downsample, activation=activation).eval()
    assert torch.equal(build(name).eval()(images), explicit(images))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet19"}, "did you mean 'resnet18'"),
        ({"downsample": "blurpol"}, "did you mean 'blurpool'"),
        ({"head": "gab"}, "did you mean 'gap'"),
        ({"padding_mode": "circul"}, "did you mean 'circular'"),
        ({"activation": "rellu"}, "did you mean 'relu'"),
        ({"stem": "imagent", "name": "resnet18"}, "did you mean 'imagenet'"),
        ({"stem": "imagenet"}, "expected one of resnet18"),
        ({"padding_mode": "full", "name": "resnet18"}, "expected a network without shortcuts"),
        ({"name": "vgg11", "input_size": 28}, "expected input_size >= 32"),
        ({"head": "fc"}, "expected input_size"),
        ({"num_classes": 0}, "num_classes: expected a whole number of 1 or more"),
        ({"width": 8.5}, "width: expected a whole number"),
        ({"width": 0}, "width: expected a whole number of 1 or more"),
    ],
)
def test_bad_arguments_get_one_line(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        augkit.build_model(**{"name": "small_cnn", "num_classes": 3, **arguments})  # type: ignore[arg-type]
