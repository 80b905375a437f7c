"""The study's questions, in the order of the document: one function a table."""

from collections.abc import Callable, Iterable

import numpy as np

from bench.study.document import Section, Table, nats, percent
from bench.study.ground import MIXED, Damage, Ground
from bench.study.rankings import Random, Reversed
from bench.study.settings import AGAINST_RANDOM, APART, AXES_AT_20, CRITERIA, DOMAINS, THIRD, TOGETHER
from core.model.dims import CONFIG_KEYS
from core.plan.plan import Plan
from core.score.criteria import criteria_of
from core.specs import RankSpec, Targets

WIDTH = ("heads", "neurons", "channels")
SURE = 2.5
"""Standard errors that a difference must have: Student's 95 % for two texts of four blocks."""
DEPTH = ("bi", "ppl", "kl", "angle", "window", "greedy")


def aggregations(ground: Ground) -> Section:
    """The nine pairs of aggregations, as in the paper's table 11."""
    pairs = aggregation_pairs(ground)
    together = [[*_on_each(ground.damage(ground.plan(size, rank)) for size in TOGETHER.values())] for rank in pairs]
    cuts = [size for sizes in APART.values() for size in sizes.values()]
    apart = [[nats(ground.damage(ground.plan(size, rank), ground.settings.few_blocks).mean) for size in cuts] for rank in pairs]
    names = [[rank.batch, rank.sequence] for rank in pairs]
    return Section(
        "The nine aggregations",
        f"Criterion: activation, aggregated over the tokens of a block (seq), then over blocks (batch). Heads, neurons and channels together: "
        f"{'; '.join(_sizes(ground, size) for size in TOGETHER.values())}. Apart: {'; '.join(_sizes(ground, size) for size in cuts)}. "
        f"On {ground.settings.heldout_blocks} held-out blocks of each text, on {ground.settings.few_blocks} where axes are cut apart.",
        [
            Table(
                "Cut together: damage in nats a token",
                ["batch", "seq", *(f"{share}, {domain}" for share in TOGETHER for domain in DOMAINS)],
                [[*name, *values] for name, values in zip(names, together, strict=True)],
            ),
            Table(
                "Cut apart: damage in nats a token, mean of both texts",
                ["batch", "seq", *(f"{axis}, {share}" for axis, sizes in APART.items() for share in sizes)],
                [[*name, *values] for name, values in zip(names, apart, strict=True)],
            ),
        ],
    )


def criteria(ground: Ground) -> Section:
    """Every criterion of width against its own reverse and against random."""
    return Section(
        "Every width criterion against its reverse and chance",
        f"One axis is cut at a time: {'; '.join(f'{axis}: {_sizes(ground, size)}' for axis, size in AGAINST_RANDOM.items())}. Aggregation (l2, mean) where "
        f"there is one. Sorted by the mean of both texts; reversed keeps what the criterion would cut. Random: {ground.settings.random_seeds} seeds. "
        f"On {ground.settings.few_blocks} held-out blocks of each text ({ground.settings.heldout_blocks} for heads, whose cuts "
        f"differ most from block to block), {ground.settings.reversed_blocks} for the reversed rankings.",
        [_criteria_of(ground, axis) for axis in WIDTH],
    )


def _criteria_of(ground: Ground, axis: str) -> Table:
    found = sorted(criteria_damages(ground, axis).items(), key=lambda item: item[1][0].mean)
    rows = [[name, *_on_each([best]), nats(best.mean), nats(worst.mean)] for name, (best, worst) in found]
    chance = random_damages(ground, axis)
    ranges = [[damage.of(domain) for damage in chance] for domain in DOMAINS] + [[damage.mean for damage in chance]]
    rows.append(["random, mean", *(nats(float(np.mean(values))) for values in ranges), "–"])
    rows.append(["random, range", *(f"{nats(min(values))} – {nats(max(values))}" for values in ranges), "–"])
    return Table(f"{axis.capitalize()}: damage in nats a token", ["criterion", *DOMAINS, "mean", "reversed"], rows)


