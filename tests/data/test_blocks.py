"""The laws of the three sets: nothing in two, seeded, extended by larger requests, whole on disk; and what is refused."""

import dataclasses
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from core.data import blocks, deal, pack
from core.errors import UserError
from core.model.embedded import ensure_model
from core.specs import MIXED_TEXTS, DataSpec, TextSpec

T = 16


def prose(seed: int, documents: int, sentences: int = 30) -> list[str]:
    """Documents of random words; no two paragraphs are alike."""
    words = [f"{a}{b}" for a in ("ka", "lo", "mi", "ne", "pu") for b in ("ra", "ti", "so", "wen", "dul")]
    rng = random.Random(seed)
    return ["\n\n".join(" ".join(rng.choices(words, k=24)) + f" {seed}-{i}-{j}." for j in range(sentences)) for i in range(documents)]


def write(path: Path, documents: list[str]) -> str:
    path.write_text("".join(json.dumps({"text": document}) + "\n" for document in documents))
    return str(path)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a byte-pair tokenizer of 300 tokens and a config; no weights are needed."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<end>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(prose(9, 5), trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<end>"}')
    (folder / "config.json").write_text('{"vocab_size": 300}')
    return folder


@pytest.fixture
def data(tmp_path: Path) -> DataSpec:
    return DataSpec(
        text=TextSpec(source=write(tmp_path / "here.jsonl", prose(0, 40))),
        elsewhere=(TextSpec(source=write(tmp_path / "there.jsonl", prose(1, 12))),),
        seq_len=T, calibration_blocks=5, train_blocks=11, heldout_blocks=3,
    )  # fmt: skip


def words_of(blocks_NT: np.ndarray, folder: Path) -> set[str]:
    """The paragraph marks (``seed-document-paragraph``) that some blocks show whole."""
    text = Tokenizer.from_file(str(folder / "tokenizer.json")).decode_batch(blocks_NT.tolist())
    return {word for part in text for word in part.split() if word.endswith(".") and word.count("-") == 2}


def test_the_sets_have_the_shapes_that_were_asked_for(data: DataSpec, model_folder: Path) -> None:
    made = blocks.build(data, model_folder)
    assert made.calibration_NT.shape == (5, T)
    assert made.train_NT.shape == (11, T)
    assert {name: array.shape for name, array in made.heldout.items()} == {"here": (3, T), "there": (3, T)}
    assert made.train_NT.dtype == np.int32
    assert made.meta["notes"] == []


def test_no_block_and_no_document_is_in_two_sets(data: DataSpec, model_folder: Path) -> None:
    made = blocks.build(dataclasses.replace(data, seq_len=200, train_blocks=30, calibration_blocks=9, heldout_blocks=9), model_folder)
    sets = [made.calibration_NT, made.train_NT, *made.heldout.values()]
    rows = [row.tobytes() for array in sets for row in array]
    assert len(rows) == len(set(rows)) == 57
    documents = [{mark.rsplit("-", 1)[0] for mark in words_of(array, model_folder)} for array in sets]
    assert all(documents)
    assert sum(map(len, documents)) == len(set[str]().union(*documents))


def test_a_few_blocks_show_many_documents(data: DataSpec, model_folder: Path) -> None:
    assert blocks.build(data, model_folder).meta["sets"]["train"]["documents"] > 5


def test_the_same_seed_gives_the_same_bits_and_another_another_order(data: DataSpec, model_folder: Path, workspace: Path) -> None:
    first = blocks.build(data, model_folder)
    kept = np.array(first.train_NT)
    shutil.rmtree(workspace / "blocks")
    again = blocks.build(data, model_folder)
    other = blocks.build(dataclasses.replace(data, seed=1), model_folder)
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert np.array_equal(kept, again.train_NT)
    assert not np.array_equal(kept, other.train_NT)


def test_a_larger_request_begins_with_the_blocks_of_a_smaller_one(data: DataSpec, model_folder: Path) -> None:
    few = blocks.build(data, model_folder)
    many = blocks.build(dataclasses.replace(data, calibration_blocks=9, train_blocks=50, heldout_blocks=6), model_folder)
    assert np.array_equal(many.calibration_NT[:5], few.calibration_NT)
    assert np.array_equal(many.train_NT[:11], few.train_NT)
    assert all(np.array_equal(many.heldout[name][:3], few.heldout[name]) for name in few.heldout)


