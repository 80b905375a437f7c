"""Tokens a second of distillation: Coppice's trainer against those that people use today, on the same student, teacher, blocks and batch.

Every trainer runs in a process of its own, in turn, several rounds; ratios are of processor time within a round.
"""

import argparse
import statistics
import subprocess
import sys
from typing import Any

from bench.harness import Bar, Outcome, show
from bench.peers.packages import NotInstalled
from bench.peers.trainers import CACHED, OURS, PEERS, TRAINERS, timed
from bench.regrowth import WIDTH, Lab, Start

TOKENS, BATCH, STEPS, ROUNDS = 512, 2, 3, 3


def measure(*, quick: bool, dtype: str = "float32") -> Outcome:
    """Let each trainer learn a few steps, as often as there are rounds, all of them computing in ``dtype``."""
    lab, rounds, steps = Lab(), 1 if quick else ROUNDS, 1 if quick else STEPS
    student, blocks_NT = lab.model(Start(targets=WIDTH)), lab.blocks.train_NT.reshape(-1, TOKENS)[: BATCH * (steps + 1)]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in TRAINERS}
    causes: dict[str, str] = {}
    for _ in range(rounds):
        for name in TRAINERS:
            try:
                found[name].append(timed(name, student, lab.teacher, blocks_NT, BATCH, steps, dtype))
            except NotInstalled as error:
                causes[name] = str(error)
            except subprocess.CalledProcessError as error:
                causes[name] = f"cannot run: {error.stderr.strip().splitlines()[-1]}"
    for name, cause in causes.items():
        print(f"NOT MEASURED, {name}: {cause}", file=sys.stderr, flush=True)
    return Outcome(
        settings={"tokens a step": BATCH * TOKENS, "steps timed a round": steps, "rounds": rounds, "computed in": dtype, "time": "of the processor, all threads"},
        bars=[
            Bar(name=f"tokens a second, {mine} / {peer}", value=faster(found[mine], found[peer]), limit=">= 1.5")
            for mine in (OURS, CACHED) for peer in PEERS if found[peer]
        ],
        rows=[row(name, rounds_of, causes.get(name, "")) for name, rounds_of in found.items()],
    )  # fmt: skip


def seconds(found: dict[str, Any], clock: str = "cpu_s") -> float:
    """Median time of a step."""
    return statistics.median(step[clock] for step in found["steps"])


def faster(mine: list[dict[str, Any]], others: list[dict[str, Any]]) -> float:
    """How many times as many tokens a second, median over the rounds."""
    return statistics.median(seconds(other) / seconds(one) for one, other in zip(mine, others, strict=True))


def row(name: str, rounds: list[dict[str, Any]], cause: str) -> dict[str, Any]:
    """One trainer's figures; its first loss shows that all learn the same."""
    if not rounds:
        return {
            "trainer": name,
            "processor s a step": "–",
            "clock s a step": "–",
            "first loss, nats": "–",
            "peak memory, GB": "–",
            "note": cause,
        }
    return {
        "trainer": name, "processor s a step": statistics.median(map(seconds, rounds)),
        "clock s a step": statistics.median(seconds(found, "wall_s") for found in rounds),
        "first loss, nats": rounds[0]["loss"][0], "peak memory, GB": max(found["peak_bytes"] for found in rounds) / 1e9, "note": cause,
    }  # fmt: skip


def main() -> int:
    """Measure in one number format."""
    parser = argparse.ArgumentParser(prog="python -m bench.trainers", description="The benchmark of trainers, all in one number format.")
    parser.add_argument("dtype", choices=("float32", "bfloat16"))
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--quick", action="store_true", help="a first impression; judges nothing")
    given = parser.parse_args()
    return 0 if show("trainers", measure(quick=given.quick, dtype=given.dtype), as_json=given.json, quick=given.quick) else 1


if __name__ == "__main__":
    sys.exit(main())
