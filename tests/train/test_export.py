"""A run for others: safetensors, `augkit.load_run`, the model card, and what is published on the hub."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import augkit
from augkit.core.errors import InputError, InputTypeError
from augkit.data import Dataset
from augkit.invariance import Network
from augkit.train.card import model_card, write_card
from augkit.train.export import CONFIG, WEIGHTS, export_folder, export_run, read_facts
from augkit.train.load_model import load_model
from augkit.train.loop import Run
from augkit.train.page import hits, wilson
from augkit.train.portable import portable_recipe, portable_text
from augkit.train.recipe import Recipe


@pytest.fixture(scope="module")
def trained(tiny: Recipe, digits: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with its exported files; tests that change the folder copy it."""
    recipe = tiny.replaced(data={**tiny.data.model_dump(), "mean": [0.3], "std": [0.4]})
    run = augkit.fit(recipe, output=tmp_path_factory.mktemp("runs") / "a run", dataset=digits)
    export_run(run, digits)
    return run


@pytest.fixture
def folder(trained: Run, tmp_path: Path) -> Path:
    assert trained.folder is not None
    return Path(shutil.copytree(trained.folder, tmp_path / "run"))


def logits_of(run: Run, images: torch.Tensor) -> torch.Tensor:
    """Logits as the evaluation of training has them: on the canvas, normalized."""
    canvas = torch.zeros(len(images), 1, 16, 16)
    canvas[:, :, 4:12, 4:12] = images / 255
    with torch.no_grad():
        found: torch.Tensor = run.model((canvas - 0.3) / 0.4)
    return found


def test_a_loaded_run_gives_the_logits_of_the_trained_network(trained: Run, digits: Dataset, folder: Path) -> None:
    (folder / "checkpoint.pt").unlink()
    images = digits.validation.images[:20]
    assert trained.folder is not None
    for place in (trained.folder, folder):  # from the checkpoint, and from the exported files alone
        loaded = augkit.load_run(place)
        assert not loaded.network.training
        assert (loaded.classes, loaded.recipe, loaded.folder) == (tuple(digits.classes), trained.recipe, place)
        with torch.no_grad():
            found = loaded.network(loaded.transform(images))
        assert torch.equal(found, logits_of(trained, images))


def test_the_transform_takes_pictures_files_arrays_and_tensors(trained: Run, digits: Dataset, tmp_path: Path) -> None:
    assert trained.folder is not None
    transform = augkit.load_run(trained.folder).transform
    image = digits.validation.images[0]
    expected = transform(image)
    assert expected.shape == (1, 1, 16, 16)
    picture = Image.fromarray(image[0].numpy())
    picture.save(tmp_path / "a.png")
    for given in (
        picture,
        tmp_path / "a.png",
        str(tmp_path / "a.png"),
        image.numpy(),
        image[None],
        picture.convert("RGB"),
    ):
        assert torch.equal(transform(given), expected)
    assert picture.getpixel((0, 0)) == int(image[0, 0, 0]), "the picture stays open"
    assert torch.allclose(transform(image / 255), expected, atol=1e-6)
    turned = picture.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise
    turned.save(tmp_path / "b.png", exif=exif)
    assert torch.equal(transform(tmp_path / "b.png"), expected)


def test_pictures_are_fitted_as_in_training(trained: Run, folder: Path, tmp_path: Path) -> None:
    """With an image_size, as files of a folder are; the reference is the reader of folders."""
    changed = trained.recipe.model_dump() | {"data": {"name": "folder:x", "image_size": 16, "crop_share": 0.8}}
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    torch.save({**state, "recipe": changed}, folder / "checkpoint.pt")
    rng = np.random.default_rng(0)
    for k in range(8):
        path = tmp_path / "photos" / "ab"[k % 2] / f"{k}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (30, 23), dtype=np.uint8)).save(path)
    found = augkit.load_dataset(f"folder:{tmp_path}/photos", image_size=16, crop_share=0.8)
    expected = {image.numpy().tobytes() for image in found.train.images}
    transform = augkit.load_run(folder).transform
    mean, std = trained.recipe.data.mean[0], trained.recipe.data.std[0]
    default = Recipe(name="x", data={"name": "digits"}).data  # type: ignore[arg-type]
    mean, std = default.mean[0], default.std[0]
    seen = {
        (transform(path)[0] * std + mean).mul(255).round().to(torch.uint8).numpy().tobytes()
        for path in (tmp_path / "photos").rglob("*.png")
    }
    assert expected <= seen


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (torch.zeros(3, 8, 8, dtype=torch.uint8), "expected 1 channels, got 3"),
        (torch.zeros(1, 20, 20, dtype=torch.uint8), "expected 16 x 16 pixels, got 20 x 20; resize it"),
        (torch.zeros(8, 8, dtype=torch.uint8), r"expected \(C, H, W\) or \(B, C, H, W\), got \(8, 8\)"),
        ("nowhere.png", "image 'nowhere.png': cannot be read as an image"),
    ],
)
def test_images_that_do_not_fit_are_one_line(trained: Run, image: Any, message: str) -> None:
    assert trained.folder is not None
    with pytest.raises(InputError, match=message):
        augkit.load_run(trained.folder).transform(image)


