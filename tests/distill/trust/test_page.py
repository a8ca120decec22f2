import re

from distill.trust.definitions import DEFINITIONS
from distill.trust.tables import sheets
from tests.distill.trust.conftest import Compared


def test_the_page_has_every_table_its_meaning_and_the_pictures(compared: Compared):
    page = compared.out.read_text()
    for sheet in sheets(compared.result):
        assert f"<h2>{sheet.title}</h2>" in page
    for name, definition in DEFINITIONS.items():
        assert page.count(f"<b>{definition.title}. </b>") >= 1, name
    pairs = compared.result["gmad"]
    assert pairs
    assert page.count("takes them for alike") == page.count("takes them for far apart") == len(pairs)
    assert page.count("<img") == 2 * len(pairs)
    ids = re.findall(r'<section id="([^"]+)"', page)
    assert len(set(ids)) == len(ids)
