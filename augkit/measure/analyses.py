"""What `augkit.measure` finds beside the output metrics, on a few of the images: where a network loses invariance.

The certificate, layers and Lie derivatives belong to the torus, on the images as the network sees them unshifted;
relative invariance is taken under the protocol of the measurement.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from augkit.core.cli import positive
from augkit.invariance import certify, layerwise_equivariance, lie_derivative, relative_invariance
from augkit.invariance.protocols import Protocol, Scene

PROBED = 64  # images


@dataclass(frozen=True)
class AnalysisInput:
    """A network and the images that it is probed with.

    Attributes:
        model: gives logits ``(B, K)``.
        images: ``(N, C, H, W)``, uint8 or in [0, 1], with the channels that the network takes.
        protocol: of the measurement.
        max_shift: pixels.
        mean, std, device, seed: as in `augkit.measure_invariance`.
    """

    model: nn.Module
    images: Tensor
    protocol: Protocol
    max_shift: float
    mean: list[float] | None
    std: list[float] | None
    device: torch.device
    seed: int

    @property
    def seen(self) -> Tensor:
        """The images unshifted, as the network sees them, in [0, 1] before ``mean`` and ``std``."""
        images = self.images.float() / 255 if self.images.dtype == torch.uint8 else self.images
        return Scene(self.protocol, images).unshifted()

    @property
    def options(self) -> dict[str, Any]:
        """What all probes take."""
        return {"mean": self.mean, "std": self.std, "device": self.device, "seed": self.seed}


def add_probe_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that choose probes."""
    group = parser.add_argument_group("where it is lost")
    group.add_argument("--certify", action="store_true", help="which layer breaks exact shift invariance, and why")
    group.add_argument("--layers", action="store_true", help="equivariance in dB, layer by layer (circular)")
    group.add_argument("--lie", action="store_true", help="Lie derivatives: shift x and y, scale, rotation (circular)")
    group.add_argument("--relative", action="store_true", help="relative invariance of the penultimate features")
    text = f"images for --layers, --lie and --relative (default: {PROBED})"
    group.add_argument("--probe-images", type=positive, metavar="N", default=PROBED, help=text)


def chosen_probes(options: argparse.Namespace, *, lie: bool) -> list[str]:
    """Names of the probes that are asked for; ``lie`` where a preset asks for it."""
    asked = {name: getattr(options, name) for name in ANALYSES}
    return [name for name, wanted in (asked | {"lie": options.lie or lie}).items() if wanted]


def _certificate(subject: AnalysisInput) -> dict[str, Any]:
    height, width = subject.protocol.input_size
    certificate = certify(subject.model, (height, width), in_channels=subject.images.shape[1], seed=subject.seed)
    return {**certificate.to_dict(), "text": str(certificate)}


def _layers(subject: AnalysisInput) -> list[dict[str, Any]]:
    found = layerwise_equivariance(subject.model, subject.seen, max_shift=subject.max_shift, **subject.options)
    return [layer.to_dict() for layer in found]


def _lie(subject: AnalysisInput) -> dict[str, Any]:
    return lie_derivative(subject.model, subject.seen, **subject.options).to_dict()


def _relative(subject: AnalysisInput) -> dict[str, Any]:
    how: dict[str, Any] = {"max_shift": subject.max_shift, "protocol": subject.protocol}
    return relative_invariance(subject.model, subject.images, **how, **subject.options).to_dict()


# By flag: the key in the results, and what finds it.
ANALYSES: dict[str, tuple[str, Callable[[AnalysisInput], Any]]] = {
    "certify": ("certificate", _certificate),
    "layers": ("layers", _layers),
    "lie": ("lie", _lie),
    "relative": ("relative_invariance", _relative),
}


def probe(name: str, subject: AnalysisInput) -> tuple[str, Any]:
    """One probe: its key in the results, and what it found, for JSON."""
    key, find = ANALYSES[name]
    return key, find(subject)
