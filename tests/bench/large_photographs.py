"""Large photographs from Debian's packages of wallpapers, in the parts that ``docs/large-photographs.md`` names.

    apt-get download ukui-wallpapers=20.04.4-1 budgie-backgrounds=3.0-1 gnome-backgrounds=3.38.0-1 \\
        lomiri-wallpapers-16.04=20.04.0-2 lomiri-wallpapers-20.04=20.04.0-2 plasma-workspace-wallpapers=4:5.27.5-2
    python -m tests.bench.large_photographs FOLDER_OF_PACKAGES OUT

The packages are in Debian 11 to 13 and unstable; ``apt-get`` needs the sources of each. Nothing of them is part of this
project. Photographs were chosen by eye before anything was measured: no drawings, renderings or enlargements. A
photograph's part follows from the SHA-256 of its file name.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

_BACKGROUNDS = "usr/share/backgrounds"
# Package and version -> SHA-256 of the .deb, folder in it, files.
PACKAGES: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "ukui-wallpapers_20.04.4-1_all.deb": (
        "3e9036f3e9fa197e3ff8fc6551eeba208f31ac99cba06da052e49a00d77ed62d",
        _BACKGROUNDS,
        ("bluebird", "bridgecity", "bridgecity2", "flamingos", "horse", "house", "look", "mountain-range", "mountain",
         "mountain2", "sea", "sky", "snowy-mountains", "still-life", "sunf"),
    ),
    "budgie-backgrounds_3.0-1_all.deb": (
        "b91c2d5209558bc11d8d3a161f22a608857e3f8c735980cfab0d6650b03014ca",
        f"{_BACKGROUNDS}/budgie",
        ("abstract-spiral", "beacon-street-sunset", "blue-periwinkle", "canyon-wren", "casa-mila",
         "extreme-desert-hike", "high-trestle-trail", "lake-sherburne", "oakland-zoo-otters", "perched-osprey",
         "piazza-gae-aulenti", "roman-colosseum", "singaporean-cityscape", "tea-gardens"),
    ),
    "gnome-backgrounds_3.38.0-1_all.deb": (
        "76d8a4c52e5f346d9cb08bc8a1f58ad443d2bae211721af8a7248457c7a520e8",
        f"{_BACKGROUNDS}/gnome",
        ("Acrylic", "ColdWarm", "Icetwigs", "Road", "SeaSunset"),
    ),
    "lomiri-wallpapers-16.04_20.04.0-2_all.deb": (
        "a99ff6a3bfe451e4cc0682ecb3cc82e71740626d59e4845ae34a0a0e45421eab",
        _BACKGROUNDS,
        ("Bridge_by_Sander_Klootwijk", "Dragonfly_by_Bolly", "Wine_by_Jakkub_Mede",
         "picosdeeuropa_by_Aitzol_Berasategi", "seeding_by_Clements_Engelhardt", "sunset_by_Aitzol_Berasategi",
         "Picture_0B_by_freespace", "aitzgorri_by_Aitzol_Berasategi", "free_by_Peter_Nerlich",
         "friends_by_Aitzol_Berasategi", "greentock_by_Peter_Nerlich", "life_by_Aitzol_Berasategi"),
    ),
    "lomiri-wallpapers-20.04_20.04.0-2_all.deb": (
        "d44e89b8473aafe64a5b678f014862dc31335aaaf18665c544d985d854f1a709",
        _BACKGROUNDS,
        ("Kleiber_by_Lukas_Baubkus",),
    ),
    "plasma-workspace-wallpapers_4%3a5.27.5-2_all.deb": (
        "32cd18b71c8c938a18b3b351f217c02ac590e323caa3cf322fbb875ce8892f8b",
        "usr/share/wallpapers",
        ("Path", "BytheWater", "FallenLeaf", "OneStandsOut", "ColorfulCups"),
    ),
}  # fmt: skip
# Below 8 megapixels: they teach, but nothing is measured on them.
_SMALL = (*PACKAGES["lomiri-wallpapers-16.04_20.04.0-2_all.deb"][2][6:],
          *PACKAGES["plasma-workspace-wallpapers_4%3a5.27.5-2_all.deb"][2])  # fmt: skip


def part_of(name: str) -> str:
    """``test`` (half), ``validation`` or ``fit``."""
    if name in _SMALL:
        return "fit"
    digit = int(hashlib.sha256(f"{name}.jpg".encode()).hexdigest(), 16) % 10
    return "test" if digit < 5 else "validation" if digit < 6 else "fit"


def main(packages: Path, out: Path) -> None:
    """Unpack the photographs into ``out/fit``, ``out/validation`` and ``out/test``."""
    for package, (expected, folder, names) in PACKAGES.items():
        file = packages / package
        if not file.is_file():
            raise SystemExit(f"{file} is missing: apt-get download it into {packages}")
        actual = hashlib.sha256(file.read_bytes()).hexdigest()
        if actual != expected:
            raise SystemExit(f"{file} has the SHA-256 {actual}, but {expected} is expected")
        with tempfile.TemporaryDirectory() as unpacked:
            subprocess.run(["dpkg-deb", "-x", str(file), unpacked], check=True)
            for name in names:
                inside = f"{name}/contents/images/2560x1600.jpg" if "plasma" in package else f"{name}.jpg"
                (out / part_of(name)).mkdir(parents=True, exist_ok=True)
                shutil.copyfile(Path(unpacked) / folder / inside, out / part_of(name) / f"{name}.jpg")
    for part in sorted(out.iterdir()):
        print(f"{part}: {len(list(part.iterdir()))} photographs")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
