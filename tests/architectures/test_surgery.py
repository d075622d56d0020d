"""Surgery on networks of torchvision and timm: unchanged properties, exactness, and the report."""

from __future__ import annotations

import copy
import io
import pickle
from collections import Counter

import numpy as np
import pytest
import torch
from operated import build, calibrated, movement
from torch import Tensor, nn
from torchvision import models

import augkit
from augkit.architectures import (
    AdaptivePolyphaseSampling,
    AntialiasedLayer,
    antialias,
    surgery_report,
)
from augkit.architectures.strided import Blur2d
from augkit.core.errors import InputError, InputTypeError

# One member at least of every classification family of torchvision with strides, and of 18 families of timm; with
# the smallest image that each takes.
QUICK = {
    "torchvision:resnet18": 64,
    "torchvision:mobilenet_v3_small": 32,
    "torchvision:shufflenet_v2_x0_5": 32,
    "torchvision:squeezenet1_1": 32,
    "timm:tf_mobilenetv3_small_minimal_100": 32,  # padding as TensorFlow's
    "timm:convnext_atto": 32,  # kernels as large as their stride
}
SLOW = {
    "torchvision:densenet121": 32,
    "torchvision:googlenet": 32,
    "timm:hrnet_w18_small": 64,  # branches of several resolutions
    "torchvision:alexnet": 64,
    "torchvision:vgg11_bn": 32,
    "torchvision:resnet50": 64,
    "torchvision:resnext50_32x4d": 32,
    "torchvision:wide_resnet50_2": 32,
    "torchvision:inception_v3": 96,
    "torchvision:mobilenet_v2": 32,
    "torchvision:mnasnet0_5": 32,
    "torchvision:efficientnet_b0": 32,
    "torchvision:efficientnet_v2_s": 32,
    "torchvision:regnet_y_400mf": 32,
    "torchvision:convnext_tiny": 32,
    "timm:resnetv2_50": 32,
    "timm:resnetv2_50x1_bit": 64,
    "timm:regnety_002": 32,
    "timm:tf_efficientnet_b0": 32,
    "timm:mobilenetv4_conv_small": 32,
    "timm:dla34": 64,
    "timm:rexnet_100": 32,
    "timm:ghostnet_050": 32,
    "timm:nfnet_l0": 32,
    "timm:dm_nfnet_f0": 32,
    "timm:res2net50_14w_8s": 64,
    "timm:repvgg_a0": 32,
    "timm:dpn68": 64,
    "timm:skresnet18": 64,
    "timm:mixnet_s": 32,
    "timm:xception41": 64,
    "timm:resnet18d": 64,
    "timm:inception_v4": 96,
}
SWEEP = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
METHODS = ("blurpool", "aps", "lps")


def declared_strides(model: nn.Module) -> set[str]:
    """Names of convolutions and pools with a stride, by what they declare (the surgery looks at what runs)."""
    kinds = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d)
    steps = {name: module.stride for name, module in model.named_modules() if isinstance(module, kinds)}
    return {name for name, step in steps.items() if step not in (1, (1, 1))}


@pytest.fixture
def first_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    """Adaptive sampling that does not adapt: the grid of an ordinary stride."""
    monkeypatch.setattr(AdaptivePolyphaseSampling, "choose", lambda self, maps: torch.zeros(len(maps)).long())


# --- families ---------------------------------------------------------------------------------------------------


@pytest.mark.integration
@pytest.mark.parametrize("name", SWEEP)
def test_every_family_keeps_weights_names_shapes_and_dtype(name: str) -> None:
    model, size = build(name), {**QUICK, **SLOW}[name]
    images = torch.rand(2, 3, size, size)
    logits, state = model(images), model.state_dict()
    logits.pow(2).sum().backward()
    learning = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    model.zero_grad()
    for method in METHODS:
        changed = antialias(model, method)
        report, new = surgery_report(changed), changed.state_dict()
        extra = new.keys() - state.keys()
        assert state.keys() <= new.keys()
        assert bool(extra) == (method == "lps")
        assert all(".sampler." in key for key in extra)
        assert all(torch.equal(state[key], new[key]) for key in state)
        changed.load_state_dict(state)  # strict
        changed.load_state_dict(new)
        assert type(changed) is type(model)
        assert not changed.training
        out = changed(images)
        assert (out.shape, out.dtype) == (logits.shape, logits.dtype)
        out.pow(2).sum().backward()
        gradients = {name: p.grad for name, p in changed.named_parameters() if p.grad is not None}
        assert gradients.keys() == learning
        assert all(gradient.isfinite().all() for gradient in gradients.values())
        listed = Counter(entry.name for entry in (*report.changed, *report.unchanged))
        assert max(listed.values()) == 1
        assert declared_strides(model) <= listed.keys()
        assert all(reason for _, _, reason in report.unchanged)


