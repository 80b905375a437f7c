"""What is written is what was planned: parameters counted, logits after reloading, and a killed run's end."""

import os
import signal
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from bench.harness import Bar, Outcome
from core.data.blocks import build
from core.files import read_json
from core.model.checkpoint import full_config, load_model
from core.model.cost import cost_of
from core.model.source import resolve
from core.plan.plan import Plan, make_plan
from core.progress import Silent
from core.prune.export import prune_checkpoint
from core.prune.surgery import cut
from core.runs import control
from core.runs.folder import Run
from core.score.scoring import score
from core.specs import EMBEDDED_MODEL, DataSpec, DistillSpec, EvalSpec, RankSpec, RunSpec, ScoreSpec, Targets

TARGETS = {
    "neurons": Targets(intermediate_size=896),
    "key-value groups": Targets(num_key_value_heads=2),
    "layers": Targets(num_hidden_layers=24),
    "channels": Targets(hidden_size=504),
    "all": Targets(num_hidden_layers=28, num_attention_heads=6, intermediate_size=1280, hidden_size=540),
}


def measure(*, quick: bool) -> Outcome:
    """Cut the embedded model in several ways; then kill a training run in its middle and resume it."""
    folder = resolve(EMBEDDED_MODEL)
    blocks = build(DataSpec(), folder)
    scores = score(folder, blocks, ScoreSpec(), Silent())
    teacher, ids_BT = load_model(folder), torch.from_numpy(blocks.calibration_NT[:1, :64].astype(np.int64))
    rows, wrong_counts, worst = [], 0, 0.0
    for name, targets in list(TARGETS.items())[: 1 if quick else None]:
        plan = make_plan(scores, full_config(folder), targets, RankSpec())
        counted, difference = cut_and_reload(folder, teacher, plan, ids_BT)
        predicted = cost_of(full_config(folder), plan.dims).parameters
        wrong_counts += counted != predicted
        worst = max(worst, difference)
        rows.append({"cut": name, "predicted": predicted, "counted": counted, "largest logit difference after reload": difference})
    bars = [
        Bar(name="plans whose predicted parameters differ from the count", value=wrong_counts, limit="== 0"),
        Bar(name="largest logit difference after reload", value=worst, limit="== 0"),
    ]
    if not quick:
        undisturbed, killed = training_loss(kill=False), training_loss(kill=True)
        rows.append(
            {
                "cut": "killed at step 5 of 8 and resumed",
                "predicted": undisturbed,
                "counted": killed,
                "largest logit difference after reload": 0.0,
            }
        )
        bars.append(
            Bar(
                name="final loss of a killed and resumed run less the undisturbed one's, nats",
                value=abs(killed - undisturbed),
                limit="== 0",
            )
        )
    return Outcome(settings={"model": "SmolLM2-135M", "tokens": ids_BT.numel()}, bars=bars, rows=rows)


def cut_and_reload(folder: Path, teacher: torch.nn.Module, plan: Plan, ids_BT: torch.Tensor) -> tuple[int, float]:
    """Parameters of the written checkpoint, and how far its logits are from those of the model cut in memory."""
    from transformers import AutoConfig, AutoModelForCausalLM

    state, config = cut(dict(teacher.named_parameters()), full_config(folder), plan)
    cut_model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config), dtype=torch.float32).eval()
    cut_model.load_state_dict(state, strict=False)
    cut_model.tie_weights()
    with tempfile.TemporaryDirectory() as place:
        prune_checkpoint(folder, plan, Path(place) / "cut", {}, Silent())
        reloaded = load_model(Path(place) / "cut")
        with torch.no_grad():
            difference = float((reloaded(ids_BT).logits - cut_model(ids_BT).logits).abs().max())
        return sum(p.numel() for p in reloaded.parameters()), difference


def training_loss(*, kill: bool) -> float:
    """The last training loss of a short real run, in nats; the worker is killed with SIGKILL after step 5 if asked, then resumed."""
    spec = RunSpec(
        name=f"bench load {'killed' if kill else 'undisturbed'}", targets=Targets(intermediate_size=896), device="cpu",
        data=DataSpec(seq_len=128, heldout_blocks=1), score=ScoreSpec(ppl_blocks=0), evaluate=EvalSpec(prompts=("Once",), max_new_tokens=2),
        distill=DistillSpec(steps=8, checkpoint_every=2, evaluate_every=8),
    )  # fmt: skip
    run = control.start(spec)
    killed = not kill
    while (status := run.status()).live or status.resumable:
        if not killed and status.live and status.phase == "distill" and status.done >= 5:
            os.kill(int(read_json(run.path / "status.json")["pid"]), signal.SIGKILL)
            killed = True
        elif status.resumable:
            control.resume(run)
        time.sleep(0.2)
    loss = last_loss(run)
    control.delete(run)
    return loss


def last_loss(run: Run) -> float:
    """The loss of a finished run's last step."""
    steps = [event for event in run.events(0)[0] if event.get("phase") == "distill" and event.get("loss") is not None]
    return float(max(steps, key=lambda event: event["done"])["loss"])
