"""What is learnt at equal tokens: from the teacher or from the text alone, by a pruned model or by one that begins at random."""

import dataclasses
from typing import Any

from bench.harness import Bar, Outcome
from bench.regrowth import DATA, SHORT, WIDTH, Lab, Start, Training
from core.specs import DataSpec, DistillSpec

TAUGHT, UNTAUGHT, RANDOM = "pruned, forward KL", "pruned, cross-entropy only", "random weights, forward KL"
SEEDS = 3
QUICK_DATA = DataSpec(seq_len=32, calibration_blocks=4, train_blocks=4, heldout_blocks=2)


def trainings(spec: DistillSpec, seeds: int) -> dict[tuple[str, int], Training]:
    """What is trained, by name and seed; the seed decides which blocks are seen, so each has text of its own."""
    found = {}
    pruned, random = Start(targets=WIDTH), Start(targets=WIDTH, at_random=True)
    for seed in range(seeds):
        told = dataclasses.replace(spec, seed=seed)
        found[TAUGHT, seed] = Training(start=pruned, spec=told)
        found[UNTAUGHT, seed] = Training(start=pruned, spec=dataclasses.replace(told, kl_weight=0.0, ce_weight=1.0))
        if seed == 0:
            found[RANDOM, seed] = Training(start=random, spec=told)
    return found


def measure(*, quick: bool) -> Outcome:
    """Carry out every training that is not known yet, and hold them against each other on held-out text."""
    lab = Lab(QUICK_DATA if quick else DATA)
    spec = dataclasses.replace(SHORT, steps=2) if quick else SHORT
    losses = {key: lab.losses(training) for key, training in trainings(spec, 1 if quick else SEEDS).items()}
    home = next(iter(lab.blocks.heldout))
    untouched = {"uncut": lab.whole(), "pruned, not trained": lab.losses(Start(targets=WIDTH))}
    rows = [{"model": name, "seed": "–", **_columns(values)} for name, values in untouched.items()]
    rows += [{"model": name, "seed": seed, **_columns(values)} for (name, seed), values in losses.items()]
    return Outcome(
        settings={"steps": spec.steps, "tokens": spec.steps * lab.data.seq_len, "learning rate": spec.learning_rate,
                  "held-out tokens of each text": lab.data.heldout_blocks * (lab.data.seq_len - 1)},
        bars=[
            Bar(name=f"nats by which forward KL beats cross-entropy on held-out {home}, worst seed", value=min(margins(losses, UNTAUGHT, home)), limit=">= 0"),
            Bar(name=f"nats by which pruned beats random weights on held-out {home}", value=min(margins(losses, RANDOM, home)), limit=">= 0"),
        ],
        rows=rows,
    )  # fmt: skip


def _columns(losses: dict[str, float]) -> dict[str, Any]:
    return {f"loss on {text}, nats": loss for text, loss in losses.items()}


def margins(losses: dict[tuple[str, int], dict[str, float]], worse: str, text: str) -> list[float]:
    """How much lower the loss of the taught, pruned model is than that of ``worse``, nats, a number a seed."""
    return [found[text] - losses[TAUGHT, seed][text] for (name, seed), found in losses.items() if name == worse]