@pytest.mark.integration
@pytest.mark.usefixtures("first_phase")
@pytest.mark.parametrize("name", SWEEP)
@pytest.mark.parametrize("odd", [False, True], ids=["even", "odd"])
def test_dense_evaluation_contains_the_outputs_of_the_network(name: str, odd: bool) -> None:
    """With the first phase, the logits are those of the original network for every padding."""
    size = {**QUICK, **SLOW}[name] + (11 if odd else 0)
    if odd and name in ("timm:hrnet_w18_small", "timm:dla34"):
        pytest.skip("the network itself takes sizes that divide alone")
    images = torch.rand(4, 3, size, size, dtype=torch.float64)
    model = calibrated(build(name).double(), images)
    with torch.no_grad():
        expected = model(images)
        got = antialias(model, "aps", inplace=True)(images)
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-9 * expected.abs().max().item())


@pytest.mark.parametrize("name", SWEEP)
def test_a_blur_of_one_tap_changes_nothing(name: str) -> None:
    size = {**QUICK, **SLOW}[name]
    images = torch.rand(4, 3, size, size, dtype=torch.float64)
    model = calibrated(build(name).double(), images)
    with torch.no_grad():
        expected = model(images)
        model = antialias(model, "blurpool", inplace=True)
        blurs = [module for module in model.modules() if isinstance(module, Blur2d)]
        blurred = model(images)
        for blur in blurs:
            blur.taps_y = blur.taps_x = images.new_ones(1)
        got = model(images)
    assert len(blurs) == len(surgery_report(model).changed)
    scale = expected.abs().max().item()
    torch.testing.assert_close(got, expected, rtol=0, atol=1e-9 * scale)
    assert (blurred - expected).abs().max() > 1e-3 * scale


# --- the operation ----------------------------------------------------------------------------------------------


def test_a_copy_keeps_the_network_unchanged_and_inplace_does_not() -> None:
    model = build("torchvision:googlenet").train()
    model.conv1.eval()
    before, modes = copy.deepcopy(model.state_dict()), [module.training for module in model.modules()]
    changed = antialias(model, "aps", "circular")
    assert changed is not model
    assert [module.training for module in model.modules()] == modes
    assert not any(isinstance(module, AntialiasedLayer) for module in model.modules())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert changed.training
    assert not changed.conv1.conv.training
    parameter = model.conv1.conv.weight
    assert antialias(model, "blurpool", inplace=True) is model
    assert model.conv1.conv.weight is parameter


def test_functional_pools_inside_blocks_are_changed_too() -> None:
    model = build("torchvision:inception_v3")
    report = surgery_report(antialias(model, "aps", "circular", odd="allow"))
    shared = {name: decided_by for name, _, decided_by in report.changed}
    assert shared["Mixed_6a.functional.pool0"] == shared["Mixed_6a.branch3x3dbl_3.conv"] == "Mixed_6a.branch3x3.conv"
    assert report.unchanged == ()
    assert "Mixed_5b.functional.pool0" in report.padded


@pytest.mark.integration
@pytest.mark.parametrize("method", METHODS)
def test_networks_copy_pickle_trace_and_compile(method: str) -> None:
    model = antialias(models.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1]).eval(), method, "circular")
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        logits = model(images)
        stored = io.BytesIO()
        torch.save(model, stored)
        stored.seek(0)
        for twin in (
            copy.deepcopy(model),
            pickle.loads(pickle.dumps(model)),
            torch.load(stored, weights_only=False),
            torch.fx.GraphModule(model, _Leaves().trace(model)),
            torch.compile(model, backend="eager", fullgraph=True),
        ):
            torch.testing.assert_close(twin(images), logits)
    twin = copy.deepcopy(copy.deepcopy(model))
    assert surgery_report(twin) == surgery_report(model)
    block = twin.layer2[0]
    assert type(block.conv1) is type(model.layer2[0].conv1)
    if method != "blurpool":
        assert block.conv1.selector is block.downsample[0].selector
        assert block.conv1.selector is not model.layer2[0].conv1.selector
        assert model.layer2[0].conv1.selector.phase is None, "nothing of a pass is kept"


