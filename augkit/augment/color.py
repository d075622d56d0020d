"""Kornia's ops that follow the geometry of `augkit.Augment`, and one draw of them (`Tail`).

They get images in [0, 1], after the resampling and before ``normalize``. Images are clamped, because interpolation
overshoots and color spaces end at 0 and 1. Clamping would destroy images that are already normalized, so those raise an
error.
Kornia's ops have no strength: they are applied to a sample of strength s with probability s (times their own ``p``),
so that 0 changes no bit and 1 always applies them.

All randomness is drawn first, into a `Tail`; applying it is pure, so that several images, the frames of a video and all
targets share one draw. Kornia 0.9 draws only from torch's global state and silently ignores a generator
(https://github.com/kornia/kornia/issues/4427), so the global state is seeded during the ops and then restored.
With a generator on an accelerator, reading that seed waits for the device.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from augkit.augment import geometry
from augkit.core.errors import InputError
from augkit.core.random_streams import AUGMENTATION, random_stream, seeded
from augkit.core.ranks import place_among_processes

if TYPE_CHECKING:
    from augkit.augment.base import RandomGeometry, View

Size = tuple[int, int]
Params = dict[str, Any]  # one draw of one of Kornia's ops, as returned by its `forward_parameters`

# Kornia's classes that change the size of images.
RESIZING = ("CenterCrop", "LongestMaxSize", "PadTo", "RandomCrop", "RandomResizedCrop", "Resize", "SmallestMaxSize")
_CHECKED: weakref.WeakSet[nn.Module] = weakref.WeakSet()  # ops whose first batch was in [0, 1]
_COMPARED = 64  # samples of two draws that are compared: at any usual p some are chosen
OVERSHOOT = 0.4  # how far interpolation may have left [0, 1]; MNIST, normalized, begins at -0.42


def is_color(op: Any) -> bool:
    """Whether ``op`` is one of Kornia's augmentations that keep the geometry, such as ``ColorJitter``."""
    from kornia.augmentation import IntensityAugmentationBase2D

    return isinstance(op, IntensityAugmentationBase2D)


def is_kornia(op: Any) -> bool:
    """Whether ``op`` is any of Kornia's image augmentations, including those that move pixels."""
    from kornia.augmentation import AugmentationBase2D

    return isinstance(op, AugmentationBase2D)


def has_matrix(op: Any) -> bool:
    """Whether ``op`` moves pixels by a matrix, so that targets can follow; elastic maps and lenses have none."""
    from kornia.augmentation import GeometricAugmentationBase2D

    return isinstance(op, GeometricAugmentationBase2D)


@dataclass(frozen=True)
class Recoloring:
    """One of augkit's ops that change colors too (`RandomGeometry.recolored`), with its draws ``(B, n)``."""

    op: RandomGeometry
    draws: Tensor
    strength: float | Tensor

    def apply(self, images: Tensor, view: View) -> Tensor:
        """Apply it to floating ``images`` ``(B, C, H, W)``; ``view`` is that of `RandomGeometry.recolored`."""
        strength = self.strength
        if isinstance(strength, Tensor):
            strength = strength.to(images.device, torch.float32)
        return self.op.recolored(images, self.draws.to(images.device), strength, view)


