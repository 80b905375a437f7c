"""Every broken or dangerous checkpoint is told apart, and none is opened."""

import json
from pathlib import Path

import pytest

from core.errors import UserError
from core.model.card import card
from core.model.source import fingerprint, resolve
from tests.tiny import save_tiny


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save_tiny(tmp_path / "model")


def told(model: Path | str) -> str:
    with pytest.raises(UserError) as caught:
        resolve(str(model))
    return str(caught.value)


def test_a_whole_checkpoint_is_taken_as_it_is(model: Path) -> None:
    assert resolve(str(model)) == model


def test_a_folder_without_config(tmp_path: Path) -> None:
    assert "has no config.json" in told(tmp_path)


def test_a_config_without_weights(model: Path) -> None:
    (model / "model.safetensors").unlink()
    assert "no weights" in told(model)
    assert card(str(model)).cost.parameters > 0, "the card needs no weights"
    assert card(str(model)).weights_bytes is None


def test_pickled_weights_are_refused_with_the_way_to_convert_them(model: Path) -> None:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    assert "may run code" in told(model)
    assert "save_pretrained" in told(model)


@pytest.mark.parametrize("keep", [0, 5, 300, -1])
def test_truncated_weights(model: Path, keep: int) -> None:
    file = model / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    assert "cut short or damaged" in told(model)


def test_config_that_is_not_json(model: Path) -> None:
    (model / "config.json").write_text("{")
    with pytest.raises(UserError, match="not valid JSON"):
        card(str(model))


@pytest.mark.parametrize("name", ["./nothing", "/no/such/place", "a/b/c", "~/nowhere-at-all"])
def test_a_path_that_is_not_there_is_not_taken_for_a_hub_id(name: str) -> None:
    assert "There is no folder" in told(name)


@pytest.mark.parametrize("name", ["owner/name", "gpt2"])
def test_a_hub_id_that_cannot_be_had_says_so(name: str) -> None:
    assert "is no local folder, and the hub did not give it" in told(name)


def test_the_fingerprint_follows_content_not_place_or_time(model: Path, tmp_path: Path) -> None:
    before = fingerprint(model)
    twin = tmp_path / "twin"
    model.rename(twin)
    assert fingerprint(twin) == before
    config = json.loads((twin / "config.json").read_text())
    (twin / "config.json").write_text(json.dumps(config | {"rms_norm_eps": 1e-3}))
    assert fingerprint(twin) != before