class _Leaves(torch.fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, AntialiasedLayer) or super().is_leaf_module(m, module_qualified_name)


def test_a_pass_that_broke_off_leaves_nothing_behind() -> None:
    model = antialias(build("torchvision:resnet18"), "aps", "circular")
    images, broken = torch.rand(2, 3, 64, 64), model.layer2[0].bn1
    expected = model(images)
    handle = broken.register_forward_pre_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("stop")))
    with pytest.raises(RuntimeError, match="stop"):
        model(torch.rand(3, 3, 64, 64))
    handle.remove()
    torch.testing.assert_close(model(images), expected)


def test_half_precision_and_channels_last() -> None:
    for method in METHODS:
        model = antialias(build("torchvision:resnet18"), method)
        images = torch.rand(2, 3, 64, 64)
        with torch.no_grad():
            logits = model(images)
            with torch.autocast("cpu", torch.bfloat16):
                assert model(images).dtype == torch.bfloat16
            model.to(memory_format=torch.channels_last)
            torch.testing.assert_close(model(images.to(memory_format=torch.channels_last)), logits)
            assert model.to(torch.bfloat16)(images.bfloat16()).dtype == torch.bfloat16


def test_layers_that_cannot_be_changed_are_listed_with_a_reason() -> None:
    class Own(nn.Conv2d):
        def forward(self, maps: Tensor) -> Tensor:
            return super().forward(maps) * 2

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.start, self.own, self.reused = nn.Conv2d(3, 4, 3, 2, 1), Own(4, 4, 3, 2, 1), nn.MaxPool2d(2)
            self.wide, self.big, self.unused = nn.Conv2d(4, 4, 1, (2, 1)), nn.Conv2d(4, 4, 8, 8), nn.AvgPool2d(2)
            self.up = nn.Upsample(scale_factor=2, mode="bilinear")

        def forward(self, maps: Tensor) -> Tensor:
            maps = self.reused(self.reused(self.own(self.start(maps))))
            maps = self.wide(torch.nn.functional.pad(self.up(maps), (1, 1, 1, 1)))[..., ::2, ::2]
            return self.big(torch.nn.functional.lp_pool2d(maps, 2, 1, 1))

    report = surgery_report(antialias(Odd(), "aps", "circular", input_size=512))
    assert [name for name, _, _ in report.changed] == ["start", "big"]
    reasons = {(name, layer.split()[0]): reason for name, layer, reason in report.unchanged}
    assert "forward pass of its own" in reasons["own", "Own"]
    assert "several sizes" in reasons["reused", "MaxPool2d"]
    assert "same stride along both axes" in reasons["wide", "Conv2d"]
    assert "not reached" in reasons["unused", "AvgPool2d"]
    assert "without regard to their phase" in reasons["up", "interpolate"]
    assert "called by Odd" in reasons["", "slice"]
    assert {(name, reason) for name, _, reason in report.unpadded} == {
        ("", "Odd pads by itself"),
        ("own", "Own pads by itself"),
    }
    assert "not changed  own: Own 3x3 stride 2" in str(report)
    blurred = surgery_report(antialias(Odd(), "blurpool", input_size=512))
    assert [name for name, _, _ in blurred.changed] == ["start", "reused", "wide"]
    assert "embedding of patches" in {name: reason for name, _, reason in blurred.unchanged}["big"]


def test_our_own_networks_can_be_operated_on() -> None:
    model = augkit.build_model("resnet18", 5, downsample="stride", padding_mode="circular", width=8)
    images = torch.randn(4, 3, 32, 32)
    changed = calibrated(augkit.antialias(model, "aps", "circular", input_size=32), images)
    assert movement(changed, images, [(1, 0), (3, 5)]) < 1e-5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"method": "apss"}, "did you mean 'aps'"),
        ({"padding_mode": "circula"}, "did you mean 'circular'"),
        ({"odd": "rise"}, "did you mean 'raise'"),
        ({"size": 1}, "size of the blur: expected a whole number of 2 or more"),
        ({"size": True}, "size of the blur: expected a whole number"),
        ({"input_size": True}, "input_size: expected a whole number"),
        ({"size": 4.5}, "size of the blur: expected a whole number of 2 or more, got 4.5"),
        ({"input_size": (16, 16)}, r"input_size: expected the side of a square image, or \(C, H, W\), got \(16, 16\)"),
        ({"input_size": "16"}, "input_size: expected a whole number of 1 or more, got '16'"),
        ({"input_size": 2}, r"a pass of Sequential over one image of 3x2x2 failed \(.*give the input_size"),
    ],
)
def test_bad_arguments_get_one_line(arguments: dict[str, object], message: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3, 2))
    with pytest.raises(InputError, match=message) as error:
        antialias(model, **arguments)  # type: ignore[arg-type]
    assert "\n" not in str(error.value)
    assert type(model[0]) is nn.Conv2d


