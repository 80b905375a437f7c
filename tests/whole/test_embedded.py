"""The main job on the real model and real text, with a budget of seconds instead of minutes."""

from pathlib import Path

import pytest
import torch

from bench.study.rankings import Reversed
from core.model.checkpoint import load_model, load_tokenizer
from core.model.embedded import MODEL_NAME
from core.plan.plan import Plan
from core.runs import control
from core.score import store
from core.specs import DataSpec, DistillSpec, EvalSpec, RankSpec, RepairSpec, RunSpec, ScoreSpec, Targets
from tests.whole.test_runs import finish

pytestmark = pytest.mark.embedded


def test_the_model_continues_a_sentence_as_the_published_one_does(borrowed: Path) -> None:
    folder = borrowed / "models" / MODEL_NAME
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    ids = tokenizer("The capital of France is", return_tensors="pt").input_ids
    with torch.no_grad():
        assert tokenizer.decode(model(ids).logits[0, -1].argmax()).strip() == "Paris"


def test_a_pruned_real_model_learns_from_its_teacher(borrowed: Path) -> None:
    spec = RunSpec(
        kind="distill", targets=Targets(hidden_size=540, intermediate_size=1280), score=ScoreSpec(ppl_blocks=1),
        data=DataSpec(seq_len=128, calibration_blocks=8, train_blocks=32, heldout_blocks=4),
        distill=DistillSpec(steps=16, batch_blocks=2, evaluate_every=16, checkpoint_every=16), evaluate=EvalSpec(prompts=("Water is",), max_new_tokens=8),
        repair=RepairSpec(method="none"),  # sixteen steps at this rate lose again what repair gives
    )  # fmt: skip
    run = finish(control.start(spec), seconds=800)
    results = run.results()
    for domain in ("wikipedia", "sotu"):
        teacher, pruned, distilled = (results[role]["heldout"][domain] for role in ("teacher", "pruned", "distilled"))
        assert 10 < teacher["perplexity"] < 60, "real text, read by the real model"
        assert pruned["kl_nats"] > 0.1
        assert distilled["kl_nats"] < 0.9 * pruned["kl_nats"], "sixteen steps already bring it back noticeably"
        assert teacher["loss_nats"] < distilled["loss_nats"] < pruned["loss_nats"]
    reloaded = load_model(run.path / "model")
    assert sum(parameter.numel() for parameter in reloaded.parameters()) == results["distilled"]["parameters"]
    assert Plan.load(run.path / "plan.npz").dims.hidden == 540
    scores = store.load(results["scores"])
    for depth in ("bi", "ppl", "kl"):
        importance_L = scores.importance("layers", RankSpec(depth=depth))
        assert importance_L.argmax() == 0, f"{depth}: the first layer turns embeddings into something else"
    assert scores.importance("channels", RankSpec()).shape == (576,)


def test_the_ranking_beats_its_reverse(borrowed: Path) -> None:
    from core.data.blocks import build
    from core.evaluate.measure import measure
    from core.model.checkpoint import full_config
    from core.plan.plan import make_plan
    from core.progress import Silent
    from core.prune.mask import masked
    from core.score.scoring import score

    folder = borrowed / "models" / MODEL_NAME
    blocks = build(DataSpec(seq_len=128, calibration_blocks=8, heldout_blocks=4), folder)
    scores = score(folder, blocks, ScoreSpec(ppl_blocks=0), Silent())
    model, tokenizer, config = load_model(folder), load_tokenizer(folder), full_config(folder)
    for name, targets in (("neurons", Targets(intermediate_size=1152)), ("channels", Targets(hidden_size=504))):
        losses = []
        for turned in (scores, Reversed(scores)):
            plan = make_plan(turned, config, targets, RankSpec())
            with masked(model, config, plan):
                losses.append(measure(model, blocks.heldout["wikipedia"], tokenizer)["loss_nats"])
        assert losses[0] < losses[1] - 0.1, name
