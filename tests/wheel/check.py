"""Build the wheel, install it with the base dependencies only, and score an image from an empty folder.

Run by ``make wheel-check``. Fails loudly if the wheel lacks a file, if the base install lacks a package, or if
scoring pulls torch in. The last line prints the cold start of ``pocketiqa score``, for ``make bench`` to read.
"""

import json
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]


def run(*words: object, cwd: Path) -> str:
    """Run a command and return its standard output; a failure shows what it printed."""
    done = subprocess.run([str(word) for word in words], cwd=cwd, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, words))}\nexit status {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def build_wheel(folder: Path) -> Path:
    """The wheel of this checkout."""
    run(sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT, cwd=ROOT)
    (wheel,) = folder.glob("pocketiqa-*.whl")
    return wheel


def base_install(wheel: Path, folder: Path) -> Path:
    """A new environment with the wheel and its base dependencies; returns its folder of commands."""
    venv.create(folder, with_pip=True)
    commands = folder / "bin"
    constraints = ROOT / "constraints.txt"
    run(commands / "pip", "install", "--quiet", "--constraint", constraints, wheel, cwd=folder)
    return commands


def make_photograph(folder: Path) -> Path:
    """A photograph-sized JPEG."""
    rows, columns = np.mgrid[0:768, 0:1024]
    waves = 127.5 + 60 * np.sin(rows / 37) + 60 * np.cos(columns / 23)
    photograph = folder / "photograph.jpg"
    Image.fromarray(np.stack([waves, waves[:, ::-1], waves], -1).astype(np.uint8)).save(photograph, quality=90)
    return photograph


def check_score(commands: Path, photograph: Path, empty: Path) -> tuple[float, list[float]]:
    """Score from an empty folder with the model in the wheel; returns the score and the seconds of five runs."""
    seconds, record = [], {}
    for _ in range(5):
        started = time.perf_counter()
        words = (commands / "pocketiqa", "score", photograph, "--format", "jsonl")
        record = json.loads(run(*words, cwd=empty))
        seconds.append(time.perf_counter() - started)
        if record["status"] != "ok" or not 0 <= record["score"] <= 1:
            sys.exit(f"the installed wheel did not score the photograph: {record}")
    return record["score"], seconds


def check_import(commands: Path, photograph: Path, empty: Path, expected: float) -> None:
    """The documented import gives the score of the command line, from an empty folder."""
    program = "import sys; from pocketiqa import Scorer; print(Scorer().score(sys.argv[1]).score)"
    score = float(run(commands / "python", "-c", program, photograph, cwd=empty))
    if score != expected:
        sys.exit(f"pocketiqa.Scorer gives {score}, but `pocketiqa score` gives {expected}")


def check_regions(commands: Path, photograph: Path, empty: Path) -> None:
    """Regions and drawings need no more than the base install."""
    boxes = photograph.with_name("boxes.json")
    boxes.write_text("[[0, 0, 512, 768], [512, 0, 512, 768]]")
    for source in ("grid:2x1", boxes):
        picture = photograph.with_name(f"{Path(source).name.replace(':', '-')}.png")
        words = (commands / "pocketiqa", "score", photograph, "--regions", source, "--picture", picture)
        lines = run(*words, "--format", "jsonl", cwd=empty).splitlines()
        importances = [json.loads(line)["importance"] for line in lines[1:]]
        if len(importances) != 2 or abs(sum(importances) - 1) > 1e-6 or not picture.is_file():
            sys.exit(f"the installed wheel did not score the regions of {source}: {lines}")


def check_gallery(commands: Path, photograph: Path, empty: Path) -> None:
    """The page needs its script, which is a file of the package."""
    page = photograph.with_name("page.html")
    run(commands / "pocketiqa", "score", photograph, "--gallery", page, "--list", cwd=empty)
    if "getElementById" not in page.read_text(encoding="utf-8"):
        sys.exit("the installed wheel wrote a gallery without its script")


def check_page(commands: Path, empty: Path) -> None:
    """The page for browsers is a part of the package; what runs a student there is not, and is asked for by name."""
    program = "from distill.browser.site import BUILT; print(*sorted(file.name for file in BUILT.iterdir()))"
    expected = " ".join(sorted(file.name for file in (ROOT / "distill/browser/page").iterdir()))
    if run(commands / "python", "-c", program, cwd=empty).strip() != expected:
        sys.exit(f"the installed wheel lacks files of the page for browsers: {expected}")
    words = [str(commands / "pocketiqa"), "web", "--out", "site"]
    done = subprocess.run(words, cwd=empty, capture_output=True, text=True)
    if done.returncode == 0 or "npm pack onnxruntime-web@" not in done.stderr:
        sys.exit(f"the installed wheel does not say what a page needs: {done.stderr}")


def check_no_torch(commands: Path, empty: Path) -> None:
    """The base install must not bring torch along."""
    spec = run(commands / "python", "-c", "import importlib.util as u; print(u.find_spec('torch'))", cwd=empty)
    if spec.strip() != "None":
        sys.exit("the base install pulled torch in")


def main() -> None:
    """Do all of it in a temporary folder."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "empty").mkdir()
        commands = base_install(build_wheel(folder / "wheel"), folder / "environment")
        check_no_torch(commands, folder / "empty")
        photograph = make_photograph(folder)
        score, seconds = check_score(commands, photograph, folder / "empty")
        check_import(commands, photograph, folder / "empty", score)
        check_regions(commands, photograph, folder / "empty")
        check_gallery(commands, photograph, folder / "empty")
        check_page(commands, folder / "empty")
        run(commands / "pocketiqa", "--help", cwd=folder / "empty")
        run(commands / "pocketiqa", "doctor", cwd=folder / "empty")
    print(f"wheel check passed; cold start of score, median of 5: {sorted(seconds)[2]:.2f} s")


if __name__ == "__main__":
    main()
