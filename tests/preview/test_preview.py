"""The preview: what it writes, that strength 0 is the original, that nothing in it is random, what it refuses."""

from __future__ import annotations

import json
import math
import re
from io import BytesIO

import numpy as np
import pytest
import torch
from pictures import encoded, noise, write_folder, write_parquet
from PIL import Image

from augkit.augment import geometry
from augkit.augment.kernels import KERNELS
from augkit.augment.ops import op_specs
from augkit.augment.policy import Policy
from augkit.core import cli
from augkit.core.errors import InputError
from augkit.data import load_dataset
from augkit.preview import PreviewSettings, find_subject, preview
from augkit.preview import kernels as page
from augkit.preview.__main__ import main
from augkit.preview.strengths import QUANTILES, STRENGTHS, draw_sheet, forced_draws, strength_rows
from augkit.preview.subject import reduced
from augkit.train.recipe import Recipe

EVERYTHING = Policy(
    shift={"max_pixels": 4.0, "p": 0.5},
    rescale={"max_factor": 1.5},
    crop={"min_area": 0.5, "max_ratio": 1.5},
    flip={"p": 0.5},
    kernel="bicubic",
)


def random_image(channels: int = 3, height: int = 20, width: int = 30) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (channels, height, width), dtype=torch.uint8, generator=generator)


@pytest.fixture
def photograph(tmp_path):
    path = tmp_path / "photograph.png"
    Image.fromarray(random_image(3, 90, 400).permute(1, 2, 0).numpy()).save(path)
    return path


def run_json(capsys, *arguments: str) -> dict:
    assert cli.run(main, [*arguments, "--json", "--quiet"]) == 0
    return json.loads(capsys.readouterr().out)


# --- the command ----------------------------------------------------------------------------------------------


@pytest.mark.integration
@pytest.mark.parametrize(
    "source", ["photograph", "recipe", *(pytest.param(other, marks=pytest.mark.slow) for other in ("digits", "folder"))]
)
def test_it_writes_both_pictures_and_one_page_that_needs_nothing_else(source, tmp_path, photograph, capsys):
    recipe = tmp_path / "own.yaml"
    recipe.write_text(Recipe(name="own", data={"name": "digits"}, policy={"shift": {"max_pixels": 1.5}}).to_yaml())
    sources = {
        "photograph": [str(photograph)],
        "recipe": [str(recipe), "policy.shift.max_pixels=2"],
        "folder": [f"folder:{tmp_path}"],
    }
    folder = tmp_path / "seen"
    result = run_json(capsys, *sources.get(source, [source]), "--output", str(folder))
    assert {path.name for path in folder.iterdir()} == {*result["files"], "environment.json"}
    for name in ("preview.png", "kernels.png"):
        with Image.open(folder / name) as picture:
            assert picture.format == "PNG"
            assert min(picture.size) > 400
    html = (folder / "preview.html").read_text()
    assert html.count('src="data:image/png;base64,') == 2
    assert not re.search(r"https?://|<script|<link|url\(|src=['\"](?!data:)", html)
    assert set(result["kernels"]) == set(KERNELS)
    if source == "recipe":
        assert result["policy"]["shift"]["max_pixels"] == 2
        assert f"Not in this policy: {', '.join(name for name in op_specs() if name != 'shift')}." in html
    if source == "photograph":
        assert result["image"] == {"channels": 3, "height": 50, "width": 224}


@pytest.mark.slow
def test_the_same_command_draws_the_same_pictures(tmp_path, capsys):
    pixels = []
    for flags in ([], ["--overwrite"]):
        run_json(capsys, "digits", "--output", str(tmp_path / "seen"), *flags)
        pixels.append([(tmp_path / "seen" / file).read_bytes() for file in ("preview.png", "kernels.png")])
    assert pixels[0] == pixels[1]


