import json
from pathlib import Path

import pytest

from pseudo_labels.errors import IntegrityError, PocketiqaError
from students.meaning.model_record import ModelName, read_fields, record_bytes, rising_numbers

ONE, OTHER = ModelName("one", "1" * 64), ModelName("other", "2" * 64)


def test_a_record_comes_back(tmp_path: Path):
    (tmp_path / "a.json").write_bytes(record_bytes("thing", {"x": [1.5], "model": ONE.as_dict()}))
    fields = read_fields(tmp_path / "a.json", "thing", ("x", "model"))
    assert fields["x"] == [1.5]
    assert ModelName.from_dict(fields["model"]) == ONE


def test_what_is_no_such_record_is_refused(tmp_path: Path):
    path = tmp_path / "a.json"
    path.write_bytes(record_bytes("thing", {"x": 1}))
    with pytest.raises(PocketiqaError, match=r"is no population, but 'thing': name a file that pocketiqa wrote as a p"):
        read_fields(path, "population", ("x",))
    with pytest.raises(PocketiqaError, match="lacks 'y'"):
        read_fields(path, "thing", ("x", "y"))
    path.write_bytes(path.read_bytes().replace(b'"x": 1', b'"x": 2'))
    with pytest.raises(IntegrityError, match="altered"):
        read_fields(path, "thing", ("x",))
    path.write_text("[]")
    with pytest.raises(PocketiqaError, match="is no thing, but 'list'"):
        read_fields(path, "thing", ("x",))
    path.write_text(json.dumps({"kind": "thing", "format": 2, "x": 1}))
    with pytest.raises(PocketiqaError, match="format version 2, but this pocketiqa reads 1: upgrade"):
        read_fields(path, "thing", ("x",))
    with pytest.raises(PocketiqaError, match="does not exist"):
        read_fields(tmp_path / "b.json", "thing", ("x",))


def test_another_model_is_refused_with_the_next_step():
    ONE.check(ModelName("renamed", ONE.sha256), "the thing", "make one")
    with pytest.raises(PocketiqaError, match=r"the thing is of model one \(1{12}\.{3}\) and not of other .*: make"):
        ONE.check(OTHER, "the thing", "make one")


@pytest.mark.parametrize("record", [{"name": "a"}, {"name": 1, "sha256": "1" * 64}, {"name": "a", "sha256": "1"}, 3])
def test_a_model_without_digest_is_refused(record: object):
    with pytest.raises(PocketiqaError, match="model of the record"):
        ModelName.from_dict(record)


def test_numbers_are_checked():
    assert rising_numbers([0, 0.5, 0.5], "it", 0, 1) == (0.0, 0.5, 0.5)
    for values in ([0.5, 0.4], [0.1, 1.1], [True], ["0.1"], [], 7, [float("nan")]):
        with pytest.raises(PocketiqaError, match="it is"):
            rising_numbers(values, "it", 0, 1)
