import math
import re
import shutil
from html import unescape
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from pseudo_labels.audit.page import write_audit_page
from pseudo_labels.audit.store import audit_store
from pseudo_labels.files import read_record
from pseudo_labels.fusion.fuse import fuse
from pseudo_labels.fusion.keep import KeepRule
from pseudo_labels.fusion.report import read_fusion_report
from pseudo_labels.pool import Pool
from pseudo_labels.store import LabelStore
from tests.helpers.fusing import invented_pool, ratings_of, seen, teacher_store
from tests.helpers.records import rewrite
from tests.pseudo_labels.audit.stores import NOISE, honest, scores_of, store_of


def page_of(folder: Path, out: Path) -> str:
    write_audit_page(audit_store(folder), out)
    return out.read_text()


def text_of(html: str) -> str:
    """What a person reads, with single spaces."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())


def section(html: str, title: str) -> str:
    """HTML from one heading to the next."""
    return re.split(r"<h[23]>", re.split(rf">{re.escape(title)}</h[23]>", html, maxsplit=1)[1])[0]


def test_the_page_shows_how_teachers_were_joined(fused: LabelStore, tmp_path: Path):
    html = page_of(fused.folder, tmp_path / "page.html")
    fusion = read_fusion_report(fused.folder)
    rows = text_of(section(html, "Fusion"))
    assert f"kept {fusion.kept} {fusion.kept / 48:.1%}" in rows
    dropped = fusion.dropped["disagreement"]
    assert f"dropped {dropped} {dropped / 48:.1%} the teachers disagree by more than 0.1" in rows
    teachers = text_of(section(html, "Teachers"))
    for own, calibration in zip(fusion.teachers, fusion.ensemble["calibrations"], strict=True):
        interval = calibration["agreement"]
        agreement = f"{interval['srcc']:.3f} [{interval['low']:.3f}, {interval['high']:.3f}]"
        error, method = calibration["held_out_rmse"][calibration["method"]], calibration["method"]
        line = f"{own['name']} {agreement} {error:.3f} {own['weight']:.3f} {method} {calibration['n']} {own['scored']}"
        assert line in teachers
    labelled = text_of(section(html, f"On the {fusion.labelled['n']} images with ratings that all teachers scored, "
                                     f"of {fusion.labelled['groups']} scenes"))  # fmt: skip
    assert f"fused {fusion.labelled['fused']['srcc']:.3f} [" in labelled
    assert not re.search(r"https?://|@import|url\(", html)


def test_each_two_teachers_are_drawn_against_each_other_once(fused: LabelStore, tmp_path: Path):
    matrix = section(page_of(fused.folder, tmp_path / "page.html"), "Teacher against teacher")
    drawn = [unescape(alt) for alt in re.findall(r'<img alt="([^"]*)"', matrix)]
    names = list(NOISE)
    expected = []
    for row in range(3):
        for column in range(row):
            first, second = scores_of(names[column]), scores_of(names[row])
            both = np.isfinite(first) & np.isfinite(second)
            rank = spearmanr(first[both], second[both]).statistic  # type: ignore[attr-defined]
            expected.append(f"{names[row]} over {names[column]}: SRCC {rank:.3f} (n={both.sum()})")
    assert drawn == expected
    assert matrix.count('class="none"') == 1  # a matrix of two columns, half of it


def test_kept_and_dropped_rows_are_shown_as_pictures(fused_pool: Pool, fused: LabelStore, tmp_path: Path):
    report = audit_store(fused.folder)
    assert report.fusion is not None
    shown = section(page_of(fused.folder, tmp_path / "page.html"), "Kept and dropped")
    examples = report.fusion["examples"]
    count = sum(map(len, examples.values()))
    assert 8 < count == len(re.findall(r"<img alt=\"\" src=\"data:image/jpeg;base64,[A-Za-z0-9+/=]{200,}\">", shown))
    assert shown.index("Kept, the surest") < shown.index("Dropped: the teachers disagree by more than 0.1")
    text, worst = text_of(shown), examples["disagreement"][0]
    said = ", ".join(f"{name} {score:.3f}" for name, score in zip(NOISE, worst["teachers"], strict=True))
    caption = f"± {worst['score_std']:.3f} {said} {worst['reason']} {Path(fused_pool[worst['row']].uri).name}"
    assert caption in text


def test_pictures_that_cannot_be_read_are_named_and_the_page_is_written(tmp_path: Path):
    pool = invented_pool(tmp_path / "pool")  # of files that do not exist
    parts = [teacher_store(tmp_path / str(at), pool, seen(0.1, at), name=f"t{at}").folder for at in range(2)]
    store = fuse(parts, tmp_path / "fused", ratings=ratings_of(pool))
    html = page_of(store.folder, tmp_path / "page.html")
    assert section(html, "Kept and dropped").count("<figure><p>") == 8
    assert section(html, "Kept and dropped").count("no such file") == 8
    shutil.rmtree(pool.folder)
    shown = section(page_of(store.folder, tmp_path / "page.html"), "Kept and dropped")
    assert "The pool that was labelled cannot be opened, so there are no pictures" in shown
    assert shown.count("<figure><figcaption>") == 8


def test_teachers_without_opinions_and_one_alone_have_their_pages(tmp_path: Path):
    pool = invented_pool(tmp_path / "pool")
    parts = [teacher_store(tmp_path / str(at), pool, seen(0.1, at), name=f"t{at}").folder for at in range(2)]
    aligned = fuse(parts, tmp_path / "aligned", calibrate="quantile")
    html = page_of(aligned.folder, tmp_path / "page.html")
    assert "t0 0.100 0.500 aligned by quantiles, without ratings 0 239" in text_of(section(html, "Teachers"))
    assert "with ratings that all teachers scored" not in html
    alone = fuse(parts[:1], tmp_path / "alone", ratings=ratings_of(pool), rule=KeepRule(min_teachers=1))
    html = page_of(alone.folder, tmp_path / "page.html")
    assert "Teacher against teacher" not in html
    assert "t0" in section(html, "Teachers")


def test_a_fusion_that_was_altered_is_not_shown_but_named(fused: LabelStore, tmp_path: Path):
    folder = tmp_path / "fused"
    shutil.copytree(fused.folder, folder)
    record = read_record(folder / "fusion.json", what="fusion report")
    for change, reason in [
        ({"ensemble": {**record["report"]["ensemble"], "names": ["x", "y", "z"]}}, "fusion.json was altered or is of"),
        ({"kept": 3}, r"its report tells of 3 kept rows, the store holds \d+; run the same fuse command"),
    ]:
        rewrite(folder / "fusion.json", report={**record["report"], **change})
        report = audit_store(folder)
        assert report.fusion is None
        assert len(report.warnings) == 1
        assert re.search(f"nothing is known of the fusion: .*{reason}", report.warnings[0])
        assert "<h2>Fusion</h2>" not in page_of(folder, tmp_path / "page.html")


class Page(HTMLParser):
    """Collects the attributes that could load something, the pictures and the text."""

    def __init__(self, html: str):
        super().__init__()
        self.addresses: list[str] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data", "action")]
        if tag not in ("img", "meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def test_the_page_holds_everything_and_loads_nothing(pool: Pool, tmp_path: Path):
    scores = [math.nan if row == 2 else score for row, score in enumerate(honest(pool))]
    report = audit_store(store_of(pool, tmp_path / "labels", scores).folder)
    write_audit_page(report, tmp_path / "audit.html")
    html = (tmp_path / "audit.html").read_text()
    page = Page(html)
    assert page.open == []
    assert len(page.addresses) == 5 + 3 * 8  # the charts, and eight pictures of each kind
    assert all(re.match(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=]{200,}$", address) for address in page.addresses)
    assert not re.search(r"https?://|@import|url\(", html)
    text = " ".join(page.text)
    assert "no <answer>" in text
    assert "0 worst, 1 best <b>" in text
    assert "white_noise" in text
    assert len(html) < 400_000


def test_the_folder_of_a_page_is_made(pool: Pool, tmp_path: Path):
    report = audit_store(store_of(pool, tmp_path / "labels", honest(pool)).folder)
    write_audit_page(report, tmp_path / "new" / "audit.html")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["audit.html"]
