"""Measures outputs beyond logits: embeddings, maps and images of networks under shifts and rescaling of the input."""

from augkit.invariance.outputs.base import Compared, KindResults, OutputCurve, OutputMeasure, OutputOptions
from augkit.invariance.outputs.kinds import KINDS, OutputKind
from augkit.invariance.outputs.lie_derivative import OutputLieDerivative, output_lie_derivative
from augkit.invariance.outputs.map_certificate import MapCertificate, certify_map
from augkit.invariance.outputs.measurement import measure_outputs
from augkit.invariance.outputs.report import OutputReport, OutputSettings, WorstCase
from augkit.invariance.outputs.stream import OutputMeasurement

__all__ = [
    "KINDS",
    "Compared",
    "KindResults",
    "MapCertificate",
    "OutputCurve",
    "OutputKind",
    "OutputLieDerivative",
    "OutputMeasure",
    "OutputMeasurement",
    "OutputOptions",
    "OutputReport",
    "OutputSettings",
    "WorstCase",
    "certify_map",
    "measure_outputs",
    "output_lie_derivative",
]
