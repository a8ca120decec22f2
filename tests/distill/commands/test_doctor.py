"""Versions, devices and teachers of this machine."""

from importlib.metadata import version

import numpy as np

from distill.commands.doctor import doctor_tables, format_states, installed_versions, machine, teacher_states
from pseudo_labels.parallel import usable_cores
from students import engines
from students.formats.environments import FOLDER_VARIABLE
from students.formats.registry import FORMATS
from teachers.registry import TEACHERS


def test_versions_are_those_of_the_installed_distributions():
    versions = installed_versions()
    assert versions["numpy"] == np.__version__
    assert versions["pocketiqa"] == version("pocketiqa")


def test_a_package_that_is_not_installed_has_no_version(monkeypatch):
    monkeypatch.setattr("distill.commands.doctor._PACKAGES", ("no-such-distribution",))
    assert installed_versions()["no-such-distribution"] == ""


def test_the_machine_says_its_cores_and_runtime():
    here = machine()
    assert here["cores"] == usable_cores()
    assert "CPUExecutionProvider" in here["onnxruntime"]


def test_every_teacher_is_listed_and_those_with_files_say_which():
    states = {state.name: state for state in teacher_states()}
    assert set(states) == set(TEACHERS)
    assert states["reference"].missing == []
    assert "Stable Diffusion" in states["dp_iqa"].files


def test_every_format_and_engine_is_listed_with_what_it_lacks(monkeypatch, tmp_path):
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    states = {state.name: state for state in format_states()}
    assert {*FORMATS, "engine onnxruntime", "engine openvino"} == set(states)
    assert states["onnx-int8"].missing == states["engine onnxruntime"].missing == []
    assert states["coreml"].only_on == "Apple's devices"
    assert states["openvino"].only_on == states["openvino"].lacks == ""
    assert f"--environment {tmp_path / 'litert'} makes it there" in states["litert"].lacks
    monkeypatch.setattr(engines, "find_spec", lambda module: None)
    assert {state.name: state for state in format_states()}["engine openvino"].missing == ["openvino"]


def test_there_are_four_tables():
    assert [table.row_count for table in doctor_tables()][2:] == [len(TEACHERS), len(FORMATS) + 2]
