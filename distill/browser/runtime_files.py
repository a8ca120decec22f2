"""The two files of onnxruntime-web that a page needs, out of what npm brought; known by their digests."""

import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from pseudo_labels.errors import IntegrityError, PocketiqaError
from pseudo_labels.files import sha256_bytes

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
SCRIPT, WASM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
"""Of the builds of the package, the smallest that runs a student on the CPU (those for GPUs have twice the bytes)."""
DIGESTS: Mapping[str, str] = MappingProxyType(
    {
        SCRIPT: "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
        WASM: "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
    }
)
_CHECKOUT = Path(__file__).parents[2] / "web"
# Inside the package and inside what `npm pack` writes.
_IN_PACKAGE, _IN_ARCHIVE = Path("dist"), "package/dist"
_HOW = (
    f"run `npm pack {PACKAGE}@{VERSION}` and add --runtime {PACKAGE}-{VERSION}.tgz (in a checkout of pocketiqa, "
    "`make web` does)"
)


@dataclass(frozen=True)
class Runtime:
    """What computes a student in a browser.

    Attributes:
        version: of onnxruntime-web.
        script: JavaScript module.
        wasm: WebAssembly module that it starts.
    """

    version: str
    script: bytes
    wasm: bytes


def read_runtime(path: Path | None, digests: Mapping[str, str] = DIGESTS) -> Runtime:
    """Read the two files.

    Args:
        path: what ``npm pack`` wrote (.tgz), the folder of the package, or one that has it in ``node_modules``; None
            looks into the ``node_modules`` of a checkout and of the current folder.
        digests: hex SHA-256 of each file by name.

    Raises:
        PocketiqaError: they are not there.
        IntegrityError: they are of another version, or altered.
    """
    files = _read_archive(path) if path is not None and path.is_file() else _read_folder(path)
    for name, digest in digests.items():
        if sha256_bytes(files[name]) != digest:
            raise IntegrityError(
                f"{name} in {path or 'node_modules'} is not that of {PACKAGE} {VERSION}, which the page was tested "
                f"with: {_HOW}"
            )
    return Runtime(VERSION, files[SCRIPT], files[WASM])


def _read_folder(path: Path | None) -> dict[str, bytes]:
    starts = (_CHECKOUT, Path()) if path is None else (path,)
    for folder in _candidates(starts):
        if all((folder / name).is_file() for name in DIGESTS):
            return {name: (folder / name).read_bytes() for name in DIGESTS}
    if path is None:
        raise PocketiqaError(f"a page needs {PACKAGE} {VERSION}, which is not here: {_HOW}")
    raise PocketiqaError(f"no {PACKAGE} at {path} (--runtime): {_HOW}")


def _candidates(starts: tuple[Path, ...]) -> Iterator[Path]:
    for start in starts:
        yield from (start, start / _IN_PACKAGE, start / "node_modules" / PACKAGE / _IN_PACKAGE)


def _read_archive(path: Path) -> dict[str, bytes]:
    try:
        with tarfile.open(path) as archive:
            members = {name: archive.extractfile(f"{_IN_ARCHIVE}/{name}") for name in DIGESTS}
            # Of a folder there is nothing to read.
            return {name: member.read() if member is not None else b"" for name, member in members.items()}
    except (tarfile.TarError, KeyError, OSError, EOFError) as error:
        raise PocketiqaError(f"{path} (--runtime) is no package of {PACKAGE} that npm wrote: {_HOW}") from error
