"""Criteria of importance: one decorated function each. Adding one is adding a function to ``width`` or ``depth``. No torch."""

from core.score.criteria import depth, width
from core.score.criteria.registry import CRITERIA, Criterion, Depth, Measured, criteria_of, missing, problems

__all__ = ["CRITERIA", "Criterion", "Depth", "Measured", "criteria_of", "depth", "missing", "problems", "width"]
