"""The page in a real browser, from a plain static server: its scores are those of ``pocketiqa score``.

Made to run by ``make web-test``; skipped with a reason where node, Chromium or the packages of ``web/`` are missing.
``POCKETIQA_WEB_SHORT=1`` leaves out the conversion to 8 bits and the real photographs.
"""

import csv
import json
import lzma
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

import numpy as np
import pytest
import skimage.data
from PIL import Image

from distill.browser.site import Site, Smaller, write_site
from students.runtime import Result, Scorer
from students.shipped import DEFAULT, NAMES, model_path
from tests.helpers.imports import ROOT
from tests.helpers.profiles import DISPLAY_P3, SRGB, SRGB_CURVE, matrix_profile, parametric_curve
from tests.helpers.shared import shared_data
from tests.helpers.vectors import pattern

WEB = ROOT / "web"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
SHORT = bool(os.environ.get("POCKETIQA_WEB_SHORT"))
FIRST_VISIT_BYTES = 6_000_000
UNUSABLE = {"cut.jpg", "words.jpg"}
ORIENTATION = 0x0112


@dataclass(frozen=True)
class Visit:
    """What the browser saw and wrote.

    Attributes:
        site: the page.
        seen: what ``web/test/drive.mjs`` noted.
        rows: of the exported file, by name.
        offline: likewise, of the visit without a server.
        expected: scores by Python; None where a file cannot be used.
        waves: score and quality map by Python of the picture that the npm package was given.
        log: lines of the server.
    """

    site: Site
    seen: dict
    rows: dict[str, dict[str, str]]
    offline: dict[str, dict[str, str]]
    expected: dict[str, float | None]
    waves: Result
    log: list[str]