def rounds(ground: Ground) -> Section:
    """Single-shot importance against rounds of scoring and cutting."""
    rows = [
        [what, str(rank.rounds), *_on_each([ground.damage(ground.plan_in_rounds(size, rank))])] for what, size, rank in round_cases(ground)
    ]
    return Section(
        "One round or several",
        "T rounds alternate scoring and cutting, as the paper defines it; T = 1 scores once. Criterion: activation (l2, mean) for width, block "
        "importance for layers.",
        [Table("Damage in nats a token", ["cut", "T", *DOMAINS], rows)],
    )


def depth(ground: Ground) -> Section:
    """Criteria for layers."""
    whole, removed = ground.dims.layers, ground.settings.removed
    rows = []
    for name in DEPTH:
        plans = [depth_plan(ground, name, count) for count in removed]
        gone = np.setdiff1d(np.arange(whole), plans[-1].layers)
        rows.append([name, *_on_each(ground.damage(plan) for plan in plans), _runs(gone)])
    cuts = "; ".join(_sizes(ground, Targets(num_hidden_layers=whole - count)) for count in removed)
    return Section(
        "Depth: which layers",
        f"bi, ppl and kl judge every layer by itself; angle and window choose one run of layers, by the angle across it and by the loss "
        f"without it; greedy removes layers one after the other. Cuts: {cuts}.",
        [
            Table(
                f"Damage in nats a token, and which of the layers 0 to {whole - 1} go",
                ["criterion", *(f"{count} gone, {domain}" for count in removed for domain in DOMAINS), f"the {removed[-1]} that go"],
                rows,
            )
        ],
    )


def calibration(ground: Ground) -> Section:
    """How much the choice of text matters against the choice of criterion."""
    pairs, spreads = [(text, name) for text in (*DOMAINS, MIXED) for name in CRITERIA], []
    rows = [[text, name, *_on_each(calibrated(ground, text, name, size) for size in TOGETHER.values())] for text, name in pairs]
    for share, size in TOGETHER.items():
        for domain in DOMAINS:
            values_TC = np.array([[calibrated(ground, text, name, size).of(domain) for name in CRITERIA] for text in (*DOMAINS, MIXED)])
            spreads.append(
                [f"{share}, {domain}", nats(float(np.ptp(values_TC, axis=0).mean())), nats(float(np.ptp(values_TC, axis=1).mean()))]
            )
    return Section(
        "Calibration text against criterion",
        f"The same cuts (heads, neurons and channels together), calibrated on {DOMAINS[0]}, on {DOMAINS[1]}, or on blocks of both in turn, each as "
        f"large. One criterion for all three axes: {', '.join(CRITERIA)}.",
        [
            Table("Damage in nats a token", ["calibrated on", "criterion", *(f"{share}, {domain}" for share in TOGETHER for domain in DOMAINS)], rows),
            Table("Spread (largest less smallest), nats a token", ["cut, judged on", "between texts", "between criteria"], spreads),
        ],
    )  # fmt: skip


def findings(ground: Ground) -> Section:
    """What the paper found, held against this model."""
    axes = [
        [what, percent(ground.share(size)), *_on_each([axis_damage(ground, size)]), nats(axis_damage(ground, size).mean)]
        for what, size in AXES_AT_20.items()
    ]
    checks = [[claim, paper, here, verdict] for claim, paper, here, verdict in (check(ground) for check in CHECKS)]
    return Section(
        "The paper's findings at this scale",
        "A finding holds, or does not, where the difference is at least two and a half standard errors (of the same blocks' differences: 95 % with so "
        "few); else it is undecided here. The paper's figures are losses of a 15 B model cut to 8 B, ours are damages of a 135 M model: only their order can be compared. Layers by loss "
        "when removed, width by activation (l2, mean).",
        [
            Table("About 20 % of all parameters, from where? Damage in nats a token", ["cut", "removed", *DOMAINS, "mean"], axes),
            Table("Zero-shot findings of Minitron and of Minitron in practice; damages are means of both texts", ["finding", "paper", "here", "verdict"], checks),
        ],
    )  # fmt: skip


SECTIONS: dict[str, Callable[[Ground], Section]] = {
    "aggregations": aggregations,
    "criteria": criteria,
    "rounds": rounds,
    "depth": depth,
    "calibration text": calibration,
    "findings": findings,
}
"""The document's table of contents."""


def aggregation_pairs(ground: Ground) -> list[RankSpec]:
    """A ranking for each pair, batch first as the paper writes them."""
    names = ground.settings.aggregations
    return [RankSpec(batch=batch, sequence=sequence) for batch in names for sequence in names]


