"""What a run found, as rows and sentences: shared by the dashboard, the command line and the HTML report."""

from collections.abc import Mapping, Sequence
from typing import Any

from core.report import format as fmt
from core.report.curves import recovered
from core.report.run_figures import CUT, ROLES, loss_of, role_title
from core.specs import EMBEDDED_MODEL, RunSpec

SHORT = {
    "num_hidden_layers": "layer", "hidden_size": "channel", "intermediate_size": "neuron", "num_attention_heads": "head",
    "num_key_value_heads": "KV head",
}  # fmt: skip
"""Field of ``Targets`` -> what its number counts."""
VERBS = {
    "probe": "Time",
    "score": "Score",
    "preview": "Measure a draft of",
    "search": "Search sizes of",
    "prune": "Prune",
    "distill": "Prune and distill",
    "family": "Make a family from",
    "evaluate": "Evaluate",
    "generate": "Ask",
}

TITLES = {"teacher": ROLES["teacher"], "cut": CUT} | ROLES | {"model": "Model", "draft": "Draft, by masks"}
"""Also those of a run that only evaluates."""

Results = Mapping[str, Any]
"""results.json's data."""


def _title(role: str, results: Results) -> str:
    if role == "draft" and results[role].get("repaired"):  # the best of a search
        return "Best candidate, repaired"
    return role_title(role, results) if role in ROLES else TITLES[role]


def domains_of(results: Results) -> list[str]:
    """Held-out texts of a run, the one of the training domain first."""
    return list((results.get("teacher") or results.get("pruned") or {}).get("heldout") or {})


def measured_roles(results: Results) -> list[str]:
    """Which of teacher, cut, pruned and distilled were measured."""
    return [role for role in TITLES if results.get(role)]


def model_rows(results: Results) -> list[dict[str, str]]:
    """A row for each model: size and speed, written out with units."""
    return [
        {
            "model": _title(role, results),
            "parameters": fmt.count(results[role].get("parameters")),
            "change": fmt.delta(_change(results, role)) if role != "teacher" else fmt.MISSING,
            "weights, bfloat16": fmt.size(results[role].get("weight_bytes")),
            "prefill": fmt.rate(_speed(results, role, "prefill"), "tokens/s"),
            "decode": fmt.rate(_speed(results, role, "decode"), "tokens/s"),
        }
        for role in measured_roles(results)
        if role != "cut"  # as large as the repaired one
    ]


def quality_rows(results: Results, domain: str) -> list[dict[str, str]]:
    """A row for each model: how well it predicts ``domain``, written out with units."""
    rows = []
    for role in measured_roles(results):
        measured = (results[role].get("heldout") or {}).get(domain, {})
        gap = _gap(results, role, domain)
        rows.append({
            "model": _title(role, results),
            "perplexity": fmt.number(measured.get("perplexity")),
            "loss": fmt.nats(measured.get("loss_nats")),
            "above the teacher": fmt.MISSING if role == "teacher" else fmt.nats(gap),
            "gap recovered": fmt.percent(recovered_of(results, domain)) if role == "distilled" else fmt.MISSING,
            "KL to the teacher": fmt.MISSING if role == "teacher" else fmt.nats(measured.get("kl_nats")),
            "same next token": fmt.MISSING if role == "teacher" else fmt.percent(measured.get("top1_agreement")),
            "bits per byte": fmt.number(measured.get("bits_per_byte")),
            "tokens": fmt.count(measured.get("tokens")),
        })  # fmt: skip
    return rows


def recovered_of(results: Results, domain: str) -> float | None:
    """Part of what the cut had cost, in nats, that repair and distillation made good."""
    before = "cut" if results.get("cut") else "pruned"
    return recovered(*(loss_of(results, role, domain) for role in ("teacher", before, "distilled")))


def members_of(results: Results) -> list[dict[str, Any]]:
    """A family's members as runs of one figure: name, and results with the uncut model as the teacher; none of another run."""
    return [
        {"name": f"Member {number}", "results": {"teacher": results["teacher"], "distilled": member}}
        for number, member in enumerate(results.get("members") or [], start=1)
    ]


def title_of(spec: RunSpec) -> str:
    """A run's title: its name if it has one, else what is made of which model."""
    model = "the embedded model" if spec.model == EMBEDDED_MODEL else spec.model.rstrip("/").rsplit("/", 1)[-1]
    cuts = [fmt.plural(size, SHORT[key]) for key, size in spec.targets.to_dict().items() if size is not None]
    return spec.name or f"{VERBS[spec.kind]} {model}" + (
        f": {fmt.listed(cuts)}" if cuts and spec.kind in ("preview", "prune", "distill") else ""
    )


def sentence(results: Results) -> str:
    """What came out, for someone who reads one sentence only. Measured numbers; nothing is said that was not measured."""
    best = "distilled" if results.get("distilled") else "pruned"
    domains = domains_of(results)
    if not results.get("teacher") or not results.get(best) or not domains:
        return "There is no measured result yet."
    sizes = [results[role]["parameters"] for role in ("teacher", best)]
    text = f"The model was cut from {fmt.count(sizes[0])} to {fmt.count(sizes[1])} parameters ({fmt.delta(_change(results, best))}). "
    text += f"On {domains[0]} text that it never saw, perplexity is {_perplexity(results, best, domains[0])} (teacher {_perplexity(results, 'teacher', domains[0])})"
    part = recovered_of(results, domains[0]) if best == "distilled" else None
    if part is not None:
        by = "repair and distillation" if results.get("cut") else "distillation"
        text += f"; {by} won back {fmt.percent(part)} of the quality that pruning had cost, counted in nats"
    return text + "."


def spec_differences(specs: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[Any]]]:
    """Settings in which some specs (as ``to_dict`` gives them) differ: dotted name, and the value in each."""
    flat = [_flat(spec) for spec in specs]
    names = dict.fromkeys(name for one in flat for name in one)
    rows = [(name, [one.get(name) for one in flat]) for name in names if name != "name"]
    return [(name, values) for name, values in rows if any(value != values[0] for value in values)]


def spec_rows(spec: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """All settings of a spec: dotted name and value."""
    return list(_flat(spec).items())


def common_start(one: str, other: str) -> int:
    """Where two texts part: the length of what they share, back to the last whole word."""
    if one == other:
        return len(one)
    shared = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
    if not one[shared : shared + 1].strip() and not other[shared : shared + 1].strip():
        return shared
    return max(one.rfind(blank, 0, shared) for blank in " \n") + 1


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level of dotted names."""
    out: dict[str, Any] = {}
    for key, item in value.items():
        out |= _flat(item, f"{prefix}{key}.") if isinstance(item, Mapping) else {prefix + key: item}
    return out


def _change(results: Results, role: str) -> float | None:
    """Relative change of the parameter count against the teacher."""
    teacher = (results.get("teacher") or {}).get("parameters")
    return results[role]["parameters"] / teacher - 1 if teacher else None


def _gap(results: Results, role: str, domain: str) -> float | None:
    """Nats above the teacher."""
    loss, teacher = loss_of(results, role, domain), loss_of(results, "teacher", domain)
    return None if loss is None or teacher is None else loss - teacher


def _speed(results: Results, role: str, kind: str) -> float | None:
    """Tokens a second of prefill or decode."""
    return (results[role].get("tokens_per_second") or {}).get(kind)


def _perplexity(results: Results, role: str, domain: str) -> str:
    return fmt.number((results[role].get("heldout") or {}).get(domain, {}).get("perplexity"))
