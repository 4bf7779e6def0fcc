"""Is this error worth another try? `classify` reads it by the `tables`; exceptions of every library are taken apart."""

from .classify import Fault, FaultKind, classify

__all__ = ["Fault", "FaultKind", "classify"]
