"""Ranges of values through the adapters: normalized images, integers of all widths, the precision of a trainer."""

from __future__ import annotations

import logging
import warnings
from typing import Any

import albumentations
import kornia.augmentation as K
import numpy as np
import PIL.Image
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.transforms import v2

import augkit
from augkit.adapters.collate import Collate
from augkit.adapters.huggingface import DatasetTransform
from augkit.adapters.timm import AugmentedLoader
from augkit.adapters.torchvision import Geometry
from augkit.augment.albumentations_twin import PolicyTransform
from augkit.core.errors import InputError, InputTypeError
from augkit.data.decode import upright

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STATISTICS = {
    "imagenet": (MEAN, STD),
    "mnist": ((0.1307,), (0.3081,)),
    "halves": ((0.5,), (0.5,)),
    "bytes": ((0.0,), (1 / 255,)),
}


def neutral() -> augkit.Augment:
    """Color that changes nothing in [0, 1]."""
    return augkit.Augment(K.ColorJitter(0.0, 0.0, 0.0, 0.0, p=1.0), K.RandomGaussianNoise(0.0, 0.0, p=1.0))


def normalized(images: Tensor, mean: Any = MEAN, std: Any = STD) -> Tensor:
    return (images - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


@pytest.fixture
def images() -> Tensor:
    return torch.rand(4, 3, 12, 12)


class TestColor:
    @pytest.mark.parametrize("name", STATISTICS)
    def test_every_adapter_refuses_normalized_images(self, images: Tensor, name: str) -> None:
        images[:, :, :2], images[:, :, 2:4] = 0, 1
        bad = normalized(images, *STATISTICS[name])
        adapters = [
            lambda: neutral()(bad),
            lambda: neutral()(bad.double(), strength=torch.full((4,), 0.5)),
            lambda: neutral()(bad, matrix=torch.eye(3)),
            lambda: Geometry(neutral())(bad),
            lambda: Collate(neutral())([(image, 0) for image in bad]),
            lambda: next(iter(AugmentedLoader([(bad, 0)], neutral()))),
            lambda: DatasetTransform(neutral())({"image": list(bad)}),
            lambda: PolicyTransform({"ops": [{"op": "RandomInvert", "p": 1.0}]})(image=bad[0].permute(1, 2, 0).numpy()),
        ]
        for adapter in adapters:
            with pytest.raises(InputError, match=r"\AAugment: Kornia's \w+ expected images in \[0, 1\], got[^\n]*\Z"):
                adapter()
        for calm in (neutral().eval(), augkit.Augment(K.RandomInvert(p=1.0), strength=0.0)):
            assert torch.equal(calm(bad), bad)

    def test_the_overshoot_of_interpolation_is_accepted(self, images: Tensor) -> None:
        sharp = augkit.Augment(augkit.RandomSubpixelShift(1.0), kernel="lanczos3")((images > 0.5).float())
        assert sharp.max() > 1.05
        torch.testing.assert_close(neutral()(sharp), sharp.clamp(0, 1))
        assert neutral()(images * torch.nan).isnan().all()


class Squares(torch.utils.data.Dataset):
    """Dark pictures; timm sets ``transform``."""

    transform: Any = None

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> tuple[Any, int]:
        pixels = np.random.default_rng(index).integers(0, 90, (24, 24, 3), np.uint8)
        return self.transform(PIL.Image.fromarray(pixels)), index


class TestTimm:
    @staticmethod
    def build(prefetcher: bool, **options: Any) -> Any:
        data = pytest.importorskip("timm", reason="needs the extra 'timm'").data
        return data.create_loader(
            Squares(), (3, 24, 24), 4, no_aug=True, num_workers=0, persistent_workers=False, use_prefetcher=prefetcher,
            device=torch.device("cpu"), mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25), **options,
        )  # fmt: skip

    @pytest.mark.parametrize("prefetcher", [True, False])
    def test_the_loaders_normalization_is_undone_and_redone(self, prefetcher: bool) -> None:
        loader = self.build(prefetcher)
        given = next(iter(loader))[0]
        assert given.min() < -1
        found = next(iter(AugmentedLoader(loader, neutral())))[0]
        torch.testing.assert_close(found, given, atol=1e-5, rtol=0)
        inverted = next(iter(AugmentedLoader(loader, augkit.Augment(K.RandomInvert(p=1.0)))))[0]
        plain = given * torch.tensor([0.2, 0.3, 0.25])[:, None, None] + torch.tensor([0.4, 0.5, 0.6])[:, None, None]
        torch.testing.assert_close(inverted, normalized(1 - plain, (0.4, 0.5, 0.6), (0.2, 0.3, 0.25)))

    @pytest.mark.parametrize("prefetcher", [True, False])
    def test_augments_own_normalization_replaces_the_loaders(self, prefetcher: bool) -> None:
        loader = self.build(prefetcher)
        plain = next(iter(loader))[0] * torch.tensor([0.2, 0.3, 0.25])[:, None, None]
        plain = plain + torch.tensor([0.4, 0.5, 0.6])[:, None, None]
        for augment in (augkit.Augment(augkit.RandomHorizontalFlip(p=0.0), normalize=(MEAN, STD)),
                        augkit.Augment(normalize=(MEAN, STD))):  # fmt: skip
            found = next(iter(AugmentedLoader(loader, augment)))[0]
            torch.testing.assert_close(found, normalized(plain), atol=1e-5, rtol=1e-5)

    def test_pixels_shifted_in_are_black_and_the_others_keep_their_bits(self) -> None:
        loader = self.build(True)
        given = next(iter(loader))[0]
        shifted = next(
            iter(AugmentedLoader(loader, augkit.Augment(augkit.RandomSubpixelShift(8.0), kernel="bilinear")))
        )[0]
        torch.testing.assert_close(
            shifted.amin((0, 2, 3)), -torch.tensor([0.4, 0.5, 0.6]) / torch.tensor([0.2, 0.3, 0.25])
        )
        for still in (
            augkit.Augment(augkit.RandomSubpixelShift(8.0), strength=0.0),
            neutral().eval(),
            augkit.Augment(),
        ):
            assert torch.equal(next(iter(AugmentedLoader(loader, still)))[0], given)

    def test_half_precision_and_a_loader_of_unknown_normalization(self, images: Tensor) -> None:
        half = next(iter(AugmentedLoader(self.build(True, img_dtype=torch.float16), neutral())))[0]
        assert half.dtype == torch.float16
        batch = normalized(images).bfloat16()
        found = next(iter(AugmentedLoader([(batch, 0)], neutral(), normalized=(MEAN, STD))))[0]
        assert found.dtype == torch.bfloat16
        torch.testing.assert_close(found, batch, atol=0.03, rtol=0)
        with pytest.raises(InputTypeError, match=r"normalized: expected \(mean, std\)"):
            next(iter(AugmentedLoader([(batch, 0)], neutral(), normalized="imagenet")))  # type: ignore[arg-type]


