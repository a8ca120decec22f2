"""The page in a browser, if there is one: what is shown, by mouse and keyboard; else its markup."""

import shutil
import subprocess
from pathlib import Path

import pytest

from distill.html.gallery import Shown, data_address, gallery_page

DOT = data_address(
    bytes.fromhex(
        "ffd8ffe000104a46494600010100000100010000ffdb004300ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff"
        "ffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffc0000b080001000101011100ffc4001400010000"
        "0000000000000000000000000000ffc40014100100000000000000000000000000000000ffda0008010100003f00d2cf20ffd9"
    )
)


def shown(count: int) -> list[Shown]:
    return [
        Shown(
            f"p{number}.jpg",
            (number * 7919 % count + 0.5) / count,
            "ok",
            "",
            f"/d/p{number}.jpg",
            "",
            DOT,
            [("stars", "4")],
        )
        for number in range(count)
    ]


def test_the_page_says_what_it_shows():
    page = gallery_page(
        [*shown(3), Shown("bad.jpg", None, "corrupt", "cut short", "/d/bad.jpg")], model="m", digest="ab" * 32
    )
    assert "4 photographs; scores 0.167 to 0.833, mean 0.500; 1 without a score" in page
    assert "abababababab" in page
    assert "chosen from 9" in gallery_page(shown(3), model="m", digest="ab", chosen_from=9)
    assert "1 photograph;" in gallery_page(shown(1), model="m", digest="ab")
    assert "0 photographs" in gallery_page([], model="m", digest="ab")


# What the page is asked by its own script's means; each answer goes into the title, which ``--dump-dom`` prints.
PROBE = """
<script>
const key = (name) => dispatchEvent(new KeyboardEvent("keydown", {key: name, bubbles: true}));
const at = () => document.querySelector(".tile.current .name")?.textContent;
const said = [];
const say = (name, value) => said.push(name + "=" + value);
const press = (name) => document.body.dispatchEvent(new KeyboardEvent("keydown", {key: name, bubbles: true}));
const put = (id, value, kind = "input") => {
  const field = document.getElementById(id); field.value = value; field.dispatchEvent(new Event(kind));
};
const shownNow = () => document.getElementById("info").textContent.split(" ")[0];
say("tiles", document.querySelectorAll(".tile").length);
say("first", at());
press("ArrowRight"); press("ArrowRight"); press("ArrowLeft"); say("second", at());
press("End"); say("last", at());
press("b"); say("best", at());
press("n"); say("name", at());
press("m"); say("marked", document.querySelectorAll(".tile.marked").length);
put("only", "marked", "change"); say("only", shownNow());
put("only", "all", "change");
put("text", "p12"); say("text", shownNow());
put("text", ""); put("low", "0.25"); put("high", "0.5"); say("between", shownNow());
document.getElementById("clear").click(); say("all", shownNow());
document.querySelector("#bars button:enabled").click(); say("bar", shownNow());
document.getElementById("clear").click();
press("Enter"); say("open", document.getElementById("viewer").open);
say("title", document.getElementById("title").textContent);
press("ArrowRight"); say("next", document.getElementById("title").textContent);
document.getElementById("close").click(); say("closed", !document.getElementById("viewer").open);
say("errors", window.failed || 0);
document.title = said.join(" ");
</script>
"""


@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")
def test_a_browser_shows_it_and_follows_the_keyboard(tmp_path: Path):
    page = gallery_page(shown(400), model="m", digest="ab" * 32)
    start, _, end = page.partition("<script type=")
    # The probe is no part of the page, whose policy would refuse it.
    start = start.replace('http-equiv="Content-Security-Policy"', "data-off").replace(
        "<head>", "<head><script>addEventListener('error', () => { window.failed = 1; });</script>"
    )
    (tmp_path / "page.html").write_text(f"{start}<script type={end}".replace("</body>", f"{PROBE}</body>"))
    line = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1200,900", "--dump-dom"]
    done = subprocess.run(
        [*line, f"--user-data-dir={tmp_path}/profile", f"file://{tmp_path}/page.html"], capture_output=True, text=True
    )
    title = done.stdout.partition("<title>")[2].partition("</title>")[0]
    said = dict(pair.split("=") for pair in title.split(" "))
    order = sorted(range(400), key=lambda number: (number * 7919 % 400, number))
    best = max(range(400), key=lambda number: number * 7919 % 400)
    assert 10 < int(said.pop("tiles")) < 120  # of 400, those in view and a little more
    assert said == {
        "first": f"p{order[0]}.jpg",
        "second": f"p{order[1]}.jpg",
        "last": f"p{order[-1]}.jpg",
        "best": f"p{best}.jpg",
        "name": "p0.jpg",
        "marked": "1",
        "only": "1",
        "text": "11",  # p12 and p120 to p129
        "between": "100",
        "all": "400",
        "bar": "20",
        "open": "true",
        "title": "p0.jpg",
        "next": "p1.jpg",
        "closed": "true",
        "errors": "0",
    }


@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")
def test_the_policy_of_the_page_lets_its_own_script_run(tmp_path: Path):
    (tmp_path / "page.html").write_text(gallery_page(shown(5), model="m", digest="ab" * 32))
    line = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom"]
    done = subprocess.run(
        [*line, f"--user-data-dir={tmp_path}/profile", f"file://{tmp_path}/page.html"], capture_output=True, text=True
    )
    assert done.stdout.count('class="tile') == 5
    assert "5 of 5 shown" in done.stdout
