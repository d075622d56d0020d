"""How invariant a network is to shifts of its input, with intervals."""

from augkit.invariance.intervals import Estimate
from augkit.invariance.layerwise import LayerEquivariance, layerwise_equivariance
from augkit.invariance.learned import architectural_invariance, learned_invariance, transfer, verdict
from augkit.invariance.lie import LieDerivative, lie_derivative
from augkit.invariance.measurement import InvarianceReport, measure_invariance
from augkit.invariance.protocols import PROTOCOLS, Protocol, make_protocol
from augkit.invariance.relative import RelativeInvariance, relative_invariance

__all__ = [
    "PROTOCOLS",
    "Estimate",
    "InvarianceReport",
    "LayerEquivariance",
    "LieDerivative",
    "Protocol",
    "RelativeInvariance",
    "architectural_invariance",
    "layerwise_equivariance",
    "learned_invariance",
    "lie_derivative",
    "make_protocol",
    "measure_invariance",
    "relative_invariance",
    "transfer",
    "verdict",
]