@pytest.mark.parametrize(("count", "trained"), [(3, 0), (5, 0), (9, 4), (99, 11)])
def test_the_first_blocks_are_those_of_calibration_then_those_to_learn_from(
    count: int, trained: int, data: DataSpec, model_folder: Path
) -> None:
    made = blocks.build(data, model_folder)
    assert np.array_equal(made.first(count), np.concatenate([made.calibration_NT[:count], made.train_NT[:trained]]))


def test_blocks_know_where_their_documents_begin(data: DataSpec, model_folder: Path) -> None:
    made = blocks.build(data, model_folder)
    tokens, documents = made.calibration_NT.ravel(), made.calibration_documents_NT.ravel()
    assert made.calibration_documents_NT.shape == made.calibration_NT.shape
    ends = np.flatnonzero(tokens == made.meta["tokenizer"]["separator_id"])
    assert len(ends) > 1
    np.testing.assert_array_equal(np.flatnonzero(np.diff(documents)), ends[ends < len(tokens) - 1])
    assert set(np.diff(documents)) == {0, 1}


def test_the_same_tokens_in_other_documents_are_another_text(tmp_path: Path) -> None:
    encoder = pack.Encoder(encode=lambda text: [ord(c) for c in text], separator=None, separator_id=None, vocab_size=None, fingerprint="")
    texts = (["abcd", "efgh"], ["abcdefgh"])
    rows = []
    for number, documents in enumerate(texts):
        packed = pack.pack(documents, encoder, seq_len=8, blocks=1, seed=0)
        made = blocks._Set(
            text=TextSpec(), asked=1, documents=documents, packed=dataclasses.replace(packed, blocks_NT=np.sort(packed.blocks_NT))
        )
        rows.append(blocks._row(tmp_path / f"{number}.npy", made))
    assert rows[0]["fingerprint"] != rows[1]["fingerprint"]


def test_blocks_come_back_from_disk_mapped_and_by_their_settings(data: DataSpec, model_folder: Path) -> None:
    assert blocks.find(data) is None
    made = blocks.build(data, model_folder)
    loaded = blocks.load(made.fingerprint)
    found = blocks.find(data, model_folder)
    assert found is not None
    assert found.fingerprint == made.fingerprint
    assert isinstance(loaded.train_NT, np.memmap)
    assert np.array_equal(loaded.train_NT, made.train_NT)
    assert list(loaded.heldout) == ["here", "there"]
    row = loaded.meta["sets"]["train"]
    assert row["tokens"] == 11 * T
    assert len(row["samples"]) == 3
    assert row["documents"] <= row["documents_dealt"]


def test_reading_blocks_needs_neither_torch_nor_datasets(data: DataSpec, model_folder: Path) -> None:
    key = blocks.build(data, model_folder).fingerprint
    code = f"import sys; from core.data import blocks; blocks.load({key!r}); print([m for m in ('torch', 'transformers', 'datasets') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_changed_text_makes_new_blocks(data: DataSpec, model_folder: Path) -> None:
    before = blocks.build(data, model_folder).fingerprint
    write(Path(data.text.source), prose(5, 40))
    assert blocks.build(data, model_folder).fingerprint != before


def test_repeated_documents_count_once(tmp_path: Path, data: DataSpec, model_folder: Path) -> None:
    twice = prose(0, 40) + [document.replace(" ", "  ") for document in prose(0, 7)]
    made = blocks.build(dataclasses.replace(data, text=TextSpec(source=write(tmp_path / "twice.jsonl", twice))), model_folder)
    assert any("7 repeated documents" in note for note in made.meta["notes"])


def test_a_training_document_that_quotes_a_held_out_one_is_dropped(tmp_path: Path, data: DataSpec, model_folder: Path) -> None:
    documents = prose(0, 40)
    quoted = deal.deal(documents, (1, 1), data.seed).documents["heldout"][0].split("\n\n")[3]
    hand = deal.deal(documents, (1, 1), data.seed)
    victim = hand.documents["train"][4]
    documents[documents.index(victim)] = f"{victim}\n\n{quoted}"
    after = deal.deal(documents, (1, 1), data.seed)
    assert after.dropped == 1
    assert len(after.documents["train"]) == len(hand.documents["train"]) - 1
    assert after.documents["heldout"] == hand.documents["heldout"]


