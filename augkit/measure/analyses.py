"""Analyses of where a network loses invariance, on a few of the images, in addition to the output metrics.

The certificate, layers and Lie derivatives use circular shifts of the network's unshifted inputs; relative invariance
uses the protocol of the measurement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from augkit.core.pixels import as_float
from augkit.invariance import (
    Certificate,
    LayerEquivariance,
    LieDerivative,
    RelativeInvariance,
    certify,
    layerwise_equivariance,
    lie_derivative,
    relative_invariance,
)
from augkit.invariance.outputs.layers import layers_of_map
from augkit.invariance.outputs.lie_derivative import OutputLieDerivative, output_lie_derivative
from augkit.invariance.outputs.map_certificate import MapCertificate, certify_map
from augkit.invariance.protocols import Protocol, Scene
from augkit.measure.settings import MeasureSettings


@dataclass(frozen=True)
class AnalysisInput:
    """A network and the images on which it is analyzed.

    Attributes:
        model: gives logits ``(B, K)``, or outputs of ``kind``.
        images: ``(N, C, H, W)``, uint8 or in [0, 1], with the channels of the network.
        protocol: protocol of the measurement.
        max_shift: the largest shift along each axis, in pixels.
        mean, std, device, seed: as in `augkit.measure_invariance`.
        kind: kind of output, a key of `augkit.invariance.outputs.KINDS`; maps and images have layers and a certificate
            of their own, and all but logits a Lie derivative.
        border: pixels of the input that the Lie derivative of a map leaves out at each side.
    """

    model: nn.Module
    images: Tensor
    protocol: Protocol
    max_shift: float
    mean: Sequence[float] | None
    std: Sequence[float] | None
    device: torch.device
    seed: int
    kind: str = "logits"
    border: float = 0.0

    @property
    def dense(self) -> bool:
        """Whether the output is a map or an image."""
        return self.kind in ("map", "image")

    @property
    def unshifted(self) -> Tensor:
        """The unshifted inputs of the network, in [0, 1] before ``mean`` and ``std``."""
        return Scene(self.protocol, as_float(self.images)).unshifted()


@dataclass(frozen=True)
class Analyses:
    """Results of the analyses on ``images`` images; None where one was not chosen.

    Contiguous is the memory format in which they ran, whatever that of the measurement.
    """

    images: int
    memory_format: str = "contiguous"
    certificate: Certificate | MapCertificate | None = None
    layers: list[LayerEquivariance] | None = None
    lie: LieDerivative | OutputLieDerivative | None = None
    relative_invariance: RelativeInvariance | None = None

    def to_dict(self) -> dict[str, object]:
        """For JSON."""
        out: dict[str, object] = {"probe_images": self.images, "probe_memory_format": self.memory_format}
        if self.certificate is not None:
            out["certificate"] = {**self.certificate.to_dict(), "text": str(self.certificate)}
        if self.layers is not None:
            out["layers"] = [layer.to_dict() for layer in self.layers]
        if self.lie is not None:
            out["lie"] = self.lie.to_dict()
        if self.relative_invariance is not None:
            out["relative_invariance"] = self.relative_invariance.to_dict()
        return out


def _certify(found: Analyses, given: AnalysisInput) -> Analyses:
    height, width = given.protocol.input_size
    judge = certify_map if given.dense else certify
    certificate = judge(given.model, (height, width), in_channels=given.images.shape[1], seed=given.seed)
    return replace(found, certificate=certificate)


def _layers(found: Analyses, given: AnalysisInput) -> Analyses:
    layers = (layers_of_map if given.dense else layerwise_equivariance)(
        given.model,
        given.unshifted,
        max_shift=given.max_shift,
        mean=given.mean,
        std=given.std,
        device=given.device,
        seed=given.seed,
    )
    return replace(found, layers=layers)


def _lie(found: Analyses, given: AnalysisInput) -> Analyses:
    how: dict[str, Any] = {"mean": given.mean, "std": given.std, "device": given.device, "seed": given.seed}
    if given.kind == "logits":
        return replace(found, lie=lie_derivative(given.model, given.unshifted, **how))
    how |= {"output": given.kind, "border": given.border}
    return replace(found, lie=output_lie_derivative(given.model, given.unshifted, **how))


def _relative(found: Analyses, given: AnalysisInput) -> Analyses:
    relative = relative_invariance(
        given.model,
        given.images,
        max_shift=given.max_shift,
        protocol=given.protocol,
        mean=given.mean,
        std=given.std,
        device=given.device,
        seed=given.seed,
    )
    return replace(found, relative_invariance=relative)


# Keys are the fields of `MeasureSettings` that choose the analyses.
ANALYSES: dict[str, Callable[[Analyses, AnalysisInput], Analyses]] = {
    "certify": _certify,
    "layers": _layers,
    "lie": _lie,
    "relative": _relative,
}


def chosen_analyses(settings: MeasureSettings) -> list[str]:
    """Return the names of the chosen analyses: those of the settings and those of the preset."""
    preset = settings.find_preset()
    of_preset = {"lie"} if preset is not None and preset.lie is not None else set()
    return [name for name in ANALYSES if getattr(settings, name) or name in of_preset]


def analyze(names: Sequence[str], given: AnalysisInput, on_analysis: Callable[[str], None]) -> Analyses:
    """Run the analyses ``names``; ``on_analysis`` is called with each name before it begins."""
    found = Analyses(len(given.images))
    for name in names:
        on_analysis(name)
        found = ANALYSES[name](found, given)
    return found
