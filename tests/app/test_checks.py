"""What is looked at before a run starts: each check says what it found, and those that matter keep the run from starting."""

import json
import shutil
from pathlib import Path

import psutil
import pytest

from app import cached, checks
from app.state import Draft
from core.model.card import Card
from core.specs import DataSpec, DistillSpec, RunSpec, Targets
from tests.app.ready import make_model, open_page

CUT = Targets(num_hidden_layers=3)


@pytest.fixture
def card(tmp_path: Path) -> Card:
    return cached.card(str(make_model(tmp_path / "small")))


def check(spec: RunSpec, card: Card, name: str) -> checks.Check:
    return next(found for found in checks.checks(spec, card) if found.name == name)


def test_every_check_of_a_small_run_holds_but_for_the_tokenizer_that_is_not_there(card: Card) -> None:
    spec = RunSpec(kind="distill", model=card.model, targets=CUT)
    assert {found.name: found.mark for found in checks.checks(spec, card)} == {
        "Disk": checks.FINE, "Memory": checks.FINE, "Context": checks.FINE, "Tokenizer": checks.UNSURE, "Place": checks.FINE,
    }  # fmt: skip
    (card.folder / "tokenizer.json").write_text("{}")
    assert check(spec, card, "Tokenizer").mark == checks.FINE


def test_a_disk_too_small_keeps_the_run_from_starting(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = RunSpec(kind="distill", model=card.model, targets=CUT)
    needed = checks.disk_needed(spec, card)
    usage = shutil.disk_usage(card.folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=needed - 1))
    assert "are needed" in checks.wrong(spec, card)[0]
    at = open_page("distill", Draft(model=card.model, targets=CUT), run="new")
    assert at.button(key="start").disabled
    assert "COPPICE_WORKSPACE" in at.error[0].value


def test_too_little_memory_is_a_warning_as_the_figure_is_an_estimate(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = RunSpec(kind="distill", model=card.model, targets=CUT)
    memory = psutil.virtual_memory()
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory._replace(available=int(checks.memory_needed(spec, card)) - 1))
    assert check(spec, card, "Memory").mark == checks.UNSURE
    assert not checks.wrong(spec, card)


def test_training_needs_more_memory_than_cutting_and_longer_blocks_more_again(card: Card) -> None:
    cut, trained, longer = (
        checks.memory_needed(RunSpec(kind=kind, targets=CUT, data=DataSpec(seq_len=tokens)), card)
        for kind, tokens in (("prune", 64), ("distill", 64), ("distill", 128))
    )
    assert cut < trained < longer
    two = RunSpec(kind="distill", targets=CUT, data=DataSpec(seq_len=64), distill=DistillSpec(batch_blocks=2))
    assert checks.memory_needed(two, card) == longer


def test_what_a_graphics_card_has_free_is_not_claimed(card: Card) -> None:
    assert check(RunSpec(kind="distill", targets=CUT, device="cuda:1"), card, "Memory").mark == checks.UNSURE


def test_blocks_longer_than_the_models_context_are_refused(tmp_path: Path) -> None:
    folder = make_model(tmp_path / "short")
    config = json.loads((folder / "config.json").read_text()) | {"max_position_embeddings": 256}
    (folder / "config.json").write_text(json.dumps(config))
    card = cached.card(str(folder))
    assert "longer than the model's 256" in checks.wrong(RunSpec(kind="distill", targets=CUT), card)[0]
    assert not checks.wrong(RunSpec(kind="distill", targets=CUT, data=DataSpec(seq_len=256)), card)
