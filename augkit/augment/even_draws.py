"""Draws that are spread evenly over the epochs of one image, in place of independent draws.

Ten random draws in [0, 1) leave on average more than a third of ten equal parts of the range empty. Here the draws of
an image, epoch by epoch, are a scrambled low-discrepancy sequence: of 2^k epochs in a row that begin at a multiple of
2^k, exactly one falls into each of 2^k equal parts. For a coin with p = 1/2 that is alternating flip (Jordan 2024,
https://arxiv.org/abs/2404.00498), in random order.

The sequence is made of Sobol's first two dimensions (1967) with Owen's nested uniform scrambling (Owen 1995): each draw
by itself is uniform, the strata are kept, and the error of a mean over epochs falls faster than that of random draws.
Moving one fixed sequence by a random offset per image (Cranley and Patterson 1976) would be cheaper, but all images
would then move by the same steps from epoch to epoch. Higher dimensions of Sobol are uneven in pairs for as few points
as there are epochs, so they are not used: each op's coin, and each pair of its parameters, is a sequence of its own,
whose order is shuffled by the same kind of permutation. This keeps the strata and makes the sequences independent
(Kollig and Keller 2002; Burley 2020, https://jcgt.org/published/0009/04/01/). Permutations are hashes of the seed, the
image and the column, so nothing has to be saved, and neither the order of images nor the number of processes matters.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from augkit.core.errors import InputError, InputTypeError, check_whole

LEVELS = 12  # bits of a draw that are spread evenly: 4,096 epochs, after which a new sequence begins
BITS = 24  # of a draw: as many as float32 has below 1; the others are random
_LEVEL = np.arange(LEVELS, dtype=np.uint32)
_ORDER, _VALUE, _REST = 1, 2, 3  # what a hash is for


def _directions() -> np.ndarray:
    """Sobol's first two dimensions, ``(2, LEVELS)``: what bit i of a point's number changes in the point."""
    first = [1 << (LEVELS - 1 - i) for i in range(LEVELS)]
    second = [1 << (LEVELS - 1)]
    for _ in range(LEVELS - 1):
        second.append(second[-1] ^ (second[-1] >> 1))
    return np.array([first, second], dtype=np.uint32)


_DIRECTIONS = _directions()


def even_draws(counts: Sequence[int], numbers: Tensor, epoch: int, seed: int = 0) -> Tensor:
    """Draws of ``epoch`` for images, spread evenly over the epochs of each.

    Args:
        counts: draws of each op, ``[op.draws for op in augment.geometry]``: a coin, then its parameters.
        numbers: ``(B,)`` integers that name the images.
        epoch: 0, 1, 2, ...; every image takes one draw in each.
        seed: of the run.

    Returns:
        ``(B, sum(counts))`` float32 in [0, 1), on the CPU, for ``Augment(...)(images, draws=...)``.

    Raises:
        InputError, InputTypeError: an epoch or a seed below 0, numbers that are no integers ``(B,)``.

    >>> draws = torch.stack([even_draws([3], torch.tensor([7]), epoch) for epoch in range(4)])
    >>> (4 * draws[:, 0]).long().sort(dim=0).values.tolist()
    [[0, 0, 0], [1, 1, 1], [2, 2, 2], [3, 3, 3]]
    """
    for name, value in (("epoch", epoch), ("seed", seed)):
        check_whole(name, value, 0)
    if not isinstance(numbers, Tensor):
        raise InputTypeError(f"numbers: expected an integer tensor (B,), got {type(numbers).__name__}")
    if numbers.ndim != 1 or numbers.is_floating_point():
        raise InputError(f"numbers: expected integers (B,), got {numbers.dtype} {tuple(numbers.shape)}")
    sequence, axis = _sequences(counts)
    column = np.arange(len(axis), dtype=np.uint64)
    cycle, place = divmod(int(epoch), 2**LEVELS)
    image = _mixed(_mixed(_mixed(seed) + np.uint64(cycle)) + numbers.cpu().numpy().astype(np.uint64))[:, None]
    order = _permuted(np.full((1, 1), place, dtype=np.uint32), _key(image, np.unique(sequence), _ORDER))
    bits = (order[:, sequence, None] >> _LEVEL) & np.uint32(1)
    points = np.bitwise_xor.reduce(bits * _DIRECTIONS[axis], axis=-1)
    points = _permuted(points, _key(image, column, _VALUE))
    rest = _mixed(_key(image, column, _REST) + np.uint64(place)) >> np.uint64(64 - BITS + LEVELS)
    words = (points << np.uint32(BITS - LEVELS)) | rest.astype(np.uint32)
    return torch.from_numpy(words.astype(np.float32) * np.float32(2.0**-BITS))


def _sequences(counts: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """The sequence of each column, and its dimension there: a coin alone, parameters in pairs."""
    sequence, axis, first = [], [], 0
    for count in counts:
        sequence += [first + (column + 1) // 2 for column in range(count)]
        axis += [(column + 1) % 2 if column else 0 for column in range(count)]
        first += 1 + count // 2
    return np.array(sequence, dtype=np.int64), np.array(axis, dtype=np.int64)


def _permuted(words: np.ndarray, key: np.ndarray) -> np.ndarray:
    """Owen's nested permutation of ``LEVELS``-bit words: a hash of the higher bits decides on flipping each bit."""
    # With a 1 in front of the bits above, so that levels differ.
    above = (words[..., None] >> (np.uint32(LEVELS) - _LEVEL)) | (np.uint32(1) << _LEVEL)
    flips = _coins((key >> np.uint64(32)).astype(np.uint32)[..., None], above)
    return words ^ np.bitwise_or.reduce(flips << (np.uint32(LEVELS - 1) - _LEVEL), axis=-1)


def _coins(key: np.ndarray, words: np.ndarray) -> np.ndarray:
    """A random bit for each key and word: the last of a hash of 32 bits (the finalizer of MurmurHash3)."""
    mixed = key ^ (words * np.uint32(0x9E3779B1))
    mixed = (mixed ^ (mixed >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    mixed = (mixed ^ (mixed >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return mixed >> np.uint32(31)


def _key(image: np.ndarray, numbers: np.ndarray, purpose: int) -> np.ndarray:
    """A key of 64 bits for each image ``(B, 1)`` and number ``(n,)``, ``(B, n)``."""
    return _mixed(image + numbers.astype(np.uint64) * np.uint64(4) + np.uint64(purpose))


def _mixed(words: np.ndarray | int) -> np.ndarray:
    """A hash of 64-bit words: a step of SplitMix64 (Steele et al. 2014)."""
    mixed = np.atleast_1d(np.asarray(words, dtype=np.uint64)) + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))