@pytest.mark.parametrize("precision", ["bf16-true", "16-true", "64-true", "bf16-mixed", "32-true"])
@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
def test_images_have_the_trainers_precision(precision: str, dtype: torch.dtype) -> None:
    lightning = pytest.importorskip("lightning", reason="needs the extra 'lightning'")
    from augkit.adapters.batch import Keys
    from augkit.adapters.lightning import AugmentCallback

    seen: list[dict[str, Tensor]] = []

    class Model(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = torch.nn.Linear(3 * 8 * 8, 2)

        def training_step(self, batch: dict[str, Tensor], index: int) -> Tensor:
            seen.append(batch)
            return self.net(batch["x"].flatten(1)).float().mean()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    rows = [{"x": (255 * torch.rand(3, 8, 8)).to(dtype), "m": torch.ones(1, 8, 8, dtype=torch.int64)}] * 2
    rows = rows if dtype == torch.uint8 else [{**row, "x": row["x"] / 255} for row in rows]
    augment = augkit.Augment(augkit.RandomSubpixelShift(1.0), normalize=([0.5], [0.25]))
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quiet = dict.fromkeys(["logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"], False)
        callbacks = [AugmentCallback(augment, Keys("x", masks="m"))]
        trainer = lightning.Trainer(max_epochs=1, accelerator="cpu", precision=precision, callbacks=callbacks, **quiet)
        trainer.fit(Model(), DataLoader(rows, 2))  # type: ignore[arg-type]
    names = {"bf16-true": torch.bfloat16, "16-true": torch.float16, "64-true": torch.float64}
    assert seen[0]["x"].dtype == names.get(precision, torch.float32)
    assert seen[0]["m"].dtype == torch.int64


class TestTwin:
    half_right = np.array([[1, 0, 0.5], [0, 1, 0], [0, 0, 1]], np.float32)
    integers = ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", ">u2", ">i4")

    @pytest.mark.parametrize("name", [*integers, "?"])
    @pytest.mark.parametrize("kernel", ["bicubic", "lanczos3"])
    def test_integers_are_rounded_and_kept_in_their_range(self, name: str, kernel: str) -> None:
        dtype = np.dtype(name)
        low, high = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
        image = np.full((16, 16, 2), low, dtype)
        image[4:12, 4:12] = high
        twin = PolicyTransform({"shift": {"max_pixels": 1.0}, "kernel": kernel, "padding": "border"})
        found = twin.apply(image[:, ::-1][:, ::-1], matrix=self.half_right, blur=None)
        assert found.dtype == dtype
        exact = torch.from_numpy((image == high).astype(np.float64)).permute(2, 0, 1)[None]
        exact = augkit.resample(exact, torch.from_numpy(self.half_right), kernel=kernel, padding="border")
        share = exact[0].permute(1, 2, 0).numpy().clip(0, 1)
        got = (found.astype(np.float64) - float(low)) / (float(high) - float(low))
        step = 1 if dtype.kind == "b" else max(1 / (float(high) - float(low)), 1e-6)
        np.testing.assert_allclose(got, share, atol=0.51 * step + 1e-7)
        assert {int(found.min()), int(found.max())} == {int(low), int(high)}

    @pytest.mark.parametrize("name", ["f2", "f4", ">f4", "f8"])
    def test_floats_are_left_unrounded_and_may_overshoot(self, name: str) -> None:
        image = np.zeros((16, 16), name)
        image[4:12, 4:12] = 1
        found = PolicyTransform({"shift": {"max_pixels": 1.0}}).apply(image, matrix=self.half_right, blur=None)
        assert found.dtype == np.dtype(name)
        assert found.max() > 1.05

    def test_halves_are_rounded_to_even_as_torch_does(self) -> None:
        image = np.array([[0, 1, 2, 3, 4, 5]], np.uint16)
        twin = PolicyTransform({"shift": {"max_pixels": 1.0}, "kernel": "bilinear", "padding": "border"})
        found = twin.apply(image, matrix=self.half_right, blur=None)
        eight = twin.apply(image.astype(np.uint8), matrix=self.half_right, blur=None)
        assert found.tolist() == eight.tolist() == [[0, 0, 2, 2, 4, 4]]  # of 0, 0.5, 1.5, ...

    @pytest.mark.parametrize("name", [*integers, "?", "f4", "f8"])
    def test_masks_are_picked_whatever_their_dtype(self, name: str) -> None:
        mask = np.random.default_rng(0).integers(0, 2, (6, 7)).astype(name)
        pipeline = albumentations.Compose(
            [PolicyTransform({"flip": {"p": 1.0}, "ops": [{"op": "RandomVerticalFlip", "p": 1.0}]})]
        )
        found = pipeline(image=np.zeros((6, 7, 3), np.uint8), mask=mask)["mask"]
        assert found.dtype == mask.dtype
        np.testing.assert_array_equal(found, mask[::-1, ::-1])

    @pytest.mark.parametrize("name", ["u1", "u2", "i2", "i4", "f4"])
    def test_kornias_ops_get_integers_divided_by_their_largest_value(self, name: str) -> None:
        dtype = np.dtype(name)
        top = 1 if dtype.kind == "f" else np.iinfo(dtype).max
        image = (np.random.default_rng(0).random((6, 7, 3)) * top).astype(dtype)
        found = PolicyTransform({"ops": [{"op": "RandomInvert", "p": 1.0}]})(image=image)["image"]
        assert found.dtype == dtype
        np.testing.assert_allclose(found.astype(float), top - image.astype(float), atol=top * 1e-6)


class TestHuggingFace:
    def read(self, picture: Any, mode: str | None = "RGB") -> Tensor:
        return DatasetTransform(augkit.Augment(), mode=mode)({"image": [picture]})["pixel_values"][0]

    def pictures(self) -> dict[str, PIL.Image.Image]:
        gray = np.linspace(0, 255, 320).reshape(16, 20).astype(np.uint8)
        color = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 255, (16, 20, 3), np.uint8))
        clear = PIL.Image.new("RGBA", (20, 16), (255, 0, 0, 0))
        return {
            "16 bits": PIL.Image.fromarray(gray.astype(np.uint16) * 257),
            "gray": PIL.Image.fromarray(gray),
            "1 bit": PIL.Image.fromarray(gray > 100),
            "palette": color.convert("P"),
            "transparent": clear,
            "gray and alpha": clear.convert("LA"),
            "cmyk": color.convert("CMYK"),
        }

    @pytest.mark.parametrize("mode", ["RGB", "L"])
    def test_pil_images_are_converted_as_augkits_decoder_does(self, mode: str) -> None:
        for name, picture in self.pictures().items():
            before = picture.copy()
            expected = np.asarray(upright(picture.copy()).convert(mode))
            expected = expected[..., None] if expected.ndim == 2 else expected
            np.testing.assert_array_equal(self.read(picture, mode).permute(1, 2, 0).numpy(), expected, err_msg=name)
            assert picture == before

    def test_16_bit_images_keep_their_brightness(self) -> None:
        assert self.read(self.pictures()["16 bits"]).float().mean() == pytest.approx(127.5, abs=1)

    def test_a_mode_with_alpha_keeps_it(self) -> None:
        pictures = self.pictures()
        assert self.read(pictures["transparent"], "RGBA")[:, 0, 0].tolist() == [255, 0, 0, 0]
        assert self.read(pictures["transparent"], None)[:, 0, 0].tolist() == [255, 0, 0, 0]
        assert self.read(pictures["transparent"])[:, 0, 0].tolist() == [255, 255, 255]

    def test_without_a_mode_channels_stay_and_indices_do_not(self) -> None:
        counts = {name: len(self.read(picture, None)) for name, picture in self.pictures().items()}
        assert counts == {
            "16 bits": 1,
            "gray": 1,
            "1 bit": 1,
            "palette": 3,
            "transparent": 4,
            "gray and alpha": 2,
            "cmyk": 4,
        }
        assert self.read(self.pictures()["1 bit"], None).unique().tolist() == [0, 255]

    def test_arrays_of_any_strides_pass_and_arrays_of_objects_are_refused(self) -> None:
        array = np.random.default_rng(0).integers(0, 255, (6, 7, 3), np.uint8)
        array.setflags(write=False)
        np.testing.assert_array_equal(self.read(array[:, ::-1, ::-1]).permute(1, 2, 0), array[:, ::-1, ::-1])
        with pytest.raises(InputTypeError, match="image: expected an array of numbers"):
            self.read(np.empty((4, 4), object))
        with pytest.raises(InputError, match=r"\ADatasetTransform: pixels of 32 bits.*; convert it before\Z"):
            self.read(PIL.Image.fromarray(np.full((4, 4), 2**20, np.int32)))


def test_a_normalized_dataset_is_refused_in_a_pipeline_too(images: Tensor) -> None:
    pipeline = v2.Compose([v2.Normalize(MEAN, STD), Geometry(augkit.Augment(K.RandomInvert(p=1.0)))])
    with pytest.raises(InputError, match="pass them before they are normalized and give Augment normalize"):
        pipeline(images)
