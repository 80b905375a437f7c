"""Encyclopaedia articles as prose: a MediaWiki dump is read page by page, and each article's mark-up turned into paragraphs.

mwparserfromhell parses the mark-up; this file says what a reader would see of it. What is no prose is left out: tables,
pictures, notes, lists of names, formulas together with their paragraph, and the sections from "See also" to "External links".
Stands in ``model`` since the embedded assets, of which it makes one, are brought together there and imports point left.
"""

import re
from collections.abc import Iterator
from typing import IO
from xml.etree import ElementTree

import mwparserfromhell
from mwparserfromhell.nodes import ExternalLink, Heading, HTMLEntity, Node, Tag, Template, Text, Wikilink
from mwparserfromhell.wikicode import Wikicode

DUMP_ARTICLES = 105
"""Articles of the embedded dump that are no redirects, for a progress bar."""
SHORTEST_ARTICLE = 1500
"""Characters of prose below which an article is a stub, a disambiguation or a list."""
SHORTEST_PARAGRAPH = 60
"""Characters below which a line is a caption, a label or an item of a list rather than a paragraph."""
HOLE = "\0"
"""Stands where something was that prose cannot hold (a formula); its paragraph is left out."""
HEADING = "\1"
"""Begins a heading's line, followed by the digit of its level."""
ITEM = "\2"
"""Begins an item's line."""

BROKEN = re.compile(r"\|thumb|</?ref|\[\[|\]\]|\{\{|\}\}")
"""Mark-up that its author did not close, so that no parser understands it; its paragraph is left out."""

BACK_MATTER = frozenset(
    [
        "see also",
        "references",
        "external links",
        "further reading",
        "notes",
        "notes and references",
        "footnotes",
        "bibliography",
        "sources",
        "citations",
        "works cited",
        "cited texts",
        "primary sources",
        "secondary sources",
        "publications",
        "selected works",
        "works",
        "filmography",
        "discography",
        "gallery",
        "awards",
        "list of works",
        "general references",
        "notes and citations",
        "explanatory notes",
        "informational notes",
        "selected bibliography",
        "references and notes",
        "other uses",
        "literature",
        "endnotes",
        "partial bibliography",
        "academic works",
        "books",
        "popular culture references",
        "translations",
    ]
)
"""Sections that hold no prose, by their lower-case headings; their subsections go with them."""
DROPPED_TAGS = frozenset(("ref", "references", "table", "gallery", "timeline", "imagemap", "source", "score", "hr", "syntaxhighlight"))
ITEM_TAGS = frozenset(("li", "dd", "dt"))
NO_ARTICLE = re.compile(
    r"(?:file|image|category|wikt|media|wikipedia|template|help|portal|[a-z]{2,3}|simple|commons|s|d|b|q):", re.IGNORECASE
)
"""Targets of links that show a picture, file the page, or lead out of the encyclopaedia."""

FIRST = frozenset(
    ["nowrap", "nobr", "small", "smaller", "larger", "big", "angbr", "angle bracket", "vanchor", "visible anchor", "anchored", "sc", "smallcaps", "abbr", "tooltip", "keypress", "key press", "nihongo", "flag", "flagcountry", "quote", "cquote", "blockquote", "quotation", "ill", "interlanguage link", "linktext", "val", "nts", "num", "formatnum:", "gaps", "em", "strong", "not a typo", "sic", "okina", "uss", "hms", "ship", "'", "mvar", "math", "chinese", "zh", "cite quote", "'\"", "\"'", "resize", "dts", "date", "start date", "official website", "color", "polytonic", "script", "unicode", "iast", "fraction", "lj", "center"]
)  # fmt: skip
"""Templates of which a reader sees the first argument."""
LAST = frozenset(("lang", "transl", "transliteration", "rtl-lang", "hover title", "script/hebrew", "font color", "audio"))
"""Templates of which a reader sees the last argument."""
FIXED = {"'s": "'s", "nbsp": " ", "spaces": " ", "·": " · ", "dot": " · ", "ndash": "–", "spaced ndash": " – ", "snd": " – ", "mdash": "—",
         "!": "|", "pipe": "|", "clear": "", "en dash": "–", "em dash": "—", "euro": "€", "pound": "£", "=": "="}  # fmt: skip
