"""Decides whether an error is worth another try: `classify` reads exceptions of every library by the `tables`."""

from ...report import FaultKind
from .classify import Fault, classify

__all__ = ["Fault", "FaultKind", "classify"]
