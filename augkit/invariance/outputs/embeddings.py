"""Embeddings ``(B, D)``: how far a shift moves them, and whether their neighbors and answers change.

The scale of `equivariance_error` is the distance of an embedding from the mean embedding of all images, so 1 means that
a shift moves an image as far as images lie from their mean. ``shift_variance`` is the part of the total variance that
lies between the views of an image: 0 for an invariant network, 1 where embeddings depend on the shift only. It is to
embeddings what `shift_information` is to answers.

A gallery is embedded without a shift. Where the images are their own gallery, an image is never its own neighbor.
Nearness is the cosine.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from augkit.augment.resample import check_images
from augkit.core.errors import InputError, check_whole
from augkit.invariance.bootstrap import Estimate
from augkit.invariance.outputs.base import (
    Compared,
    KindResults,
    OutputCurve,
    OutputMeasure,
    OutputSetting,
    SameShape,
    checked_tensor,
    tensor_in,
)
from augkit.invariance.outputs.numbers import EQUIVARIANCE_ERROR, estimates, mean_of, quantiles, ratio_of

QUANTILES = (0.01, 0.05, 0.25, 0.5)
NEIGHBORS = 5  # where no number is given
ROWS_AT_ONCE = 1024  # embeddings compared with a gallery at once
ROUNDING = 16  # roundings of the embeddings within which all images have one embedding

ROWS = (
    EQUIVARIANCE_ERROR,
    mean_of("cosine", "cosine of two views", "cosine", "cosine between the embeddings of two views of an image",
            unit="", higher_is_better=True, low=-1.0),
    ratio_of("shift_variance", "shift's share of the variance", ("between_views", "total"),
             "part of the variance of the embeddings that lies between views of an image and not between images"),
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

    def __init__(self, setting: OutputSetting) -> None:
        super().__init__(setting)
        self._same = SameShape()
        self._kept: list[tuple[Compared, Tensor, Tensor]] = []
        options = setting.options
        check_whole("neighbors", options.neighbors, 1)
        self._k = NEIGHBORS if options.neighbors is None else options.neighbors
        if options.gallery_labels is not None and options.gallery is None:
            raise InputError("gallery_labels: expected a gallery too, got none")
        self._gallery = None if options.gallery is None else self._embedded(options.gallery)
        if self._gallery is not None:
            self._check_gallery(self._gallery, options.gallery_labels)

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
        a, b = first.cpu(), second.cpu()
        exact_a, exact_b = a.double(), b.double()
        cosine = F.cosine_similarity(exact_a, exact_b, dim=-1, eps=1e-300)
        values = {"cosine": cosine, "between_views": (exact_a - exact_b).square().sum(-1) / 4}
        classes = self.setting.options.class_embeddings
        if classes is not None:
            values |= self._zero_shot(exact_a, exact_b, classes, compared.targets)
        self.tally.add(compared.start, values)
        self._kept.append((compared, a, b))
        return 1 - cosine

    def results(self) -> KindResults:
        """Return the numbers; those of the neighbors are computed here, when the gallery is complete."""
        seed, statistics = self.setting.seed, self.tally.statistics()
        firsts, labels = self._firsts()
        mean = firsts.double().mean(0)
        # Of all views, for the variance; in float64 the differences of large sums are exact enough.
        sums = [(a.double().sum(0) + b.double().sum(0)) / 2 for _, a, b in self._kept]
        middle = torch.stack(sums).sum(0) / (len(firsts) * self.setting.pairs)
        self_gallery = self._gallery is None
        gallery = firsts if self._gallery is None else self._gallery
        gallery_labels = labels if self_gallery else self.setting.options.gallery_labels
        found_neighbors = len(gallery) - self_gallery >= self._k
        if not found_neighbors and self.setting.options.neighbors is not None:
            raise InputError(self._too_few(len(gallery) - self_gallery))
        late = type(self.tally)(self.setting.pairs)
        cosines = torch.zeros(len(firsts), self.setting.pairs, dtype=torch.float64)
        noise = ROUNDING * torch.finfo(firsts.dtype).eps * float(firsts.double().square().sum(-1).mean().sqrt())
        alive = bool((torch.linalg.vector_norm(gallery.double() - gallery.double().mean(0), dim=-1) > noise).any())
        for compared, a, b in self._kept:
            rows = slice(compared.start, compared.start + len(a))
            exact_a, exact_b = a.double(), b.double()
            cosines[rows, compared.pair] = F.cosine_similarity(exact_a, exact_b, dim=-1, eps=1e-300)
            scale = torch.linalg.vector_norm(exact_a - mean, dim=-1)
            varied = scale > noise
            moved = torch.linalg.vector_norm(exact_b - exact_a, dim=-1)
            values = {"relative": torch.where(varied, moved / scale.clamp_min(1e-300), 0.0), "varied": varied.double()}
            between = (exact_a - exact_b).square().sum(-1) / 4
            spread = ((exact_a + exact_b) / 2 - middle).square().sum(-1) + between
            values["total"] = torch.where(spread > noise**2, spread, 0.0)
            if found_neighbors:
                near = self._neighbors(compared, a, b, gallery, gallery_labels, self_gallery)
                # Equal embeddings have no nearest one.
                values |= {
                    name: each.double() if alive else torch.full(each.shape, torch.nan) for name, each in near.items()
                }
            late.add(compared.start, values)
        numbers = estimates(self.rows, statistics | late.statistics(), seed)
        found = {name: numbers[name] for name in (row.name for row in self.rows) if name in numbers}
        return KindResults(
            found,
            {"cosine_quantiles": _quantile_curve(quantiles(cosines, QUANTILES, seed))},
            {"dimensions": firsts.shape[1], "gallery": len(gallery), "neighbors": self._k},
            () if found_neighbors else (f"too few images for {self._k} neighbors each, which are left out",),
        )

    def nearest(self, embedding: Tensor, without: int | None = None) -> Tensor:
        """Return the numbers of the nearest neighbors ``(k,)`` of one embedding ``(D,)``, for pictures."""
        gallery = self._firsts()[0] if self._gallery is None else self._gallery
        exclude = None if without is None or self._gallery is not None else torch.tensor([without])
        return _nearest(embedding[None].cpu(), gallery, self._k, exclude)[0]

    def _firsts(self) -> tuple[Tensor, Tensor | None]:
        """The embeddings ``(N, D)`` of the first views of the first pairs, with their labels."""
        parts = [(a, compared.targets) for compared, a, _ in self._kept if compared.pair == 0]
        labels = None if parts[0][1] is None else torch.cat([targets for _, targets in parts])
        return torch.cat([a for a, _ in parts]), labels

    def _zero_shot(self, a: Tensor, b: Tensor, classes: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
        if classes.ndim != 2 or classes.shape[1] != a.shape[1] or len(classes) < 2:
            raise InputError(f"class_embeddings: expected (K, {a.shape[1]}), K at least 2, got {tuple(classes.shape)}")
        directions = F.normalize(classes.cpu().double(), dim=-1)
        first, second = ((each @ directions.T).argmax(-1) for each in (a, b))
        out = {"zero_shot_changed": first != second}
        return out if labels is None else out | {"zero_shot_correct": first == labels.cpu()}

    def _neighbors(
        self, compared: Compared, a: Tensor, b: Tensor, gallery: Tensor, labels: Tensor | None, self_gallery: bool
    ) -> dict[str, Tensor]:
        k = self._k
        own = torch.arange(compared.start, compared.start + len(a)) if self_gallery else None
        first, second = _nearest(a, gallery, k, own), _nearest(b, gallery, k, own)
        kept = (first[:, :, None] == second[:, None, :]).any(-1)
        out = {"nearest_changed": first[:, 0] != second[:, 0], "neighbors_lost": 1 - kept.double().mean(-1)}
        if labels is not None:
            votes = [_vote(labels.cpu()[each]) for each in (first, second)]
            out["knn_changed"] = votes[0] != votes[1]
            if compared.targets is not None:
                out["knn_correct"] = votes[0] == compared.targets.cpu()
        return out

    def _embedded(self, gallery: Tensor) -> Tensor:
        if isinstance(gallery, Tensor) and gallery.ndim == 2:
            return gallery.detach().cpu().to(torch.promote_types(gallery.dtype, torch.float32))
        check_images(gallery, "gallery")
        assert self.setting.embed is not None
        return self.setting.embed(gallery, self.take).cpu()

    def _check_gallery(self, gallery: Tensor, labels: Tensor | None) -> None:
        if len(gallery) < self._k:
            raise InputError(self._too_few(len(gallery)))
        if labels is not None and labels.shape != (len(gallery),):
            raise InputError(f"gallery_labels: expected ({len(gallery)},), got {tuple(labels.shape)}")

    def _too_few(self, count: int) -> str:
        return (
            f"gallery: expected at least {self._k} images to find {self._k} neighbors among, got {count}; pass more"
            " images, or fewer neighbors"
        )


def _quantile_curve(found: list[Estimate]) -> OutputCurve:
    return OutputCurve("quantile", "share of views with a lower cosine", QUANTILES, {"cosine": found})


def _nearest(embeddings: Tensor, gallery: Tensor, k: int, own: Tensor | None) -> Tensor:
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
