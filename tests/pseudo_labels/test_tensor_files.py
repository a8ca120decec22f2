import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.tensor_files import assign, misfits, read_tensors, some, tensors_only

OWN = {"a": torch.ones(2, 3), "b": torch.ones(2)}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"b": torch.zeros(2, dtype=torch.float16), "a": torch.zeros(2, 3)}, ""),
        ({"a": torch.ones(2, 3)}, "it lacks b"),
        ({**OWN, "c": torch.ones(1)}, "it has the foreign c"),
        ({**OWN, "a": torch.ones(3, 2)}, "it has a of shape [3, 2] instead of [2, 3]"),
        ({"c": torch.ones(1)}, "it lacks a, b, and it has the foreign c"),
    ],
)
def test_what_does_not_fit_is_named(given: dict[str, Tensor], said: str):
    assert misfits(OWN, given) == said


def test_some_names_and_how_many_more():
    assert some(["c", "a", "b"]) == "a, b, c"
    assert some(list("edcba")) == "a, b, c and 2 more"


TENSORS = {"a.weight": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.int64)}


class Malicious:
    def __reduce__(self):
        return (Path.touch, (Path("run-by-pickle"),))


def same(measured: dict[str, torch.Tensor]) -> bool:
    return set(measured) == set(TENSORS) and all(torch.equal(measured[name], TENSORS[name]) for name in TENSORS)


def test_safetensors_torch_files_and_shards_are_read(tmp_path: Path):
    save_file(TENSORS, tmp_path / "one.safetensors")
    torch.save(TENSORS, tmp_path / "zip.pth")
    torch.save(TENSORS, tmp_path / "old.bin", _use_new_zipfile_serialization=False)
    for name in ("one.safetensors", "zip.pth", "old.bin"):
        assert same(read_tensors(tmp_path / name))
    for number, name in enumerate(TENSORS):
        save_file({name: TENSORS[name]}, tmp_path / f"part-{number}.safetensors")
    index = {"weight_map": {name: f"part-{number}.safetensors" for number, name in enumerate(TENSORS)}}
    (tmp_path / "all.safetensors.index.json").write_text(json.dumps(index))
    assert same(read_tensors(tmp_path / "all.safetensors.index.json"))
    (tmp_path / "part-1.safetensors").unlink()
    with pytest.raises(PocketiqaError, match=r"part-1\.safetensors is not there: the download is incomplete"):
        read_tensors(tmp_path / "all.safetensors.index.json")


@pytest.mark.parametrize("protocol", ["torch", "pickle"])
def test_code_in_a_checkpoint_is_refused_and_never_run(tmp_path: Path, protocol: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "evil.pth"
    if protocol == "torch":
        torch.save({"a": torch.ones(2), "b": Malicious()}, path)
    else:
        path.write_bytes(pickle.dumps(Malicious(), protocol=2))
    with pytest.raises(
        PocketiqaError, match=r"evil\.pth was refused: it holds more than tensors, it asks for "
    ) as caught:
        read_tensors(path)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run-by-pickle").exists()


@pytest.mark.parametrize("name", ["cut.safetensors", "cut.pth", "cut.bin"])
def test_a_file_cut_off_is_refused_in_one_line(tmp_path: Path, name: str):
    path = tmp_path / name
    if name.endswith("safetensors"):
        save_file(TENSORS, path)
    else:
        torch.save(TENSORS, path, _use_new_zipfile_serialization=name.endswith("pth"))
    path.write_bytes(path.read_bytes()[:-150])
    with pytest.raises(PocketiqaError, match=rf"{name} (is|was).*fetch") as caught:
        read_tensors(path)
    assert "\n" not in str(caught.value)


def test_missing_files_and_other_contents_are_named(tmp_path: Path):
    with pytest.raises(PocketiqaError, match=r"no checkpoint at .*nowhere"):
        read_tensors(tmp_path / "nowhere.pth")
    (tmp_path / "page.pth").write_text("<html>404 Not Found</html>")
    with pytest.raises(PocketiqaError, match=r"page\.pth is no torch checkpoint \(UnpicklingError\): fetch it again"):
        read_tensors(tmp_path / "page.pth")
    with pytest.raises(PocketiqaError, match=r"cannot be read \(.*irectory.*\): mend that, or fetch it again"):
        read_tensors(tmp_path)
    torch.save({"epoch": 3, "model": {"a": torch.ones(1)}}, tmp_path / "nested.pth")
    with pytest.raises(PocketiqaError, match=r"nested\.pth holds the entries epoch, model, not tensors by name"):
        read_tensors(tmp_path / "nested.pth")
    with pytest.raises(PocketiqaError, match="it holds list"):
        tensors_only([torch.ones(1)], "it")


def test_assign_fills_an_empty_module_and_keeps_what_is_trainable():
    with torch.device("meta"):
        module = nn.Linear(3, 2)
    module.bias.requires_grad_(False)
    assign(module, {"weight": torch.ones(2, 3, dtype=torch.float16), "bias": torch.zeros(2)}, "here")
    assert module.weight.dtype == torch.float32
    assert module.weight.requires_grad
    assert not module.bias.requires_grad
    assert torch.equal(module(torch.ones(1, 3)), torch.full((1, 2), 3.0))


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({"weight": torch.ones(2, 3)}, "it lacks bias"),
        ({"weight": torch.ones(2, 3), "bias": torch.ones(2), "scale": torch.ones(1)}, "it has the foreign scale"),
        ({"weight": torch.ones(3, 2), "bias": torch.ones(2)}, r"it has weight of shape \[3, 2\] instead of \[2, 3\]"),
        ({"other": torch.ones(1)}, "it lacks bias, weight, and it has the foreign other"),
    ],
)
def test_assign_refuses_all_but_the_very_tensors(tensors: dict[str, torch.Tensor], said: str):
    with pytest.raises(PocketiqaError, match=rf"^here does not fit the model: {said};"):
        assign(nn.Linear(3, 2), tensors, "here")
