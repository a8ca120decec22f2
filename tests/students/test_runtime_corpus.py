"""Every odd file of the corpus through the runtime: a row each, the status it should have, and nothing stops."""

from pathlib import Path

import pytest

from pseudo_labels.records import Status
from students.runtime import Row, Scorer
from tests.helpers.corpus import CorpusItem, build_corpus
from tests.helpers.tiny_students import export_tiny


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[CorpusItem, Row]]:
    folder = tmp_path_factory.mktemp("corpus")
    export_tiny(folder / "tiny.onnx")
    items = build_corpus(folder / "files")
    rows = Scorer(folder / "tiny.onnx").score_many([item.path for item in items], workers=2)
    return list(zip(items, rows, strict=True))


def test_at_least_forty_kinds_each_have_a_row(scored: list[tuple[CorpusItem, Row]]):
    assert len(scored) >= 40
    for item, row in scored:
        assert Path(row.path) == item.path


def test_every_row_has_the_expected_status_and_a_reason(scored: list[tuple[CorpusItem, Row]]):
    wrong = [
        (item.name, item.expected_status, row.status, row.reason)
        for item, row in scored
        if row.status != item.expected_status or bool(row.reason) != (row.status != Status.OK)
    ]
    assert not wrong


def test_only_good_files_have_a_score_and_it_is_in_range(scored: list[tuple[CorpusItem, Row]]):
    for item, row in scored:
        assert (row.score is not None) == (row.status == Status.OK), item.name
        assert row.score is None or 0 <= row.score <= 1, item.name
