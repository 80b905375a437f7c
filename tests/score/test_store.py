"""Scores on disk: found only under all that determines them, and refused in a sentence where they are not whole."""

from pathlib import Path

import numpy as np
import pytest

from core.errors import UserError
from core.files import read_json, write_json
from core.model.dims import dims_of
from core.score import store
from core.score.passes import LATER, PASSES, settings_of, wanted
from core.score.store import Scores, all_scores, find, load, pass_file, pass_key, save, save_pass, score_key
from core.specs import RankSpec, ScoreSpec
from tests.tiny import tiny_config

DIMS = dims_of(tiny_config().to_dict())
SPEC = ScoreSpec(ppl_blocks=2)


@pytest.fixture
def stored(workspace: Path) -> Scores:
    """Scores of two layers' worth of losses, and nothing else."""
    return put(SPEC)


def put(spec: ScoreSpec, created: float = 1.0) -> Scores:
    keys = {item.name: pass_key("model", "text", item, spec) for item in wanted(spec)}
    for name, key in keys.items():
        save_pass(key, {"losses": np.arange(12.0).reshape(2, 6), "name": np.array(name)})
    return save(score_key("model", "text", spec), keys, DIMS, {"created": created, "score": spec.to_dict()})


def test_what_is_saved_is_read_back(stored: Scores) -> None:
    again = load(stored.key)
    assert (again.dims, again.num_shards, again.meta) == (DIMS, 4, stored.meta)
    assert {name for name in PASSES if again.has(name)} == {"weights", "activations", "removal"}
    np.testing.assert_array_equal(again.array("removal", "losses"), np.arange(12.0).reshape(2, 6))
    np.testing.assert_array_equal(again.importance("layers", RankSpec(depth="ppl")), [1, 2, 3, 4, 5])


def test_scores_are_found_only_under_all_that_determines_them(stored: Scores) -> None:
    found = find("model", "text", ScoreSpec(ppl_blocks=2, batch_size=1))
    assert found is not None, "the batch size changes no score"
    assert found.key == stored.key
    others = [
        ScoreSpec(ppl_blocks=3),
        ScoreSpec(ppl_blocks=2, shards=2),
        ScoreSpec(ppl_blocks=2, ridge=0.02),
        ScoreSpec(ppl_blocks=2, windows=(2,)),
    ]
    assert all(find("model", "text", other) is None for other in others)
    assert find("other", "text", SPEC) is None
    assert find("model", "other", SPEC) is None


def test_no_setting_is_forgotten_in_the_names() -> None:
    changed = {
        "shards": 3, "ppl_blocks": 9, "gradient_blocks": 8, "covariances": True, "ridge": 0.5, "pre_activation": True, "windows": (2,), "greedy": 2,
        "isolate_documents": False, "loss_tokens": 0.5, "covariance_tokens": 0.5, "greedy_lazy": True,
    }  # fmt: skip
    assert set(changed) | {"batch_size"} == set(SPEC.to_dict()), "a new setting belongs into this list"
    keys = {score_key("model", "text", ScoreSpec(**{name: value})) for name, value in changed.items()}  # type: ignore[arg-type]
    assert len(keys | {score_key("model", "text", ScoreSpec())}) == len(changed) + 1
    switches = {item.name for item in PASSES.values() if not item.settings} | {"covariances", "pre_activation"}
    assert {setting for item in PASSES.values() for setting in item.settings} | switches >= set(changed), "every setting changes some pass"


def test_settings_that_came_later_name_nothing_until_they_are_changed() -> None:
    for item in PASSES.values():
        assert not set(settings_of(item, ScoreSpec())) & set(LATER)
        assert set(settings_of(item, ScoreSpec(loss_tokens=0.5, covariance_tokens=0.5, greedy_lazy=True))) == set(item.settings)
    assert {name: getattr(ScoreSpec(), name) for name in LATER} == LATER, "what was stored before is what the defaults ask for"


