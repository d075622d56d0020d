"""Fixed, stratified splits and seeded samples, computed from labels only."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor

from augkit.core.errors import check_whole
from augkit.data.images import Images

SPLIT_SEED = 20260101
NOTHING = torch.empty(0, dtype=torch.int64)
# Shares for data without splits, and for the training split of data with their own test split.
SHARES = {"validation": 0.1, "test": 0.2}


def partition(splits: Mapping[str, Images], shares: Mapping[str, float] = SHARES) -> dict[str, Images]:
    """Return ``train``, ``validation`` and ``test`` from the splits of a dataset, or from ``all`` of its images.

    An existing test split is kept. If it is missing or has hidden labels (as for ImageNet), the dataset's validation
    split is the test split, and validation is taken from training. Without training images, or without labels, all
    images are the test split.
    """
    own = dict(splits)
    if "validation" in own and "test" in own and own["test"].labels is None:
        del own["test"]
    if "train" in own and len(own) == 1:
        own = {"all": own["train"]}
    if "all" in own:
        return _cut(own["all"], shares)
    if len(own) == 3:
        return own
    test = own["test"] if "test" in own else own["validation"]
    if "train" in own:
        return {**_cut(own["train"], {"validation": shares["validation"]}), "test": test}
    nothing = test.take(NOTHING)
    return {
        "train": nothing,
        "validation": own["validation"] if "test" in own and "validation" in own else nothing,
        "test": test,
    }


def _cut(images: Images, shares: Mapping[str, float]) -> dict[str, Images]:
    if images.labels is None:
        return {"train": images.take(NOTHING), "validation": images.take(NOTHING), "test": images}
    parts = stratified(images.labels, shares)
    return {"train": images.take(parts["rest"]), **{name: images.take(parts[name]) for name in shares}}


def stratified(labels: Tensor, shares: Mapping[str, float]) -> dict[str, Tensor]:
    """Return indices per named share and for the ``rest``, in file order, with at least one per class each."""
    parts: dict[str, list[int]] = {name: [] for name in (*shares, "rest")}
    for members in _classes(labels):
        start = 0
        for name, share in shares.items():
            stop = start + max(1, round(share * len(members)))
            parts[name].extend(members[start:stop])
            start = stop
        parts["rest"].extend(members[start:])
    return {name: torch.tensor(sorted(indices), dtype=torch.int64) for name, indices in parts.items()}


def limited(train: Images, limit: int | None) -> Images:
    """Return at most ``limit`` images: the same share of every class, at least one of each if possible.

    Raises:
        InputError: the limit is not a whole number of 1 or more.
    """
    check_whole("data.limit", limit, 1)
    if limit is None or limit >= len(train):
        return train
    classes = list(_classes(torch.zeros(len(train)) if train.labels is None else train.labels))
    counts = _apportioned([len(members) for members in classes], limit)
    kept = [index for members, count in zip(classes, counts, strict=True) for index in members[:count]]
    return train.take(torch.tensor(sorted(kept), dtype=torch.int64))


def shared(labels: Tensor, share: float) -> Tensor:
    """Whether each image is in a share of the images of every class, ``(N,)`` bool; always the same images.

    >>> shared(torch.tensor([0, 0, 1, 1, 0, 0]), 0.5).sum()
    tensor(3)
    """
    out = torch.zeros(len(labels), dtype=torch.bool)
    for members in _classes(labels):
        out[members[: round(share * len(members))]] = True
    return out


def _apportioned(sizes: list[int], total: int) -> list[int]:
    """Divide ``total``, less than the sum of ``sizes``, in their proportion by the largest remainders.

    >>> _apportioned([50, 49, 1], 10), _apportioned([5, 5, 5], 2)
    ([5, 4, 1], [1, 1, 0])
    """
    exact = [total * size / sum(sizes) for size in sizes]
    counts = [max(int(total >= len(sizes)), math.floor(part)) for part in exact]
    remainders = sorted(range(len(sizes)), key=lambda k: counts[k] - exact[k])
    for k in remainders[: max(0, total - sum(counts))]:
        counts[k] += 1
    while sum(counts) > total:
        counts[counts.index(max(counts))] -= 1
    return counts


def _classes(labels: Tensor) -> Iterator[list[int]]:
    """Yield the indices of each class, in a pseudo-random order that is always the same."""
    rng = np.random.default_rng(SPLIT_SEED)
    for label in labels.unique().tolist():
        yield rng.permutation((labels == label).nonzero()[:, 0].numpy()).tolist()


def sample(images: Images, count: int, *, seed: int = 0) -> Images:
    """Return at most ``count`` images in their order, drawn by ``seed`` and stratified by label if there are labels.

    No image of a stream is decoded.

    Raises:
        InputError: the count is not a whole number of 1 or more.
    """
    check_whole("sample", count, 1)
    if count >= len(images):
        return images
    rng = np.random.default_rng(seed)
    order = torch.from_numpy(rng.permutation(len(images)))
    if images.labels is not None:
        # Ranked within its class, every class gives its best ranks first.
        labels, rank = images.labels[order], torch.empty_like(order)
        for label in labels.unique():
            members = labels == label
            rank[members] = torch.arange(int(members.sum()))
        order = order[torch.argsort(rank, stable=True)]
    return images.take(order[:count].sort().values)
