"""augkit in other people's loops: collate, torchvision, Lightning, timm, Hugging Face."""

from __future__ import annotations

import doctest
import importlib
import pickle
import warnings
from collections import namedtuple

import numpy as np
import PIL.Image
import pytest
import torch
from key_points import key_points
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset
from torchvision import tv_tensors
from torchvision.transforms import v2

import augkit
from augkit.adapters.batch import Keys
from augkit.adapters.collate import Collate
from augkit.adapters.torchvision import Geometry
from augkit.augment import targets
from augkit.augment.geometry import Axes
from augkit.core.errors import InputError, InputTypeError

SIZE = (20, 27)


def shift(**options: object) -> augkit.Augment:
    return augkit.Augment(augkit.RandomSubpixelShift(3.0), **options)  # type: ignore[arg-type]


def full() -> augkit.Augment:
    return augkit.Augment(
        augkit.RandomSubpixelShift(2.0),
        augkit.RandomSubpixelCrop((16, 18), area=(0.6, 0.9)),
        augkit.RandomHorizontalFlip(),
        padding="reflection",
    )


@pytest.mark.parametrize("name", ["albumentations", "collate", "huggingface", "lightning", "timm", "torchvision"])
def test_docstring_examples(name: str) -> None:
    if name in ("lightning", "timm"):
        pytest.importorskip(name, reason=f"needs the extra '{name}'")
    module = importlib.import_module(f"augkit.adapters.{name}")
    result = doctest.testmod(module, extraglobs={"torch": torch})
    assert result.attempted > 2
    assert result.failed == 0


class TestCollate:
    samples = tuple((torch.rand(3, *SIZE), k) for k in range(8))

    def test_a_batch_of_tuples_is_augmented(self) -> None:
        images, labels = Collate(shift())(self.samples)
        assert labels.tolist() == list(range(8))
        assert not torch.equal(images, torch.stack([s[0] for s in self.samples]))

    def test_workers_and_epochs_differ_and_a_seed_repeats(self) -> None:
        same = [(torch.linspace(0, 1, 27).expand(1, *SIZE), 0)] * 8

        def epochs(seed: int) -> list[Tensor]:
            generator = torch.Generator().manual_seed(seed)
            collate = Collate(shift(padding="border"))
            loader = DataLoader(
                same, 2, collate_fn=collate, num_workers=2, generator=generator, multiprocessing_context="fork"
            )
            return [torch.cat([images for images, _ in loader])[:, 0, 10] for _ in range(2)]

        first = epochs(0)
        assert len(torch.unique(torch.cat(first), dim=0)) == 16
        assert all(map(torch.equal, first, epochs(0)))
        assert not torch.equal(first[0], epochs(1)[0])

    def test_dicts_with_targets_and_named_tuples(self) -> None:
        rows = [{"x": torch.rand(3, *SIZE), "m": torch.ones(1, *SIZE, dtype=torch.int64), "y": 1}] * 3
        out = Collate(full(), Keys("x", masks="m"))(rows)
        assert out["x"].shape == (3, 3, 16, 18)
        assert out["m"].shape == (3, 1, 16, 18)
        assert out["y"].tolist() == [1, 1, 1]
        pair = namedtuple("pair", "image label")
        out = Collate(shift())([pair(torch.rand(3, *SIZE), 2)] * 2)
        assert type(out).__name__ == "pair"

    def test_plain_tensors_and_pickle(self) -> None:
        collate = pickle.loads(pickle.dumps(Collate(full())))
        assert collate([torch.rand(3, *SIZE)] * 2).shape == (2, 3, 16, 18)

    @pytest.mark.parametrize(
        ("keys", "error"), [(Keys("image"), InputError), (Keys(5), InputError), (Keys(1), InputError)]
    )
    def test_bad_place_is_one_line(self, keys: Keys, error: type[Exception]) -> None:
        with pytest.raises(error, match=r"\A[^\n]*expected[^\n]*\Z"):
            Collate(shift(), keys)(self.samples)


