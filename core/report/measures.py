"""What a model can be judged by: its name, how it is read from results.json's data, how it is written, and which way is better."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from core.report import format as fmt

Results = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One axis to compare models on."""

    title: str
    read: Callable[[Results, str, str], float | None]
    """(results, role, held-out domain) -> value, or None where it was not measured."""
    write: Callable[[float | None], str]
    smaller_is_better: bool = True


def _size(field: str) -> Callable[[Results, str, str], float | None]:
    return lambda results, role, domain: (results.get(role) or {}).get(field)


def _speed(kind: str) -> Callable[[Results, str, str], float | None]:
    return lambda results, role, domain: ((results.get(role) or {}).get("tokens_per_second") or {}).get(kind)


def _quality(field: str) -> Callable[[Results, str, str], float | None]:
    return lambda results, role, domain: (((results.get(role) or {}).get("heldout") or {}).get(domain) or {}).get(field)


def _above(results: Results, role: str, domain: str) -> float | None:
    loss, teacher = (_quality("loss_nats")(results, one, domain) for one in (role, "teacher"))
    return None if loss is None or teacher is None else loss - teacher


COSTS = {
    "parameters": Measure(title="parameters", read=_size("parameters"), write=lambda value: f"{fmt.count(value)} parameters"),
    "weights": Measure(title="weights in bfloat16, bytes", read=_size("weight_bytes"), write=fmt.size),
    "decode": Measure(
        title="decoding, tokens/s", read=_speed("decode"), write=lambda value: fmt.rate(value, "tokens/s"), smaller_is_better=False
    ),
    "prefill": Measure(
        title="prefill, tokens/s", read=_speed("prefill"), write=lambda value: fmt.rate(value, "tokens/s"), smaller_is_better=False
    ),
}
"""What a model takes."""

QUALITIES = {
    "above": Measure(title="nats above the teacher", read=_above, write=lambda value: f"{fmt.nats(value)} above the teacher"),
    "perplexity": Measure(title="perplexity", read=_quality("perplexity"), write=lambda value: f"perplexity {fmt.number(value)}"),
    "kl": Measure(title="KL to the teacher, nats", read=_quality("kl_nats"), write=lambda value: f"KL {fmt.nats(value)}"),
    "agreement": Measure(
        title="same next token as the teacher", read=_quality("top1_agreement"), write=lambda value: f"{fmt.percent(value)} same next token",
        smaller_is_better=False,
    ),
}  # fmt: skip
"""What a model gives, on one held-out text."""


def front(points: Iterable[tuple[float, float]], across: Measure, up: Measure) -> list[int]:
    """Which points no other beats on both axes (Pareto), along the first axis. Of equal points the first counts."""
    signed = [(x if across.smaller_is_better else -x, y if up.smaller_is_better else -y) for x, y in points]
    best, kept = float("inf"), []
    for i in sorted(range(len(signed)), key=lambda i: (*signed[i], i)):
        if signed[i][1] < best:
            best = signed[i][1]
            kept.append(i)
    return kept
