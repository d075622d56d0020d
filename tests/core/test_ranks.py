"""Who shares a draw: no two ranks of one training, no two workers, no two epochs; the same seed repeats."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import albumentations
import kornia.augmentation as K
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision import tv_tensors

import augkit
from augkit.adapters.collate import Collate
from augkit.adapters.huggingface import DatasetTransform
from augkit.adapters.timm import AugmentedLoader
from augkit.adapters.torchvision import Geometry
from augkit.augment.albumentations_twin import PolicyTransform
from augkit.core.ranks import draws_of_rank, place_among_processes

IMAGES = torch.linspace(0, 1, 24).expand(8, 3, 6, 24).contiguous()
POLICY: dict[str, Any] = {"shift": {"max_pixels": 4.0}, "padding": "border"}
INVERT = {"op": "RandomInvert", "p": 0.5}
NOISE = {"op": "RandomGaussianNoise", "p": 1.0}
GAUSS = {"op": "GaussNoise", "p": 1.0}


def shift(*ops: nn.Module) -> augkit.Augment:
    return augkit.Augment(augkit.RandomSubpixelShift(4.0), *ops, padding="border")


def images_of(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array).permute(2, 0, 1)


def loaded(collate: Any) -> Tensor:
    samples = [(image, 0) for image in IMAGES]
    loader = DataLoader(samples, 2, collate_fn=collate, num_workers=2, multiprocessing_context="fork")
    return torch.cat([images for _ in range(2) for images, _ in loader])


def worked(pipeline: Any) -> Tensor:
    """What the workers of a loader give in two epochs."""
    array = IMAGES[0].permute(1, 2, 0).numpy()

    def collate(samples: list[Any]) -> tuple[Tensor, int]:
        return torch.stack([images_of(pipeline(image=array)["image"]) for _ in samples]), 0

    return loaded(collate)


def alone(pipeline: Any) -> Tensor:
    array = IMAGES[0].permute(1, 2, 0).numpy()
    return torch.stack([images_of(pipeline(image=array)["image"]) for _ in range(8)])


def still(**fields: Any) -> Any:
    return augkit.Policy(**fields).albumentations(seed=3)


def twin(**fields: Any) -> Any:
    return augkit.Policy(**POLICY, **fields).albumentations(seed=3)


DOORS: dict[str, Callable[[], Tensor]] = {
    "loop": lambda: shift()(IMAGES),
    "one op": lambda: augkit.RandomSubpixelShift(4.0)(IMAGES),
    "Kornia's noise": lambda: augkit.Augment(K.RandomGaussianNoise(0.0, 0.1, p=1.0))(IMAGES),
    "Kornia's rotation": lambda: augkit.Augment(K.RandomRotation(30.0, p=1.0))(IMAGES),
    "Kornia's plasma": lambda: augkit.Augment(K.RandomPlasmaContrast(p=1.0))(IMAGES),
    "strength": lambda: augkit.Augment(K.RandomInvert(p=1.0))(IMAGES.repeat(4, 1, 1, 1), strength=0.5),
    "collate": lambda: loaded(Collate(shift(K.RandomGaussianNoise(0.0, 0.1, p=1.0)))),
    "timm": lambda: next(iter(AugmentedLoader([(IMAGES, 0)], shift())))[0],
    "torchvision": lambda: Geometry(shift())(IMAGES),
    "torchvision video": lambda: Geometry(shift(K.ColorJiggle(0.4, p=1.0)))(tv_tensors.Video(IMAGES)).as_subclass(
        Tensor
    ),
    "hugging face": lambda: torch.stack(DatasetTransform(shift())({"image": list(IMAGES)})["pixel_values"]),
    "twin": lambda: alone(twin(worker_ops=[GAUSS])),
    "twin in workers": lambda: worked(twin(ops=[INVERT])),
    "twin in a pipeline": lambda: alone(albumentations.Compose([PolicyTransform(POLICY)], seed=3)),
    "kornia in a pipeline": lambda: alone(albumentations.Compose([PolicyTransform({"ops": [NOISE]})], seed=3)),
    "albumentations before a twin": lambda: alone(still(worker_ops=[GAUSS])),
    "albumentations in workers": lambda: worked(still(worker_ops=[GAUSS])),
}


def be(rank: int, monkeypatch: pytest.MonkeyPatch, count: int = 3) -> None:
    monkeypatch.setenv("RANK", str(rank))
    monkeypatch.setenv("WORLD_SIZE", str(count))


@pytest.mark.integration
@pytest.mark.parametrize("door", DOORS)
def test_ranks_that_were_seeded_alike_draw_apart_and_a_seed_repeats(door: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found, states = [], []
    for rank in (0, 1, 1):
        be(rank, monkeypatch)
        torch.manual_seed(7)
        found.append(DOORS[door]())
        states.append(torch.get_rng_state())
    assert torch.equal(found[1], found[2])
    assert not torch.equal(found[0], found[1])
    assert torch.equal(states[0], states[1])  # so that what ranks do together stays together
    if "in workers" in door or door == "collate":
        assert len(torch.unique(torch.cat(found[:2]), dim=0)) == 2 * len(found[0])


def test_a_generator_is_taken_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for rank in (0, 1):
        be(rank, monkeypatch)
        augment = shift(K.RandomGaussianNoise(0.0, 0.1, p=1.0))
        found.append(augment(IMAGES, generator=torch.Generator().manual_seed(3)))
    assert torch.equal(*found)


def test_one_process_draws_what_rank_0_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    plain = shift()(IMAGES)
    for rank, count in ((0, 3), (5, 1)):
        be(rank, monkeypatch, count)
        torch.manual_seed(1)
        assert torch.equal(shift()(IMAGES), plain)


def test_each_rank_permutes_the_numbers_of_float32() -> None:
    numbers = torch.arange(0, 2**24, 7, dtype=torch.float32) * 2.0**-24
    there = torch.zeros(2**24, dtype=torch.bool)
    there[(draws_of_rank(numbers, 5) * 2**24).long()] = True
    assert there.sum() == len(numbers)
    assert draws_of_rank(numbers, 0) is numbers


def test_ranks_are_independent() -> None:
    draws = torch.rand(100_000)
    ranks = torch.stack([draws_of_rank(draws, rank) for rank in range(9)])
    assert (torch.corrcoef(ranks) - torch.eye(9)).abs().max() < 0.015
    for k in range(1, 9):
        for other in range(k):
            counts = (torch.remainder(ranks[k] - ranks[other], 1) * 20).long().bincount(minlength=20)
            assert (counts - 5000).abs().max() < 350  # 5 standard deviations


@pytest.mark.parametrize(
    ("environment", "place"),
    [
        ({}, (0, 1)),
        ({"RANK": "3", "WORLD_SIZE": "8"}, (3, 8)),
        ({"NODE_RANK": "1", "LOCAL_RANK": "2", "WORLD_SIZE": "8"}, (1026, 8)),
        ({"RANK": "gold", "WORLD_SIZE": "many"}, (0, 1)),
    ],
)
def test_place_in_the_environment(
    environment: dict[str, str], place: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert place_among_processes() == place


def test_draws_are_float32_whatever_the_default_dtype_is() -> None:
    torch.manual_seed(0)
    expected = shift().sample(4, (8, 8))
    torch.set_default_dtype(torch.bfloat16)  # as Lightning does around the training step
    try:
        torch.manual_seed(0)
        found = shift().sample(4, (8, 8))
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(found, expected)


@pytest.mark.slow
@pytest.mark.cluster
def test_lightning_ranks_draw_apart(tmp_path: Path) -> None:
    """In a process of its own, because threads of autograd and OpenMP from earlier tests do not survive a fork."""
    pytest.importorskip("lightning", reason="needs the extra 'lightning'")
    code = "import sys, pathlib, test_ranks; test_ranks.draw_in_lightning(pathlib.Path(sys.argv[1]))"
    paths = os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def draw_in_lightning(tmp_path: Path) -> None:
    """Train on two ranks and compare what they drew."""
    import lightning

    torch.set_num_threads(1)
    from augkit.adapters.lightning import AugmentCallback

    class Model(lightning.LightningModule):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.net, self.name = nn.Sequential(nn.Flatten(), nn.Linear(3 * 6 * 24, 2)), name

        def training_step(self, batch: list[Tensor], index: int) -> Tensor:
            np.save(tmp_path / f"{self.name}-{self.global_rank}-{self.current_epoch}-{index}.npy", batch[0].numpy())
            return self.net(batch[0]).logsumexp(-1).mean()

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.1)

    def trained(name: str, seed: int, **options: Any) -> list[np.ndarray]:
        lightning.seed_everything(seed, verbose=False)
        quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        trainer = lightning.Trainer(
            max_epochs=2, accelerator="cpu", devices=2, strategy="ddp_fork", enable_model_summary=False, **quiet,
            callbacks=options.pop("callbacks", []),
        )  # fmt: skip
        trainer.fit(Model(name), DataLoader(TensorDataset(IMAGES, torch.arange(8)), 2, **options))
        names = [f"{name}-{rank}-{epoch}-{k}.npy" for rank in (0, 1) for epoch in (0, 1) for k in (0, 1)]
        return [np.load(tmp_path / file) for file in names]

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        callback = {"callbacks": [AugmentCallback(shift(K.RandomGaussianNoise(0.0, 0.1, p=1.0)))]}
        found, again = (trained(name, 42, **callback) for name in ("first", "again"))
        other = trained("other", 43, **callback)
        workers = {"collate_fn": Collate(shift()), "num_workers": 1, "multiprocessing_context": "fork"}
        collated = trained("collated", 42, **workers)
    for batches in (found, collated):
        assert len(np.unique(np.concatenate(batches), axis=0)) == 16
    assert all(map(np.array_equal, found, again))
    assert not any(map(np.array_equal, found, other))
