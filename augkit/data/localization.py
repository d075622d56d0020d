"""A localization task from the images of any dataset."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from augkit.core.errors import InputError
from augkit.core.random_streams import stream
from augkit.data import Dataset, Images, Stream, sample
from augkit.data.images import Canvas

CELL = 5  # purpose of this stream of random numbers; `augkit.invariance.probes` uses 0 to 4


def locate(dataset: Dataset, *, canvas: int = 64, cells: int = 4, seed: int = 0) -> Dataset:
    """Return a localization task: each image is placed on a canvas and labeled with the cell of its position.

    The range of positions of an image's center on the canvas is divided into ``cells`` by ``cells``; the label is the
    cell, row by row. Within each split, and as nearly as possible within each class of the source, all cells are used
    equally often and all positions within a cell are equally likely, so the content of an image carries no information
    about its position. Splits are those of the source. Train on the task without shifts, crops and flips, which would
    invalidate the labels, and with a recipe whose ``data.canvas`` is None or ``canvas``.

    Args:
        dataset: source of the splits; its test split is opened when that of the task is.
        canvas: side of the canvas in pixels.
        cells: number of cells along each axis.
        seed: seed of cells and positions.

    Raises:
        InputError: the canvas has fewer positions along an axis than cells.

    >>> from augkit import load_dataset
    >>> task = locate(load_dataset("digits"), canvas=16)
    >>> task.train.images.shape[1:], len(task.classes), task.classes[5]
    (torch.Size([1, 16, 16]), 16, 'row 1 column 1')
    """
    height, width = dataset.shape[1:]
    if cells < 1 or canvas - max(height, width) + 1 < cells:
        raise InputError(
            f"locate: expected at least 1 cell and a canvas of {max(height, width) + cells - 1} pixels or more for"
            f" {cells} cells, got {canvas}"
        )
    return _Located(dataset, canvas, cells, seed)


class _Located(Dataset):
    """The dataset of `locate`; a split is placed when it is first used."""

    def __init__(self, source: Dataset, canvas: int, cells: int, seed: int) -> None:
        self.name = f"{source.name} located"
        self.classes = [f"row {row} column {column}" for row in range(cells) for column in range(cells)]
        self.skipped = source.skipped
        self._source, self._how = source, (canvas, cells)
        self._seed, self._placed = seed, dict[str, Images]()

    @property
    def shape(self) -> tuple[int, int, int]:
        return (self._source.shape[0], self._how[0], self._how[0])

    @property
    def listed_train(self) -> Images:
        return self.train

    @property
    def train(self) -> Images:
        return self._once("train", 0, lambda: self._source.train)

    @property
    def validation(self) -> Images:
        return self._once("validation", 1, lambda: self._source.validation)

    def whole_train(self, shorter: int) -> None:
        """Return None, since placed images have a fixed size."""

    def open_test(self, limit: int | None = None, *, seed: int = 0) -> Images:
        test = self._once("test", 2, self._source.open_test)
        return test if limit is None else sample(test, limit, seed=seed)

    def _once(self, name: str, number: int, images: Callable[[], Images]) -> Images:
        if name not in self._placed:
            self._placed[name] = _place(images(), *self._how, stream(self._seed, CELL, number))
        return self._placed[name]


@dataclass(frozen=True)
class _Placed(Canvas):
    """The step that puts each image at its own place on a canvas: a row ``(y, x)``, pixels from the center."""

    moves: Tensor = field(default_factory=lambda: torch.zeros(0, 2, dtype=torch.int64), compare=False)

    @property
    def _places_differ(self) -> bool:
        return True

    def _move(self, number: int) -> tuple[int, int]:
        y, x = self.moves[number].tolist()
        return x, y


def _place(images: Images, canvas: int, cells: int, rng: np.random.Generator) -> Images:
    count = len(images)
    chance = rng.random(count)
    classes = np.zeros(count) if images.labels is None else images.labels.numpy()
    cell = np.empty(count, dtype=np.int64)
    # Images of each class, in random order, are dealt to the cells, which are in random order too.
    cell[np.lexsort((chance, classes))] = rng.permutation(cells**2)[np.arange(count) % cells**2]
    moves = []
    for side, index in zip(images.shape[1:], np.divmod(cell, cells), strict=True):
        places = canvas - side + 1
        start, stop = (-(-(index + k) * places // cells) for k in (0, 1))
        moves.append(rng.integers(start, stop) - (canvas - side) // 2)
    drawn = torch.from_numpy(np.stack(moves, axis=1))
    numbers = images.indices if isinstance(images, Stream) else torch.arange(count)
    table = torch.zeros(int(numbers.max()) + 1 if count else 0, 2, dtype=torch.int64)
    table[numbers] = drawn
    # No place is farther from the center than the canvas has room.
    room = (canvas - max(images.shape[1:])) // 2
    step = _Placed(canvas, images.background, room, table)
    placed = images.then(step) if isinstance(images, Stream) else images
    return replace(placed, images=step(images.images, numbers), labels=torch.from_numpy(cell))