class TestTorchvision:
    def sample(self) -> dict[str, object]:
        return {
            "image": tv_tensors.Image(torch.randint(0, 256, (3, *SIZE), dtype=torch.uint8)),
            "mask": tv_tensors.Mask(torch.randint(0, 9, (2, *SIZE))),
            "boxes": tv_tensors.BoundingBoxes([[3.0, 4, 12, 15], [0, 0, 27, 20]], format="XYXY", canvas_size=SIZE),
            "points": key_points([[[3.0, 4.0]], [[12.0, 15.0]]], SIZE),
            "label": 7,
        }

    def test_all_types_of_a_sample_share_one_draw(self) -> None:
        sample, transform = self.sample(), Geometry(full())
        torch.manual_seed(1)
        out = v2.Compose([transform])(sample)
        torch.manual_seed(1)
        matrix = transform.make_params([sample["image"]])["draw"].matrix
        image = transform.augment(sample["image"].as_subclass(Tensor)[None], matrix=matrix)[0]
        assert isinstance(out["image"], tv_tensors.Image)
        assert (out["image"].as_subclass(Tensor).int() - image.int()).abs().max() <= 1
        mask = targets.move_masks(sample["mask"].as_subclass(Tensor)[None], matrix, (16, 18), "reflection")[0]
        assert isinstance(out["mask"], tv_tensors.Mask)
        assert torch.equal(out["mask"].as_subclass(Tensor), mask)
        boxes = targets.clip_boxes(targets.move_boxes(matrix, sample["boxes"].as_subclass(Tensor)[None]), (16, 18))[0]
        torch.testing.assert_close(out["boxes"].as_subclass(Tensor), boxes[0])
        points = targets.move_points(matrix, sample["points"].as_subclass(Tensor).reshape(1, 2, 2)).reshape(2, 1, 2)
        torch.testing.assert_close(out["points"].as_subclass(Tensor), points)
        assert out["boxes"].canvas_size == out["points"].canvas_size == (16, 18)
        assert out["label"] == 7

    def test_flip_is_torchvisions(self) -> None:
        ours = Geometry(augkit.Augment(augkit.RandomHorizontalFlip(p=1.0)))(self.sample_seeded())
        theirs = v2.RandomHorizontalFlip(p=1.0)(self.sample_seeded())
        for name in ("image", "mask", "boxes", "points"):
            assert torch.equal(ours[name], theirs[name]), name

    def sample_seeded(self) -> dict[str, object]:
        torch.manual_seed(0)
        return self.sample()

    @pytest.mark.parametrize("name", ["XYWH", "CXCYWH"])
    def test_box_formats_and_integers(self, name: str) -> None:
        flip = Geometry(augkit.Augment(augkit.RandomHorizontalFlip(p=1.0)))
        boxes = tv_tensors.BoundingBoxes([[6, 8, 4, 6]], format=name, canvas_size=SIZE)
        image = tv_tensors.Image(torch.rand(3, *SIZE))
        _, ours = flip(image, boxes)
        _, theirs = v2.RandomHorizontalFlip(p=1.0)(image, boxes)
        assert ours.dtype == boxes.dtype
        assert ours.format == boxes.format
        assert torch.equal(ours, theirs)

    def test_sanitize_removes_boxes_that_are_not_visible_enough(self) -> None:
        class Left(augkit.RandomSubpixelShift):
            def axes(self, draws: Tensor, strength: float | Tensor, size: tuple[int, int]) -> Axes:
                return Axes(torch.ones(1, 2), torch.tensor([[-8.0, 0.0]]))

        pipeline = v2.Compose([Geometry(augkit.Augment(Left(8.0), min_visible_area=0.5)), v2.SanitizeBoundingBoxes()])
        boxes = tv_tensors.BoundingBoxes([[0.0, 0, 10, 10], [9, 3, 20, 12]], format="XYXY", canvas_size=SIZE)
        out = pipeline({"image": tv_tensors.Image(torch.rand(3, *SIZE)), "boxes": boxes, "labels": torch.arange(2)})
        assert out["labels"].tolist() == [1]
        assert out["boxes"].tolist() == [[1, 3, 12, 12]]

    def test_video_shares_one_draw_and_a_batch_does_not(self) -> None:
        frame = torch.rand(3, *SIZE)
        video = Geometry(shift())(tv_tensors.Video(frame.expand(5, 3, *SIZE).contiguous()))
        assert isinstance(video, tv_tensors.Video)
        assert len(torch.unique(video.as_subclass(Tensor), dim=0)) == 1
        batch = Geometry(shift())(frame.expand(5, 3, *SIZE).contiguous())
        assert type(batch) is Tensor
        assert len(torch.unique(batch, dim=0)) == 5

    def test_plain_tensor_label_eval_normalize_and_pickle(self) -> None:
        transform = pickle.loads(pickle.dumps(Geometry(shift(normalize=([0.5], [0.5]), dtype=torch.float32))))
        image = torch.randint(0, 256, (1, *SIZE), dtype=torch.uint8)
        out, label = transform(image, torch.tensor(3))
        assert label == 3
        assert out.dtype == torch.float32
        still = transform.eval()(image)
        torch.testing.assert_close(still, (image / 255 - 0.5) / 0.5)
        assert not torch.equal(out, still)

    def test_a_blur_op_keeps_the_type_of_the_image(self) -> None:
        out = Geometry(augkit.Augment(augkit.RandomShiftBlur(2.0)))(tv_tensors.Image(torch.rand(3, *SIZE)))
        assert isinstance(out, tv_tensors.Image)

    @pytest.mark.parametrize(
        ("bad", "error"),
        [
            (PIL.Image.new("RGB", (8, 8)), InputTypeError),
            ((tv_tensors.Image(torch.rand(3, 8, 8)), tv_tensors.Mask(torch.ones(9, 9))), InputError),
            (
                (
                    tv_tensors.Image(torch.rand(2, 3, 8, 8)),
                    tv_tensors.BoundingBoxes([[1.0, 1, 2, 2]], format="XYXY", canvas_size=(8, 8)),
                ),
                InputError,
            ),
            ((tv_tensors.Image(torch.rand(2, 3, 8, 8)), tv_tensors.Mask(torch.ones(3, 8, 8))), InputError),
        ],
    )
    def test_bad_input_is_one_line(self, bad: object, error: type[Exception]) -> None:
        with pytest.raises(error, match=r"\AGeometry: expected[^\n]*got[^\n]*\Z"):
            Geometry(shift())(bad)

    @pytest.mark.skipif(not hasattr(tv_tensors.BoundingBoxFormat, "XYWHR"), reason="torchvision has no rotated boxes")
    def test_rotated_boxes_are_one_line(self) -> None:
        boxes = tv_tensors.BoundingBoxes([[1.0, 1, 2, 2, 30]], format="XYWHR", canvas_size=(8, 8))
        with pytest.raises(InputError, match=r"\AGeometry: expected[^\n]*got[^\n]*\Z"):
            Geometry(shift())((tv_tensors.Image(torch.rand(3, 8, 8)), boxes))


