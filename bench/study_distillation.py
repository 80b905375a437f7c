"""``python -m bench.study_distillation [--quick] [--out FILE]``: Minitron's questions about retraining, asked of the embedded model.

Every training is kept as soon as it is done (``bench.regrowth``), the document is written anew after each, and whoever is
interrupted goes on where he was.
"""

import argparse
import dataclasses
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from bench.learning import QUICK_DATA
from bench.regrowth import BY_LOSS, DATA, DEPTH, SHORT, WIDTH, Lab, Start, Training
from bench.study.document import Section, Table, nats, percent, prose
from core.files import write_text
from core.runs import machine
from core.specs import DistillSpec, Targets
from core.workspace import ROOT, room

HALFWAY = Targets(hidden_size=540, intermediate_size=1328)
"""Half of the channels and neurons that ``WIDTH`` cuts."""

Arms = Mapping[str, Training]
"""What is set against what, by name."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Question:
    """Some trainings that are set against each other."""

    title: str
    paper: str
    """What the paper found, with its table."""
    setting: str
    arms: Arms
    reading: str = ""
    """What the full study's numbers say, written after they were seen."""


def questions(spec: DistillSpec) -> list[Question]:
    """The study's table of contents. All arms see the same blocks, as often as there are steps."""
    wide, deep = Start(targets=WIDTH), Start(targets=DEPTH)

    def wide_by(**changes: object) -> Training:
        return Training(start=wide, spec=dataclasses.replace(spec, **changes))  # type: ignore[arg-type]

    def deep_by(*kinds: str, **changes: object) -> Training:
        # Stored states are final ones only, so the teacher runs where others are learnt from; it says the same.
        cache = "off" if kinds else spec.teacher_cache
        return Training(start=deep, spec=dataclasses.replace(spec, intermediate=kinds, teacher_cache=cache, **changes))  # type: ignore[arg-type]

    halves = dataclasses.replace(spec, steps=spec.steps // 2)
    return [
        Question(
            title="Which loss on the logits",
            paper="Table 15, with cross-entropy added to each: KL 2.117, cosine 2.134, reverse KL 2.140, mean squared error 2.144; table 16, depth: KL 2.155, reverse KL 2.665.",
            setting="Channels and neurons cut, no cross-entropy; one peak rate for all.",
            arms={"forward KL": wide_by(), "reverse KL": wide_by(loss="reverse_kl"), "JSD, beta 0.5": wide_by(loss="jsd"),
                  "cosine of the probabilities": wide_by(loss="cosine"), "mean squared error of the logits": wide_by(loss="mse")},
            reading="Forward KL is best on both texts and by both measures, as in the paper, and by more than another seed's difference. Then JSD and cosine; reverse KL and the squared error of the logits, for which the rate may be wrong, are 0.2 to 0.3 nats behind.",
        ),
        Question(
            title="With or without the true next token",
            paper="Table 15: KL alone 2.107, KL and cross-entropy 2.117; table 14: conventional training is far behind.",
            setting="Channels and neurons cut.",
            arms={"forward KL": wide_by(), "forward KL and cross-entropy": wide_by(ce_weight=1.0),
                  "cross-entropy alone (conventional)": wide_by(kl_weight=0.0, ce_weight=1.0)},
            reading="Against the paper, cross-entropy beside KL lowers the loss by 0.03 nats on the text that is trained on, hardly elsewhere, and moves away from the teacher by 0.04 to 0.06 nats of divergence. Cross-entropy alone is as good as KL alone on the training's own domain and 0.05 worse on the other; its divergence is 0.14 to 0.16 higher.",
        ),
        Question(
            title="Width against depth, at equal parameters",
            paper="Table 13, after retraining: width 2.049 with 7.7 B, depth 2.155 with 9.4 B; table 1: before it, the order may be the other way round.",
            setting="Forward KL. The last row's model has the shape of the first and begins with random weights.",
            arms={"width: channels and neurons": wide_by(), "depth: layers by the loss without each": deep_by(),
                  "random weights": Training(start=Start(targets=WIDTH, at_random=True), spec=spec)},
            reading="Depth hurts less than width before training, against the paper's table 1, and stays ahead after it, though training takes back twice as much of width's loss (1.08 against 0.51 nats) and the losses then differ by 0.02 on one text, 0.08 on the other. Whether the order turns with more tokens, as it does in the paper, is not answered here. Random weights are 4.5 nats behind.",
        ),
        Question(
            title="Intermediate states, when much depth goes",
            paper="Table 17: logits 2.155; with block outputs (29:13) 2.145; and embedding 2.141; with the last layers (31:15) and embedding 2.180.",
            setting="A third of the layers cut, forward KL; states by cosine, weighted to the logits' loss. The default pair is the third layer from the end of each.",
            arms={"logits alone": deep_by(), "and block output, 17:27": deep_by("output"), "and block output, 17:27, and embedding": deep_by("output", "embedding"),
                  "and block output, 19:29, and embedding": deep_by("output", "embedding", layer_map=("19:29",))},
            reading="The block output brings 0.02 nats of loss and 0.04 of divergence on the training's domain, nothing on the other; the embedding adds nothing, and has nothing to add where the width is uncut. The last pair of layers is worse than the third from the end on one text and the same on the other. The order is the paper's, the differences are at the limit of what one seed can tell.",
        ),
        Question(
            title="Single-shot against iterative",
            paper="Table 12: importance in 1, 2 or 4 rounds, then the same retraining: 1.92 each. Figure 8 and practice 3: cutting in one go is no worse than in stages with training between.",
            setting="Channels and neurons cut, forward KL, as many steps in all. In two stages the importance is measured anew on what half of the steps left.",
            arms={"in one go": wide_by(),
                  "importance in two rounds, then training": Training(start=Start(targets=WIDTH, rank=dataclasses.replace(BY_LOSS, rounds=2)), spec=spec),
                  "half the cut, half the training, twice": Training(start=Start(targets=WIDTH, of=Training(start=Start(targets=HALFWAY), spec=halves)), spec=halves)},
            reading="Two rounds of importance end where one does on the training's domain and 0.05 nats lower on the other. Cutting and training in two stages is 0.04 to 0.06 nats worse than one cut and the whole training, as the paper finds.",
        ),
    ]  # fmt: skip


def trainings(asked: list[Question]) -> list[Training]:
    """Every training once, in order."""
    return list(dict.fromkeys(training for question in asked for training in question.arms.values()))


def section(lab: Lab, question: Question, known: Callable[[Training], bool]) -> Section:
    """A question's table, with the arms that are measured."""
    texts = list(lab.blocks.heldout)
    head = [
        "",
        "parameters",
        *(f"{text}, before" for text in texts),
        *(f"{text}, after" for text in texts),
        *(f"KL on {text}, after" for text in texts),
    ]
    rows = []
    for name, training in question.arms.items():
        if known(training):
            before, after = lab.losses(training.start), lab.figures(training)
            rows.append([
                name, f"{after['parameters'] / 1e6:.1f} M", *(nats(before[text]) for text in texts),
                *(f"{after['heldout'][text]['loss_nats']:.3f}" for text in texts), *(f"{after['heldout'][text]['kl_nats']:.3f}" for text in texts),
            ])  # fmt: skip
        else:
            rows.append([name, *["–"] * (len(head) - 1)])
    caption = "Loss on held-out text before and after training, nats a token, and the divergence from the uncut model after it"
    return Section(question.title, f"{question.setting} The paper: {question.paper}", [Table(caption, head, rows)])


def write(path: Path, lab: Lab, asked: list[Question], spec: DistillSpec, command: str, readings: bool) -> None:
    """Write what is known so far."""
    todo = [training for training in trainings(asked) if not lab.known(training)]
    parts = [_opening(lab, spec, command), *([f"**Not measured yet:** {len(todo)} of {len(trainings(asked))} trainings."] if todo else [])]
    for number, question in enumerate(asked, start=1):
        parts.append(section(lab, question, lab.known).markdown(number, question.reading if readings else ""))
    write_text(path, "\n\n".join([*parts, _closing(lab, spec, command)]) + "\n")


def _opening(lab: Lab, spec: DistillSpec, command: str) -> str:
    whole = " and ".join(f"{loss:.3f} on {text}" for text, loss in lab.whole().items())
    errors = [values["loss_se_nats"] or 0.0 for figures in lab.asked.values() for values in figures["heldout"].values()]
    tokens = spec.steps * lab.data.seq_len
    paragraphs = (
        f"A study on the model that comes with Coppice (SmolLM2-135M-Instruct), made by `{command}` on {time.strftime('%Y-%m-%d', time.gmtime())}: the questions of "
        f"Minitron's tables 12, 13, 15 and 17 (arXiv 2407.14679), each answered by a training of {spec.steps} steps on {tokens:,} tokens.",
        "The paper's trainings have 1.8 billion tokens. So few as here show how a cut model begins to recover, not where it ends; what is read here holds for short retraining only. "
        "Cuts are plain, without repair, and take about a quarter of all parameters. One seed: the same training on other blocks "
        "ends some 0.02 nats away (`python -m bench learning` shows three seeds), so rows that are closer than that are not told apart.",
        f"The uncut model's loss is {whole} nats a token; the standard error of a loss, from block to block, is at most {max(errors):.2f}, and rows are compared on the same blocks. Lower "
        f"is better everywhere.",
    )  # fmt: skip
    return "\n\n".join(["# How should a cut model learn?", *map(prose, paragraphs)])


def _closing(lab: Lab, spec: DistillSpec, command: str) -> str:
    """Everything that is needed to make the numbers again."""
    about, data = machine.describe("cpu"), lab.data
    minutes = sum(figures["cpu_s"] for figures in lab.asked.values()) / 60
    rows = [
        ("command", f"`{command}`"),
        ("model", f"SmolLM2-135M-Instruct, weights {lab.weights}"),
        ("training", f"{spec.steps} steps of one block of {data.seq_len} tokens; AdamW, peak rate {spec.learning_rate:g}, warm-up {percent(spec.warmup_frac)}, {spec.schedule} to a tenth"),
        ("calibration", f"{data.calibration_blocks} blocks of the same text; width by activation (l2, mean), layers by the loss without each"),
        ("held-out", f"{data.heldout_blocks} blocks of each text, {data.seq_len - 1} predicted tokens a block; {data.text.source} is also the domain of training"),
        ("seeds", f"data {data.seed}, order of the blocks {spec.seed}, random weights 0"),
        ("processor time", f"{minutes:.0f} minutes for everything, some of it on one thread"),
        ("machine", f"{about['cpu']}, {about['cores']} cores, {about['memory_bytes'] / 1e9:.0f} GB, {about['platform']}"),
        ("versions", f"Python {about['python']}, " + ", ".join(f"{name} {version}" for name, version in about["versions"].items())),
    ]  # fmt: skip
    return "## How it was measured\n\n" + Table("Everything that decides the numbers", ("what", "value"), rows).markdown()


def main() -> int:
    """Carry out what is not known yet, in order."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.study_distillation", description="The study of retraining on the embedded model."
    )
    parser.add_argument("--quick", action="store_true", help="a tiny version of everything, which shows no more than that it works")
    parser.add_argument(
        "--out", type=Path, help="the document; docs/study-distillation.md, or with --quick study/quick-distillation.md of the workspace"
    )
    given = parser.parse_args()
    out = given.out or (room("study") / "quick-distillation.md" if given.quick else ROOT / "docs" / "study-distillation.md")
    lab, spec = (Lab(QUICK_DATA), dataclasses.replace(SHORT, steps=2)) if given.quick else (Lab(DATA), SHORT)
    asked, command = questions(spec), "python -m bench.study_distillation" + " --quick" * given.quick
    for done, training in enumerate(trainings(asked)):
        print(f"{done} of {len(trainings(asked))} trainings are done", file=sys.stderr, flush=True)
        lab.figures(training)
        write(out, lab, asked, spec, command, readings=not given.quick)
    print(out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
