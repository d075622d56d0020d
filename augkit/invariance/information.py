"""Mutual information of shift, image and answer in bits, and JS at a given confidence.

With class probabilities ``P[n, s, k]`` of image n under shift s, the mutual information between (image, shift) and
answer is a sum of two parts: the information about the image, and the information about the shift given the image.
*Shift information* is the share of the second part. A constant factor on the logits (a temperature) changes both parts
alike, so a network that is merely less confident does not appear invariant.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Factors on the logits at which JS is also taken, a third of an octave apart; the middle one is 1.
FACTORS = tuple(2.0 ** (k / 3) for k in range(-12, 13))
UNCHANGED = FACTORS.index(1.0)
SMALLEST = 1e-12  # bits; a smaller number cannot be distinguished from 0 because of rounding


def entropy(p: Tensor) -> Tensor:
    """Return the Shannon entropy in bits, ``(...)``, of distributions ``(..., K)``.

    >>> entropy(torch.tensor([0.5, 0.25, 0.25])).item()
    1.5
    """
    return torch.special.entr(p).sum(-1) / torch.log(torch.tensor(2.0, dtype=p.dtype, device=p.device))


def shift_information(p: Tensor) -> Tensor:
    """Return the share of the information in answers that is about the shift and not about the image.

    It is ``E_n[H(mean_s P) - mean_s H(P)] / (H(mean_ns P) - mean_ns H(P))``, the mutual information of shift and answer
    given the image, divided by that of (image, shift) and answer. With S views drawn at random the numerator is too
    small by about one part in S, and the denominator is not; this bias cancels in a ratio of two networks on the same
    views.

    Args:
        p: probabilities ``(N, S, K)`` of N images under S shifts; float64 where they are nearly one-hot.

    Returns:
        A scalar in [0, 1]: 0 for an invariant network, 1 where answers depend on the shift only, NaN where they carry
        no information, such as for a constant network.

    >>> same = torch.tensor([[[0.9, 0.1], [0.9, 0.1]], [[0.2, 0.8], [0.2, 0.8]]], dtype=torch.float64)
    >>> round(shift_information(same).item(), 9)
    0.0
    """
    means = {"shift_bits": shift_bits(p).mean(0, keepdim=True)}
    means |= {"answer_bits": entropy(p).mean((0, 1))[None], "answer_mean": p.mean((0, 1))}
    return share_of_shift(means)


def shift_bits(p: Tensor) -> Tensor:
    """Return the information in bits that answers ``(..., S, K)`` carry about the shift of their image, ``(...)``.

    It is ``H(mean_s P) - mean_s H(P)``; for two shifts that is their Jensen-Shannon divergence.
    """
    return (entropy(p.mean(-2)) - entropy(p).mean(-1)).clamp_min(0)


def information(means: dict[str, Tensor]) -> Tensor:
    """Return the information in bits that answers carry about image and shift together, ``(...)``.

    Args:
        means: means over images and shifts: ``answer_mean`` ``(..., K)`` of the probabilities, and ``answer_bits``
            ``(..., 1)`` of their entropies.
    """
    return (entropy(means["answer_mean"]) - means["answer_bits"][..., 0]).clamp_min(0)


def share_of_shift(means: dict[str, Tensor]) -> Tensor:
    """Return `shift_information` from means over images: those of `information`, and ``shift_bits`` ``(..., 1)``."""
    whole = information(means)
    share = means["shift_bits"][..., 0] / whole.clamp_min(SMALLEST)
    return torch.where(whole > SMALLEST, share.clamp(0, 1), torch.full_like(share, torch.nan))


def matched_js(js: Tensor, bits: Tensor, target: Tensor) -> Tensor:
    """Return the JS of a network whose logits are scaled until its answers have a given mean entropy.

    Args:
        js: ``(..., F)``, mean JS with the logits times each of `FACTORS`.
        bits: ``(..., F)``, mean entropy of the answers to unshifted images at each factor; it falls as factors grow.
        target: ``(...)``, the given mean entropy.

    Returns:
        ``(...)``, interpolated between the factors: the logarithm of the factor is linear in the entropy, and the
        logarithm of JS is linear in that of the factor. NaN where no factor in [1/16, 16] gives that entropy.
    """
    inside = (target <= bits[..., 0]) & (target >= bits[..., -1])
    upper = (bits >= target[..., None]).sum(-1).clamp(1, len(FACTORS) - 1)

    def at(values: Tensor, index: Tensor) -> Tensor:
        return values.gather(-1, index[..., None]).squeeze(-1)

    left, right = at(bits, upper - 1), at(bits, upper)
    share = torch.where(left > right, (left - target) / (left - right).clamp_min(1e-300), torch.zeros_like(left))
    logs = js.clamp_min(SMALLEST).log()
    found = (at(logs, upper - 1) * (1 - share) + at(logs, upper) * share).exp()
    return torch.where(inside, found, torch.full_like(found, torch.nan))
