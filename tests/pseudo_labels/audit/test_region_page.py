"""The page of an audit of regions."""

from pathlib import Path

from pseudo_labels.audit.region_page import write_region_page
from pseudo_labels.audit.regions import RegionAudit, audit_regions
from tests.pseudo_labels.audit.region_stores import labels_in, regions_in


def page_of(report: RegionAudit, out: Path) -> str:
    write_region_page(report, out)
    return out.read_text()


def test_the_page_of_either_kind_loads_nothing(tmp_path: Path):
    html = page_of(audit_regions(labels_in(tmp_path / "labels").folder), tmp_path / "labels.html")
    assert "<h1>Labels of regions by judge &lt;b&gt;</h1>" in html
    assert "<h2>Distortions</h2>" in html
    assert html.count("<img") == 3  # quality, its spread, confidence
    assert "the answer 0 has no level word" in html
    other = page_of(audit_regions(regions_in(tmp_path / "regions").folder), tmp_path / "regions.html")
    assert "<h1>Regions from boxes</h1>" in other
    assert "min_area = 0.1" in other
    for page in (html, other):
        assert "http" not in page
