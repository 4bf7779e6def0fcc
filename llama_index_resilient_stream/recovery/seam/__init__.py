"""Joins a continuation to what was said, without repeating or losing a character."""

from .restart import RestartJoin
from .seam import Seam

__all__ = ["RestartJoin", "Seam"]
