"""What a person asks for, as frozen dataclasses: the same object behind a form, a command, a run folder and a report.

A spec is plain data. It refuses fields that it does not know, lists all its problems at once, and is stored whole inside
everything that is made from it.
"""

from core.specs.cut import GOAL_MEASURES, GOAL_SHAPES, REPAIRS, WEIGHT_DTYPES, Goal, RepairSpec, Targets, stage_problems, stage_targets
from core.specs.data import EMBEDDED_TEXTS, MIX, MIXED_TEXTS, DataSpec, TextSpec
from core.specs.distill import LOSSES, SCHEDULES, SHARDINGS, STATES, TRACKERS, DistillSpec
from core.specs.pins import NO_PINS, UNITS, Pins
from core.specs.run import EMBEDDED_MODEL, LINEAGES, RUN_KINDS, SCORING_KINDS, EvalSpec, RunSpec, SearchSpec
from core.specs.score import AGGREGATIONS, RankSpec, ScoreSpec
from core.specs.spec import Spec, one_of, positive

__all__ = [
    "AGGREGATIONS",
    "EMBEDDED_MODEL",
    "EMBEDDED_TEXTS",
    "GOAL_MEASURES",
    "GOAL_SHAPES",
    "LINEAGES",
    "LOSSES",
    "MIX",
    "MIXED_TEXTS",
    "NO_PINS",
    "REPAIRS",
    "RUN_KINDS",
    "SCHEDULES",
    "SCORING_KINDS",
    "SHARDINGS",
    "STATES",
    "TRACKERS",
    "UNITS",
    "WEIGHT_DTYPES",
    "DataSpec",
    "DistillSpec",
    "EvalSpec",
    "Goal",
    "Pins",
    "RankSpec",
    "RepairSpec",
    "RunSpec",
    "ScoreSpec",
    "SearchSpec",
    "Spec",
    "Targets",
    "TextSpec",
    "one_of",
    "positive",
    "stage_problems",
    "stage_targets",
]
