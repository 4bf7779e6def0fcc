"""Decides whether an error is worth another try: `classify` reads exceptions of every library by the `tables`."""

from ...report import FaultKind
from .classify import Fault, classify, kind_of_finish

__all__ = ["Fault", "FaultKind", "classify", "kind_of_finish"]
