"""The tree of models."""

from core.report.lineage import Descendant, in_order, lineage_picture

MODELS = [
    Descendant(key="c", parent="b", name="third", made=False),
    Descendant(key="a", parent=None, name="first <i>", parameters=1000),
    Descendant(key="b", parent="a", name="second", parameters=700, recovered=0.5),
    Descendant(key="d", parent="gone", name="orphan"),
]


def test_every_model_comes_once_and_after_what_it_was_made_from() -> None:
    rows = in_order(MODELS)
    keys = [model.key for _, model in rows]
    assert sorted(keys) == ["a", "b", "c", "d"]
    for generation, model in rows:
        if model.parent in keys:
            assert keys.index(model.parent) < keys.index(model.key)
            assert generation == next(g for g, other in rows if other.key == model.parent) + 1
        else:
            assert generation == 0


def test_the_picture_says_what_the_table_says_and_escapes_names() -> None:
    picture = lineage_picture(MODELS)
    assert picture.alt == "2 runs made from 2 models: first <i> and orphan. The longest chain has 2 generations."
    marks = picture.figure.data[-1]
    assert list(marks.marker.symbol) == ["star", "circle", "circle-open", "star"]
    assert "first &lt;i>" in marks.text[0]
    assert "50.0 % recovered" in marks.text[1]
    assert picture.table["made from"].tolist() == ["–", "first <i>", "second", "–"]
