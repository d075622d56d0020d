"""How invariant a network is to shifts and rescaling of its input, with intervals."""

from augkit.invariance.intervals import Estimate
from augkit.invariance.learned import architectural_invariance, learned_invariance, transfer, verdict
from augkit.invariance.measurement import Measurement, measure_invariance
from augkit.invariance.network import Network
from augkit.invariance.plan import Pairs, Plan
from augkit.invariance.protocols import PROTOCOLS, Protocol, make_protocol
from augkit.invariance.reports import InvarianceReport

__all__ = [
    "PROTOCOLS",
    "Estimate",
    "InvarianceReport",
    "Measurement",
    "Network",
    "Pairs",
    "Plan",
    "Protocol",
    "architectural_invariance",
    "learned_invariance",
    "make_protocol",
    "measure_invariance",
    "transfer",
    "verdict",
]
