import base64
import io
import re
from html import unescape
from pathlib import Path

import numpy as np
from PIL import Image

from pseudo_labels.audit.charts import calibration_curves, charts, inline, picture, scatter_matrix, table
from pseudo_labels.audit.store import audit_store
from pseudo_labels.fusion.calibrate import MonotoneMap, knots_map
from pseudo_labels.pool import Pool
from tests.helpers.fusing import invented_pool
from tests.pseudo_labels.audit.stores import honest, store_of


def images_of(html: str) -> list[Image.Image]:
    data = re.findall(r'src="data:image/(?:png|jpeg);base64,([^"]*)"', html)
    return [Image.open(io.BytesIO(base64.b64decode(each, validate=True))) for each in data]


def alts_of(html: str) -> list[str]:
    return [unescape(alt) for alt in re.findall(r'alt="([^"]*)"', html)]


def test_a_table_formats_numbers_and_escapes_words():
    html = table(["name", "n", "mean"], [["a <b>", 12345, 0.12345], ["x" * 25, 1, ""]])
    assert "<th>name</th><th class=n>n</th><th class=n>mean</th>" in html
    assert "<td>a &lt;b&gt;</td><td class=n>12,345</td><td class=n>0.123</td>" in html
    assert f"<td class=long>{'x' * 25}</td>" in html
    assert "<th" not in table(["", ""], [["a", "b"]])


def test_an_inline_image_decodes_to_its_bytes():
    kind, _, data = inline(b"\x00\xffbytes", "png").partition(",")
    assert kind == "data:image/png;base64"
    assert base64.b64decode(data) == b"\x00\xffbytes"


def test_a_picture_is_a_small_copy_of_the_row(fused_pool: Pool):
    html = picture(fused_pool, 3, "dir/<3>.png", "<b>0.5</b>")
    (thumbnail,) = images_of(html)
    original = Image.fromarray(fused_pool.load(fused_pool[3]))
    assert max(thumbnail.size) == min(160, max(original.size))
    assert abs(np.asarray(thumbnail, float).mean() - np.asarray(original, float).mean()) < 3
    assert html.endswith("<figcaption><b>0.5</b><br>&lt;3&gt;.png</figcaption></figure>")


def test_a_picture_that_cannot_be_shown_keeps_its_caption(tmp_path: Path):
    assert picture(None, 0, "a/b.png", "x") == "<figure><figcaption>x<br>b.png</figcaption></figure>"
    html = picture(invented_pool(tmp_path / "pool"), 0, "0.png", "x")  # of files that do not exist
    assert re.fullmatch(r"<figure><p>.*no such file.*</p><figcaption>x<br>0\.png</figcaption></figure>", html)


def test_charts_of_a_store_are_its_histograms_levels_and_shards(pool: Pool, tmp_path: Path):
    n = len(pool)
    html = charts(audit_store(store_of(pool, tmp_path / "labels", honest(pool)).folder))
    assert alts_of(html) == [
        f"Scores: histogram of {n} images",
        f"Spread: histogram of {n} images",
        f"Confidence: histogram of {n} images",
        "Mean score by level of distortion",
        "Mean and deviation of the scores by shard",
    ]
    for chart in images_of(html):
        assert chart.size == (540, 405)  # 3.6 by 2.7 inches at 150 dots an inch
        assert np.asarray(chart.convert("L")).std() > 5  # something is drawn
    silent = audit_store(store_of(pool, tmp_path / "silent", [float("nan")] * n).folder)
    assert charts(silent) == ""


def test_a_matrix_has_each_pair_once_below_the_diagonal():
    pairs = [
        {"first": first, "second": second, "n": 1200, "srcc": None if second == "b" else 0.5, "points": [[0.1, 0.2]]}
        for first, second in [("a", "b"), ("a", "c"), ("b", "c")]
    ]
    html = scatter_matrix(["a", "b", "c"], pairs)
    assert alts_of(html) == [
        "b over a: no SRCC (n=1,200)",
        "c over a: SRCC 0.500 (n=1,200)",
        "c over b: SRCC 0.500 (n=1,200)",
    ]
    assert html.count('<div class="none">') == 1
    assert all(width == height for width, height in (image.size for image in images_of(html)))


def test_calibration_curves_differ_with_the_maps():
    straight = calibration_curves(["a <b>"], [MonotoneMap()])
    bent = calibration_curves(["a <b>"], [knots_map([0.0, 1.0], [0.4, 0.6])])
    assert alts_of(straight) == ["Calibration curves of a <b>"]
    one, other = (np.asarray(images_of(html)[0].convert("L")) for html in (straight, bent))
    assert one.shape == other.shape == (405, 540)
    assert (one != other).any()
