"""The parameter bar adds up."""

from core.report.architecture_figures import parameter_bar


def test_the_parts_add_up_and_empty_ones_are_left_out() -> None:
    picture = parameter_bar({"embeddings": 200, "mlp": 700, "norms": 100, "head": 0})
    assert sum(bar.x[0] for bar in picture.figure.data) == 1000
    assert "Output head" not in list(picture.table["part"])
    assert picture.table["share (%)"].sum() == 100
