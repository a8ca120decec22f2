import pytest

from pseudo_labels.errors import PocketiqaError
from students.formats import registry
from students.formats.registry import FORMATS, check_installed, format_named, missing_packages


def test_each_format_says_what_it_is_for_and_has_an_ending_of_its_own():
    assert list(FORMATS)[:3] == ["onnx", "onnx-int8", "onnx-w8"]
    endings = [entry.ending for entry in FORMATS.values() if entry.precision == registry.EIGHT_BITS]
    assert len(set(endings)) == len(endings)
    for entry in FORMATS.values():
        assert entry.summary
        assert entry.precision in (registry.FLOAT, registry.EIGHT_BITS)


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
