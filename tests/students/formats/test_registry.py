import re
import tomllib

import pytest

from pseudo_labels.errors import PocketiqaError
from students.formats import registry
from students.formats.registry import FORMATS, check_installed, format_named, missing_packages
from tests.helpers.imports import ROOT


def test_each_format_says_what_it_is_for_and_has_an_ending_of_its_own():
    assert list(FORMATS)[:3] == ["onnx", "onnx-int8", "onnx-w8"]
    endings = [entry.ending for entry in FORMATS.values() if entry.precision == registry.EIGHT_BITS]
    assert len(set(endings)) == len(endings)
    for entry in FORMATS.values():
        assert entry.summary
        assert entry.precision in (registry.FLOAT, registry.EIGHT_BITS)
        # A folder has the contract beside the model, so its name need not say which form it is.
        assert not (entry.is_folder and entry.ending)
        assert entry.must_keep


def test_an_unknown_format_is_answered_with_the_known_ones():
    with pytest.raises(PocketiqaError, match="format 'tflite' is not known: choose one of onnx, onnx-int8, onnx-w8"):
        format_named("tflite")


def test_formats_of_onnx_can_always_be_written_here():
    for name in ("onnx", "onnx-int8", "onnx-w8"):
        assert missing_packages(name) == []
        check_installed(name)


def test_what_is_missing_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(registry, "find_spec", lambda module: None)
    assert missing_packages("onnx-int8") == ["onnx"]
    with pytest.raises(PocketiqaError, match=r"needs onnx, which is not installed: pip install 'pocketiqa\[train\]'"):
        check_installed("onnx-int8")


@pytest.mark.parametrize(
    ("kind", "package", "module"),
    [
        *((kind, package, package) for kind, package in (("openvino", "openvino"), ("ncnn", "pnnx"))),
        *((kind, package, package) for kind, package in (("coreml", "coremltools"), ("executorch", "executorch"))),
        ("litert", "ai-edge-litert", "ai_edge_litert"),
    ],
)
def test_each_format_has_an_extra_that_the_project_defines(
    kind: str, package: str, module: str, monkeypatch: pytest.MonkeyPatch
):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    given = " ".join(project["optional-dependencies"][kind])
    assert re.search(rf"\b{package}\b", given)
    assert FORMATS[kind].extra == f"train,{kind}"
    found = registry.find_spec
    monkeypatch.setattr(registry, "find_spec", lambda name: None if name == module else found("json"))
    assert missing_packages(kind) == [package]
    with pytest.raises(PocketiqaError, match=rf"format {kind} needs {package}, .*pocketiqa\[train,{kind}\]"):
        check_installed(kind)
