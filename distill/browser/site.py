"""``pocketiqa web``: a folder with the page, a student and what runs it, for any static server."""

import io
import json
import lzma
import re
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from distill.browser.runtime_files import Runtime
from distill.html.style import CSS
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import digest_of, sha256_bytes, write_atomic
from pseudo_labels.outputs import Claim, claim, exclusively, finish, read_manifest
from students.runtime import Scorer
from students.session import read_model

KIND = "page for browsers"
BUILT = Path(__file__).parent / "page"
"""Markup, style and scripts of the page; the scripts are built from ``web/src`` by ``make web``."""
Smaller = Callable[[Path, Path], object]
"""Writes the weight-only form of a float student (first path) to a file (second path)."""

_PAGE, _CHECK, _SITE, _WORKER = "index.html", "check.jpg", "site.json", "sw.js"
_AS_BUILT = (_PAGE, "icon.svg", "page.js", "worker.js")
_STYLE, _OWN_STYLE = "style.css", "browser.css"
_DIGEST_DIGITS = 12
_DICTIONARY_BYTES = 16 << 20


@dataclass(frozen=True)
class Site:
    """A written page.

    Attributes:
        folder: to be served.
        student: name of the student in it.
        first_bytes: what a browser loads on its first visit, of any static server: larger files are stored compressed.
        is_new: False if it was there already.
        close_by_default: whether ``pocketiqa score`` looks at large pictures twice with this student; a page does not.
    """

    folder: Path
    student: str
    first_bytes: int
    is_new: bool
    close_by_default: bool


def write_site(
    out: Path, model: Path, runtime: Runtime, *, smaller: Smaller | None = None, overwrite: bool = False
) -> Site:
    """Write the page.

    Args:
        out: folder to write.
        model: exported student.
        runtime: see ``runtime_files``.
        smaller: applied to the student, a float one; None takes it as it is.
        overwrite: replace an earlier page.

    Raises:
        PocketiqaError: no usable student.
        OutputConflictError: ``out`` holds something else.
    """
    source = _opened(model)
    built = {file.name: file.read_bytes() for file in sorted(BUILT.iterdir()) if file.is_file()}
    spec = {
        "student": source.digest,
        "weights": "as in the file" if smaller is None else "8 bits",
        "runtime": runtime.version,
        "page": digest_of({name: sha256_bytes(data) for name, data in built.items()} | {_STYLE: CSS}),
    }
    with exclusively(out):
        is_new = claim(out, KIND, spec, overwrite=overwrite) is not Claim.DONE
        if is_new:
            with tempfile.TemporaryDirectory() as folder:
                path = model
                if smaller is not None:
                    path = Path(folder) / "small.onnx"
                    smaller(model, path)
                files, name = _files(path, runtime, built)
            for file_name, data in files.items():
                write_atomic(out / file_name, data)
            finish(out, {"student": name, "first_bytes": sum(map(len, files.values()))})
        content = read_manifest(out, KIND).content
    look = source.contract.look
    return Site(out, content["student"], content["first_bytes"], is_new, look is not None and look.default)


def is_float(model: Path) -> bool:
    """Whether a student has not been converted yet.

    Raises:
        PocketiqaError: no usable student.
    """
    return _opened(model).contract.conversion is None


def _opened(model: Path) -> Scorer:
    if model.is_dir():
        raise PocketiqaError(f"{model} is a folder: export its student first, pocketiqa export {model} --out FILE.onnx")
    # As a page looks: at the whole picture, once.
    return Scorer(model, look="quick")


def _files(model: Path, runtime: Runtime, built: dict[str, bytes]) -> tuple[dict[str, bytes], str]:
    """Name -> content of all files of a page, and the name of its student."""
    scorer = _opened(model)
    # Of the name, what no server and no file system takes for something else.
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", scorer.contract.name)[:60].strip(".-") or "student"
    # Servers know .js, but not all know .mjs. Names with a digest: browsers may keep such a file for ever.
    script, wasm, student = (
        _named("ort", ".js", runtime.script),
        _named("ort", ".wasm.lzma", _compressed(runtime.wasm)),
        _named(plain, ".onnx.lzma", _compressed(read_model(model))),
    )
    check = _check_picture()
    site = {
        "student": scorer.contract.name,
        "model": student[0],
        "runtime": script[0],
        "wasm": wasm[0],
        "bytes": len(student[1]) + len(wasm[1]),
        "check": {"picture": _CHECK, "score": scorer.score(check).score},
    }
    files = dict([script, wasm, student]) | {name: built[name] for name in _AS_BUILT}
    fixed = [script[0], wasm[0], student[0]]
    files[_STYLE] = CSS.encode() + built[_OWN_STYLE]
    files[_CHECK] = check
    files[_SITE] = (json.dumps(site, indent=1) + "\n").encode()
    # "./" is the page as it is visited.
    kept = {"version": digest_of({name: sha256_bytes(data) for name, data in files.items()})[:_DIGEST_DIGITS]} | {
        "fixed": fixed,
        "files": ["./", *(name for name in files if name not in fixed)],
    }
    files[_WORKER] = f"self.site = {json.dumps(kept)};\n".encode() + built[_WORKER]
    return files, scorer.contract.name


def _compressed(data: bytes) -> bytes:
    """What ``web/src/lzma.ts`` expands; of WebAssembly two thirds of what gzip makes."""
    filters = [{"id": lzma.FILTER_LZMA1, "preset": 6, "dict_size": _DICTIONARY_BYTES}]
    packed = lzma.compress(data, format=lzma.FORMAT_ALONE, filters=filters)
    # The header of 13 bytes ends with the size, which Python leaves open.
    return packed[:5] + len(data).to_bytes(8, "little") + packed[13:]


def _named(stem: str, suffix: str, data: bytes) -> tuple[str, bytes]:
    return f"{stem}-{sha256_bytes(data)[:_DIGEST_DIGITS]}{suffix}", data


def _check_picture() -> bytes:
    """A JPEG by which a page finds out whether its browser alters pixels."""
    rows, columns = np.mgrid[0:300, 0:400]
    waves = [127.5 + 100 * np.sin(rows / a + columns / b) for a, b in ((9, 31), (17, 14), (40, 7))]
    buffer = io.BytesIO()
    Image.fromarray(np.stack(waves, axis=-1).astype(np.uint8)).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