def test_what_is_shown_is_never_deleted(tmp_path, capsys):
    recipe, photo = tmp_path / "recipe.yaml", tmp_path / "photo.png"
    recipe.write_text(Recipe.load("mnist5k").to_yaml())
    Image.new("RGB", (16, 16)).save(photo)
    (tmp_path / "environment.json").write_text("{}")  # the mark of a folder that augkit wrote
    words = ["mnist5k", f"data.name=folder:{tmp_path}", "data.canvas=null"]  # the data of a recipe elsewhere
    for source in ([recipe], [tmp_path], [photo], [f"folder:{tmp_path}"], words):
        assert cli.run(main, [*map(str, source), "--output", str(tmp_path), "--overwrite", "--quiet"]) == 2
        assert f"output '{tmp_path}': --overwrite would delete" in capsys.readouterr().err
    assert recipe.is_file()
    assert photo.is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.png"], "there is no such file"),
        (["broken.png"], "cannot be read as an image"),
        (["empty/none.yaml"], "no such file"),
        (["digit"], "did you mean 'digits'?"),
        (["empty"], "as data: folder:DIR"),
        (["folder:empty"], "expected images"),
        (["folder:nowhere"], "expected a folder"),
        (["digits", "mnist5k"], "expected one image, dataset or recipe, got 2"),
        (["digits", "train.epochs=3"], "other keys need a recipe"),
        (["digits", "policy.shift.max_pixel=3"], "did you mean 'shift.max_pixels'?"),
        (["mnist5k", "policy.kernel=bilinaer"], "policy.kernel"),
        (["digits", "policy.kernel=fourier"], "kernel 'fourier' expects padding 'circular'"),
        (["digits", "--strengths", "0", "1.5"], "strengths: expected one or more numbers in [0, 1]"),
        (["digits", "--quantiles", "1"], "quantiles: expected one or more numbers in [0, 1)"),
        (["digits", "--device", "toaster"], "device 'toaster'"),
        (["digits", "--quantiles", "nan"], "quantiles"),
        (["digits", "--output", "filled"], "exists"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.png").write_text("no image")
    (tmp_path / "empty").mkdir()
    (tmp_path / "filled").mkdir()
    (tmp_path / "filled" / "precious.txt").write_text("mine")
    assert cli.run(main, ["--quiet", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("augkit: error: ")
    assert err.count("\n") == 1
    assert message in err
    assert (tmp_path / "filled" / "precious.txt").read_text() == "mine"


@pytest.mark.integration
def test_the_function_writes_what_the_command_prints(tmp_path, capsys):
    subject = find_subject("digits", ["policy.shift.max_pixels=1"], seed=2)
    result = preview(subject, tmp_path / "seen", PreviewSettings(strengths=(0.0, 1.0), quantiles=(0.5,)))
    assert all((tmp_path / "seen" / name).is_file() for name in result.files)
    assert (result.size, result.policy) == ((1, 8, 8), subject.policy)
    flags = ["policy.shift.max_pixels=1", "--seed", "2", "--strengths", "0", "1", "--quantiles", "0.5", "--overwrite"]
    assert run_json(capsys, "digits", *flags, "--output", str(tmp_path / "seen")) == result.to_dict()


def test_without_a_policy_of_its_own_an_image_shows_an_example_of_every_op():
    policy = find_subject("digits", []).policy
    assert list(policy.own_ops) == list(op_specs())
    assert not any(settings.changes_nothing for settings in policy.own_ops.values())


# --- what is looked at ----------------------------------------------------------------------------------------


def test_the_seed_picks_the_image_and_nothing_else():
    first, again, other = (find_subject("digits", [], seed) for seed in (0, 0, 1))
    assert torch.equal(first.image, again.image)
    assert not torch.equal(first.image, other.image)
    assert first.policy == other.policy


def test_a_name_that_is_both_is_the_recipe():
    subject = find_subject("mnist5k", ["policy.rescale.p=0.25"])
    assert subject.title == "recipe mnist5k"
    assert subject.policy == Recipe.load("mnist5k", ["policy.rescale.p=0.25"]).policy
    assert subject.image.shape == (1, 40, 40)  # on the recipe's canvas


def test_a_small_image_gets_a_small_shift():
    assert find_subject("digits", []).policy.shift.max_pixels == 0.8
    assert find_subject(None, []).policy.shift.max_pixels == 8.0


@pytest.mark.parametrize(
    ("mode", "channels"), [("L", 1), ("1", 1), ("LA", 1), ("RGB", 3), ("RGBA", 3), ("P", 3), ("CMYK", 3), ("I;16", 1)]
)
def test_files_of_any_mode_are_seen_as_training_sees_them(mode, channels, tmp_path):
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    deep = Image.fromarray(np.array([[0, 257 * 100, 65535]], dtype=np.uint16))
    (deep if mode == "I;16" else Image.fromarray(noise(0, (4, 5, 3))).convert(mode)).save(path)
    expected = load_dataset(f"folder:{tmp_path}").open_test().images[0]
    assert find_subject(str(path), []).image.tolist() == expected.tolist()
    assert find_subject(f"folder:{tmp_path}", []).image.tolist() == expected.tolist()
    assert len(expected) == channels


def test_a_transparent_image_is_seen_on_white_and_a_deep_one_is_not_white(tmp_path):
    Image.new("RGBA", (5, 4), (255, 0, 0, 0)).save(tmp_path / "clear.png")
    assert find_subject(str(tmp_path / "clear.png"), []).image.min() == 255
    Image.fromarray(np.full((4, 5), 128 * 257, dtype=np.uint16)).save(tmp_path / "deep.png")
    assert find_subject(str(tmp_path / "deep.png"), []).image.unique().tolist() == [128]


def test_a_recipe_is_seen_with_the_channels_and_the_size_that_it_trains_with(tmp_path):
    write_folder(tmp_path / "set", {"a": 4, "b": 4}, side=24)
    recipe = Recipe(
        name="x", data={"name": f"folder:{tmp_path / 'set'}", "image_size": 12, "channels": 1, "canvas": 16}
    )
    (tmp_path / "x.yaml").write_text(recipe.to_yaml())
    assert find_subject(str(tmp_path / "x.yaml"), []).image.shape == (1, 16, 16)


def test_a_streamed_set_gives_its_pixels(tmp_path):
    rows = [{"bytes": encoded(noise(k)), "path": None} for k in range(20)]
    write_parquet(tmp_path / "all.parquet", rows, [k % 2 for k in range(20)])
    recipe = Recipe(name="x", data={"name": f"parquet:{tmp_path}", "memory": 0})
    (tmp_path / "x.yaml").write_text(recipe.to_yaml())
    seen = find_subject(str(tmp_path / "x.yaml"), []).image
    assert any(np.array_equal(seen, noise(k).transpose(2, 0, 1)) for k in range(20))
    write_parquet(tmp_path / "all.parquet", rows, None)
    with pytest.raises(InputError, match="expected images with labels to train on"):
        find_subject(str(tmp_path / "x.yaml"), [])


@pytest.mark.parametrize(("size", "expected"), [((20, 30), (20, 30)), ((500, 250), (224, 112)), ((1, 4000), (1, 224))])
def test_large_images_are_reduced_and_small_ones_left(size, expected):
    image = random_image(1, *size)
    small = reduced(image, 224)
    assert small.shape[-2:] == expected
    assert small is image or size != expected


# --- the sheet ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_a_row_per_op_and_strength_0_is_the_original(channels):
    image = random_image(channels)
    rows = strength_rows(image, EVERYTHING)
    assert [row.name for row in rows] == ["shift", "rescale", "crop", "flip", "policy"]
    for row in rows:
        assert row.tiles.shape == (len(QUANTILES), len(STRENGTHS), *image.shape)
        assert all(torch.equal(tile, image) for tile in row.tiles[:, 0])
        assert not torch.equal(row.tiles[0, -1], image)


def test_the_sheet_shows_the_original_pixel_for_pixel():
    image = random_image(3, 224, 224)
    rows = strength_rows(image, EVERYTHING)
    sheet = torch.from_numpy(np.array(draw_sheet(rows, "title"))[:400, :700]).permute(2, 0, 1)
    corners = (sheet.unfold(1, 3, 1).unfold(2, 3, 1) == image[:, None, None, :3, :3]).all(dim=-1).all(dim=-1).all(dim=0)
    places = corners.nonzero().tolist()
    top, left = places[0]
    assert torch.equal(sheet[:, top : top + 224, left : left + 224], image)


def test_draws_stand_at_the_quantile():
    shift, *_, flip = EVERYTHING.geometry()
    assert forced_draws(shift, 0.25, 2).tolist() == [[0.0, 0.25, 0.25]] * 2  # the coin chose the sample
    assert forced_draws(flip, 0.25, 1).tolist() == [[0.25]]
    rows = {row.name: row for row in strength_rows(random_image(), EVERYTHING, [0, 0.5, 1], [0.25, 0.75])}
    assert rows["shift"].captions == [
        ["x 0, y 0 px", "x −1, y −1 px", "x −2, y −2 px"],
        ["x 0, y 0 px", "x 1, y 1 px", "x 2, y 2 px"],
    ]
    assert rows["rescale"].captions[1][-1] == f"× {math.exp(0.5 * math.log(1.5)):.2f}"
    areas = [float(caption.removeprefix("area ")) for caption in rows["crop"].captions[0]]
    assert areas == pytest.approx([1, 0.8125, 0.625], abs=0.006)
    assert rows["flip"].captions == [["as it is", "as it is", "mirrored"], ["as it is"] * 3]
    assert torch.equal(rows["flip"].tiles[0, -1], random_image().flip(-1))


def test_the_labels_state_range_and_unit():
    ranges = {row.name: row.range for row in strength_rows(random_image(), EVERYTHING)}
    assert ranges["shift"] == "up to ± 4 pixels along x and y; on 50\u00a0% of samples"
    assert ranges["rescale"] == "factor 0.667 to 1.5"
    assert ranges["crop"] == "window of 0.5 to 1 of the area, aspect 0.67 to 1.5"
    assert ranges["flip"] == "probability 0.5 × strength"
    assert ranges["policy"] == "shift, then rescale, then crop, then flip; resampled once"


def test_a_policy_without_ops_shows_the_original():
    image = random_image()
    (row,) = strength_rows(image, Policy())
    assert row.name == "policy"
    assert (row.tiles == image).all()


@pytest.mark.integration
@pytest.mark.parametrize("size", [(1, 1), (1, 200), (200, 1), (3, 2)])
def test_tiny_and_flat_images_can_be_drawn(size):
    image = random_image(1, *size)
    sheet = draw_sheet(strength_rows(image, EVERYTHING), "a title that is too long for the sheet " * 9)
    assert sheet.width > 400
    page.kernel_figure(image, page.kernel_results(image))


# --- the kernels ----------------------------------------------------------------------------------------------


def test_responses_are_those_of_the_textbook():
    frequency = page.frequencies()
    bilinear = page.magnitude_response("bilinear")
    assert torch.allclose(bilinear, torch.cos(math.pi * frequency).double(), atol=1e-6)
    for kernel in ("nearest", "fourier"):
        assert torch.allclose(page.magnitude_response(kernel), torch.ones_like(bilinear), atol=1e-6)
    for kernel in KERNELS:
        assert torch.allclose(page.magnitude_response(kernel, 3.0), torch.ones_like(bilinear), atol=1e-6)


def test_better_kernels_lose_less():
    image = random_image(1, 51, 51)
    results = {result.kernel: result for result in page.kernel_results(image)}
    order = ("bilinear", "bicubic", "lanczos3", "sinc", "fourier")
    assert sorted(order, key=lambda kernel: results[kernel].psnr) == list(order)
    assert sorted(order, key=lambda kernel: results[kernel].kept) == list(order)
    assert results["bilinear"].kept == pytest.approx(0.5 - 1 / math.pi, abs=0.01)
    assert results["fourier"].psnr > 100


def test_a_shift_there_and_back_restores_whole_pixels():
    image = random_image(1, 9, 9)[None].float()
    moved = page.shift_by(image, "bicubic", (2.0, -1.0))
    assert torch.equal(moved, image.roll((-1, 2), (-2, -1)))
    assert torch.equal(geometry.shift(torch.tensor([[2.0, -1.0]]))[0, :2, 2], torch.tensor([2.0, -1.0]))


def test_the_detail_is_where_the_image_is_busiest():
    image = torch.zeros(1, 100, 120, dtype=torch.uint8)
    image[0, 60:80, 30:50] = random_image(1, 20, 20)[0]
    top, left, height, width = page.busiest_window(image)
    assert (height, width) == (28, 28)
    assert top <= 60
    assert top + height >= 80
    assert left <= 30
    assert left + width >= 50


def test_the_spectrum_shows_a_grating_at_its_frequency():
    x = torch.arange(64, dtype=torch.float32)
    grating = (0.5 + 0.5 * torch.cos(2 * math.pi * 16 / 64 * x)).expand(1, 64, 64)
    power = page.spectrum(grating - grating.mean())
    row, column = np.unravel_index(power.argmax(), power.shape)
    assert row == 32
    assert abs(column - 32) == 16


def test_data_of_every_form_are_shown(tmp_path):
    """Those of a table as well as those of a folder."""
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow as pa

    file = BytesIO()
    Image.new("RGB", (6, 4), (9, 99, 199)).save(file, "PNG")
    rows = {"image": [{"bytes": file.getvalue(), "path": None}] * 20, "label": [0, 1] * 10}
    parquet.write_table(pa.table(rows), tmp_path / "train.parquet")
    subject = find_subject(f"parquet:{tmp_path}")
    assert subject.title == tmp_path.name
    assert subject.image[:, 0, 0].tolist() == [9, 99, 199]
