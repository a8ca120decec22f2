"""Photographs that are on this machine already: those that scikit-image, scikit-learn and matplotlib install.

One picture a scene, so the right half of scikit-image's stereo pair "motorcycle" is left out; so are drawings, text,
charts, thumbnails, and the surfaces (brick, grass, gravel, moon) whose fine grain a model that has seen a dozen scenes
cannot tell from noise. Nothing is downloaded or imported: only files of the packages are looked at.
"""

from importlib.util import find_spec
from pathlib import Path

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.files import explain_write_errors, write_atomic

_SKIMAGE = "skimage", "data"
_SKLEARN = "sklearn", "datasets/images"
_MATPLOTLIB = "matplotlib", "mpl-data/sample_data"
_PUBLIC, _CC0, _CC_BY = "public domain", "CC0 1.0", "CC BY 2.0"
# name -> package, folder in it, file, licence as the package's own documentation gives it
_PHOTOGRAPHS = {
    "astronaut": (*_SKIMAGE, "astronaut.png", _PUBLIC),
    "camera": (*_SKIMAGE, "camera.png", _CC0),
    "chelsea": (*_SKIMAGE, "chelsea.png", _CC0),
    "china": (*_SKLEARN, "china.jpg", _CC_BY),
    "coffee": (*_SKIMAGE, "coffee.png", _CC0),
    "coins": (*_SKIMAGE, "coins.png", "no known restrictions"),
    "flower": (*_SKLEARN, "flower.jpg", _CC_BY),
    "grace_hopper": (*_MATPLOTLIB, "grace_hopper.jpg", _PUBLIC),
    "hubble": (*_SKIMAGE, "hubble_deep_field.jpg", _PUBLIC),
    "ihc": (*_SKIMAGE, "ihc.png", "no known restrictions"),
    "motorcycle": (*_SKIMAGE, "motorcycle_left.png", "not stated"),
    "retina": (*_SKIMAGE, "retina.jpg", _CC0),
    "rocket": (*_SKIMAGE, "rocket.jpg", _PUBLIC),
}


def bundled_photographs() -> dict[str, Path]:
    """Installed photographs by name, in alphabetical order: 13 scenes, two of them gray.

    Raises:
        PocketiqaError: none of the packages is installed.
    """
    photographs = {}
    for name, (package, folder, file, _) in sorted(_PHOTOGRAPHS.items()):
        installed = _package_folder(package)
        if installed and (installed / folder / file).is_file():
            photographs[name] = installed / folder / file
    if not photographs:
        raise PocketiqaError(
            "no bundled photographs: install scikit-image or scikit-learn, or name a folder of your own"
        )
    return photographs


def photograph_licences() -> dict[str, str]:
    """Licence of each photograph, as far as the package that ships it states one."""
    return {name: licence for name, (*_, licence) in sorted(_PHOTOGRAPHS.items())}


def export_photographs(out: Path) -> list[Path]:
    """Copy the installed photographs into ``out``, unchanged, under their names; what else lies there stays.

    Raises:
        PocketiqaError: none of the packages is installed.
    """
    with explain_write_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    copies = []
    for name, path in bundled_photographs().items():
        copy = out / f"{name}{path.suffix}"
        # Left alone if it is there already, so that a pool made of the folder stays valid.
        if not copy.is_file() or copy.read_bytes() != path.read_bytes():
            write_atomic(copy, path.read_bytes())
        copies.append(copy)
    return copies


def _package_folder(package: str) -> Path | None:
    """Where a package is installed, without importing it."""
    spec = find_spec(package)
    return Path(spec.origin).parent if spec and spec.origin else None
