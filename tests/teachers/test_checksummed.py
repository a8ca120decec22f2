import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from pseudo_labels.errors import IntegrityError, PocketiqaError
from teachers.checksummed import read_checksummed, tensor_digest, write_checksummed

HEAD = {"base": "0123", "scale": "MOS", "values": [1, 2.5, None]}
TENSORS = {"a": torch.arange(4.0), "b": torch.ones(2, 2, dtype=torch.bfloat16), "c": torch.zeros(0, 3)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "some.safetensors"
    write_checksummed(path, "test file", HEAD, TENSORS)
    return path


def read(path: Path):
    return read_checksummed(path, "test file", mend="make it anew")


def test_what_was_written_is_read_and_equal_content_gives_equal_bytes(path: Path):
    head, tensors = read(path)
    assert head == HEAD
    assert all(torch.equal(tensors[name], TENSORS[name]) for name in TENSORS)
    data = path.read_bytes()
    write_checksummed(path, "test file", dict(reversed(HEAD.items())), dict(reversed(TENSORS.items())))
    assert path.read_bytes() == data


def test_what_float16_holds_exactly_is_stored_in_it_and_read_in_float32(tmp_path: Path):
    exact = torch.linspace(-2, 2, 8192).half().float()
    given = {"exact": exact, "inexact": torch.linspace(-2, 2, 8192), "small": torch.ones(3)}
    path = tmp_path / "halves.safetensors"
    write_checksummed(path, "test file", HEAD, given)
    stored = load_file(path)
    assert {name: value.dtype for name, value in stored.items()} == {
        "exact": torch.float16, "inexact": torch.float32, "small": torch.float32,
    }  # fmt: skip
    _, tensors = read(path)
    assert all(torch.equal(tensors[name], given[name]) and tensors[name].dtype == torch.float32 for name in given)


def test_every_single_changed_byte_is_noticed(path: Path):
    data = path.read_bytes()
    for at in range(len(data)):
        changed = bytearray(data)
        changed[at] ^= 1
        path.write_bytes(changed)
        try:
            tensors = read(path)
        except PocketiqaError:
            continue
        assert tensors[0] == HEAD, at  # white space between JSON values means nothing
        assert all(torch.equal(tensors[1][name], TENSORS[name]) for name in TENSORS), at


def test_a_changed_head_is_tampering(path: Path):
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    record = json.loads(metadata["pocketiqa.test_file"])
    record["head"]["scale"] = "better MOS"
    save_file(TENSORS, path, {"pocketiqa.test_file": json.dumps(record)})
    with pytest.raises(IntegrityError, match=r"some\.safetensors was altered.*test file: make it anew"):
        read(path)


def test_damaged_foreign_missing_and_newer_files_are_told_apart(path: Path, tmp_path: Path):
    with pytest.raises(PocketiqaError, match=r"no test file at .*nowhere: make it anew"):
        read(tmp_path / "nowhere")
    with pytest.raises(PocketiqaError, match=r"is no other file: make it anew"):
        read_checksummed(path, "other file", mend="make it anew")
    with safe_open(path, "pt") as file:
        record = json.loads(file.metadata()["pocketiqa.test_file"])
    save_file(TENSORS, path, {"pocketiqa.test_file": json.dumps({**record, "format": 9})})
    with pytest.raises(PocketiqaError, match="has format 9, but this pocketiqa reads 1 and 2: upgrade"):
        read(path)
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(IntegrityError, match="is cut off or corrupt"):
        read(path)


DIGESTED = {
    "a": torch.arange(6.0).reshape(2, 3),
    "b": torch.ones(2, dtype=torch.bfloat16),
    "c": torch.tensor(3),
}


def test_order_layout_and_identity_do_not_matter():
    same = {
        "c": DIGESTED["c"],
        "b": DIGESTED["b"].clone(),
        "a": DIGESTED["a"].T.contiguous().T,
    }
    assert not same["a"].is_contiguous()
    assert tensor_digest(same) == tensor_digest(DIGESTED)


def test_names_types_shapes_and_values_matter():
    others = [
        {},
        {"a": DIGESTED["a"], "b": DIGESTED["b"]},
        {"a": DIGESTED["a"], "d": DIGESTED["b"], "c": DIGESTED["c"]},
        {"a": DIGESTED["a"], "b": DIGESTED["c"], "c": DIGESTED["b"]},
        {**DIGESTED, "b": DIGESTED["b"].float()},
        {**DIGESTED, "b": DIGESTED["b"].view(torch.int16)},
        {**DIGESTED, "a": DIGESTED["a"].reshape(3, 2)},
        {**DIGESTED, "a": DIGESTED["a"] + 1e-6},
        {**DIGESTED, "c": torch.tensor(4)},
    ]
    assert len({tensor_digest(other) for other in [DIGESTED, *others]}) == 1 + len(others)
