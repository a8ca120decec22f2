from distill.trust.definitions import DEFINITIONS
from distill.trust.tables import markdown, number, overview, sheets
from tests.distill.trust.conftest import Compared


def test_every_table_names_its_models_and_what_it_shows(compared: Compared):
    made = sheets(compared.result)
    assert len({sheet.title for sheet in made}) == len(made) == 7
    for sheet in made:
        assert {len(row) for row in sheet.rows} == {len(sheet.header)}
        assert set(sheet.about) <= set(DEFINITIONS)
    told = {name for sheet in made for name in sheet.about}
    assert told == set(DEFINITIONS) - {"gmad"}
    first = made[0]
    assert first.header == ("test", "asked", "tiny", "darkness")
    assert first.rows[0][:2] == ("D-test", "at least 0.95")
    assert len(overview(compared.result).rows) == len(first.rows)


def test_markdown_has_a_row_for_each_figure(compared: Compared):
    text = markdown(compared.result)
    rows = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(rows) == sum(len(sheet.rows) + 2 for sheet in sheets(compared.result))
    assert "| clean photograph, PGD 4/255 | +" in text
    assert "no gradient" in text


def test_figures_have_their_interval_where_there_is_one():
    known = {"value": -0.5, "low": -0.6, "high": 0.25}
    assert number(known) == "−0.500 (−0.600 to 0.250)"
    assert number(known, difference=True) == "−0.500 (−0.600 to +0.250)"
    assert number(known | {"low": None}) == "−0.500"
    assert number(known | {"value": None}) == number(None) == "–"
