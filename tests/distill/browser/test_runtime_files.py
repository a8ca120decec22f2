"""Where the files of onnxruntime-web come from, and which are refused."""

import tarfile
from pathlib import Path

import pytest

from distill.browser.runtime_files import PACKAGE, SCRIPT, VERSION, WASM, read_runtime
from pseudo_labels.errors import IntegrityError, PocketiqaError
from pseudo_labels.files import sha256_bytes

CONTENT = {SCRIPT: b"export {}", WASM: b"\0asm\1\0\0\0"}
DIGESTS = {name: sha256_bytes(data) for name, data in CONTENT.items()}


def write_package(folder: Path) -> Path:
    (folder / "dist").mkdir(parents=True)
    for name, data in CONTENT.items():
        (folder / "dist" / name).write_bytes(data)
    return folder


@pytest.mark.parametrize("named", [".", "node_modules/onnxruntime-web", "node_modules/onnxruntime-web/dist"])
def test_the_package_is_found_at_and_below_a_folder(tmp_path: Path, named: str):
    write_package(tmp_path / "node_modules" / PACKAGE)
    runtime = read_runtime(tmp_path / named, DIGESTS)
    assert (runtime.script, runtime.wasm, runtime.version) == (CONTENT[SCRIPT], CONTENT[WASM], VERSION)


def test_what_npm_packs_is_read(tmp_path: Path):
    package = write_package(tmp_path / "package")
    archive = tmp_path / "any-name.tgz"
    with tarfile.open(archive, "w:gz") as file:
        file.add(package, "package")
    assert read_runtime(archive, DIGESTS).wasm == CONTENT[WASM]


def test_another_version_is_refused(tmp_path: Path):
    write_package(tmp_path)
    with pytest.raises(IntegrityError, match=f"is not that of {PACKAGE} {VERSION}.*npm pack {PACKAGE}@{VERSION}"):
        read_runtime(tmp_path)


def test_what_is_missing_is_named_with_the_next_step(tmp_path: Path):
    with pytest.raises(PocketiqaError, match=r"no onnxruntime-web at .*--runtime.*npm pack"):
        read_runtime(tmp_path)
    (tmp_path / "broken.tgz").write_bytes(b"\x1f\x8bnothing")
    with pytest.raises(PocketiqaError, match=r"broken.tgz \(--runtime\) is no package .*npm pack"):
        read_runtime(tmp_path / "broken.tgz")