@dataclass(frozen=True)
class Tail:
    """What follows the geometry of an `Augment`, with one draw: colors of augkit's own ops, then Kornia's ops.

    Attributes:
        ops: the ops in order.
        params: the parameters of each op, as returned by its ``forward_parameters``.
        sizes: ``(H, W)`` before each op and after the last.
        coin: whether the ops are applied to each sample, ``(B,)`` bool; None for all.
        seed: seed of ops that draw while they are applied; None if no op does.
        channels: number of channels of the images for which the parameters were drawn.
        batch: number of samples.
        own: augkit's ops that change colors, which come before Kornia's and have no part in ``coin``.
    """

    ops: tuple[nn.Module, ...]
    params: tuple[Params, ...]
    sizes: tuple[Size, ...]
    coin: Tensor | None
    seed: int | None
    channels: int
    batch: int
    own: tuple[Recoloring, ...] = ()

    @property
    def moves(self) -> bool:
        """Whether any op moves pixels."""
        return not all(map(is_color, self.ops))

    def images(self, images: Tensor, view: View | None = None) -> Tensor:
        """Apply the ops to floating ``images`` ``(B, C, H, W)`` in [0, 1]; frames share a draw for one sample.

        ``view`` gives the images after further matrices; without it they stay unchanged.
        """
        seen = partial(_same, images) if view is None else view
        if self.batch == 1 < len(images):
            return torch.cat([self.images(one[None], partial(_frame, seen, k)) for k, one in enumerate(images)])
        for recoloring in self.own:
            images, seen = recoloring.apply(images, seen), partial(_recolored, recoloring, seen)
        if not self.ops:
            return images
        if images.shape[1] != self.channels:
            _check_channels(self.ops, self.channels, images.shape[1], images.device)
        colored = images.clamp(0, 1)
        alone = contextlib.nullcontext() if self.seed is None else seeded(self.seed, images.device)
        with alone, torch.autocast(images.device.type, enabled=False):
            for op, params in zip(self.ops, self.params, strict=True):
                with named(op, colored.shape):
                    colored = op(colored, params=params)
        return self.reached(colored, images)

    def matrix(self, device: torch.device) -> Tensor:
        """Return the composed matrices of the ops that have one, ``(B, 3, 3)`` from input to output pixels."""
        still = geometry.identity(self.batch, device=device)
        drawn = zip(self.ops, self.params, self.sizes, strict=False)
        matrices = [op_matrix(op, params, size, device) for op, params, size in drawn if has_matrix(op)]
        with torch.autocast(device.type, enabled=False):
            total = geometry.compose(still, *matrices)
        return self.reached(total, still)

    def reached(self, after: Tensor, before: Tensor) -> Tensor:
        """Return ``after`` for the samples that `coin` selects, and ``before`` for the others."""
        if self.coin is None:
            return after
        if after.shape != before.shape:
            raise InputError(
                f"Augment: expected Kornia's ops to keep the size at a strength below 1, got {tuple(before.shape[-2:])}"
                f" and {tuple(after.shape[-2:])}; use strength=1.0 or resize before"
            )
        return torch.where(self.coin.reshape(-1, *[1] * (after.ndim - 1)), after, before)


def _same(images: Tensor, extra: Tensor) -> Tensor:
    del extra
    return images


def _frame(view: View, number: int, extra: Tensor) -> Tensor:
    return view(extra)[number : number + 1]


def _recolored(recoloring: Recoloring, view: View, extra: Tensor) -> Tensor:
    """The images by further matrices after one more op that changes colors."""
    return recoloring.apply(view(extra), view)


def draw_tail(
    ops: Sequence[Any],
    shape: Sequence[int],
    strength: float | Tensor,
    generator: torch.Generator | None,
    device: torch.device,
    own: tuple[Recoloring, ...] = (),
) -> Tail | None:
    """Draw the parameters of ``ops`` for images of ``shape`` ``(B, C, H, W)``; strength is a number or ``(B,)``.

    Returns None where there is no op, or where the strength is the number 0, and nothing in ``own``.
    """
    batch, channels, *size = shape
    params, sizes = [], [(size[0], size[1])]
    if not ops or (not isinstance(strength, Tensor) and strength == 0):
        return Tail((), (), tuple(sizes), None, None, channels, batch, own) if own else None
    with _seeded_alone(generator, device), torch.autocast(device.type, enabled=False):
        together = all(getattr(op, "same_on_batch", False) for op in ops)
        coin = None
        if isinstance(strength, Tensor) or strength != 1:
            coin = torch.rand(1 if together else batch, device=device, dtype=torch.float32) < strength
        for op in ops:
            with named(op, (batch, channels, *sizes[-1])):
                params.append(op.forward_parameters((batch, channels, *sizes[-1])))
                sizes.append(_size_after(op, params[-1], sizes[-1]))
        seed = int(torch.randint(2**62, ())) if any(map(_draws_late, ops)) else None
    coin = None if coin is None else coin.expand(batch)
    return Tail(tuple(ops), tuple(params), tuple(sizes), coin, seed, channels, batch, own)