"""Templates that always read the same."""
UNREADABLE = frozenset(
    ("inflation", "eqm", "bigmath", "chem2", "su", "equation", "numblk", "overline", "sqrt", "radic", "vec", "convertinfobox")
)
"""Templates whose paragraph would not make sense without them."""
RANGES = {
    "to": " to ",
    "-": "–",
    "–": "–",
    "and": " and ",
    "or": " or ",
    "x": " by ",
    "by": " by ",
    "×": " by ",
    "+/-": " ± ",
    "to(-)": " to ",
}
"""How the convert template joins two amounts."""
MONTHS = ["January", "February", "March", "April", "May", "June", "July", "August", "September", "October", "November", "December"]


def pages(dump: IO[bytes]) -> Iterator[tuple[str, str]]:
    """Title and mark-up of each article of a MediaWiki XML export, without redirects and pages about the project.

    Parsed as a stream: one page is in memory at a time.
    """
    root = None
    for event, element in ElementTree.iterparse(dump, events=("start", "end")):
        root = element if root is None else root
        if event == "end" and element.tag.endswith("}page"):
            space = element.tag.removesuffix("page")
            if element.findtext(f"{space}ns") == "0" and element.find(f"{space}redirect") is None:
                yield element.findtext(f"{space}title") or "", element.findtext(f"{space}revision/{space}text") or ""
            root.clear()


def prose(markup: str) -> str:
    """An article's paragraphs and headings, separated by blank lines; empty if there is too little of it."""
    shown = _seen(mwparserfromhell.parse(markup))
    text = "\n\n".join(_paragraphs(_front_matter(shown.split("\n"))))
    return text if len(text) >= SHORTEST_ARTICLE else ""


def _seen(code: Wikicode | None) -> str:
    """What a reader sees of some mark-up, with marks for headings, items and holes."""
    return "".join(_seen_node(node) for node in code.nodes) if code is not None else ""


def _seen_node(node: Node) -> str:
    """What a reader sees of one node; comments and unknown things are nothing."""
    if isinstance(node, Text):
        return str(node.value)
    if isinstance(node, Wikilink):
        target = str(node.title).strip()
        return "" if NO_ARTICLE.match(target) else _seen(node.text if node.text is not None else node.title).lstrip(":")
    if isinstance(node, Template):
        return _seen_template(node)
    if isinstance(node, Tag):
        return _seen_tag(node)
    if isinstance(node, Heading):
        return f"\n{HEADING}{node.level}{_seen(node.title).strip()}\n"
    if isinstance(node, HTMLEntity):
        return str(node.normalize())
    return _seen(node.title) if isinstance(node, ExternalLink) else ""


def _seen_tag(node: Tag) -> str:
    """What a reader sees of an HTML element or of wiki mark-up that stands for one."""
    name = str(node.tag).strip().lower()
    if name in DROPPED_TAGS:
        return ""
    if name in ("math", "chem"):
        return HOLE
    if name == "br":
        return " "
    inner = _seen(node.contents)
    if name in ITEM_TAGS:
        return (ITEM if node.wiki_markup else f"\n{ITEM}") + inner
    if name == "sup":
        return "^" + inner if re.fullmatch(r"[-−+]?\d+", inner.strip()) else inner
    return f"\n{inner}\n" if name in ("div", "blockquote", "center", "p", "poem") else inner


