"""Joins a continuation to the partial text, without repeating or losing a character."""

from .restart import RestartJoin
from .seam import Seam

__all__ = ["RestartJoin", "Seam"]
