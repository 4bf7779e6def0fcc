"""Joins a continuation to the partial text, without repeating or losing a character."""

from .anchor_marks import marks_around_anchor
from .restart import RestartJoin, RetellingJoin
from .seam import Seam

__all__ = ["RestartJoin", "RetellingJoin", "Seam", "marks_around_anchor"]
