"""Laws of the cut: it is what a mask previews, it is what is counted, and what is written can be loaded."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from core.errors import UserError
from core.model.checkpoint import check_map, load_model
from core.model.cost import cost_of
from core.model.families import FAMILIES
from core.plan.plan import Plan, make_plan
from core.progress import Silent
from core.prune.export import prune_checkpoint
from core.prune.mask import masked
from core.prune.surgery import cut
from core.score.scoring import score_model
from core.specs import RankSpec, ScoreSpec, Targets
from tests.tiny import random_blocks, save_tiny, tiny_config, tiny_model

AXES = {
    "layers": Targets(num_hidden_layers=3),
    "kv groups": Targets(num_key_value_heads=2),
    "queries of every group": Targets(num_attention_heads=3),
    "neurons": Targets(intermediate_size=13),
    "channels": Targets(hidden_size=18),
    "all": Targets(num_hidden_layers=4, num_key_value_heads=2, num_attention_heads=2, intermediate_size=17, hidden_size=12),
}
IDS = torch.from_numpy(random_blocks(2, 12, seed=5)).long()


def plan_for(model: torch.nn.Module, targets: Targets) -> Plan:
    config = model.config.to_dict()  # type: ignore[union-attr, operator]
    scores = score_model(model, random_blocks(2, 16), ScoreSpec(ppl_blocks=0, shards=1))  # type: ignore[arg-type]
    return make_plan(scores, config, targets, RankSpec())


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits  # type: ignore[no-any-return]


def build(config: dict, state: dict[str, torch.Tensor]) -> torch.nn.Module:
    model = AutoModelForCausalLM.from_config(tiny_config(**config)).eval()
    missing, unexpected = model.load_state_dict(state, strict=False)
    assert set(missing) <= {"lm_head.weight"}
    assert not unexpected
    model.tie_weights()
    return model


@pytest.mark.usefixtures("workspace")
@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_cutting_equals_masking(kind: str, axis: str) -> None:
    model = tiny_model(kind)
    plan = plan_for(model, AXES[axis])
    state, config = cut(dict(model.named_parameters()), model.config.to_dict(), plan)
    with masked(model, model.config.to_dict(), plan):
        preview = logits(model)
    torch.testing.assert_close(logits(build(config, state)), preview, rtol=2e-4, atol=2e-4)
    assert not torch.allclose(preview, logits(model), atol=1e-2), "the cut changes something"


@pytest.mark.usefixtures("workspace")
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_the_identity_plan_gives_the_teacher_bit_for_bit(kind: str, tied: bool) -> None:
    model = tiny_model(kind, tie_word_embeddings=tied)
    state, config = cut(dict(model.named_parameters()), model.config.to_dict(), plan_for(model, Targets()))
    assert torch.equal(logits(build(config, state)), logits(model))


@pytest.mark.usefixtures("workspace")
@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_the_head_residual_moves_query_rows_and_nothing_else(kind: str) -> None:
    model = tiny_model(kind)
    config, tensors = model.config.to_dict(), dict(model.named_parameters())
    plain = plan_for(model, AXES["queries of every group"])
    scores = score_model(model, random_blocks(2, 16), ScoreSpec(ppl_blocks=0, shards=1))
    plan = make_plan(scores, config, plain.targets, RankSpec(head_residual=True))
    (bare, _), (made, _) = (cut(tensors, config, one) for one in (plain, plan))
    assert plan.partners is not None
    size = plan.source.head_dim
    for name, tensor in made.items():
        if "q_proj" not in name:
            assert torch.equal(tensor, bare[name]), name
            continue
        layer = int(name.split(".")[2])
        rows = tensors[name].unflatten(0, (-1, size))
        for place, (head, partner) in enumerate(zip(plan.heads[layer], plan.partners[layer], strict=True)):
            expected = rows[head] + (rows[head] - rows[partner]) if partner >= 0 else rows[head]
            torch.testing.assert_close(tensor.unflatten(0, (-1, size))[place], expected)


@pytest.mark.usefixtures("workspace")
def test_the_teacher_is_not_touched() -> None:
    model = tiny_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state, _ = cut(dict(model.named_parameters()), model.config.to_dict(), plan_for(model, AXES["all"]))
    for tensor in state.values():
        tensor.data.zero_()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


@pytest.mark.usefixtures("workspace")
@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("kind", sorted(FAMILIES))
def test_what_is_written_loads_and_is_what_was_cut(kind: str, axis: str, tmp_path: Path) -> None:
    source = save_tiny(tmp_path / "source", kind, tie_word_embeddings=kind in ("llama", "qwen3"))
    teacher = load_model(source)
    plan = plan_for(teacher, AXES[axis])
    prune_checkpoint(source, plan, tmp_path / "cut", {"model": "source"}, Silent())
    state, config = cut(dict(teacher.named_parameters()), teacher.config.to_dict(), plan)
    reloaded = load_model(tmp_path / "cut")
    assert torch.equal(logits(reloaded), logits(build(config, state))), "reloading changes no bit"
    assert sum(p.numel() for p in reloaded.parameters()) == cost_of(teacher.config.to_dict(), plan.dims).parameters
    assert {file.name for file in (tmp_path / "cut").iterdir()} >= {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "generation_config.json",
        "README.md",
    }
    check_map(reloaded)


@pytest.mark.usefixtures("workspace")
def test_a_large_model_is_written_in_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = save_tiny(tmp_path / "source")
    plan = plan_for(load_model(source), AXES["neurons"])
    prune_checkpoint(source, plan, tmp_path / "whole", {}, Silent())
    monkeypatch.setattr("core.prune.export.SHARD_BYTES", 20_000)
    prune_checkpoint(source, plan, tmp_path / "sharded", {}, Silent())
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 2
    assert torch.equal(logits(load_model(tmp_path / "sharded")), logits(load_model(tmp_path / "whole")))
    (next((tmp_path / "sharded").glob("*.safetensors"))).unlink()
    with pytest.raises(UserError, match="lacks weight files that its index names"):
        load_model(tmp_path / "sharded")


@pytest.mark.usefixtures("workspace")
def test_an_existing_folder_is_left_alone_and_nothing_is_left_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = save_tiny(tmp_path / "source")
    plan = plan_for(load_model(source), AXES["neurons"])
    (tmp_path / "taken").mkdir()
    with pytest.raises(UserError, match="exists already"):
        prune_checkpoint(source, plan, tmp_path / "taken", {}, Silent())
    monkeypatch.setattr("core.prune.export.save_file", lambda *a, **k: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(UserError, match="is full"):
        prune_checkpoint(source, plan, tmp_path / "full", {}, Silent())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "taken"]


@pytest.mark.usefixtures("workspace")
def test_a_checkpoint_with_tensors_that_the_map_does_not_know_is_refused(tmp_path: Path) -> None:
    source = save_tiny(tmp_path / "source", attention_bias=True)
    plan = plan_for(tiny_model(), AXES["neurons"])
    text = (source / "config.json").read_text().replace('"attention_bias": true', '"attention_bias": false')
    (source / "config.json").write_text(text)
    with pytest.raises(UserError, match=r"q_proj\.bias"):
        prune_checkpoint(source, plan, tmp_path / "cut", {}, Silent())
    with pytest.raises(UserError, match="do not fit its config"):
        load_model(source)


def test_masks_take_nothing_when_all_is_kept(workspace: Path) -> None:
    model = tiny_model()
    with masked(model, model.config.to_dict(), plan_for(model, Targets())):
        assert torch.equal(logits(model), logits(tiny_model()))
    assert np.isfinite(logits(model).numpy()).all()
