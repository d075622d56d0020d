"""MODEL in all its forms; what a network says of itself; weights that fit, and which keys do not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from augkit.architectures.weights import final_layer, fit_weights, read_weights, unwrapped
from augkit.core.errors import InputError
from augkit.train.load_model import load_model


def net(outputs: int = 3, channels: int = 1) -> nn.Sequential:
    layers = [
        nn.Conv2d(channels, 4, 3),
        nn.BatchNorm2d(4),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, outputs),
    ]
    return nn.Sequential(*layers)


@pytest.fixture
def mynet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "augkit_mynet.py").write_text(
        "from torch import nn\n"
        "def make():\n"
        "    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten(), "
        "nn.Linear(4, 3))\n"
        "def timm_like():\n"
        "    model = make()\n"
        "    model.pretrained_cfg = {'input_size': (1, 20, 20), 'mean': (0.1,), 'std': (0.2,), 'crop_pct': 0.9}\n"
        "    return model\n"
        "def headless():\n"
        "    return nn.Flatten()\n"
        "def fails():\n"
        "    raise OSError('no disk\\nat all')\n"
    )
    (tmp_path / "augkit_torn.py").write_text("def (\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "augkit_mynet"
    for name in ("augkit_mynet", "augkit_torn"):
        sys.modules.pop(name, None)


def test_torchvision_networks_say_how_to_feed_them() -> None:
    loaded = load_model("torchvision:squeezenet1_1")
    assert (loaded.input_size, loaded.num_classes, loaded.crop_pct) == (224, 1000, 0.875)
    assert loaded.mean == [0.485, 0.456, 0.406]
    assert loaded.std == [0.229, 0.224, 0.225]
    assert loaded.classes is not None
    assert loaded.classes[:2] == ["tench", "goldfish"]
    assert load_model("torchvision:mobilenet_v2").crop_pct == pytest.approx(224 / 232)


def test_timm_networks_say_how_to_feed_them() -> None:
    pytest.importorskip("timm")
    loaded = load_model("timm:test_vit")
    assert (loaded.input_size, loaded.num_classes) == (160, 1000)
    assert loaded.mean == [0.5, 0.5, 0.5]
    assert loaded.crop_pct == 0.95
    assert loaded.classes is None


def test_callables_are_described_as_far_as_they_can_be(mynet: str) -> None:
    plain = load_model(f"{mynet}:make")
    assert (plain.num_classes, plain.input_size, plain.mean, plain.std, plain.crop_pct) == (3, None, None, None, None)
    described = load_model(f"{mynet}:timm_like")
    assert (described.num_classes, described.input_size, described.mean, described.std) == (3, 20, [0.1], [0.2])
    assert load_model(f"{mynet}:headless").num_classes is None


def test_weights_of_another_number_of_classes_build_that_network(tmp_path: Path) -> None:
    from torchvision import models

    own = models.squeezenet1_1(num_classes=7)
    torch.save({"state_dict": {f"module.{key}": value for key, value in own.state_dict().items()}}, tmp_path / "w.pt")
    loaded = load_model("torchvision:squeezenet1_1", tmp_path / "w.pt")
    assert loaded.num_classes == 7
    assert loaded.classes is None
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(loaded.model.eval()(images), own.eval()(images))


@pytest.mark.parametrize("nest", [None, "state_dict", "model", "model_state", "model_state_dict"])
@pytest.mark.parametrize(
    "prefix", ["", "module.", "model.", "_orig_mod.", "module._orig_mod.", "model._orig_mod.module."]
)
def test_usual_nests_and_prefixes_are_stripped(nest: str | None, prefix: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    source, target = net(), net()
    state = {prefix + key: value for key, value in source.state_dict().items()}
    torch.save(state if nest is None else {"epoch": 3, nest: state, "optimizer": {"lr": 1}}, tmp_path / "w.pt")
    fit_weights(target, read_weights(tmp_path / "w.pt"), "w.pt")
    for one, other in zip(source.state_dict().values(), target.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_averaged_models_and_lightning_modules_fit() -> None:
    source = net()
    averaged = torch.optim.swa_utils.AveragedModel(source)
    fit_weights(net(), averaged.state_dict(), "w")
    compiled = {f"model.{key}": value for key, value in torch.compile(source).state_dict().items()}
    assert next(iter(compiled)).startswith("model._orig_mod.")
    fit_weights(net(), compiled, "w")


def test_a_network_whose_own_names_have_a_prefix_keeps_it() -> None:
    class Wrapper(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = net()

    state = Wrapper().state_dict()
    assert unwrapped(state, state) == state
    fit_weights(Wrapper(), {f"module.{key}": value for key, value in state.items()}, "w")


def test_files_from_before_batch_norm_counted_fit() -> None:
    state = {key: value for key, value in net().state_dict().items() if not key.endswith("num_batches_tracked")}
    fit_weights(net(), state, "w")


def test_what_does_not_fit_is_named() -> None:
    state = net(outputs=5, channels=3).state_dict()
    state["head.weight"] = state.pop("4.bias")
    with pytest.raises(InputError) as caught:
        fit_weights(net(), state, "w.pt")
    assert str(caught.value) == (
        "weights 'w.pt' do not fit the network: 1 missing (4.bias); 1 unexpected (head.weight); 2 of another shape "
        "(0.weight is (4, 3, 3, 3), not (4, 1, 3, 3), 4.weight is (5, 4), not (3, 4))"
    )
    with pytest.raises(InputError, match=r"6 missing \(0\.weight, 0\.bias, 1\.weight and 3 more\)"):
        fit_weights(net(), {"4.weight": torch.zeros(3, 4), "4.bias": torch.zeros(3)}, "w.pt")
    before = net()
    untouched = [value.clone() for value in before.state_dict().values()]
    with pytest.raises(InputError):
        fit_weights(before, {**before.state_dict(), "0.weight": torch.zeros(4, 1, 3, 3), "more": torch.zeros(1)}, "w")
    assert all(torch.equal(a, b) for a, b in zip(untouched, before.state_dict().values(), strict=True))


def test_safetensors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save_file = pytest.importorskip("safetensors.torch").save_file
    source, target = net(), net()
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    fit_weights(target, read_weights(tmp_path / "w.safetensors"), "w")
    assert torch.equal(source[0].weight, target[0].weight)
    (tmp_path / "w.safetensors").write_bytes(b"no")
    with pytest.raises(InputError, match="cannot be read safely"):
        read_weights(tmp_path / "w.safetensors")
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    with pytest.raises(InputError, match="safetensors is not installed"):
        read_weights(tmp_path / "w.safetensors")


class Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (print, ("run",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (net(), r"cannot be read safely .*; save model\.state_dict\(\)"),
        ({"0.weight": Evil()}, "cannot be read safely"),
        (torch.zeros(3), "expected a state dict, got Tensor"),
        ({"epoch": 3, "model": {"a": 1}}, "a dict of tensors, got one of a"),
        ({}, "a dict of tensors, got one of nothing"),
        (b"text", "cannot be read safely"),
        (None, "no such file"),
    ],
)
def test_files_that_are_no_state_dict(
    content: object, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "w.pt"
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is not None:
        torch.save(content, path)
    with pytest.raises(InputError, match=message) as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("torchvision:resnet19", "unknown torchvision model 'resnet19': did you mean 'resnet18'"),
        ("torchvision:fasterrcnn_resnet50_fpn", "unknown torchvision model"),
        ("timm:resnet19", "unknown timm model 'resnet19': did you mean 'resnet18'"),
        ("timm:resnet18.nope", "Invalid pretrained tag"),
        ("nowhere", "expected a run folder, a checkpoint, torchvision:NAME.*no such file"),
        ("augkit_mynet:none", "no attribute 'none'"),
        ("augkit_mynet:nn", "expected a callable, got module"),
        ("augkit_mynet:fails", r"calling it failed \(OSError: no disk\)"),
        ("augkit_torn:make", "cannot be imported"),
        ("no.such:thing", "cannot be imported"),
        (".relative:thing", "cannot be imported"),
    ],
)
@pytest.mark.usefixtures("mynet")
def test_bad_models_are_one_line(source: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_model(source)
    assert "\n" not in str(caught.value)


def test_the_final_layer() -> None:
    assert final_layer(net(5)) == ("4", 5)
    assert final_layer(nn.Sequential(nn.Linear(3, 4), nn.Conv2d(4, 9, 1), nn.ReLU())) == ("1", 9)
    assert final_layer(nn.Flatten()) is None

    class Attribute(nn.Module):
        out_features: Tensor | int = 3

    assert final_layer(Attribute()) is None


@pytest.mark.filterwarnings("ignore:.*torch.jit")
@pytest.mark.parametrize("made", [b"", b"hello", None])
def test_a_file_that_is_no_checkpoint_has_a_remedy(made: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    if made is None:
        torch.jit.trace(net().eval(), torch.rand(1, 1, 3, 3)).save(path)
    else:
        path.write_bytes(made)
    with pytest.raises(InputError, match=r"cannot be read \(it is .*give package\.module:callable"):
        load_model(str(path))
