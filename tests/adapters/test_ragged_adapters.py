"""Images of different sizes in each adapter: an `augkit.Ragged`, or a list, in place of a batch."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision import tv_tensors

import augkit
from augkit import Ragged
from augkit.adapters.huggingface import DatasetTransform
from augkit.adapters.torchvision import Geometry
from augkit.core.errors import InputTypeError

PHOTOS = [torch.rand(3, 8 + k, 12 - k, generator=torch.Generator().manual_seed(k)) for k in range(4)]
LABELS = torch.tensor([0, 1, 0, 1])
AUGMENT = augkit.Augment(augkit.RandomSubpixelShift(2.0), size=(8, 8))
MEAN, STD = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.25, 0.3])


def drawn(images: Any, augment: augkit.Augment = AUGMENT) -> Tensor:
    torch.manual_seed(3)
    out: Tensor = augment(images)
    return out


@pytest.mark.parametrize("form", [Ragged.from_list, list])
@pytest.mark.parametrize("normalized", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_timm_loader(form: Any, normalized: bool, training: bool) -> None:
    pytest.importorskip("timm", reason="needs the extra 'timm'")
    from augkit.adapters.timm import AugmentedLoader

    mean, std = (values.view(3, 1, 1) for values in (MEAN, STD))
    given = form([(photo - mean) / std if normalized else photo for photo in PHOTOS])
    statistics = (MEAN.tolist(), STD.tolist()) if normalized else None
    augment = copy.deepcopy(AUGMENT).train(training)
    expected = drawn(PHOTOS, augment)
    torch.manual_seed(3)
    ((images, labels),) = AugmentedLoader([(given, LABELS)], augment, normalized=statistics)
    torch.testing.assert_close(images, (expected - mean) / std if normalized else expected, rtol=0, atol=1e-5)
    assert labels is LABELS


def test_a_hugging_face_column() -> None:
    rows = {"image": Ragged.from_list(PHOTOS), "label": [0, 1, 0, 1]}
    torch.manual_seed(3)
    ours = DatasetTransform(AUGMENT)(rows)
    torch.manual_seed(3)
    theirs = DatasetTransform(AUGMENT)({**rows, "image": PHOTOS})
    assert torch.equal(torch.stack(ours["pixel_values"]), torch.stack(theirs["pixel_values"]))


def test_torchvision_refuses_them_in_one_line() -> None:
    ragged = Ragged.from_list(PHOTOS)
    for sample in (ragged, (ragged, 0), {"image": tv_tensors.Image(PHOTOS[0]), "more": ragged}):
        with pytest.raises(InputTypeError, match=r"^Geometry: .*got a Ragged; call Augment on it$"):
            Geometry(AUGMENT)(sample)


class Batches:
    def __len__(self) -> int:
        return 1

    def __iter__(self) -> Iterator[list[Any]]:
        yield [Ragged.from_list(PHOTOS), LABELS]


@pytest.mark.parametrize("precision", ["32-true", "bf16-true", "64-true"])
def test_lightning_resamples_them_in_training_and_in_evaluation(precision: str, tmp_path: object) -> None:
    lightning = pytest.importorskip("lightning", reason="needs the extra 'lightning'")
    from augkit.adapters.lightning import AugmentCallback

    seen: dict[str, list[Tensor]] = {"train": [], "val": [], "test": [], "predict": []}

    class Model(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.head = torch.nn.Linear(192, 2)

        def training_step(self, batch: list[Any], index: int) -> Tensor:
            seen["train"].append(batch[0])
            return self.head(batch[0].flatten(1)).logsumexp(-1).mean()

        def validation_step(self, batch: list[Any], index: int) -> None:
            seen["val"].append(batch[0])

        def test_step(self, batch: list[Any], index: int) -> None:
            seen["test"].append(batch[0])

        def predict_step(self, batch: list[Any], index: int) -> None:
            seen["predict"].append(batch[0])

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    augment = copy.deepcopy(AUGMENT)
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice on workers
        trainer = lightning.Trainer(
            max_epochs=1,
            accelerator="cpu",
            precision=precision,
            enable_model_summary=False,
            default_root_dir=str(tmp_path),
            callbacks=[AugmentCallback(augment)],
            **options,
        )
        model = Model()
        trainer.fit(model, Batches(), Batches())
        trainer.test(model, Batches(), verbose=False)
        trainer.predict(model, Batches())
    dtype = {"32-true": torch.float32, "bf16-true": torch.bfloat16, "64-true": torch.float64}[precision]
    centers = copy.deepcopy(AUGMENT).eval()(PHOTOS).to(dtype)
    assert seen["train"][0].dtype == dtype
    assert seen["train"][0].shape == centers.shape
    assert not torch.allclose(seen["train"][0], centers, atol=1e-2)
    for name in ("val", "test", "predict"):
        assert all(torch.equal(batch, centers) for batch in seen[name])
    assert augment.training


def test_a_ragged_cannot_be_changed_and_is_copied_whole() -> None:
    batch = Ragged.from_list(PHOTOS)
    with pytest.raises(AttributeError, match="make another Ragged"):
        batch.values = torch.zeros(3)  # type: ignore[misc]
    with pytest.raises(AttributeError, match="make another Ragged"):
        del batch.sizes
    for other in (copy.copy(batch), copy.deepcopy(batch), pickle.loads(pickle.dumps(batch))):
        assert all(torch.equal(a, b) for a, b in zip(batch, other, strict=True))
