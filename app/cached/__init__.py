"""The only place with caches: what the pages read again and again, each bounded, each keyed by all that determines it."""

from app.cached.cards import card, cost, must_fetch, pool_size, presets
from app.cached.importance import agreement, all_ranks, confidence, importance, undecided_heads
from app.cached.plans import masks, outlook, plan
from app.cached.runs import KnownRun, broken_runs, known_runs
from app.cached.scores import find_scores, made_passes, measured, pass_seconds, scores_of_model

__all__ = [
    "KnownRun", "agreement", "all_ranks", "broken_runs", "card", "confidence", "cost", "find_scores", "importance", "known_runs", "made_passes",
    "masks", "measured", "must_fetch", "outlook", "pass_seconds", "plan", "pool_size", "presets", "scores_of_model", "undecided_heads",
]  # fmt: skip