def test_a_pass_is_shared_by_all_scores_that_differ_in_what_it_does_not_look_at() -> None:
    one, other = ScoreSpec(), ScoreSpec(gradient_blocks=8, covariances=True, ridge=0.5, windows=(2,), greedy=1, batch_size=1)
    for item in PASSES.values():
        same = pass_key("m", "t", item, one) == pass_key("m", "t", item, other)
        assert same == (settings_of(item, one) == settings_of(item, other)), item.name
    assert pass_key("m", "t", PASSES["activations"], one) == pass_key("m", "t", PASSES["activations"], other)
    assert len({pass_key(model, text, item, one) for item in PASSES.values() for model in "mn" for text in "tu"}) == 4 * len(PASSES)


def test_another_version_finds_nothing_old(stored: Scores, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "VERSION", store.VERSION + 1)
    assert find("model", "text", SPEC) is None
    assert all_scores() == []
    with pytest.raises(UserError, match=r"made by another version of Coppice.*Score again"):
        load(stored.key)


def test_scores_that_are_not_there_are_told() -> None:
    with pytest.raises(UserError, match=r"no scores 'b2-none'.*Compute them first"):
        load("b2-none")


@pytest.mark.parametrize("content", [b"", b"{", b'{"version": 2', b"\xff\xfe\x00"])
def test_a_damaged_meta_file_is_refused_with_what_to_do(stored: Scores, content: bytes) -> None:
    (stored.folder / "meta.json").write_bytes(content)
    with pytest.raises(UserError, match=r"meta\.json is damaged .*Delete .* and score again"):
        load(stored.key)


@pytest.mark.parametrize("content", [b"[]", b"null", b"{}"])
def test_a_meta_file_that_says_no_version_is_refused(stored: Scores, content: bytes) -> None:
    (stored.folder / "meta.json").write_bytes(content)
    with pytest.raises(UserError, match=r"[Ss]core again"):
        load(stored.key)


def test_all_scores_are_listed_newest_first_and_damaged_ones_passed_over(stored: Scores) -> None:
    newer = put(ScoreSpec(ppl_blocks=5), created=2.0)
    broken = put(ScoreSpec(ppl_blocks=6), created=3.0)
    for content in (b"{", b"\xff", b"null"):
        (broken.folder / "meta.json").write_bytes(content)
        assert [scores.key for scores in all_scores()] == [newer.key, stored.key]


def test_scores_whose_pass_is_gone_are_not_found(stored: Scores) -> None:
    pass_file(stored.meta["passes"]["removal"]).unlink()
    assert find("model", "text", SPEC) is None
    with pytest.raises(UserError, match=r"missing or damaged .*score again"):
        load(stored.key).importance("layers", RankSpec(depth="ppl"))


def test_a_damaged_pass_is_refused_with_its_name_and_what_to_do(stored: Scores) -> None:
    path = pass_file(stored.meta["passes"]["removal"])
    whole = path.read_bytes()
    middle = len(whole) // 3
    for content in (b"", b"PK", whole[: len(whole) // 2], whole[:middle] + bytes(8) + whole[middle + 8 :]):
        path.write_bytes(content)
        with pytest.raises(UserError) as caught:
            load(stored.key).importance("layers", RankSpec(depth="ppl"))
        assert str(path) in str(caught.value)
        assert "Delete it, if it is there, and score again." in str(caught.value)
    path.write_bytes(whole)
    assert np.isfinite(load(stored.key).importance("layers", RankSpec(depth="ppl"))).all()


def test_a_pass_is_whole_or_not_there(workspace: Path) -> None:
    class Exploding:
        def __array__(self, *args: object, **settings: object) -> np.ndarray:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_pass("b2-torn", {"fine": np.zeros(3), "torn": Exploding()})  # type: ignore[dict-item]
    assert list(pass_file("b2-torn").parent.iterdir()) == []


def test_looking_at_some_shards_does_not_change_the_scores(stored: Scores) -> None:
    before = read_json(stored.folder / "meta.json")
    assert stored.on((1,)).shards == (1,)
    assert stored.shards is None
    assert stored.on((1,)).arrays("removal") is stored.arrays("removal"), "a file is read once"
    write_json(stored.folder / "meta.json", before)
    assert load(stored.key) == stored
