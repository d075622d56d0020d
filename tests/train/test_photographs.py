"""The recipe for ImageNet on a few JPEG files of different sizes: training, and what measuring and a preview show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import augkit
from augkit.core.errors import InputError
from augkit.data import stream
from augkit.measure import MeasureSettings
from augkit.measure.image_sets import load_image_sets
from augkit.preview import find_subject
from augkit.train.build import load_data, load_recipe_data, side_for_crops
from augkit.train.load_model import LoadedModel
from augkit.train.recipe import Recipe
from augkit.train.report import write_report

SIDE, SHARE, DECODED = 32, 0.5, 70


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files of 64 to 303 pixels, with ``train`` and ``val``; a ramp from the left to the right, noise, and a frame."""
    folder, rng = tmp_path_factory.mktemp("imagenet"), np.random.default_rng(0)
    for k in range(30):
        height, width = (int(n) for n in rng.integers(64, 304, 2))
        pixels = rng.integers(0, 60, (height, width, 3)) + np.linspace(0, 190, width).astype(int)[None, :, None]
        inside = folder / ("val" if k % 5 == 0 else "train") / "ab"[k % 2]
        inside.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.astype(np.uint8)).save(inside / f"{k:02d}.jpg")
    return folder


def recipe(folder: Path, *more: str) -> Recipe:
    small = [f"data.name=folder:{folder}", f"data.image_size={SIDE}", f"data.crop_share={SHARE}", "data.workers=0"]
    small += [f"data.decode_size={DECODED}", "model.name=resnet18", "model.width=4", "model.stem=small"]
    small += ["train.epochs=1", "train.batch_size=8", "train.compile=false", "train.precision=float32"]
    return Recipe.load("imagenet-resnet50", [*small, "train.checkpoint_steps=1", "invariance.every=null", *more])


def center(path: Path, share: float) -> np.ndarray:
    """``(3, SIDE, SIDE)`` of the center, in one resampling by Pillow from what its JPEG decoder gives."""
    with Image.open(path) as file:
        shorter = min(file.size)
        file.draft("RGB", next((shorter // k,) * 2 for k in (8, 4, 2, 1) if -(-shorter // k) >= DECODED or k == 1))
        picture = file.convert("RGB")
    width, height = picture.size
    seen = min(width, height) * share
    box = ((width - seen) / 2, (height - seen) / 2, (width + seen) / 2, (height + seen) / 2)
    return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.LANCZOS, box=box)).transpose(2, 0, 1)


def test_the_recipe_says_what_its_header_does() -> None:
    data = Recipe.load("imagenet-resnet50").data
    assert (data.image_size, data.crop_share, data.decode_size) == (224, 0.875, 512)


@pytest.mark.integration
def test_the_recipe_trains_the_same_from_memory_from_a_stream_and_resumed(photographs: Path, tmp_path: Path) -> None:
    def stop(done: int, of: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    held = augkit.fit(recipe(photographs), device="cpu")
    streamed = recipe(photographs, "data.memory=0")
    with pytest.raises(KeyboardInterrupt):
        augkit.fit(streamed, device="cpu", output=tmp_path / "run", on_step=stop)
    resumed = augkit.fit(streamed, device="cpu", output=tmp_path / "run", resume=True)
    assert held.history[-1]["step"] == 2
    assert held.history[-1]["loss"] == resumed.history[-1]["loss"]
    for key, value in held.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[key]), key


@pytest.mark.integration
@pytest.mark.parametrize("skip", [False, True])
def test_images_that_fit_into_memory_are_decoded_once(
    photographs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, skip: bool
) -> None:
    for path in photographs.rglob("*.jpg"):
        other = tmp_path / path.relative_to(photographs)
        other.parent.mkdir(parents=True, exist_ok=True)
        other.write_bytes(b"no image" if skip and path.stem == "07" else path.read_bytes())
    decoded: list[str] = []
    once = stream.decode

    def counted(opener: Any, form: Any) -> Any:
        decoded.append(opener.func.__self__.name(opener.args[0]))
        return once(opener, form)

    monkeypatch.setattr(stream, "decode", counted)
    own = recipe(tmp_path, f"data.skip_corrupt={str(skip).lower()}")
    dataset = load_recipe_data(own)
    run = augkit.fit(own, device="cpu", dataset=dataset, output=tmp_path / "run")
    assert len(decoded) == len(set(decoded)) == 30  # train and val
    assert [Path(name.strip("'")).stem for name in dataset.skipped] == ["07"] * skip
    assert len(dataset.listed_train) == 22 - skip
    augkit.fit(own, device="cpu", dataset=dataset)
    assert len(decoded) == 30
    write_report(run, dataset)
    assert len(decoded) <= 30 + 16  # those that the report shows
    assert torch.equal(dataset.train.labels, dataset.listed_train.labels)


def test_training_measuring_and_preview_read_the_same_images(photographs: Path, tmp_path: Path) -> None:
    own = recipe(photographs)
    dataset = load_data(own.data)
    whole = dataset.whole_train(side_for_crops(own) or 0)
    assert whole is not None
    assert whole.held is not None
    assert whole.held.sizes.min(dim=1).values.max() == DECODED

    settings = MeasureSettings(split="validation")
    (measured,) = load_image_sets(settings, None, LoadedModel(torch.nn.Identity(), own), "crop").values()
    assert torch.equal(measured.images.images, dataset.validation.images)
    small = MeasureSettings(split="validation", decode_size=DECODED, image_size=SIDE, crop_share=SHARE)
    (flagged,) = load_image_sets(small, own.data.name, LoadedModel(torch.nn.Identity(), None), "crop").values()
    assert torch.equal(flagged.images.images, measured.images.images)
    centers = [center(path, SHARE) for path in sorted(photographs.rglob("*.jpg"))]
    for image in measured.images.images.numpy():
        assert any(np.array_equal(image, seen) for seen in centers)

    (tmp_path / "x.yaml").write_text(own.to_yaml())
    shown = find_subject(str(tmp_path / "x.yaml")).image.numpy()
    wide = [center(path, 1.0) for path in sorted(photographs.rglob("*.jpg"))]  # a crop's frame is the shorter side
    assert any(np.array_equal(shown, seen) for seen in wide)


def test_a_decode_size_and_its_digest() -> None:
    plain = Recipe.load("imagenet-resnet50", ["data.crop_share=1.0", "data.decode_size=null"])
    assert "decode_size" not in plain.to_yaml()
    assert "crop_share" not in plain.to_yaml()
    assert Recipe.load("imagenet-resnet50").to_yaml().count("decode_size: 512") == 1
    with pytest.raises(InputError, match=r"decode_size.*at least image_size / crop_share, 256 pixels, got 255"):
        Recipe.load("imagenet-resnet50", ["data.decode_size=255"])