def criteria_damages(ground: Ground, axis: str) -> dict[str, tuple[Damage, Damage]]:
    """Criterion of an axis -> the damage of its cut, and of its reverse's."""
    found, size = {}, AGAINST_RANDOM[axis]
    for name in criteria_of(axis):
        rank = RankSpec(**{axis: name})  # type: ignore[arg-type]
        plans = ground.plan(size, rank), ground.plan(size, rank, Reversed(ground.scores))
        found[name] = (ground.damage(plans[0], _blocks(ground, axis)), ground.damage(plans[1], ground.settings.reversed_blocks))
    return found


def _blocks(ground: Ground, axis: str) -> int:
    return ground.settings.heldout_blocks if axis == "heads" else ground.settings.few_blocks


def random_damages(ground: Ground, axis: str) -> list[Damage]:
    """The damage of random cuts of an axis, one a seed."""
    plans = [ground.plan(AGAINST_RANDOM[axis], scores=Random(ground.dims, seed)) for seed in range(ground.settings.random_seeds)]
    return [ground.damage(plan, _blocks(ground, axis)) for plan in plans]


def round_cases(ground: Ground) -> list[tuple[str, Targets, RankSpec]]:
    """What is cut in rounds: the paper's own case, everything at once, and layers."""
    layers = Targets(num_hidden_layers=ground.dims.layers - ground.settings.removed[-1])
    cuts = {
        "a third of the channels": THIRD,
        "heads, neurons, channels, 35 %": TOGETHER["35 %"],
        f"layers, {layers.num_hidden_layers} stay": layers,
    }
    return [(what, size, RankSpec(rounds=count)) for what, size in cuts.items() for count in ground.settings.rounds]


def depth_plan(ground: Ground, name: str, removed: int) -> Plan:
    """What is kept when so many layers go by a criterion."""
    size = Targets(num_hidden_layers=ground.dims.layers - removed)
    return ground.plan(size, RankSpec(depth=name), ground.depth_scores)


def calibrated(ground: Ground, text: str, name: str, size: Targets) -> Damage:
    """The damage of a cut whose importance comes from one text and one criterion for all axes."""
    scores = ground.scores if text == DOMAINS[0] else ground.scores_on(text, ground.settings.width)
    rank = RankSpec(heads=name, neurons=name, channels=name)
    return ground.damage(ground.plan(size, rank, scores))


def axis_damage(ground: Ground, size: Targets) -> Damage:
    """The damage of a cut by the paper's own criteria."""
    return ground.damage(ground.plan(size, RankSpec(depth="ppl")))


Check = tuple[str, str, str, str]
"""Finding, the paper's figures, ours, verdict."""


def check_l2_mean(ground: Ground) -> Check:
    """(l2, mean) is the best aggregation."""
    size = TOGETHER["35 %"]
    damages = {(rank.batch, rank.sequence): ground.damage(ground.plan(size, rank)) for rank in aggregation_pairs(ground)}
    ordered = sorted(damages, key=lambda pair: damages[pair].mean)
    own, best = ("l2", "mean"), next(pair for pair in ordered if pair != ("l2", "mean"))
    here = f"place {ordered.index(own) + 1} of {len(ordered)}: {nats(damages[own].mean)}; best other ({', '.join(best)}) {nats(damages[best].mean)}"
    return "(l2, mean) is the best aggregation", "7.18 of 7.18 to 10.55", here, verdict(damages[best], damages[own])


def check_sequence_mean(ground: Ground) -> Check:
    """The mean over tokens beats the L2 norm over tokens."""
    size = TOGETHER["35 %"]
    mean, norm = (ground.damage(ground.plan(size, RankSpec(sequence=name))) for name in ("mean", "l2"))
    here = f"{nats(mean.mean)} against {nats(norm.mean)}, at 35 %"
    return "(l2, mean) beats (l2, l2)", "7.18 against 8.73", here, verdict(norm, mean)


def check_rounds(ground: Ground) -> Check:
    """Rounds bring nothing, where the paper looked."""
    return _rounds_check(ground, "Several rounds bring nothing: a third of the channels", "5.43 / 5.55 / 5.24", THIRD)


