"""Compact storage of per-image results while batches stream by, with the worst flips.

Each image needs a few bytes: the top-1 answer of every view as a small integer, one float32 per measured number, the
label, and a digest of 64 bits that identifies the image.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from augkit.core.errors import InputError
from augkit.invariance.batch_statistics import BITS, PAIR_STATISTICS, BatchStatistics
from augkit.invariance.flips import Flip
from augkit.invariance.information import FACTORS
from augkit.invariance.metrics import jaggedness, worst_case
from augkit.invariance.plan import Layout

State = dict[str, Any]  # of a measurement, as it is saved: tensors, numbers and texts in plain containers
FLIPS = 24
FIRST_STATISTICS = ("mac", "logit", "logit_max")  # of a state that names none
WHOLE_PRECISION = 256  # classes up to which mean probabilities are kept in float32; beyond, in float16


class _Done(NamedTuple):
    """Number of counted images, their flips (worst first) and K, in one value so that all three change together."""

    images: int = 0
    flips: Sequence[Flip] = ()
    classes: int = 0


class Accumulator:
    """Stores the answers to all images so far; `statistics` returns the per-image numbers at the end.

    Args:
        layout: columns and comparisons of the plan under which the images are measured.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.pair_statistics = tuple(PAIR_STATISTICS)  # those that are gathered
        # Columns ``(capacity, ...)`` by name, which grow by doubling. Small tensors kept from every batch would lie
        # between large temporary ones and fragment the memory.
        self._columns: dict[str, Tensor] = {}
        self._done = _Done()

    @property
    def images(self) -> int:
        """Number of images added so far."""
        return self._done.images

    @property
    def classes(self) -> int:
        """Number of classes K; 0 before the first batch."""
        return self._done.classes

    @property
    def flips(self) -> list[Flip]:
        """The most confident disagreements of all images so far, one per image, worst first."""
        return list(self._done.flips)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the columns of ``measures``, in order."""
        return (*self.layout.measures, *self.pair_statistics, *BITS)

    @property
    def labeled(self) -> bool:
        """Whether the images have labels."""
        return "labels" in self._columns

    def add(self, batch: BatchStatistics, displacements: Tensor, labels: Tensor | None, digests: Tensor) -> None:
        """Add the results of one batch.

        Args:
            batch: statistics of the batch, on any device.
            displacements: ``(B, S, 3)``, the displacement (x, y, factor) of each view.
            labels: class indices ``(B,)`` for every batch, or None for every batch.
            digests: ``(B,)`` int64, one `digest` per image.

        Raises:
            InputError: the logits are not finite, a label is not a class, or the batch has another number of classes
                than those before.
        """
        start = self.images
        if not bool(batch.finite):
            raise InputError(
                f"model: expected finite logits, got NaN or infinity on images from {start} on; float32 helps where"
                " a lower precision overflows"
            )
        if self.classes not in (0, batch.classes):
            raise InputError(f"model: expected {self.classes} logits as before, got {batch.classes}")
        if labels is not None and len(labels) and int(labels.max()) >= batch.classes:
            raise InputError(f"labels: the model has {batch.classes} classes, got label {int(labels.max())}")
        if start and self.labeled != (labels is not None):
            raise InputError("labels: expected for all batches or for none")
        top1 = batch.top1.cpu().to(smallest_integer(batch.classes))
        columns = {"top1": top1, "measures": batch.measures.cpu(), "digests": digests}
        columns["mean"] = batch.mean.cpu().to(torch.float32 if batch.classes <= WHOLE_PRECISION else torch.float16)
        columns["tempered"] = batch.tempered.cpu()
        if batch.log_probabilities is not None:
            columns["log_probabilities"] = batch.log_probabilities.cpu()
        if labels is not None:
            columns["labels"] = labels.cpu().to(torch.int32)
        stop = start + len(top1)
        for name, values in columns.items():
            self._room(name, values, start, stop)[start:stop] = values
        flips = self._flips(start, batch.confidence.cpu(), top1, displacements, labels)
        worst = sorted((*self._done.flips, *flips), key=lambda flip: flip.rank)[:FLIPS]
        # A single assignment, so that an interrupt leaves only whole batches.
        self._done = _Done(stop, worst, batch.classes)

    def merged(self, name: str) -> Tensor:
        """Return one column for all images so far.

        Args:
            name: ``top1`` ``(N, S)``; ``measures``, ``tempered`` or ``mean`` ``(N, F)``; ``digests`` or ``labels``
                ``(N,)``.
        """
        return self._columns[name][: self.images]

    def state(self) -> State:
        """The accumulator as tensors and numbers, for `torch.save`."""
        if not self.images:
            return {}
        columns = {name: self.merged(name).clone() for name in self._columns}
        flips = [(f.image, f.label, f.views, f.answers, f.probabilities) for f in self._done.flips]
        return {"columns": columns, "flips": flips, "classes": self.classes, "statistics": list(self.pair_statistics)}

    def restore(self, state: State) -> None:
        """Continue from a `state`. Statistics that it lacks are not gathered for later images either.

        Raises:
            InputError: the state contains a statistic that this version does not know.
        """
        gathered = tuple(state.get("statistics", FIRST_STATISTICS)) if state else tuple(PAIR_STATISTICS)
        if not set(gathered) <= set(PAIR_STATISTICS):
            raise InputError("the measurement there gathered statistics that this version does not know; start anew")
        self.pair_statistics = gathered
        self._columns = dict(state.get("columns", {}))
        flips = [Flip(*values) for values in state.get("flips", ())]
        self._done = _Done(len(state["columns"]["top1"]), flips, state["classes"]) if state else _Done()

    def _room(self, name: str, values: Tensor, start: int, stop: int) -> Tensor:
        """Return the column, enlarged to hold at least ``stop`` rows."""
        column = self._columns.get(name)
        if column is None or len(column) < stop or column.dtype != values.dtype:
            grown = values.new_empty(max(stop, 2 * start), *values.shape[1:])
            if column is not None and start:
                grown[:start] = column[:start]
            self._columns[name] = grown
        return self._columns[name]

    def statistics(self) -> dict[str, Tensor]:
        """Per-image statistics by name: numbers or bools ``(N, 1)``, and integer ``predictions`` ``(N, 2 * pairs)``."""
        layout, top1, measures = self.layout, self.merged("top1"), self.merged("measures")
        first, second = (list(columns) for columns in zip(*layout.pairs, strict=True))
        out = {"changed": (top1[:, first] != top1[:, second]).double().mean(1)}
        values = dict(zip(self.names, measures.unbind(1), strict=True))
        out |= {"js": values["pair"], **{name: values[name] for name in (*self.pair_statistics, *BITS)}}
        for name in {"from_unshifted", "blur_only", "blur_matched"} & set(layout.measures):
            ends = [(c.first, c.second) for c in layout.comparisons if c.name == name]
            changes = [(top1[:, a] != top1[:, b]).double() for a, b in ends]
            out |= {f"{name}_js": values[name], f"{name}_changed": torch.stack(changes).mean(0)}
        if layout.grid:
            out["worst"] = worst_case(top1[:, 0], top1[:, layout.grid])
        if layout.path:
            out["jagged"] = jaggedness(top1[:, layout.path])
        if self.labeled:
            hit = top1 == self.merged("labels")[:, None]
            out |= {"correct": hit[:, 0], "shifted_correct": hit[:, first + second].double().mean(1)}
            if layout.grid:
                out["grid_correct"] = hit[:, layout.grid].double().mean(1)
                out["worst_correct"] = hit[:, (0, *layout.grid)].all(1)
        columns = {name: column[:, None] for name, column in out.items()}
        js, bits = self.merged("tempered").split(len(FACTORS), dim=1)
        columns |= {"answer_mean": self.merged("mean"), "tempered_js": js, "tempered_bits": bits}
        return columns | {"predictions": top1[:, first + second]}

    @property
    def log_probabilities(self) -> Tensor | None:
        """Log probabilities ``(N, S, K)`` float16; None unless they were kept."""
        return self.merged("log_probabilities") if "log_probabilities" in self._columns else None

    def curves(self) -> dict[str, dict[float, dict[str, Tensor]]]:
        """Per curve and point ``js``, ``changed`` and, with labels, ``correct``: ``(N, 1)``, against the unshifted."""
        top1, measures = self.merged("top1"), self.merged("measures")
        names = self.layout.measures
        out: dict[str, dict[float, dict[str, Tensor]]] = {}
        for curve, points in self.layout.curves.items():
            for point, column in points.items():
                js = measures[:, names.index(f"{curve} {point}")]
                values = {"js": js, "changed": top1[:, column] != top1[:, 0]}
                if self.labeled:
                    values["correct"] = top1[:, column] == self.merged("labels")
                out.setdefault(curve, {})[point] = {name: column[:, None] for name, column in values.items()}
        return out

    def _flips(
        self, start: int, confidence: Tensor, top1: Tensor, displacements: Tensor, labels: Tensor | None
    ) -> list[Flip]:
        plain = [k for k, column in enumerate(self.layout.columns) if k and not column.blurred]
        ends = list(dict.fromkeys([*((0, k) for k in plain), *self.layout.pairs]))
        first, second = (list(columns) for columns in zip(*ends, strict=True))
        both = torch.minimum(confidence[:, first], confidence[:, second])
        both[top1[:, first] == top1[:, second]] = -1.0
        score, which = both.max(1)
        found = []
        for row in torch.argsort(score, descending=True, stable=True)[:FLIPS].tolist():
            if score[row] < 0:
                continue
            pair = ends[int(which[row])]
            views = [tuple(displacements[row, k].tolist()) for k in pair]
            answers = [int(top1[row, k]) for k in pair]
            probabilities = [float(confidence[row, k]) for k in pair]
            label = None if labels is None else int(labels[row])
            found.append(Flip(start + row, label, views, answers, probabilities))
        return found


def smallest_integer(classes: int) -> torch.dtype:
    """The smallest integer dtype that can hold the class index ``classes - 1``."""
    return next(dtype for dtype in (torch.uint8, torch.int16, torch.int32) if classes - 1 <= torch.iinfo(dtype).max)


def digest(images: Tensor) -> Tensor:
    """The first 64 bits of the SHA-256 of each image, ``(B,)`` int64; equal pixels give equal digests."""
    rows = images.cpu().contiguous()
    rows = rows.view(torch.uint8) if rows.dtype != torch.uint8 else rows
    flat = rows.reshape(len(images), -1).numpy()
    sums = [hashlib.sha256(memoryview(row)).digest()[:8] for row in flat]
    return torch.from_numpy(np.frombuffer(b"".join(sums), dtype=np.int64).copy())


def fingerprint(settings: Sequence[tuple[str, Any]], digests: Tensor) -> str:
    """Return a hexadecimal digest that is equal for equal settings and images."""
    whole = hashlib.sha256(repr(sorted(settings)).encode())
    whole.update(digests.numpy().tobytes())
    return whole.hexdigest()