def test_a_short_text_gives_held_out_more_documents_rather_than_too_few_blocks(tmp_path: Path, data: DataSpec, model_folder: Path) -> None:
    text = TextSpec(source=write(tmp_path / "short.jsonl", prose(2, 20, sentences=2)))
    made = blocks.build(dataclasses.replace(data, text=text, heldout_blocks=20, calibration_blocks=20), model_folder)
    assert made.meta["heldout"]["short"]["documents_dealt"] > 2
    assert len(made.heldout["short"]) > 10


def test_fewer_blocks_than_asked_are_noted(data: DataSpec, model_folder: Path) -> None:
    made = blocks.build(dataclasses.replace(data, train_blocks=100_000), model_folder)
    assert len(made.train_NT) < 100_000
    assert any(note.startswith("train: ") and "more than once" in note for note in made.meta["notes"])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"seq_len": 100_000}, r"too short for the calibration set: \d+ tokens were found .* 100000 are needed"),
        ({"text": ["one document"]}, "1 document, but held-out, calibration and training text need at least one each"),
        ({"elsewhere": prose(0, 1)}, "shares 1 whole document with"),
        ({"elsewhere": ["\n\n".join(prose(1, 1)[0].split("\n\n") + prose(0, 40)[20].split("\n\n")[:3])]}, r"9\.\d% of their paragraphs in common"),
        ({"elsewhere": []}, "holds no text"),
    ],
)  # fmt: skip
def test_sets_that_cannot_be_made_are_refused_and_leave_nothing(
    tmp_path: Path, data: DataSpec, model_folder: Path, workspace: Path, change: dict[str, object], said: str
) -> None:
    fields: dict[str, object] = dict(change)
    if "text" in change:
        fields["text"] = TextSpec(source=write(tmp_path / "own.jsonl", change["text"]))  # type: ignore[arg-type]
    if "elsewhere" in change:
        path = tmp_path / "other.jsonl"
        source = write(path, change["elsewhere"] or [" "])  # type: ignore[arg-type]
        fields["elsewhere"] = (TextSpec(source=source),)
    with pytest.raises(UserError, match=said):
        blocks.build(dataclasses.replace(data, **fields), model_folder)  # type: ignore[arg-type]
    assert list((workspace / "blocks").iterdir()) == []


