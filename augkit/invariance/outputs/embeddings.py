"""Embeddings ``(B, D)``: how far a shift moves them, and whether their neighbors and answers change.

The scale of `equivariance_error` is the distance of an embedding from the mean embedding of all images, so 1 means that
a shift moves an image as far as images lie from their mean. ``shift_variance`` is the part of the total variance that
lies between the views of an image: 0 for an invariant network, 1 where embeddings depend on the shift only. It is to
embeddings what `shift_information` is to answers. It is estimated as in an analysis of variance, without bias from the
number of views or images.

A gallery is embedded without a shift. Where the images are their own gallery, an image is never its own neighbor.
Nearness is the cosine.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from augkit.augment.resample import check_images
from augkit.core.errors import InputError, check_whole
from augkit.invariance.accumulator import State
from augkit.invariance.batch_stream import class_indices
from augkit.invariance.bootstrap import Estimate
from augkit.invariance.metrics import Metric
from augkit.invariance.outputs.base import (
    Compared,
    KindResults,
    OutputCurve,
    OutputMeasure,
    OutputSetting,
    SameShape,
    Tally,
    checked_tensor,
    tensor_in,
)
from augkit.invariance.outputs.numbers import EQUIVARIANCE_ERROR, estimates, mean_of, quantiles, ratio

QUANTILES = (0.01, 0.05, 0.25, 0.5)
NEIGHBORS = 5  # where no number is given
SHOWN = 2  # neighbors beside a view in pictures
ROWS_AT_ONCE = 1024  # embeddings compared with a gallery at once
ROUNDING = 16  # roundings of the embeddings within which all images have one embedding

ROWS = (
    EQUIVARIANCE_ERROR,
    mean_of("cosine", "cosine of two views", "cosine", "cosine between the embeddings of two views of an image",
            unit="", higher_is_better=True, low=-1.0),
    Metric("shift_variance", "shift's share of the variance",
           "part of the variance of the embeddings that lies between views of an image and not between images",
           ("within", "total"), lambda means: ratio(means, "within", "total")[..., 0].clamp_max(1)),
    mean_of("neighbour_change", "nearest neighbor changes", "nearest_changed",
            "share of pairs of views whose nearest neighbor in the gallery differs"),
    mean_of("neighbours_lost", "neighbors lost", "neighbors_lost",
            "share of the nearest neighbors of one view that are not among those of the other"),
    mean_of("knn_change", "k-NN answer changes", "knn_changed",
            "share of pairs of views whose nearest neighbors vote for different classes"),
    mean_of("knn_accuracy", "k-NN accuracy", "knn_correct",
            "share of first views whose nearest neighbors vote for the label", higher_is_better=True),
    mean_of("zero_shot_change", "zero-shot answer changes", "zero_shot_changed",
            "share of pairs of views that lie nearest to different class embeddings"),
    mean_of("zero_shot_accuracy", "zero-shot accuracy", "zero_shot_correct",
            "share of first views that lie nearest to the class embedding of their label", higher_is_better=True),
)  # fmt: skip


class EmbeddingMeasure(OutputMeasure):
    """Compares embeddings. It keeps those of all images and views, ``4 D`` bytes each, for the neighbors."""

    rows = ROWS
    score_name = "1 - cosine"

    def __init__(self, setting: OutputSetting) -> None:
        super().__init__(setting)
        self._same = SameShape()
        self._pairs: list[Compared] = []
        self._kept: dict[int, dict[int, Tensor]] = {}  # by the first image of the batch and the number of the view
        options = setting.options
        check_whole("neighbors", options.neighbors, 1)
        self._k = NEIGHBORS if options.neighbors is None else options.neighbors
        if options.gallery_labels is not None and options.gallery is None:
            raise InputError("gallery_labels: expected a gallery too, got none")
        self._gallery, self._gallery_labels = None, None
        if options.gallery is not None:
            self._gallery = self._embedded(options.gallery)
            if len(self._gallery) < self._k:
                raise InputError(self._too_few(len(self._gallery)))
            self._gallery_labels = class_indices(options.gallery_labels, len(self._gallery), "gallery_labels")
        self._classes = options.class_embeddings
        if self._classes is not None:
            self._classes = _given_embeddings(self._classes, "class_embeddings")
            if len(self._classes) < 2:
                raise InputError("class_embeddings: expected those of at least 2 classes, got 1")

    def take(self, output: Any, batch: int) -> Tensor:
        """Return the embeddings ``(B, D)``."""
        found = tensor_in(output)
        if isinstance(found, Tensor) and found.ndim == 3:
            raise InputError(
                f"model: expected embeddings (B, D), got tokens {tuple(found.shape)}; wrap it so that it gives its"
                " class token or the mean of its tokens"
            )
        return self._same.check(checked_tensor(found, batch, "embeddings (B, D)", 2))

    def add(self, first: Tensor, second: Tensor, compared: Compared) -> Tensor:
        """Compare embeddings ``(B, D)``; the score is 1 minus their cosine."""
        kept = self._kept.setdefault(compared.start, {})
        for number, embeddings in zip(compared.views, (first, second), strict=True):
            kept.setdefault(number, embeddings.cpu())
        self._pairs.append(compared)
        exact_a, exact_b = (each.double() for each in self._views_of(compared))
        for name, given in (("gallery", self._gallery), ("class_embeddings", self._classes)):
            if given is not None and given.shape[1] != exact_a.shape[1]:
                raise InputError(f"{name}: expected embeddings (N, {exact_a.shape[1]}), got {tuple(given.shape)}")
        cosine = _cosine(exact_a, exact_b)
        values = {"cosine": cosine}
        if self._classes is not None:
            values |= self._zero_shot(exact_a, exact_b, self._classes, compared.targets)
        self.tally.add(compared.start, values)
        return 1 - cosine

    def results(self) -> KindResults:
        """Return the numbers; those that need all images are computed here."""
        seed, k = self.setting.seed, self._k
        firsts, labels = self._firsts()
        gallery = firsts if self._gallery is None else self._gallery
        enough = len(gallery) - (self._gallery is None) >= k
        if not enough and self.setting.options.neighbors is not None:
            raise InputError(self._too_few(len(gallery) - 1))
        scales, late = self._scales(firsts), Tally(self.setting.pairs)
        varied = scales.vary(gallery)  # equal embeddings have no nearest one
        cosines = torch.zeros(len(firsts), self.setting.pairs, dtype=torch.float64)
        for compared in self._pairs:
            a, b = self._views_of(compared)
            cosines[compared.start : compared.start + len(a), compared.pair] = _cosine(a.double(), b.double())
            values = scales.statistics(a.double(), b.double())
            values |= _variance([each.double() for each in self._kept[compared.start].values()], scales, len(firsts))
            if enough:
                found = self._neighbors(compared, a, b, gallery, labels)
                values |= found if varied else {name: torch.full_like(each, torch.nan) for name, each in found.items()}
            late.add(compared.start, values)
        return KindResults(
            estimates(self.rows, self.tally.statistics() | late.statistics(), seed),
            {"cosine_quantiles": _quantile_curve(quantiles(cosines, QUANTILES, seed))},
            {"dimensions": firsts.shape[1], "gallery": len(gallery), "neighbors": k},
            () if enough else (f"too few images for {k} neighbors each: these numbers are left out",),
        )

    def state(self, images: int) -> State:
        """Beside the statistics, all embeddings."""
        pairs = [tuple(pair) for pair in self._pairs if pair.start < images]
        kept = {start: views for start, views in self._kept.items() if start < images}
        return super().state(images) | {"pairs": pairs, "kept": kept}

    def restore(self, state: State, images: int) -> None:
        """Continue from a `state`."""
        super().restore(state, images)
        self._pairs, self._kept = [Compared(*pair) for pair in state["pairs"]], state["kept"]

    def neighbors_of(self, output: Tensor, row: int, image: int) -> list[int]:
        """Return the nearest images of the measurement itself; none where another gallery was given."""
        if self._gallery is not None:
            return []
        firsts = self._firsts()[0]
        shown = min(SHOWN, len(firsts) - 1)
        if not shown:
            return []
        return nearest_entries(output[row : row + 1].cpu(), firsts, shown, torch.tensor([image]))[0].tolist()

    def _views_of(self, compared: Compared) -> tuple[Tensor, Tensor]:
        kept = self._kept[compared.start]
        return kept[compared.views[0]], kept[compared.views[1]]

    def _firsts(self) -> tuple[Tensor, Tensor | None]:
        """The embeddings ``(N, D)`` of the first views of the first pairs, with their labels."""
        parts = [(self._views_of(pair)[0], pair.targets) for pair in self._pairs if pair.pair == 0]
        labels = None if parts[0][1] is None else torch.cat([targets for _, targets in parts])
        return torch.cat([a for a, _ in parts]), labels

    def _scales(self, firsts: Tensor) -> _Scales:
        # Of all views, for the variance; of the first views, for the distance between images.
        means = [torch.stack(list(views.values())).double().mean(0).sum(0) for views in self._kept.values()]
        middle = torch.stack(means).sum(0) / len(firsts)
        size = float(firsts.double().square().sum(-1).mean().sqrt())
        return _Scales(firsts.double().mean(0), middle, ROUNDING * torch.finfo(firsts.dtype).eps * size)

    def _zero_shot(self, a: Tensor, b: Tensor, classes: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
        directions = F.normalize(classes.double(), dim=-1)
        first, second = ((each @ directions.T).argmax(-1) for each in (a, b))
        out = {"zero_shot_changed": first != second}
        if labels is None:
            return out
        if int(labels.max()) >= len(classes):
            raise InputError(
                f"class_embeddings: expected one for each class, got {len(classes)} and label {int(labels.max())}"
            )
        return out | {"zero_shot_correct": first == labels.cpu()}

    def _neighbors(
        self, compared: Compared, a: Tensor, b: Tensor, gallery: Tensor, own_labels: Tensor | None
    ) -> dict[str, Tensor]:
        k, is_own = self._k, self._gallery is None
        own = torch.arange(compared.start, compared.start + len(a)) if is_own else None
        labels = own_labels if is_own else self._gallery_labels
        first, second = nearest_entries(a, gallery, k, own), nearest_entries(b, gallery, k, own)
        kept = (first[:, :, None] == second[:, None, :]).any(-1)
        out = {"nearest_changed": first[:, 0] != second[:, 0], "neighbors_lost": 1 - kept.double().mean(-1)}
        if labels is not None:
            votes = [_vote(labels.cpu()[each]) for each in (first, second)]
            out["knn_changed"] = votes[0] != votes[1]
            if compared.targets is not None:
                out["knn_correct"] = votes[0] == compared.targets.cpu()
        return {name: values.double() for name, values in out.items()}

    def _embedded(self, gallery: Tensor) -> Tensor:
        if isinstance(gallery, Tensor) and gallery.ndim == 2:
            return _given_embeddings(gallery, "gallery")
        check_images(gallery, "gallery")
        assert self.setting.embed is not None
        return self.setting.embed(gallery, self.take).cpu()

    def _too_few(self, count: int) -> str:
        return (
            f"gallery: expected at least {self._k} images to find {self._k} neighbors among, got {count}; pass more"
            " images, or fewer neighbors"
        )


class _Scales(NamedTuple):
    """The mean of the first views and of all views ``(D,)``, and the distance below which embeddings are equal."""

    mean: Tensor
    middle: Tensor
    noise: float

    def vary(self, embeddings: Tensor) -> bool:
        """Whether not all embeddings ``(N, D)`` are one."""
        exact = embeddings.double()
        return bool((torch.linalg.vector_norm(exact - exact.mean(0), dim=-1) > self.noise).any())

    def statistics(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        """The statistics ``(B,)`` of two views that need these scales."""
        scale = torch.linalg.vector_norm(a - self.mean, dim=-1)
        moved, varied = torch.linalg.vector_norm(b - a, dim=-1), scale > self.noise
        return {"relative": torch.where(varied, moved / scale.clamp_min(1e-300), 0.0), "varied": varied.double()}


def _cosine(a: Tensor, b: Tensor) -> Tensor:
    return F.cosine_similarity(a, b, dim=-1, eps=1e-300)


def _variance(views: list[Tensor], scales: _Scales, images: int) -> dict[str, Tensor]:
    """Return unbiased estimates ``(B,)`` of the variance between views of an image, and of the total variance."""
    stacked, count = torch.stack(views), len(views)
    mean = stacked.mean(0)
    within = (stacked - mean).square().sum((0, -1)) / max(1, count - 1)
    apart = (mean - scales.middle).square().sum(-1) * images / max(1, images - 1)
    total = apart + within * (count - 1) / count
    return {"within": within, "total": torch.where(total > scales.noise**2, total, 0.0)}


def _quantile_curve(found: list[Estimate]) -> OutputCurve:
    return OutputCurve("quantile", "share of views with a lower cosine", QUANTILES, {"cosine": found})


def _given_embeddings(embeddings: Any, name: str) -> Tensor:
    """Embeddings ``(N, D)`` of the user on the CPU, at least in float32; ``name`` is for messages."""
    if not isinstance(embeddings, Tensor) or embeddings.ndim != 2 or embeddings.is_complex():
        form = f"{tuple(embeddings.shape)} {embeddings.dtype}" if isinstance(embeddings, Tensor) else ""
        raise InputError(f"{name}: expected a real tensor (N, D), got {form or type(embeddings).__name__}")
    found = embeddings.detach().cpu().to(torch.promote_types(embeddings.dtype, torch.float32))
    if not bool(torch.isfinite(found).all()):
        raise InputError(f"{name}: expected finite embeddings, got NaN or infinity")
    return found


def nearest_entries(embeddings: Tensor, gallery: Tensor, k: int, own: Tensor | None) -> Tensor:
    """Return the ``(B, k)`` gallery entries of the highest cosine, the lower number first where two are equal.

    ``own`` ``(B,)`` are entries that are left out.
    """
    directions = F.normalize(gallery.double(), dim=-1)

    def parts() -> Iterator[Tensor]:
        for start in range(0, len(embeddings), ROWS_AT_ONCE):
            rows = slice(start, start + ROWS_AT_ONCE)
            likeness = F.normalize(embeddings[rows].double(), dim=-1) @ directions.T
            if own is not None:
                likeness.scatter_(1, own[rows, None], -2.0)
            # Whole numbers, so that equal embeddings are equally near whatever the order of summation.
            ranks = likeness.mul_(1e9).round_().long() * len(gallery) - torch.arange(len(gallery))
            yield ranks.topk(k, -1).indices

    return torch.cat(list(parts()))


def _vote(labels: Tensor) -> Tensor:
    """Return the most frequent of the labels ``(B, k)``, the smallest where several are, ``(B,)``."""
    return labels.mode(-1).values
