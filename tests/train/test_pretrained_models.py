"""Trained weights of torchvision and timm by name: from a cache here, as nothing is downloaded in tests."""

from __future__ import annotations

import re
import urllib.error
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision import models

from augkit.architectures.external import torchvision_network
from augkit.core.errors import InputError
from augkit.measure import MeasureSettings, measure, measure_networks
from augkit.train.build import NetworkInput, build_recipe_model
from augkit.train.load_model import load_model
from augkit.train.recipe import Recipe

IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


def cache(folder: Path, name: str, version: str = "DEFAULT") -> torch.nn.Module:
    """Put random weights of a network where torch caches those that it downloads; return the network."""
    torch.manual_seed(5)
    options = {"init_weights": False, "aux_logits": True} if name == "googlenet" else {}
    model: torch.nn.Module = models.get_model(name, weights=None, **options)
    file = models.get_model_weights(name)[version].url.rpartition("/")[2]
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    torch.save(model.state_dict(), folder / "checkpoints" / file)
    return model.eval()


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of torch, without a connection."""

    def refuse(*args: Any, **options: Any) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    return tmp_path


def test_a_network_of_torchvision_has_its_own_weights_if_they_are_asked_for(hub: Path) -> None:
    own = cache(hub, "squeezenet1_1")
    for loaded in (
        load_model("torchvision:squeezenet1_1", pretrained=True),
        load_model("torchvision:squeezenet1_1@IMAGENET1K_V1"),
    ):
        assert torch.equal(loaded.model.eval()(IMAGES), own(IMAGES))
        assert loaded.notes == ()
        assert loaded.num_classes == 1000
    untrained = load_model("torchvision:squeezenet1_1")
    assert not torch.equal(untrained.model.eval()(IMAGES), own(IMAGES))
    assert "torchvision:squeezenet1_1 is untrained: add --pretrained" in untrained.notes[0]


def test_the_version_of_the_weights_says_how_images_are_cropped(hub: Path) -> None:
    for version, share in (("IMAGENET1K_V1", 224 / 256), ("IMAGENET1K_V2", 224 / 232)):
        own = cache(hub, "mobilenet_v2", version)
        loaded = load_model(f"torchvision:mobilenet_v2@{version}")
        assert loaded.crop_pct == pytest.approx(share)
        assert torch.equal(loaded.model.eval()(IMAGES), own(IMAGES))


def test_weights_that_expect_another_normalization_get_it(hub: Path) -> None:
    cache(hub, "googlenet")
    model = torchvision_network("googlenet", 3, weights="DEFAULT").eval()
    assert model.transform_input is True
    assert not model.aux_logits
    assert model(IMAGES).shape == (2, 3)


@pytest.mark.parametrize("name", ["squeezenet1_1", "mobilenet_v3_small"])
def test_a_recipe_begins_with_them_and_with_a_final_layer_of_its_own(name: str, hub: Path) -> None:
    own = cache(hub, name).state_dict()
    recipe = Recipe.load("mnist5k", [f"model.name=torchvision:{name}", "model.downsample=null", "model.width=null"])
    given = NetworkInput([str(k) for k in range(7)], 3, 64)
    trained = recipe.replaced(model={**recipe.model.model_dump(), "pretrained": True})
    built = build_recipe_model(trained, given, 0)
    state = built.state_dict()
    same = {key for key, value in state.items() if value.shape == own[key].shape and torch.equal(value, own[key])}
    assert len(own) - len(same) in (1, 2), "weight and bias of the final layer alone"
    assert built.eval()(IMAGES).shape == (2, 7)
    assert torch.equal(build_recipe_model(trained, given, 0).eval()(IMAGES), built(IMAGES)), "by the seed"
    fresh = build_recipe_model(trained, given, 0, fresh=False).state_dict()
    assert not all(torch.equal(fresh[key], own[key]) for key in same), "not read where others replace them"


def test_trained_weights_that_a_file_replaces_are_not_downloaded(hub: Path, tmp_path: Path) -> None:
    """The cache is empty and there is no connection: asking for them is an error."""
    own = models.get_model("squeezenet1_1", weights=None, num_classes=7).eval()
    torch.save(own.state_dict(), tmp_path / "own.pt")
    recipe = Recipe.load("mnist5k", ["model.downsample=null", "model.width=null"])

    def built(name: str, classes: int, *, pretrained: bool) -> torch.nn.Module:
        fields = {"name": name, "pretrained": pretrained, "weights": str(tmp_path / "own.pt")}
        given = NetworkInput([str(k) for k in range(classes)], 3, 64)
        return build_recipe_model(recipe.replaced(model={**recipe.model.model_dump(), **fields}), given, 0).eval()

    for name, pretrained in (("squeezenet1_1", True), ("squeezenet1_1@IMAGENET1K_V1", False)):
        assert torch.equal(built(f"torchvision:{name}", 7, pretrained=pretrained)(IMAGES), own(IMAGES))
        drawn = built(f"torchvision:{name}", 5, pretrained=pretrained)  # the final layer fits neither
        assert torch.equal(drawn.state_dict()["features.0.weight"], own.state_dict()["features.0.weight"])
    trained = cache(hub, "squeezenet1_1")
    kept = built("torchvision:squeezenet1_1", 1000, pretrained=True).state_dict()  # the file has no final layer for it
    for key, source in (("classifier.1.weight", trained), ("features.0.weight", own)):
        assert torch.equal(kept[key], source.state_dict()[key])


def test_a_run_that_began_with_trained_weights_is_rebuilt_in_their_form(hub: Path, tmp_path: Path) -> None:
    cache(hub, "googlenet")
    fields = ["model.name=torchvision:googlenet@DEFAULT", "model.downsample=null", "model.width=null"]
    recipe, given = Recipe.load("mnist5k", fields), NetworkInput(["a", "b"], 3, 64)
    trained = build_recipe_model(recipe, given, 0).eval()
    (hub / "checkpoints").rename(hub / "gone")  # nothing is read or downloaded again
    again = build_recipe_model(recipe, given, 0, fresh=False).eval()
    again.load_state_dict(trained.state_dict())
    assert torch.equal(again(IMAGES), trained(IMAGES))
    with torch.device("meta"):
        vit = torchvision_network("vit_b_16", 2, weights="IMAGENET1K_SWAG_E2E_V1", load=False)
    assert vit.state_dict()["encoder.pos_embedding"].shape == (1, (384 // 16) ** 2 + 1, 768)


def test_timm_is_asked_for_its_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm")
    make, asked = timm.create_model, []

    def created(name: str, *, pretrained: bool, **options: Any) -> torch.nn.Module:
        asked.append(pretrained)
        model: torch.nn.Module = make(name, pretrained=False, **options)
        return model

    monkeypatch.setattr(timm, "create_model", created)
    assert load_model("timm:test_vit", pretrained=True).notes == ()
    assert "timm:test_vit is untrained" in load_model("timm:test_vit").notes[0]
    assert asked == [True, False]


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("torchvision:resnet18", {"pretrained": True}, "expected a network that can be loaded, got none.*no network"),
        ("torchvision:resnet18@", {}, "expected the name of its weights after @, such as @DEFAULT"),
        ("torchvision:resnet18@V7", {}, "unknown weights of torchvision's resnet18 'V7'.*IMAGENET1K_V1"),
        (
            "torchvision:resnet18@IMAGENET1K_V1",
            {"weights": "w.pt"},
            "its own weights or those of --weights",
        ),
        ("timm:resnet18", {"weights": "w.pt", "pretrained": True}, "its own weights or those of --weights w.pt"),
    ],
)
@pytest.mark.usefixtures("hub")
def test_weights_that_cannot_be_had_are_one_line(source: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_model(source, **options)
    assert "\n" not in str(caught.value)


def test_a_network_of_open_clip_needs_the_name_of_its_weights() -> None:
    pytest.importorskip("open_clip")
    with pytest.raises(InputError, match="expected NAME/PRETRAINED with --pretrained"):
        load_model("open_clip:RN50", pretrained=True)


@pytest.mark.integration
def test_several_networks_are_measured_with_their_own_weights(hub: Path) -> None:
    names = ["squeezenet1_0", "squeezenet1_1"]
    own = {name: cache(hub, name) for name in names}
    sources = [f"torchvision:{name}" for name in names]
    settings = MeasureSettings(
        pretrained=True, limit=4, pairs=1, max_shift=1.0, curves=False, protocol="embed", input_size=36
    )
    found = measure_networks(sources, "mnist5k", settings)
    again = measure(sources[0], "mnist5k", settings)
    assert found.networks[sources[0]].weights_sha256 == again.weights_sha256
    assert all(re.fullmatch(r"[0-9a-f]{64}", result.weights_sha256) for result in found.networks.values())
    assert not any("untrained" in note for result in found.networks.values() for note in result.typical.notes)
    assert len({result.weights_sha256 for result in found.networks.values()}) == len(own)