def test_a_folder_without_a_usable_tokenizer_is_refused(tmp_path: Path, data: DataSpec) -> None:
    with pytest.raises(UserError, match="has no tokenizer"):
        blocks.build(data, tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(UserError, match="is damaged"):
        blocks.build(data, tmp_path)


def test_a_tokenizer_larger_than_the_model_is_refused(tmp_path: Path, data: DataSpec, model_folder: Path) -> None:
    shutil.copytree(model_folder, tmp_path / "wrong")
    (tmp_path / "wrong" / "config.json").write_text('{"vocab_size": 270}')
    with pytest.raises(UserError, match="do not belong together"):
        blocks.build(data, tmp_path / "wrong")


def test_unknown_blocks_are_refused() -> None:
    with pytest.raises(UserError, match="no token blocks 'b2-none'"):
        blocks.load("b2-none")


def test_texts_of_one_name_stay_apart(data: DataSpec) -> None:
    same = dataclasses.replace(data, elsewhere=(TextSpec(source="/x/here.txt"), TextSpec(source="/y/here.md")))
    assert blocks.domains(same) == ["here", "here (2)", "here (3)"]


@pytest.mark.parametrize("characters", [40, 400])
def test_sections_lose_no_word_and_keep_to_their_size(characters: int) -> None:
    document = prose(3, 1)[0] + "\n\n" + "verylong" * 300
    parts = pack.sections(document, characters)
    assert "".join("".join(parts).split()) == "".join(document.split())
    assert max(map(len, parts)) <= 3 * characters + 2


@pytest.mark.embedded
def test_the_embedded_text_gives_the_default_sets_for_the_embedded_model(embedded_workspace: Path) -> None:
    made = blocks.build(DataSpec(), ensure_model())
    assert made.calibration_NT.shape == (16, 512)
    assert made.train_NT.shape == (128, 512)
    assert list(made.heldout) == ["wikipedia", "sotu"]
    assert made.meta["tokenizer"]["separator"] == "<|endoftext|>"
    assert made.meta["notes"] == []
    assert made.meta["sets"]["calibration"]["documents"] >= 8


@pytest.fixture
def mixed(workspace: Path) -> DataSpec:
    """A mix of small stand-ins for the embedded texts; the paragraphs of part i carry the mark ``<10 + i>-document-paragraph``."""
    (workspace / "texts").mkdir()
    for i, name in enumerate((*MIXED_TEXTS, "sotu")):
        write(workspace / "texts" / f"{name}.jsonl", prose(10 + i, 30))
    return DataSpec(text=TextSpec(source="mix"), seq_len=256, calibration_blocks=12, train_blocks=14, heldout_blocks=7)


def parts_of(blocks_NT: np.ndarray, folder: Path) -> list[set[str]]:
    """The parts of the mix that each block shows, by their marks."""
    return [{mark.split("-")[0] for mark in words_of(block_T[None], folder)} for block_T in blocks_NT]


def test_a_mix_takes_a_block_of_each_of_its_texts_in_turn(mixed: DataSpec, model_folder: Path) -> None:
    made = blocks.build(mixed, model_folder)
    order = [{str(10 + i)} for i in range(len(MIXED_TEXTS))]
    assert list(made.heldout) == ["mix", "sotu"]
    for array, count in ((made.calibration_NT, 12), (made.train_NT, 14), (made.heldout["mix"], 7)):
        assert parts_of(array, model_folder) == [order[i % len(order)] for i in range(count)]
    assert parts_of(made.heldout["sotu"], model_folder) == [{str(10 + len(MIXED_TEXTS))}] * 7


def test_the_sets_of_a_mix_share_no_document(mixed: DataSpec, model_folder: Path) -> None:
    made = blocks.build(mixed, model_folder)
    sets = [
        {mark.rsplit("-", 1)[0] for mark in words_of(array, model_folder)}
        for array in (made.calibration_NT, made.train_NT, made.heldout["mix"])
    ]
    assert sum(map(len, sets)) == len(set[str]().union(*sets))


def test_what_a_text_alone_holds_out_is_in_no_mix_of_the_same_seed(mixed: DataSpec, model_folder: Path) -> None:
    seen = words_of(blocks.build(mixed, model_folder).calibration_NT, model_folder)
    for name in MIXED_TEXTS:
        alone = blocks.build(dataclasses.replace(mixed, text=TextSpec(source=name)), model_folder)
        held = {mark.rsplit("-", 1)[0] for mark in words_of(alone.heldout[name], model_folder)}
        assert held
        assert not held & {mark.rsplit("-", 1)[0] for mark in seen}


@pytest.mark.parametrize("name", MIXED_TEXTS)
def test_a_part_of_a_mix_is_refused_as_a_text_from_elsewhere(name: str, mixed: DataSpec, model_folder: Path) -> None:
    with pytest.raises(UserError, match=rf"'{name}' shares 2\d whole documents with calibration and training text 'mix'"):
        blocks.build(dataclasses.replace(mixed, elsewhere=(TextSpec(source=name),)), model_folder)


def test_texts_of_a_mix_that_share_documents_are_refused(mixed: DataSpec, model_folder: Path, workspace: Path) -> None:
    write(workspace / "texts" / "tales.jsonl", prose(10, 30)[::-1])
    with pytest.raises(UserError, match="'mix' shares"):
        blocks.build(mixed, model_folder)


def test_a_mix_is_named_by_all_of_its_texts(mixed: DataSpec, model_folder: Path, workspace: Path) -> None:
    first = blocks.fingerprint(mixed, model_folder)
    assert first == blocks.fingerprint(mixed, model_folder) != blocks.fingerprint(dataclasses.replace(mixed, seed=1), model_folder)
    write(workspace / "texts" / f"{MIXED_TEXTS[-1]}.jsonl", prose(99, 30))
    assert blocks.fingerprint(mixed, model_folder) != first
