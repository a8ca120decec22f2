"""The folder of a page: what is in it, and what it is refused for."""

import json
import lzma
import re
from pathlib import Path

import pytest

from distill.browser.runtime_files import Runtime
from distill.browser.site import BUILT, is_float, write_site
from pseudo_labels.errors import OutputConflictError, PocketiqaError
from pseudo_labels.files import sha256_bytes
from pseudo_labels.outputs import read_manifest
from students.contract import NEWEST_FORMAT
from students.runtime import Scorer
from students.shipped import NAMES, QUANTISED, model_path
from tests.helpers.imports import ROOT

RUNTIME = Runtime("1.2.3", b"export {}", b"\0asm" * 1000)
SMALL = model_path(QUANTISED[-1])


def expanded(packed: bytes) -> bytes:
    # Python reads the header as it writes it: with the size left open.
    content = lzma.decompress(packed[:5] + b"\xff" * 8 + packed[13:])
    assert int.from_bytes(packed[5:13], "little") == len(content)
    return content


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("sites") / "site"
    written = write_site(out, SMALL, RUNTIME)
    assert (written.folder, written.student, written.is_new) == (out, QUANTISED[-1], True)
    return out


def test_the_page_reads_every_format_of_contract_that_is_written():
    source = (ROOT / "web/src/model.ts").read_text(encoding="utf-8")
    assert f"\nconst NEWEST_FORMAT = {NEWEST_FORMAT};\n" in source
    script = (BUILT / "worker.js").read_text(encoding="utf-8")
    name = re.findall(r"this page reads 1 to \$\{(\w+)\}", script)
    assert len(name) == 1
    assert re.search(rf"\b{name[0]} = {NEWEST_FORMAT}\b", script)


def test_the_page_names_files_that_are_there_and_all_of_them_are_kept(site: Path):
    facts = json.loads((site / "site.json").read_text())
    first, _, rest = (site / "sw.js").read_text().partition(";\n")
    kept = json.loads(first.removeprefix("self.site = "))
    assert rest.encode() == (BUILT / "sw.js").read_bytes()
    named = {facts["model"], facts["runtime"], facts["wasm"]}
    assert named == set(kept["fixed"])
    served = {file.name for file in site.iterdir()} - {"sw.js", "manifest.json"}
    assert set(kept["fixed"]) | set(kept["files"]) - {"./"} == {name for name in served if not name.startswith(".")}
    for name in named:
        assert sha256_bytes((site / name).read_bytes())[:12] in name
    assert facts["bytes"] == sum((site / facts[name]).stat().st_size for name in ("model", "wasm"))


def test_markup_asks_for_nothing_that_is_not_there(site: Path):
    page = (site / "index.html").read_text()
    asked = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert asked
    assert all((site / name).is_file() for name in asked)
    assert "http" not in re.sub(r'http-equiv="[^"]*"', "", page)
    # Each element that the script looks for by its name.
    script = (ROOT / "web/src/page/main.ts").read_text()
    names = set(re.findall(r'byId(?:<\w+>)?\("([\w-]+)"\)', script))
    assert len(names) > 20
    assert names <= set(re.findall(r'id="([^"]+)"', page))


def test_the_model_is_whole_and_the_check_is_its_score(site: Path, tmp_path: Path):
    facts = json.loads((site / "site.json").read_text())
    student = tmp_path / "student.onnx"
    student.write_bytes(expanded((site / facts["model"]).read_bytes()))
    assert student.read_bytes() == SMALL.read_bytes()
    assert facts["check"]["score"] == Scorer(student).score(site / facts["check"]["picture"]).score
    assert expanded((site / facts["wasm"]).read_bytes()) == RUNTIME.wasm


def test_the_same_again_is_there_already_and_another_needs_overwrite(tmp_path: Path):
    out = tmp_path / "site"
    first = write_site(out, SMALL, RUNTIME)
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    again = write_site(out, SMALL, RUNTIME)
    assert (again.is_new, again.first_bytes) == (False, first.first_bytes)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
    other = Runtime("1.2.4", b"export {};", b"\0asm")
    with pytest.raises(OutputConflictError, match="runtime"):
        write_site(out, SMALL, other)
    write_site(out, SMALL, other, overwrite=True)
    assert len(list(out.glob("ort-*.wasm.lzma"))) == 1
    assert read_manifest(out).spec["runtime"] == "1.2.4"


def test_a_float_student_is_made_smaller_on_the_way(tmp_path: Path):
    assert is_float(model_path(NAMES[1]))
    assert not is_float(SMALL)
    given = []

    def smaller(source: Path, small: Path) -> None:
        given.append(source)
        small.write_bytes(SMALL.read_bytes())

    site = write_site(tmp_path / "site", model_path(NAMES[1]), RUNTIME, smaller=smaller)
    assert given == [model_path(NAMES[1])]
    assert site.student == QUANTISED[-1]


def test_a_training_folder_is_refused_with_the_next_step(tmp_path: Path):
    with pytest.raises(PocketiqaError, match="export its student first, pocketiqa export"):
        write_site(tmp_path / "site", tmp_path, RUNTIME)
    assert not (tmp_path / "site").exists()
