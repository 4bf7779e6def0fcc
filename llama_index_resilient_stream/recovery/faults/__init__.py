"""Is this error worth another try? `classify` reads it by the `tables`; exceptions of every library are taken apart."""

from ...report import FaultKind
from .classify import Fault, classify

__all__ = ["Fault", "FaultKind", "classify"]