def test_a_transform_refuses_other_types(trained: Run) -> None:
    assert trained.folder is not None
    transform = augkit.load_run(trained.folder).transform
    for image, got in ((3, "int"), (torch.zeros(1, 8, 8, dtype=torch.int64), "torch.int64 values")):
        with pytest.raises(InputTypeError, match=f"got {got}"):
            transform(image)  # type: ignore[arg-type]


def test_what_is_no_run_is_one_line(folder: Path, tmp_path: Path) -> None:
    def refused(message: str, place: Path = folder) -> None:
        with pytest.raises(InputError, match=message) as caught:
            augkit.load_run(place)
        assert "\n" not in str(caught.value)

    refused("expected a folder of augkit.train, there is none", tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    refused(
        r"expected checkpoint.pt, or model.safetensors with config.json and recipe.yaml; neither", tmp_path / "empty"
    )
    state = torch.load(folder / "checkpoint.pt", weights_only=True)
    torch.save({**state, "model": {**state["model"], "more": torch.zeros(1)}}, folder / "checkpoint.pt")
    refused("do not fit the network: more unexpected|do not fit the network")
    (folder / "checkpoint.pt").unlink()
    config = (folder / CONFIG).read_text()
    for text, message in (("{}", "expected a file that augkit wrote"), ("[", "expected a file that augkit wrote")):
        (folder / CONFIG).write_text(text)
        refused(message)
    (folder / CONFIG).unlink()
    refused("expected config.json, there is none")
    (folder / CONFIG).write_text(json.dumps({**json.loads(config), "model": "Mine"}))
    refused("holds a network of your own")
    (folder / CONFIG).write_text(config)
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:500])
    refused("cannot be read safely")


def test_safetensors_hold_the_weights_and_nothing_else(trained: Run) -> None:
    from safetensors.torch import load_file

    assert trained.folder is not None
    state = load_file(trained.folder / WEIGHTS)
    own = trained.model.state_dict()
    assert state.keys() == own.keys()
    assert all(torch.equal(state[name], own[name]) for name in own)
    measured = load_model(str(trained.folder)).model
    assert Network(measured).digest == Network(trained.model).digest


def test_networks_with_other_entries_are_refused() -> None:
    from augkit.train.export import _tensors

    with pytest.raises(InputError, match=r"entry 'x\._extra_state' is dict"):
        _tensors({"w": torch.zeros(2), "x._extra_state": {}})
    shared = torch.zeros(4)
    found = _tensors({"a": shared, "b": shared.view(2, 2).t()})
    assert found["a"].data_ptr() != found["b"].data_ptr()
    assert found["b"].is_contiguous()


def test_facts_are_those_of_the_run(trained: Run, digits: Dataset) -> None:
    assert trained.folder is not None
    facts = read_facts(trained.folder)
    right, total = hits(trained.evaluation.confusion.tolist())
    assert (facts.images, total) == (len(digits.validation), len(digits.validation))
    low, high = wilson(right, total)
    assert facts.accuracy == {"value": right / total, "low": low, "high": high}
    assert facts.shift_information is not None
    value, low, high = (facts.shift_information[key] for key in ("value", "low", "high"))
    assert value is not None
    assert low is not None
    assert high is not None
    assert 0 <= low <= value <= high <= 1
    assert (facts.channels, facts.side, facts.epochs, facts.seed) == (1, 16, 2, 0)


def measurement(folder: Path, place: Path, **changes: Any) -> Mapping[str, Any]:
    """A measurement of the run, as `augkit.measure` writes it."""
    estimate = {"value": 0.25, "low": 0.125, "high": 0.375}
    found = {
        **{"model": str(folder), "split": "test", "data": "digits", "accuracy": estimate, "top1_change": estimate},
        "settings": {"images": 77, "protocol": "embed", "kernel": "sinc", "max_shift": 3.0},
        "ood": {"upside down": {"shift_information": {"value": 0.5, "low": None, "high": None}}},
        "weights_sha256": Network(load_model(str(folder)).model).digest,
        "command": f"python -m augkit.measure {folder} --output {place}",
        **changes,
    }
    place.mkdir()
    (place / "results.json").write_text(json.dumps(found))
    return found


