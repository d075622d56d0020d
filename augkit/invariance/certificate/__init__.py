"""Certificates of exact invariance to shifts on the torus."""

from augkit.invariance.certificate.certify import Certificate, LogitCheck, certify
from augkit.invariance.certificate.trace import Step

__all__ = ["Certificate", "LogitCheck", "Step", "certify"]
