import csv
import json
from pathlib import Path

import numpy as np
import pytest

from distill.scoring.rated import csv_file, own_scores, rated_set, read_scores, set_name, with_scores
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import checksummed_json, checksummed_line
from students.meaning.model_record import ModelName

MODEL = ModelName("tiny", "a" * 64)


def write_csv(path: Path, header: str, *rows: str) -> Path:
    path.write_text("\n".join([header, *rows]) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("ending", ["csv", "json", "jsonl"])
def test_scores_of_every_format_are_read_alike(tmp_path: Path, ending: str):
    (tmp_path / "a.jpg").touch()
    rows = [
        {"path": "a.jpg", "score": 0.25, "status": "ok", "model_sha256": "a" * 64},
        {"path": str(tmp_path / "b.jpg"), "score": 1.0, "status": "ok", "model_sha256": "a" * 64},
        {"path": "bad.jpg", "score": None, "status": "corrupt", "model_sha256": "a" * 64},
    ]
    path = tmp_path / f"scores.{ending}"
    if ending == "csv":
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    elif ending == "json":
        path.write_bytes(checksummed_json({"rows": rows}))
    else:
        path.write_bytes(b"".join(map(checksummed_line, rows)))
    stored = read_scores(path)
    assert stored.of_path == {str(tmp_path / "a.jpg"): 0.25, str(tmp_path / "b.jpg"): 1.0}
    stored.check_model(MODEL)
    with pytest.raises(PocketiqaError, match=r"are of model a{12}\.{3}, and not of other"):
        stored.check_model(ModelName("other", "b" * 64))


def test_a_path_starts_where_score_was_called_or_at_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "a.jpg").touch()
    path = write_csv(tmp_path / "scores.csv", "path,score", "a.jpg,0.5", "b.jpg,0.6")
    monkeypatch.chdir(tmp_path / "here")
    assert set(read_scores(path).of_path) == {str(tmp_path / "here" / "a.jpg"), str(tmp_path / "b.jpg")}


BAD = [
    ("scores.csv", "path,mos\na.jpg,0.5\n", "lacks the column 'score'"),
    ("scores.csv", "file,score\na.jpg,0.5\n", "none of the columns path, image"),
    ("scores.csv", "path,score\na.jpg,1.5\n", "data row 1: score 1.5 lies outside 0 to 1"),
    ("scores.csv", "path,score\na.jpg,good\n", "score is 'good', but a number"),
    ("scores.csv", "path,score\na.jpg,\n", "no photograph has a score"),
    ("scores.parquet", "", "none of them"),
    ("scores.json", json.dumps({"rows": [{"path": "a.jpg"}]}), "no rows with path and score"),
]


@pytest.mark.parametrize(("name", "content", "words"), BAD)
def test_what_holds_no_scores_is_refused(tmp_path: Path, name: str, content: str, words: str):
    (tmp_path / name).write_text(content)
    with pytest.raises(PocketiqaError, match=words):
        read_scores(tmp_path / name)


def test_ratings_and_scores_meet_by_path(tmp_path: Path):
    ratings = write_csv(
        tmp_path / "r.csv", "image;mos;group;subset", "a.jpg;1;x;s", "b.jpg;3;x;s", "c.jpg;5;y;t", "d.jpg;2;y;t"
    )
    rated = rated_set(str(ratings), "1:5")
    scores = {str(tmp_path / name): score for name, score in (("a.jpg", 0.1), ("b.jpg", 0.2), ("c.jpg", 0.9))}
    joined = with_scores(["r", "other"], [rated, rated], scores)
    assert joined.scores.tolist() == [0.1, 0.2, 0.9] * 2
    np.testing.assert_allclose(joined.ratings, [0.0, 0.5, 1.0] * 2)
    # Scenes of two sets are never one, however they are called.
    assert len(set(joined.groups)) == 4
    assert joined.parts == ["r s", "r s", "r t", "other s", "other s", "other t"]
    assert joined.left_out == 2
    with pytest.raises(PocketiqaError, match="none of the 4 rated photographs has a score, such as"):
        with_scores(["r"], [rated], {})


def test_only_the_training_part_of_a_set_is_taken(tmp_path: Path):
    path = write_csv(tmp_path / "r.csv", "image,mos,split", "a.jpg,0.1,train", "b.jpg,0.2,test", "c.jpg,0.3,train")
    assert [row.id for row in rated_set(str(path)).rows] == ["a.jpg", "c.jpg"]
    tests = write_csv(tmp_path / "t.csv", "image,mos,split", "b.jpg,0.2,test")
    with pytest.raises(PocketiqaError, match="no split 'train'"):
        rated_set(str(tests))
    with pytest.raises(PocketiqaError, match="--scale 1:5 is for a CSV file"):
        rated_set(f"biq2021:{tmp_path}", "1:5")


def test_a_column_of_scores_beside_the_ratings(tmp_path: Path):
    path = write_csv(tmp_path / "r.csv", "image;mos;score", "a.jpg;0.1;0.3")
    stored = own_scores(path)
    assert stored is not None
    assert stored.of_path == {str(tmp_path / "a.jpg"): 0.3}
    assert own_scores(write_csv(tmp_path / "n.csv", "image,mos", "a.jpg,0.1")) is None


def test_names_of_sets(tmp_path: Path):
    path = write_csv(tmp_path / "trees.csv", "image,mos", "a.jpg,0.1")
    rated = rated_set(str(path))
    for text in (str(path), f"csv:{path}", f"csv:{path}?scale=0:1"):
        assert set_name(text, rated) == "trees"
        assert csv_file(text) == path
    assert set_name(f"biq2021:{tmp_path}/biq2021_more", rated) == "biq2021_more"
    assert csv_file(f"biq2021:{tmp_path}") is None
