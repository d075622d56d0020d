"""Measures outputs beyond logits: embeddings, maps and images of networks under shifts of the input."""

from augkit.invariance.outputs.base import Compared, KindResults, OutputCurve, OutputMeasure, OutputOptions
from augkit.invariance.outputs.kinds import KINDS, OutputKind
from augkit.invariance.outputs.measurement import measure_outputs
from augkit.invariance.outputs.report import OutputReport, OutputSettings, WorstCase
from augkit.invariance.outputs.stream import OutputMeasurement

__all__ = [
    "KINDS",
    "Compared",
    "KindResults",
    "OutputCurve",
    "OutputKind",
    "OutputMeasure",
    "OutputMeasurement",
    "OutputOptions",
    "OutputReport",
    "OutputSettings",
    "WorstCase",
    "measure_outputs",
]