def check_rounds_together(ground: Ground) -> Check:
    """Rounds bring nothing, where all axes are cut."""
    return _rounds_check(ground, "The same: heads, neurons and channels, 35 %", "not given", TOGETHER["35 %"])


def _rounds_check(ground: Ground, claim: str, paper: str, size: Targets) -> Check:
    once, *more = [ground.damage(ground.plan_in_rounds(size, RankSpec(rounds=count))) for count in ground.settings.rounds]
    here = f"{' / '.join(nats(damage.mean) for damage in (once, *more))}, T = {', '.join(map(str, ground.settings.rounds))}"
    gains = [damage.minus(once) for damage in more]
    return claim, paper, here, "does not hold" if any(rise < -SURE * error for rise, error in gains) else "holds"


def check_ppl(ground: Ground) -> Check:
    """Loss when removed beats block importance."""
    return _depth_check(ground, "ppl beats block importance", "2.155 against 2.177, retrained", "ppl", "bi")


def check_contiguous(ground: Ground) -> Check:
    """By the loss, scattered layers are better than a run of them."""
    return _depth_check(ground, "By the loss, scattered layers beat a run (in practice, section 3)", "a curve", "ppl", "window")


def _depth_check(ground: Ground, claim: str, paper: str, better: str, worse: str) -> Check:
    removed = ground.settings.removed[-1]
    first, second = (ground.damage(depth_plan(ground, name, removed)) for name in (better, worse))
    return claim, paper, f"{nats(first.mean)} against {nats(second.mean)}, {removed} layers gone", verdict(second, first)


def check_channels(ground: Ground) -> Check:
    """Heads and neurons hurt less than channels too."""
    less, more = (axis_damage(ground, AXES_AT_20[name]) for name in ("heads and neurons", "heads, neurons and channels"))
    here = f"{nats(less.mean)} against {nats(more.mean)}, at 20 %"
    return "Before retraining, channels should stay", "5.07 against 6.33", here, verdict(more, less)


def check_channels_without_heads(ground: Ground) -> Check:
    """Neurons alone hurt less than neurons and channels."""
    less, more = (axis_damage(ground, AXES_AT_20[name]) for name in ("neurons", "neurons and channels"))
    here = f"{nats(less.mean)} against {nats(more.mean)}, at 20 %"
    return "The same, where all heads stay", "not given", here, verdict(more, less)


def check_width(ground: Ground) -> Check:
    """Width hurts less than depth."""
    width, layers = (axis_damage(ground, AXES_AT_20[name]) for name in ("heads, neurons and channels", "layers"))
    here = f"{nats(width.mean)} against {nats(layers.mean)}, at 20 %"
    return "Before retraining, width hurts less than depth", "6.33 against 8.35", here, verdict(layers, width)


CHECKS = (
    check_l2_mean, check_sequence_mean, check_rounds, check_rounds_together, check_ppl, check_contiguous, check_channels,
    check_channels_without_heads, check_width,
)  # fmt: skip
"""In the order of the last table."""


def verdict(worse: Damage, better: Damage) -> str:
    """Whether ``worse`` is worse indeed, by enough standard errors."""
    difference, error = worse.minus(better)
    if abs(difference) < SURE * error:
        return "undecided"
    return "holds" if difference > 0 else "does not hold"


def _on_each(damages: Iterable[Damage]) -> list[str]:
    """Damages on each text in turn."""
    return [nats(damage.of(domain)) for damage in damages for domain in DOMAINS]


def _sizes(ground: Ground, size: Targets) -> str:
    """``num_attention_heads 9 to 6 (4.9 %)``"""
    names = {"num_attention_heads": "heads", "intermediate_size": "neurons", "hidden_size": "channels", "num_hidden_layers": "layers"}
    whole = {key: getattr(ground.dims, name) for name, key in CONFIG_KEYS.items()}
    parts = [f"{whole[key]} {names[key]} to {count}" for key, count in size.to_dict().items() if count is not None]
    return f"{', '.join(parts)} ({percent(ground.share(size))} of all parameters)"


def _runs(numbers: np.ndarray) -> str:
    """``3-5, 9`` for 3, 4, 5, 9."""
    runs = np.split(numbers, np.flatnonzero(np.diff(numbers) > 1) + 1)
    return ", ".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)
