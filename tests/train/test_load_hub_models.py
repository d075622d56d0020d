"""``hf:NAME`` and ``open_clip:NAME``: networks with their preprocessing, and one line where they cannot be had."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import augkit
from augkit.core.errors import InputError
from augkit.train.load_model import load_model

TINY = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
VIT = {**TINY, "image_size": 24, "patch_size": 8}


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = pytest.importorskip("huggingface_hub")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(hub.constants, "HF_HUB_OFFLINE", True)  # read once, at import


def saved(folder: Path, kind: str = "ViTForImageClassification", **options: Any) -> nn.Module:
    """A tiny network with random weights, saved with its image processor."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    model = getattr(transformers, kind)(transformers.ViTConfig(**VIT, **options)).eval()
    model.save_pretrained(folder)
    return model


def with_processor(folder: Path, **settings: Any) -> None:
    own = {"image_processor_type": "ViTImageProcessor", "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.4]}
    (folder / "preprocessor_config.json").write_text(json.dumps({**own, **settings}))


def test_a_classifier_of_a_folder_has_its_weights_and_preprocessing(tmp_path: Path) -> None:
    own = saved(tmp_path, id2label={0: "cat", 1: "dog", 2: "eel"}, label2id={"cat": 0, "dog": 1, "eel": 2})
    with_processor(tmp_path, size={"height": 24, "width": 24})
    loaded = load_model(f"hf:{tmp_path}")
    assert (loaded.input_size, loaded.num_classes, loaded.crop_pct, loaded.embeds) == (24, 3, 1.0, False)
    assert (loaded.mean, loaded.std) == ([0.4, 0.5, 0.6], [0.2, 0.3, 0.4])
    assert loaded.classes == ["cat", "dog", "eel"]
    images = torch.rand(2, 3, 24, 24)
    with torch.no_grad():
        assert torch.equal(loaded.model.eval()(images).logits, own(images).logits)


def test_processors_that_crop_or_do_not_normalize_are_read(tmp_path: Path) -> None:
    saved(tmp_path)
    with_processor(
        tmp_path,
        image_processor_type="CLIPImageProcessor",
        size={"shortest_edge": 32},
        crop_size={"height": 24, "width": 24},
        do_center_crop=True,
        do_normalize=False,
    )
    loaded = load_model(f"hf:{tmp_path}")
    assert (loaded.input_size, loaded.crop_pct) == (24, 0.75)
    assert (loaded.mean, loaded.std) == ([0.0] * 3, [1.0] * 3)
    assert loaded.classes is None, "LABEL_0 is no name"


def test_a_folder_without_a_processor_is_loaded_with_a_note(tmp_path: Path) -> None:
    saved(tmp_path)
    loaded = load_model(f"hf:{tmp_path}")
    assert (loaded.mean, loaded.std, loaded.input_size) == (None, None, 24)
    assert "no image processor" in loaded.notes[0]
    assert "\n" not in loaded.notes[0]


@pytest.mark.parametrize("pooler", [True, False])
def test_networks_without_a_classifier_embed(tmp_path: Path, pooler: bool) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    own = transformers.ViTModel(transformers.ViTConfig(**VIT), add_pooling_layer=pooler).eval()
    own.save_pretrained(tmp_path)
    loaded = load_model(f"hf:{tmp_path}")
    assert (loaded.embeds, loaded.num_classes) == (True, None)
    images = torch.rand(2, 3, 24, 24)
    with torch.no_grad():
        output = own(images)
        expected = output.pooler_output if pooler else output.last_hidden_state[:, 0]
        torch.testing.assert_close(loaded.model.eval()(images), expected)


def test_clip_gives_its_image_features(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    vision, text = {**VIT, "projection_dim": 6}, {**TINY, "vocab_size": 50, "projection_dim": 6}
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=6)
    transformers.CLIPModel(config).save_pretrained(tmp_path)
    loaded = load_model(f"hf:{tmp_path}")
    assert (loaded.embeds, loaded.input_size) == (True, 24)
    with torch.no_grad():
        assert loaded.model.eval()(torch.rand(2, 3, 24, 24)).shape == (2, 6)


def test_weights_replace_its_own_and_set_the_number_of_classes(tmp_path: Path) -> None:
    saved(tmp_path / "a", num_labels=4)
    other = saved(tmp_path / "b", num_labels=7)
    torch.save(other.state_dict(), tmp_path / "w.pt")
    (tmp_path / "a" / "model.safetensors").unlink()  # is not needed then
    loaded = load_model(f"hf:{tmp_path / 'a'}", tmp_path / "w.pt")
    assert loaded.num_classes == 7
    assert torch.equal(loaded.model.classifier.weight, other.classifier.weight)  # type: ignore[union-attr]


def test_it_is_measured(tmp_path: Path) -> None:
    saved(tmp_path, num_labels=4)
    found = augkit.measure_invariance(load_model(f"hf:{tmp_path}").model, torch.rand(4, 3, 40, 40))
    assert found.largest_logit_change > 0


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("{tmp}/empty", "expected a folder with config.json"),
        ("{tmp}/none", "there is no such folder"),
        ("./none", "there is no such folder"),
        ("nobody/no-such-network", "expected a network that can be loaded, got none .*; check the name"),
    ],
)
@pytest.mark.usefixtures("offline")
def test_networks_that_cannot_be_had_are_one_line(name: str, message: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=message) as caught:
        load_model("hf:" + name.format(tmp=tmp_path))
    assert "\n" not in str(caught.value)


def test_torn_files_are_one_line(tmp_path: Path) -> None:
    saved(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"no")
    with pytest.raises(InputError, match="expected a network that can be loaded") as caught:
        load_model(f"hf:{tmp_path}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("form", "package"), [("hf", "transformers"), ("open_clip", "open_clip")])
def test_missing_packages_are_one_line(form: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=f"model '{form}:...': {package} is not installed; pip install"):
        load_model(f"{form}:name")


def test_open_clip_gives_the_embeddings_of_its_image_tower(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    open_clip = pytest.importorskip("open_clip")
    config = {
        "embed_dim": 6,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 16},
        "text_cfg": {"context_length": 8, "vocab_size": 50, "width": 16, "heads": 2, "layers": 1},
    }
    (tmp_path / "tiny-tower.json").write_text(json.dumps(config))
    open_clip.add_model_config(tmp_path)
    own = open_clip.create_model("tiny-tower")
    torch.save(own.state_dict(), tmp_path / "w.pt")
    images = torch.rand(2, 3, 32, 32)
    loaded = load_model(f"open_clip:tiny-tower/{tmp_path / 'w.pt'}")
    assert (loaded.embeds, loaded.input_size, loaded.num_classes) == (True, 32, None)
    assert loaded.mean == pytest.approx([0.48145466, 0.4578275, 0.40821073])
    with torch.no_grad():
        torch.testing.assert_close(loaded.model.eval()(images), own.eval().encode_image(images))
    assert load_model("open_clip:tiny-tower").model(images).shape == (2, 6)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ViT-B-31", "unknown open_clip model 'ViT-B-31': did you mean 'ViT-B-32'"),
        ("ViT-B-32/opena", "unknown weights of open_clip's ViT-B-32 'opena': did you mean 'openai'"),
        ("hf-hub:nobody/no-such-network", "expected a network that can be loaded"),
    ],
)
@pytest.mark.usefixtures("offline")
def test_unknown_names_of_open_clip_are_one_line(name: str, message: str) -> None:
    pytest.importorskip("open_clip")
    with pytest.raises(InputError, match=message) as caught:
        load_model(f"open_clip:{name}")
    assert "\n" not in str(caught.value)