def browser() -> str:
    """Chromium, node and the packages; skips where one is missing."""
    if shutil.which("node") is None:
        pytest.skip("this machine has no node")
    if not (WEB / "node_modules/playwright-core").is_dir():
        pytest.skip("the packages of web/ are not installed: make web")
    path = os.environ.get("POCKETIQA_CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        pytest.skip(f"this machine has none of {', '.join(BROWSERS)} (or set POCKETIQA_CHROMIUM)")
    return path


def turned(number: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = number
    return exif


def write_made(folder: Path) -> None:
    """Photographs in the formats and with the declarations that matter, and two files that are none."""
    coffee, cat, face = (
        Image.fromarray(image) for image in (skimage.data.coffee(), skimage.data.chelsea(), skimage.data.astronaut())
    )
    p3, srgb = (matrix_profile(colours, parametric_curve(*SRGB_CURVE)) for colours in (DISPLAY_P3, SRGB))
    coffee.save(folder / "plain.jpg", quality=90)
    coffee.save(folder / "again.jpg", quality=60)
    for number in (3, 5, 6):
        cat.save(folder / f"turned-{number}.jpg", quality=92, exif=turned(number), progressive=number == 5)
    cat.save(folder / "turned.webp", quality=85, exif=turned(8))
    face.save(folder / "turned.png", exif=turned(6))
    face.save(folder / "p3.jpg", quality=95, subsampling=0, icc_profile=p3)
    face.save(folder / "srgb.jpg", quality=95, icc_profile=srgb)
    face.convert("L").save(folder / "gray.jpg", quality=40)
    face.quantize(64).save(folder / "palette.png")
    alpha = Image.fromarray(np.linspace(0, 255, 512 * 512).reshape(512, 512).astype(np.uint8))
    face.putalpha(alpha)
    face.save(folder / "transparent.png")
    whole = (folder / "plain.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) * 2 // 3])
    (folder / "words.jpg").write_text("no picture")


def write_real(folder: Path) -> None:
    """Twenty of real cameras: JPEG upright and turned, PNG, WebP, 12 megapixels."""
    scenes = sorted(shared_data("kodak").glob("*.png"))
    others = sorted(shared_data("bsds500", "images").rglob("*.jpg"))
    for number, path in enumerate(scenes[:12]):
        with Image.open(path) as image:
            if number < 4:
                shutil.copy(path, folder / f"scene-{number}.png")
            elif number < 7:
                image.save(folder / f"scene-{number}.webp", quality=80)
            elif number < 10:
                image.save(folder / f"scene-{number}.jpg", quality=88, exif=turned(number - 1))
            else:
                large = image.resize((4000, 3000), Image.Resampling.BICUBIC)
                large.save(folder / f"large-{number}.jpg", quality=85, exif=turned(1 if number == 10 else 6))
    for path in others[:8]:
        shutil.copy(path, folder / path.name)


def smaller() -> Smaller:
    from distill.stages.converting import W8, export_converted

    return lambda source, small: export_converted(str(source), W8, small)


def served(folder: Path, log: Path) -> tuple[subprocess.Popen[bytes], str]:
    """A server of files that compresses nothing and sets no header of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = [sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(folder), str(port)]
    with open(log, "wb") as out:
        process = subprocess.Popen(words, stdout=out, stderr=out)
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return process, f"http://127.0.0.1:{port}/"
        time.sleep(0.1)
    raise TimeoutError("the server did not start")


def read_rows(path: Path) -> dict[str, dict[str, str]]:
    with open(path, newline="", encoding="utf-8") as file:
        return {row["path"]: row for row in csv.DictReader(file)}


@pytest.fixture(scope="module")
def visit(tmp_path_factory: pytest.TempPathFactory) -> Visit:
    from distill.browser.runtime_files import read_runtime

    chromium = browser()
    folder = tmp_path_factory.mktemp("visit")
    photographs, out, site_folder = folder / "photographs", folder / "out", folder / "site"
    photographs.mkdir()
    out.mkdir()
    write_made(photographs)
    if not SHORT:
        write_real(photographs)
    model = model_path(NAMES[1] if SHORT else DEFAULT)
    site = write_site(site_folder, model, read_runtime(WEB), smaller=None if SHORT else smaller())
    subprocess.run(["node", "build.mjs", "package"], cwd=WEB, check=True)
    shutil.copytree(WEB / "dist", site_folder / "package")
    process, url = served(site_folder, folder / "server.log")
    files = sorted(photographs.iterdir())
    plan = {
        "chromium": chromium,
        "url": url,
        "server": process.pid,
        "photographs": [str(file) for file in files],
        "out": str(out),
        "pictures": bool(os.environ.get("POCKETIQA_WEB_PICTURES")),
    }
    try:
        subprocess.run(["node", "test/drive.mjs", json.dumps(plan)], cwd=WEB, check=True, timeout=3000)
    finally:
        process.kill()
        process.wait()
    if kept := os.environ.get("POCKETIQA_WEB_PICTURES"):
        shutil.copytree(out, kept, dirs_exist_ok=True)
    (packed,) = site_folder.glob("*.onnx.lzma")
    student = folder / "student.onnx"
    data = packed.read_bytes()
    student.write_bytes(lzma.decompress(data[:5] + b"\xff" * 8 + data[13:]))  # with its size left open
    scorer = Scorer(student, look="quick")
    expected = {Path(row.path).name: row.score for row in scorer.score_many(files)}
    seen = json.loads((out / "seen.json").read_text())
    lines = (folder / "server.log").read_text().splitlines()
    return Visit(
        site,
        seen,
        rows=read_rows(out / "scores.csv"),
        offline=read_rows(out / "offline.csv"),
        expected=expected,
        waves=scorer.score(pattern("waves", 100, 200)),
        log=lines,
    )


def test_scores_are_those_of_python(visit: Visit):
    assert visit.rows.keys() == visit.expected.keys()
    usable = {name: score for name, score in visit.expected.items() if score is not None}
    assert visit.expected.keys() - usable.keys() == UNUSABLE
    off = {name: abs(float(visit.rows[name]["score"]) - score) for name, score in usable.items()}
    print(f"{len(off)} photographs: median {median(off.values()):.1e}, largest {max(off.values()):.1e}", off)
    assert max(off.values()) <= 1e-3, off
    assert median(off.values()) < 1e-5, off
    assert len({round(score, 3) for score in usable.values()}) > len(usable) / 2  # a page of one score would pass too


def test_the_npm_package_scores_pixels_and_says_what_is_wrong(visit: Visit):
    package, expected = visit.seen["package"], visit.waves
    assert package["name"] == visit.site.student
    assert abs(package["pixels"]["score"] - expected.score) < 1e-5
    assert package["bitmap"] == package["pixels"]["score"]
    quality_map = package["pixels"]["map"]
    assert (quality_map["rows"], quality_map["columns"]) == expected.quality_map.shape
    for name, values in (("data", expected.quality_map), ("weights", expected.weight_map)):
        given = [quality_map[name][str(cell)] for cell in range(values.size)]
        np.testing.assert_allclose(given, values.reshape(-1), rtol=1e-3, atol=1e-4)
    assert package["empty"] == "the file has zero bytes"
    assert "missing.onnx answered 404" in package["missing"]
    assert package["closed"] == "the scorer was closed"


def test_what_is_no_photograph_becomes_a_row_with_a_reason(visit: Visit):
    for name in UNUSABLE:
        assert visit.rows[name]["status"] == "failed"
        assert visit.rows[name]["score"] == ""
    assert visit.rows["cut.jpg"]["reason"] == "the file is cut: its end is missing"
    assert "browser can decode" in visit.rows["words.jpg"]["reason"]
    assert visit.seen["rows"][-len(UNUSABLE) :] == sorted(UNUSABLE)


def test_no_other_host_is_asked(visit: Visit):
    hosts = {urlsplit(url).hostname for url in visit.seen["requests"] if not url.startswith(("blob:", "data:"))}
    assert hosts == {"127.0.0.1"}
    # Those of the worker are listed too.
    assert any(url.endswith(".wasm.lzma") for url in visit.seen["requests"])
    assert not visit.seen["isolated"]  # so no special headers were needed
    assert visit.seen["errors"] == []
    assert visit.seen["warning"] == ""


def test_the_first_visit_is_small_and_sends_nothing_large_twice(visit: Visit):
    sent = [match[1] for line in visit.log if (match := re.search(r'"GET /(\S*) HTTP/1.1" 200', line))]
    sent = [name for name in sent if not name.startswith("package/")]
    large = [name for name in sent if name.endswith((".lzma", ".js")) and "-" in name]
    assert sorted(large) == sorted(set(large))
    total = sum((visit.site.folder / (name or "index.html")).stat().st_size for name in sent)
    print(f"first visit: {total} bytes on the wire, {visit.site.first_bytes} in the folder")
    assert total <= FIRST_VISIT_BYTES


def test_without_the_server_it_scores_the_same(visit: Visit):
    (name,) = visit.offline
    assert visit.offline[name]["score"] == visit.rows[name]["score"] != ""


def test_similar_shots_are_a_group_with_one_best(visit: Visit):
    one, other = visit.rows["plain.jpg"], visit.rows["again.jpg"]
    assert one["similar"] == other["similar"] != ""
    better = max(one, other, key=lambda row: float(row["score"]))
    assert [row["best_of_similar"] == "yes" for row in (one, other)] == [row is better for row in (one, other)]
    assert visit.rows["gray.jpg"]["similar"] != one["similar"]


def test_keys_alone_suffice_and_everything_has_a_name(visit: Visit):
    keyboard, rows = visit.seen["keyboard"], visit.seen["rows"]
    assert keyboard["first"] == "files"
    assert keyboard["photograph"].startswith(f"Show {rows[0]}, score 0.")
    assert (keyboard["opened"], keyboard["next"]) == (rows[0], rows[1])
    assert keyboard["closed"]
    assert keyboard["back"] == keyboard["photograph"]
    assert visit.seen["nameless"] == 0


def test_it_fits_a_phone_and_maps_every_photograph(visit: Visit):
    assert visit.seen["overflow"] <= 0
    assert visit.seen["mapped"] == len(visit.rows) - len(UNUSABLE)