def _seen_template(node: Template) -> str:
    """What a reader sees of a template: little but the words that it sets off; notices, boxes and citations are nothing."""
    name = str(node.name).strip().lower().replace("_", " ")
    arguments = [_seen(argument.value).strip() for argument in node.params if not argument.showkey]
    if name in FIXED:
        return FIXED[name]
    if name in UNREADABLE:
        return HOLE
    if name in ("convert", "cvt"):
        return _amount(arguments)
    if name == "as of":
        return _as_of(arguments, lower=node.has("lc"))
    if name in ("circa", "c.", "ca."):
        return "c. " + " – ".join(arguments)
    if name in ("frac", "sfrac"):
        return "/".join(arguments[-2:]) if len(arguments) < 3 else f"{arguments[0]} {arguments[1]}/{arguments[2]}"
    if name in ("chem", "simplenuclide2", "simplenuclide"):
        return ("" if name == "chem" else "-").join(arguments)
    if name in LAST or name.startswith("lang-"):
        return arguments[-1] if arguments else ""
    if name in FIRST:
        named = [_seen(node.get(key).value).strip() for key in ("text", "quote", "1") if node.has(key)]
        return next(iter(arguments or named), "")
    return ""


def _amount(arguments: list[str]) -> str:
    """The convert template's amount in its own unit: ``100 km``, ``3 to 5 m``."""
    if len(arguments) >= 4 and arguments[1] in RANGES:
        return f"{arguments[0]}{RANGES[arguments[1]]}{arguments[2]} {arguments[3]}"
    return " ".join(arguments[:2])


def _as_of(arguments: list[str], lower: bool) -> str:
    """The "as of" template: ``As of July 2009``."""
    year, month = [*arguments, "", ""][:2]
    name = MONTHS[int(month) - 1] + " " if month.isdigit() and 1 <= int(month) <= 12 else ""
    return f"{'as' if lower else 'As'} of {name}{year}"


def _front_matter(lines: list[str]) -> Iterator[str]:
    """The lines outside those sections that hold no prose."""
    skipping = 0
    for line in lines:
        if line.startswith(HEADING):
            level, title = int(line[1]), line[2:].strip().lower()
            if not skipping or level <= skipping:
                skipping = level if title in BACK_MATTER else 0
        if not skipping:
            yield line


def _paragraphs(lines: Iterator[str]) -> Iterator[str]:
    """Paragraphs, and those headings and announcements ("as follows:") that are followed by one."""
    waiting: list[str] = []
    for line in lines:
        if line.startswith(HEADING):
            level = line[1]
            waiting = [kept for kept in waiting if kept.startswith(HEADING) and kept[1] < level]
            waiting.append(HEADING + level + _tidy(line[2:]))
        elif paragraph := _paragraph(line):
            if paragraph.endswith(":") and not line.startswith(ITEM):
                waiting = [kept for kept in waiting if kept.startswith(HEADING)] + [paragraph]
                continue
            announced = line.startswith(ITEM)
            yield from (kept[2:] if kept.startswith(HEADING) else kept for kept in waiting if kept.startswith(HEADING) or announced)
            waiting = []
            yield paragraph


def _paragraph(line: str) -> str:
    """A line as a tidy paragraph, or nothing if it is not made of sentences."""
    if HOLE in line or line.lstrip().startswith(("{|", "|", "!", "}}")):
        return ""
    text = _tidy(line)
    whole = re.search(r"[.!?:][\"'”’)\]]*$", text) and not re.match(r"[a-z]|\W*$", text) and not BROKEN.search(text)
    return text if whole and len(text) >= SHORTEST_PARAGRAPH else ""


def _tidy(line: str) -> str:
    """Close the gaps that things left out have torn into a line."""
    text = re.sub(rf"[{ITEM}\s\u00a0\u200b]+", " ", line)
    text = re.sub(r"'{2,}|__[A-Z]+__|\[\d*\]", "", text)
    text = re.sub(r"\(\s*(?:(?:or|and|;|,|:|/|–|-|pronounced|also|IPA)\s*)+(?=\))", "(", text)
    text = re.sub(r"([(\[])[\s;,:]+", r"\1", text)
    text = re.sub(r"[\s;,:]+([)\]])", r"\1", text)
    text = re.sub(r"\(\)|\[\]", "", text)
    text = re.sub(r"\s+([,.;:!?)](?=[\s)\"”]|$))", r"\1", text)
    text = re.sub(r"([,;:])(?:\s*[,;])+", r"\1", text)
    return re.sub(r" {2,}", " ", text).strip()