def op_matrix(op: Any, params: Params, size: Size, device: torch.device) -> Tensor:
    """Return the matrices ``(B, 3, 3)`` of a Kornia op with parameters ``params`` for images of ``size``."""
    batch = params["batch_prob"].shape[0]
    # Kornia reads no pixels, only the size, dtype and device of the image.
    like = torch.zeros((), device=device).to(torch.float32).expand(batch, 1, *size)
    with torch.autocast(device.type, enabled=False):  # half precision would keep three digits of coordinates
        matrix: Tensor = op.get_transformation_matrix(like, params)
    return matrix.expand(batch, 3, 3)


def check_unit_range(images: Tensor, ops: Sequence[nn.Module]) -> None:
    """Raise InputError if floating ``images`` exceed [0, 1] by more than interpolation does, as normalized images do.

    On an accelerator only the first batch of ``ops`` is checked, because the check synchronizes with the device.
    """
    if not images.is_floating_point() or not images.numel() or torch.compiler.is_compiling():
        return
    if images.device.type != "cpu" and ops[0] in _CHECKED:
        return
    low, high = torch.stack(images.detach().aminmax()).tolist()
    if low < -OVERSHOOT or high > 1 + OVERSHOOT:
        owner = "Kornia's " if type(ops[0]).__module__.startswith("kornia.") else ""
        raise InputError(
            f"Augment: {owner}{type(ops[0]).__name__} expected images in [0, 1], got values from {low:.3g} to "
            f"{high:.3g}; pass them before they are normalized and give Augment normalize=(mean, std)"
        )
    _CHECKED.add(ops[0])


def _draws_late(op: Any) -> bool:
    """Whether ``op`` may draw while it is applied, as a few of Kornia's did until 0.9 and ops of other packages may."""
    kind, late = type(op), ("RandomPlasma", "RandomDissolving", "RandomGaussianNoise")
    return kind.__name__.startswith(late) or not kind.__module__.startswith("kornia.")


def _size_after(op: Any, params: Params, size: Size) -> Size:
    if type(op).__name__ not in RESIZING:
        return size
    out = op(torch.zeros(params["batch_prob"].shape[0], 1, *size), params=params)
    return out.shape[-2], out.shape[-1]


def _check_channels(ops: Sequence[Any], drawn: int, channels: int, device: torch.device) -> None:
    """Raise InputError if parameters drawn for ``drawn`` channels do not fit ``channels``; torch would broadcast them.

    Draws for both numbers, from one seed, are compared: they differ only for noise and for channels chosen by index.
    """
    for op in filter(is_color, ops):
        both = []
        for count in (drawn, channels):
            with seeded(0, device), named(op, (_COMPARED, count, 8, 8)):
                both.append(op.forward_parameters((_COMPARED, count, 8, 8)))
        names = [name for name, value in both[0].items() if isinstance(value, Tensor) and name != "forward_input_shape"]
        if not all(name in both[1] and torch.equal(both[0][name], both[1][name]) for name in names):
            raise InputError(
                f"Augment: Kornia's {type(op).__name__} drew for images of {drawn} channels and cannot share that with "
                f"images of {channels}; give all images of a sample as many"
            )


@contextlib.contextmanager
def named(op: nn.Module, shape: Sequence[int]) -> Iterator[None]:
    """Convert errors of ``op``, which checks many arguments only when called, to one line with its name."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        name = type(op).__name__
        raise InputError(f"Augment: Kornia's {name} fails on images {tuple(shape)} ({reason})") from error


def _seeded_alone(generator: torch.Generator | None, device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Draw from ``generator``, else from torch's global state; each of several training processes draws its own."""
    rank, count = place_among_processes()
    if generator is not None:
        return seeded(int(torch.randint(2**62, (), generator=generator, device=generator.device)), device)
    if count == 1:
        return contextlib.nullcontext()
    return seeded(random_stream(int(torch.randint(2**62, ())), AUGMENTATION, 0, rank), device)
