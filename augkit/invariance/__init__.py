"""Measures invariance to shifts and rescaling with intervals, locates its loss by layer, and certifies exact cases."""

from augkit.invariance.bootstrap import Estimate
from augkit.invariance.carry_over import CarryOver, carry_over
from augkit.invariance.certificate import Certificate, LogitCheck, certify
from augkit.invariance.layers.equivariance import LayerEquivariance, layerwise_equivariance
from augkit.invariance.layers.lie_derivative import LieDerivative, lie_derivative
from augkit.invariance.layers.relative import RelativeInvariance, relative_invariance
from augkit.invariance.learned import (
    InvarianceComparison,
    architectural_invariance,
    compare_invariance,
    learned_invariance,
    transfer,
    unsaid,
    verdict,
)
from augkit.invariance.measurement import Measurement, measure_invariance
from augkit.invariance.network import Network
from augkit.invariance.plan import Pairs, Plan
from augkit.invariance.protocols import PROTOCOLS, Protocol, make_protocol
from augkit.invariance.report import InvarianceReport

__all__ = [
    "PROTOCOLS",
    "CarryOver",
    "Certificate",
    "Estimate",
    "InvarianceComparison",
    "InvarianceReport",
    "LayerEquivariance",
    "LieDerivative",
    "LogitCheck",
    "Measurement",
    "Network",
    "Pairs",
    "Plan",
    "Protocol",
    "RelativeInvariance",
    "architectural_invariance",
    "carry_over",
    "certify",
    "compare_invariance",
    "layerwise_equivariance",
    "learned_invariance",
    "lie_derivative",
    "make_protocol",
    "measure_invariance",
    "relative_invariance",
    "transfer",
    "unsaid",
    "verdict",
]
