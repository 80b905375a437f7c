"""Measuring a draft on the targets page: offered, shown at once when it is known, told as stale when it is another's."""

import dataclasses
from pathlib import Path

import pytest

from app import cached
from app.state import Draft
from app.subject import subject_of
from core.data.blocks import build
from core.evaluate import store as measurements
from core.files import write_json
from core.model.source import fingerprint
from core.runs import control
from core.runs.folder import create
from core.runs.status import Status
from core.specs import DataSpec, RunSpec, Targets, TextSpec
from tests.app.ready import make_model, make_scores, open_page, rerun, said
from tests.tiny import tiny_tokenizer

FIGURES = {"loss_nats": 3.5, "perplexity": 33.1, "kl_nats": 0.512, "top1_agreement": 0.61, "tokens": 4088}


@pytest.fixture
def draft(tmp_path: Path) -> Draft:
    folder = make_model(tmp_path / "small")
    tiny_tokenizer().save_pretrained(folder)
    for name in ("here", "elsewhere"):
        paragraphs = [f"{name} {i} " + " ".join(f"word{i * 7 % 90}{j * 3 % 50}" for j in range(40)) for i in range(60)]
        (tmp_path / f"{name}.txt").write_text("\n\n".join(paragraphs))
    here, elsewhere = (TextSpec(source=str(tmp_path / f"{name}.txt")) for name in ("here", "elsewhere"))
    data = DataSpec(text=here, elsewhere=(elsewhere,), seq_len=32, calibration_blocks=4, train_blocks=4, heldout_blocks=2)
    return Draft(model=str(folder), data=data, targets=Targets(intermediate_size=20))


def keep_figures(draft: Draft) -> None:
    """Store made-up figures as a measurement would."""
    folder = Path(draft.model)
    scores = make_scores(folder, draft)
    masks = subject_of(draft, cached.card(draft.model), scores).masks
    for blocks_NT in build(draft.data, folder).heldout.values():
        for what, loss in ((measurements.TEACHER, 3.0), (measurements.kept(masks), 3.5)):
            measurements.save(fingerprint(folder), measurements.tokens_hash(blocks_NT), what, FIGURES | {"loss_nats": loss})


def test_a_draft_that_was_measured_is_answered_at_once_and_another_is_not(draft: Draft, monkeypatch: pytest.MonkeyPatch) -> None:
    keep_figures(draft)
    monkeypatch.setattr(cached, "find_scores", lambda draft: make_scores(Path(draft.model), draft))
    at = open_page("targets", draft)
    table = at.table[-1].value
    assert list(table["KL to the teacher"]) == ["0.512 nats"] * 2
    assert list(table["Above the teacher"]) == ["0.500 nats"] * 2
    assert not [button for button in at.button if button.key == "measure_draft"]
    at.select_slider(key="w_ffn").set_value(21)
    rerun(at)
    assert at.button(key="measure_draft")
    assert not at.table


def test_the_button_starts_one_measurement_of_this_draft(draft: Draft, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[RunSpec] = []
    monkeypatch.setattr(control, "start", lambda spec: started.append(spec) or create(spec))
    monkeypatch.setattr(cached, "find_scores", lambda draft: make_scores(Path(draft.model), draft))
    at = open_page("targets", draft)
    at.button(key="measure_draft").click()
    rerun(at)
    assert started == [draft.run_spec(kind="preview")]
    assert at.button(key="cancel_measuring")


def test_what_another_draft_measured_is_shown_as_stale(draft: Draft, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cached, "find_scores", lambda draft: make_scores(Path(draft.model), draft))
    run = create(dataclasses.replace(draft, targets=Targets(num_hidden_layers=3)).run_spec(kind="preview"))
    heldout = {"here": FIGURES | {"loss_nats": 3.0}}
    write_json(run.path / "results.json", {role: {"parameters": 9000, "heldout": heldout} for role in ("teacher", "draft")})
    run.write_status(Status(state="done", created=1.0))
    at = open_page("targets", draft)
    assert "Stale" in said(at)
    assert "3 layers" in said(at)
    assert at.button(key="measure_draft")


def test_nothing_is_offered_where_nothing_is_cut(draft: Draft, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cached, "find_scores", lambda draft: make_scores(Path(draft.model), draft))
    at = open_page("targets", dataclasses.replace(draft, targets=Targets()))
    assert "Measured, without retraining" not in said(at)