def test_lightning_augments_training_batches_only(tmp_path: object) -> None:
    lightning = pytest.importorskip("lightning", reason="needs the extra 'lightning'")
    from augkit.adapters.lightning import AugmentCallback

    seen: dict[str, list[Tensor]] = {"train": [], "val": []}

    class Model(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.head = torch.nn.Linear(4, 2)

        def training_step(self, batch: list[Tensor], index: int) -> Tensor:
            seen["train"].append(batch[0])
            return self.head(batch[0].mean((1, 2))).logsumexp(-1).mean()

        def validation_step(self, batch: list[Tensor], index: int) -> None:
            seen["val"].append(batch[0])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    images = torch.rand(4, 3, 4, 4)
    loader = DataLoader(TensorDataset(images, torch.arange(4)), batch_size=4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice on workers
        trainer = lightning.Trainer(
            max_epochs=2,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=str(tmp_path),
            callbacks=[AugmentCallback(shift())],
        )
        trainer.fit(Model(), loader, loader)
    assert all(torch.equal(batch, images) for batch in seen["val"])
    assert len(seen["train"]) == 2
    assert not any(torch.equal(batch, images) for batch in seen["train"])
    assert not torch.equal(*seen["train"])
    with pytest.raises(InputTypeError, match="lists or dicts, got tuple"):
        AugmentCallback(shift()).on_train_batch_start(None, None, (images, 0), 0)


@pytest.mark.parametrize("prefetcher", [False, True])
def test_timm_loader(prefetcher: bool) -> None:
    pytest.importorskip("timm", reason="needs the extra 'timm'")
    from timm.data import create_loader

    from augkit.adapters.timm import AugmentedLoader

    class Squares(torch.utils.data.Dataset):
        transform = None

        def __len__(self) -> int:
            return 6

        def __getitem__(self, index: int) -> tuple[object, int]:
            image = PIL.Image.fromarray(np.random.default_rng(index).integers(0, 255, (24, 24, 3), np.uint8))
            return self.transform(image), index  # type: ignore[misc]

    def build() -> object:
        return create_loader(
            Squares(),
            input_size=(3, 24, 24),
            batch_size=3,
            no_aug=True,
            num_workers=0,
            persistent_workers=False,
            use_prefetcher=prefetcher,
            device=torch.device("cpu"),
        )

    loader = AugmentedLoader(build(), shift())
    plain, augmented = list(build()), list(loader)
    assert len(loader) == len(plain) == 2
    assert loader.dataset is loader.loader.dataset
    for (a, la), (b, lb) in zip(plain, augmented, strict=True):
        assert torch.equal(la, lb)
        assert a.shape == b.shape
        assert not torch.equal(a, b)


class TestHuggingFace:
    def test_set_transform(self) -> None:
        datasets = pytest.importorskip("datasets", reason="needs the extra 'huggingface'")
        from augkit.adapters.huggingface import DatasetTransform

        rng = np.random.default_rng(0)
        images = [PIL.Image.fromarray(rng.integers(0, 255, (20 + k, 24, 3), np.uint8)) for k in range(4)]
        data = datasets.Dataset.from_dict(
            {"image": images, "label": [0, 1, 2, 3]},
            features=datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")}),
        )
        data.set_transform(DatasetTransform(augkit.Policy(crop={"min_area": 0.4}).augment((16, 16))))
        batch = next(iter(DataLoader(data, batch_size=4)))
        assert batch["pixel_values"].shape == (4, 3, 16, 16)
        assert batch["pixel_values"].dtype == torch.uint8
        assert batch["label"].tolist() == [0, 1, 2, 3]
        assert not torch.equal(data[0]["pixel_values"], data[0]["pixel_values"])

    def test_arrays_and_gray_images_pass_and_bad_columns_are_refused(self) -> None:
        from augkit.adapters.huggingface import DatasetTransform

        transform = DatasetTransform(shift(), column="x", output="x", mode=None)
        rows = {"x": [np.zeros((8, 9), np.uint8), PIL.Image.new("L", (9, 8)), torch.zeros(1, 8, 9)]}
        assert [image.shape for image in transform(rows)["x"]] == [(1, 8, 9)] * 3
        with pytest.raises(InputError, match="expected a column 'x'"):
            transform({"y": []})
        with pytest.raises(InputTypeError, match="expected a PIL image"):
            transform({"x": ["path.png"]})