def card_data(text: str) -> Any:
    """The metadata of a card, read by the library of the hub."""
    hub = pytest.importorskip("huggingface_hub")
    return hub.ModelCard(text).data


def test_the_card_has_metadata_that_the_hub_reads(trained: Run, folder: Path) -> None:
    facts = read_facts(folder)
    data = card_data((folder / "README.md").read_text())
    assert (data.library_name, data.pipeline_tag, data.metrics) == ("augkit", "image-classification", ["accuracy"])
    assert "translation-invariance" in data.tags
    found = {result.metric_type: result for result in data.eval_results}
    assert set(found) == {"accuracy", "shift_information"}
    assert facts.accuracy is not None
    assert found["accuracy"].metric_value == pytest.approx(facts.accuracy["value"], abs=1e-6)
    assert (found["accuracy"].dataset_name, found["accuracy"].dataset_split) == ("digits", "validation")
    named = trained.recipe.replaced(data={"name": "hf:org/birds"})
    (folder / "recipe.yaml").write_text(named.to_yaml())
    assert card_data(model_card(folder)).datasets == ["org/birds"]


def test_the_card_has_accuracy_and_measured_invariance_with_intervals(folder: Path, tmp_path: Path) -> None:
    facts = read_facts(folder)
    text = model_card(folder)
    assert facts.accuracy is not None
    assert f"{facts.accuracy['value']:.4f} [{facts.accuracy['low']:.4f}, {facts.accuracy['high']:.4f}]" in text
    assert "| digits | test |" not in text
    measurement(folder, tmp_path / "m")
    text = model_card(folder, tmp_path / "m")
    assert "| digits | test | 0.2500 [0.1250, 0.3750] | – | 0.2500 [0.1250, 0.3750] |" in text
    assert "| upside down | test | – | 0.5000 | – |" in text
    assert "77 images of the split test" in text
    assert "python -m augkit.measure run --output m" in text
    assert {result.dataset_split for result in card_data(text).eval_results} == {"validation", "test"}
    for words in ("## Limits", "One run with one seed", "up to 3 px", "augkit.load_run", "max_pixels: 2.0", "torch "):
        assert words in text
    assert str(tmp_path) not in text
    (tmp_path / "m").rename(folder / "measured")
    assert write_card(folder).read_text() == text, "a measurement within the run is found"


def test_a_measurement_of_another_network_is_refused(folder: Path, tmp_path: Path) -> None:
    measurement(folder, tmp_path / "m", weights_sha256="0" * 64)
    with pytest.raises(InputError, match=r"expected a measurement of '.*run', it is of other weights; augkit measure"):
        model_card(folder, tmp_path / "m")
    with pytest.raises(InputError, match=r"expected a folder of augkit\.measure with results\.json"):
        model_card(folder, tmp_path)


def test_a_folder_without_exported_files_gets_them(trained: Run, folder: Path) -> None:
    """Such as a run of an older version, or a final run of a search."""
    for name in (WEIGHTS, CONFIG, "README.md"):
        (folder / name).unlink()
    facts = export_folder(folder)
    assert facts.images is None
    assert facts.accuracy == {"value": trained.evaluation.accuracy, "low": None, "high": None}
    assert "| digits | validation |" in model_card(folder)
    with pytest.raises(InputError, match=r"expected a folder of augkit\.train"):
        export_folder(folder.parent)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "python -m augkit.train /home/me/a.yaml --output=/runs/x/ seed=1",
            "python -m augkit.train a.yaml --output=x seed=1",
        ),
        (r"data.name=folder:C:\Users\me\birds --output ~/runs/x", "data.name=folder:birds --output x"),
        (
            "folder:birds runs/first https://host/a/b hf:org/name",
            "folder:birds runs/first https://host/a/b hf:org/name",
        ),
        (r"\\host\share\x", "x"),
    ],
)
def test_absolute_paths_are_cut_to_their_last_part(text: str, expected: str) -> None:
    assert portable_text(text) == expected


def test_recipes_lose_their_absolute_paths(tiny: Recipe) -> None:
    model = {**tiny.model.model_dump(), "weights": "/home/me/my weights/w.pt"}
    data = {**tiny.data.model_dump(), "name": "folder:/home/me/my photos", "root": "~/data"}
    found = portable_recipe(tiny.replaced(model=model, data=data))
    assert (found.data.name, found.data.root, found.model.weights) == ("folder:my photos", "data", "w.pt")
    assert portable_recipe(tiny) == tiny
    for name in ("hf:org/name", "timm:resnet18.a1_in1k", "folder:photos/birds", r"folder:C:\photos\birds"):
        changed = tiny.replaced(data={**tiny.data.model_dump(), "name": name})
        assert portable_recipe(changed).data.name == ("folder:birds" if "C:" in name else name)