@pytest.mark.parametrize("mode", ["circular", "reflect"])
def test_padding_beyond_the_map_continues_it_as_numpy_does(mode: str) -> None:
    atrous = nn.Conv2d(4, 2, 3, padding=12, dilation=12, padding_mode="zeros")
    original = nn.Sequential(nn.Conv2d(3, 4, 1, 2), atrous).double()
    model = antialias(original, "blurpool", mode, input_size=10)  # the second sees maps of 5 pixels
    maps = model[0](torch.rand(2, 3, 10, 10, dtype=torch.float64))
    sides = [(0, 0), (0, 0), (12, 12), (12, 12)]
    padded = torch.from_numpy(np.pad(maps.detach().numpy(), sides, {"circular": "wrap"}.get(mode, mode)))
    reference = torch.nn.functional.conv2d(padded, atrous.weight, atrous.bias, dilation=12)
    torch.testing.assert_close(model[1](maps), reference)
    assert surgery_report(model).padded == ("0", "1")  # and the blur of the first


@pytest.mark.parametrize("mode", ["zeros", "circular", "reflect"])
def test_the_padding_of_a_network_is_not_that_of_the_scores_that_surgery_adds(mode: str) -> None:
    model = antialias(nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1)), "lps", mode, input_size=4)
    assert surgery_report(model).padded == ("0", "1")
    for layer in model:
        assert (layer.sampler.padding_mode, layer.sampler.conv.padding_mode) == (
            "circular" if mode == "circular" else "zeros",
            "zeros",
        )
    assert model.eval()(torch.rand(1, 3, 4, 4)).shape == (1, 4, 1, 1)


def test_networks_without_strides_get_one_line() -> None:
    with pytest.raises(InputError, match="expected strided layers to change in Sequential, found none"):
        antialias(nn.Sequential(nn.Conv2d(3, 4, 3)))
    with pytest.raises(InputError, match="conv_proj: the embedding of patches: a low-pass for steps of 32"):
        antialias(_small_transformer())
    with pytest.raises(InputTypeError, match=r"expected a torch\.nn\.Module, got str"):
        antialias("resnet18")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="does not come from"):
        surgery_report(nn.Identity())
    with pytest.raises(InputError, match="operated on before"):
        antialias(antialias(nn.Sequential(nn.Conv2d(3, 4, 3, 2))))


@pytest.mark.filterwarnings(
    "ignore:.*torch.jit.script.*:FutureWarning", "ignore:.*torch.jit.script.*:DeprecationWarning"
)
def test_layers_of_torchscript_get_one_line() -> None:
    with pytest.raises(InputError, match="expected layers in Python, '1' is TorchScript; operate first"):
        antialias(nn.Sequential(nn.Conv2d(3, 4, 3, 2), torch.jit.script(nn.ReLU())))


def _small_transformer() -> nn.Module:
    return models.VisionTransformer(
        image_size=224, patch_size=32, num_layers=1, num_heads=2, hidden_dim=16, mlp_dim=16, num_classes=3
    )


def test_numpys_integers_are_integers() -> None:
    size, model = np.int64(16), nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    plain = antialias(model, size=3, input_size=16)(torch.ones(1, 3, 16, 16))
    for given in (size, (np.int64(3), size, size)):
        changed = antialias(model, size=np.int64(3), input_size=given)
        assert torch.equal(changed(torch.ones(1, 3, 16, 16)), plain)
    assert augkit.certify(model, size, images=np.int64(2), in_channels=np.int64(3)) == augkit.certify(model, 16)
    assert len(augkit.shift_averaged(model, np.int64(2)).shifts) == 4
