"""The embedded texts as documents: what each package carries, read as title and text.

Stands beside the packages that carry them; each reader takes the folder of a package's verified members.
"""

import ast
import bz2
import csv
import io
import re
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from core.model import wikitext
from core.progress import Progress

SHORTEST_MODULE = 1500
"""Characters below which a module says too little to be a document."""
SHORTEST_SPEECH = 600
"""Characters below which a speech is an interjection or a question."""

Document = tuple[str, str]
"""Title and text."""


def wikipedia(members: Path, progress: Progress) -> Iterator[Document]:
    """Title and prose of each article of a compressed MediaWiki dump."""
    progress.note("Turning Wikipedia's mark-up into prose (once).")
    with bz2.open(_only(members, "*.bz2")) as dump:
        for done, (title, markup) in enumerate(wikitext.pages(dump), start=1):
            progress.step("prose", done, max(done, wikitext.DUMP_ARTICLES))
            if text := wikitext.prose(markup):
                yield title, text


def sotu(members: Path, progress: Progress) -> Iterator[Document]:
    """Title (``1961 Kennedy``, ``1973 Nixon 2``) and text of each address, in order of time."""
    for path in sorted(members.rglob("*.txt"), key=lambda path: (path.stem.split("-")[:2], int(path.stem.split("-")[2]))):
        year, president, part = path.stem.split("-")
        lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
        yield f"{year} {president}" + (f" {part}" if part != "1" else ""), "\n\n".join(line for line in lines if line)


def commons(members: Path, progress: Progress) -> Iterator[Document]:
    """Subject and text of each longer speech of a zipped table of them."""
    with zipfile.ZipFile(_only(members, "*.zip")) as archive, archive.open("en.csv") as file:
        for row in csv.DictReader(io.TextIOWrapper(file, encoding="utf-8", newline="")):
            if len(row["text"]) >= SHORTEST_SPEECH:
                yield row["agenda"], row["text"].strip()


def tales(members: Path, progress: Progress) -> Iterator[Document]:
    """Title and text of each tale of a tab-separated table with three rows of headings; two spaces or more end a paragraph there."""
    lines = _only(members, "*.tab").read_text(encoding="utf-8").splitlines()
    columns = lines[0].split("\t")
    for cells in (line.split("\t") for line in lines[3:] if line.strip()):
        yield cells[columns.index("Title")], re.sub(r" {2,}", "\n\n", cells[columns.index("Content")].strip(' "'))


def manual(members: Path, progress: Progress) -> Iterator[Document]:
    """Name of each module and all documentation that stands in it, in its order."""
    for name, source in _modules(members):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", SyntaxWarning)
            nodes = ast.walk(ast.parse(source))
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
        found = [(getattr(node, "lineno", 0), ast.get_docstring(node)) for node in nodes if isinstance(node, kinds)]
        text = "\n\n".join(words for _, words in sorted((line, words) for line, words in found if words))
        if len(text) >= SHORTEST_MODULE:
            yield name, text


def code(members: Path, progress: Progress) -> Iterator[Document]:
    """Name and source of each module that is not short."""
    yield from ((name, source.strip()) for name, source in _modules(members) if len(source) >= SHORTEST_MODULE)


def _modules(members: Path) -> Iterator[Document]:
    """Dotted name and source of each Python file, in the order of the paths."""
    for path in sorted(members.rglob("*.py")):
        yield ".".join(path.relative_to(members).with_suffix("").parts), path.read_text(encoding="utf-8")


def _only(members: Path, pattern: str) -> Path:
    return next(members.rglob(pattern))


READERS: dict[str, Callable[[Path, Progress], Iterator[Document]]] = {
    reader.__name__: reader for reader in (wikipedia, sotu, commons, tales, manual, code)
}
"""Name of an embedded text -> its reader."""
