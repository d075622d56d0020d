"""Published protocols as frozen plans: the settings of each, and its known differences from the published code.

All presets draw displacements per image from the seed. The published codes draw once per batch, so that their results
depend on the batch size. Shifts are in pixels of the network's input.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from types import MappingProxyType

from augkit.invariance.plan import Pairs, Plan, line_path


@dataclass(frozen=True)
class LieSettings:
    """The Lie derivatives of a preset (Gruver et al. 2023).

    Attributes:
        directions: one-parameter groups: ``x``, ``y`` (per pixel), ``scale`` (per unit of log factor) and
            ``rotation`` (per radian).
        output: ``logits`` (mean squared norm over K) or ``probabilities`` (mean absolute value, as the published
            code).
    """

    directions: tuple[str, ...] = ("x", "y", "scale", "rotation")
    output: str = "probabilities"


@dataclass(frozen=True)
class Preset:
    """A published method of measurement.

    Attributes:
        source: authors, year, title and URL.
        protocol, kernel, background: see `augkit.invariance.protocols.make_protocol`.
        plan: the displacements of every image.
        fixes: a description of the settings that are as published.
        differs: a description of those that are not.
        lie: the Lie derivatives of the preset; None where it has none.
    """

    source: str
    protocol: str
    kernel: str
    plan: Plan
    fixes: str
    differs: str
    background: float | str = 0.0
    lie: LieSettings | None = None

    def to_dict(self) -> dict[str, object]:
        """Source and descriptions for JSON; the settings of the report contain the rest."""
        return {"source": self.source, "fixes": self.fixes, "differs": self.differs}


def _between_pixels(*denominators: int) -> tuple[tuple[float, float], ...]:
    """Return all places (i / d, j / d) with 0 < i, j < d, for each denominator d."""
    return tuple((i / d, j / d) for d in denominators for j, i in product(range(1, d), repeat=2))


PRESETS = MappingProxyType(
    {
        "zhang2019": Preset(
            source="Zhang 2019, Making Convolutional Networks Shift-Invariant Again, https://arxiv.org/abs/1904.11486",
            protocol="crop",
            kernel="sinc",
            plan=Plan(pairs=Pairs(1, -15.0, 16.0, quantum=1.0)),
            fixes="a window over an image with a margin of 16 pixels (224 of 256); one pair of windows per image at"
            " whole-pixel offsets 0..31, both uniform; consistency is the share of pairs with one answer",
            differs="offsets are drawn per image, not per batch; accuracy is that of the central window; the kernel"
            " plays no part, whole pixels are copied",
        ),
        "azulay-weiss2019": Preset(
            source="Azulay & Weiss 2019, Why do deep convolutional networks generalize so poorly to small image"
            " transformations?, https://arxiv.org/abs/1805.12177",
            protocol="embed",
            kernel="sinc",
            plan=Plan(pairs=Pairs(8, -15.0, 14.0, quantum=1.0, step=(1.0, 1.0)), path=line_path(30, (0.0, 1.0))),
            fixes="the image on a black canvas at 8 random places, each against the place one pixel down and to the"
            " right: P(top-1 change) and mean absolute change; jaggedness along a vertical path of 30 pixels",
            differs="places lie within 15 pixels of the center, not anywhere on the canvas, so that the margin need not"
            " be larger; images are not rescaled before they are put there",
        ),
        "chaman2021": Preset(
            source="Chaman & Dokmanic 2021, Truly shift-invariant convolutional neural networks,"
            " https://arxiv.org/abs/2011.14214",
            protocol="circular",
            kernel="fourier",
            plan=Plan(pairs=Pairs(1, -32.0, 31.0, quantum=1.0)),
            fixes="whole images rolled by -32..31 pixels along each axis, range end excluded as in their ImageNet code;"
            " one pair per image, both uniform",
            differs="shifts are drawn per image, not per batch; their CIFAR code rolls by -3..2, and this preset does"
            " not: give --protocol circular --max-shift 3 for small images",
        ),
        "michaeli2023": Preset(
            source="Michaeli, Michaeli & Soudry 2023, Alias-Free Convnets, https://arxiv.org/abs/2303.08085",
            protocol="circular",
            kernel="fourier",
            plan=Plan(
                pairs=Pairs(1, 1.0, 31.0, quantum=1.0, anchored=True),
                grid=_between_pixels(3, 4),
                fractions=(0.0, 0.25, 1 / 3, 0.5, 2 / 3, 0.75),
            ),
            fixes="the image against one rolled by 1..31 whole pixels along each axis (consistency, MAC); the same with"
            " a fraction of a pixel added (response by fraction); worst case over all places between pixels with"
            " denominators 3 and 4 (their fractional adversarial grid for at most 4)",
            differs="shifts are drawn per image, not per batch; both axes get the same fraction; the shift multiplies"
            " the spectrum by its phase, where their code upsamples, rolls and downsamples; their crop and bilinear"
            " attacks are protocols of their own here (crop, embed)",
        ),
        "gruver2023": Preset(
            source="Gruver, Finzi, Goldblum & Wilson 2023, The Lie Derivative for Measuring Learned Equivariance,"
            " https://arxiv.org/abs/2210.02984",
            protocol="circular",
            kernel="fourier",
            plan=Plan(pairs=Pairs(4, -8.0, 8.0)),
            fixes="Lie derivatives of the probabilities in x, y, log-scale and rotation, mean absolute value over"
            " classes, as in the published code",
            differs="the generator is two-sided and spectral: bilinear interpolation has no derivative at 0, and gives"
            " an invariant network 0.056; units are pixels, not fractions of the image; pairs of fractional"
            " shifts up to 8 pixels on the torus are measured beside, which the paper does not do",
            lie=LieSettings(),
        ),
    }
)
