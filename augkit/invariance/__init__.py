"""How invariant a network is to shifts of its input, with intervals."""

from augkit.invariance.certificate import Certificate, LogitCheck, certify
from augkit.invariance.intervals import Estimate
from augkit.invariance.learned import architectural_invariance, learned_invariance, transfer, verdict
from augkit.invariance.measurement import InvarianceReport, measure_invariance
from augkit.invariance.protocols import PROTOCOLS, Protocol, make_protocol

__all__ = [
    "PROTOCOLS",
    "Certificate",
    "Estimate",
    "InvarianceReport",
    "LogitCheck",
    "Protocol",
    "architectural_invariance",
    "certify",
    "learned_invariance",
    "make_protocol",
    "measure_invariance",
    "transfer",
    "verdict",
]
