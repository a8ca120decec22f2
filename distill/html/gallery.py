"""The page of ``pocketiqa score --gallery``: worst, best, histogram, filters, every photograph; by keyboard as well.

It loads nothing from elsewhere but the photographs themselves, and thumbnails where these are files. Of thousands of
photographs only those in view are elements of the page (``gallery.js``).
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files

from distill.html.markup import Html, plain, tag
from distill.html.style import CSS

_CSS = """
main { max-width: 1280px; }
h1 { margin-bottom: 6px; }
.strips { display: grid; grid-template-columns: 1fr 1fr; gap: 20px; }
.strips section, .scale-card { padding: 18px 20px; min-width: 0; }
.strips h2, .scale-card h2 { font-size: 1rem; margin: 0 0 10px; }
.strip { display: flex; gap: 8px; overflow-x: auto; padding: 3px 3px 8px; margin: -3px; }
button { font: inherit; color: inherit; cursor: pointer; }
button:focus-visible, input:focus-visible, select:focus-visible {
  outline: 3px solid var(--student); outline-offset: 2px;
}
.small { flex: none; width: 108px; padding: 0; border: 0; background: none; text-align: left; font-size: .85rem; }
.small img { width: 108px; height: 81px; object-fit: cover; }
#bars { display: flex; align-items: flex-end; height: 96px; gap: 2px; }
#bars button { flex: 1; height: 100%; padding: 0; border: 0; background: none; display: flex; align-items: flex-end; }
#bars button:disabled { cursor: default; }
#bars i { display: block; width: 100%; background: var(--student); border-radius: 3px 3px 0 0; }
#bars button:hover:enabled { background: var(--wash); } #bars .out i { background: var(--line); }
#controls {
  position: sticky; top: 0; z-index: 2; display: flex; flex-wrap: wrap; gap: 8px 10px; align-items: center;
  background: var(--page); padding: 10px 0; margin-bottom: 8px; border-bottom: 1px solid var(--line);
}
#controls input, #controls select, #controls button, dialog button, dialog a {
  font: inherit; font-size: .9rem; color: var(--ink); background: var(--card); border: 1px solid var(--line);
  border-radius: 8px; padding: 6px 10px; min-height: 36px;
}
#text { flex: 1 1 150px; min-width: 0; } #low, #high { width: 74px; }
#controls button:disabled { opacity: .5; cursor: default; }
#info { font-size: .9rem; color: var(--soft); margin-left: auto; font-variant-numeric: tabular-nums; }
#space { position: relative; }
.tile {
  position: absolute; padding: 0; border: 0; background: none; text-align: left; display: grid; overflow: hidden;
  grid-template-rows: 1fr 22px 20px; border-radius: 8px; scroll-margin: 80px;
}
.tile img, .tile .lost { width: 100%; height: 100%; object-fit: cover; min-height: 0; border-radius: 8px; }
.tile .lost {
  background: var(--wash); color: var(--soft); font-size: .75rem; padding: 8px; overflow: hidden;
  overflow-wrap: anywhere;
}
.tile b, .small b { font-variant-numeric: tabular-nums; font-size: .9rem; }
.tile .name { color: var(--soft); font-size: .78rem; overflow: hidden; white-space: nowrap; text-overflow: ellipsis; }
.tile.current img, .tile.current .lost { outline: 3px solid var(--student); outline-offset: -3px; }
.tile.marked b::after { content: " \\2605"; color: var(--teacher); }
#none { color: var(--soft); }
kbd {
  font: inherit; font-size: .8rem; border: 1px solid var(--line); border-radius: 5px; padding: 0 5px;
  background: var(--card);
}
.keys { color: var(--soft); font-size: .85rem; margin: 24px 0 0; line-height: 2; max-width: none; }
dialog {
  border: 0; padding: 0; margin: auto; width: min(1180px, 96vw); max-height: 96vh; background: var(--card);
  color: var(--ink); border-radius: 14px; overflow: auto;
}
dialog:focus { outline: none; }
dialog::backdrop { background: rgb(0 0 0 / .75); }
dialog .picture { background: #000; display: grid; place-items: center; min-height: 200px; }
dialog img { max-height: 74vh; max-width: 100%; border-radius: 0; background: none; object-fit: contain; }
dialog .words { padding: 14px 18px 18px; }
dialog h2, #path { overflow-wrap: anywhere; } #path { margin: 0 0 6px; max-width: none; }
dialog .row { display: flex; flex-wrap: wrap; gap: 8px; align-items: center; margin-top: 10px; }
dialog a { text-decoration: none; }
#score { font-size: 1.2rem; font-weight: 600; margin: 0; }
#extra { display: grid; grid-template-columns: auto 1fr; gap: 2px 14px; margin: 8px 0 0; font-size: .9rem; }
#extra dt { color: var(--soft); } #extra dd { margin: 0; }
[hidden] { display: none !important; }
@media (max-width: 700px) {
  .strips { grid-template-columns: 1fr; gap: 0; } #info { margin-left: 0; width: 100%; } #text { flex-basis: 100%; }
  #controls { position: static; } .keys { display: none; } .tile .name { font-size: .7rem; }
  .scale-card .ends span:nth-child(2) { display: none; }
  .small, .small img { width: 92px; } .small img { height: 69px; }
}
@media print { #controls, .keys, .strips button b { position: static; } }
"""


@dataclass(frozen=True)
class Shown:
    """A photograph on the page.

    Attributes:
        name: short, for the tile.
        score: in [0, 1]; None without one.
        status: of its row.
        reason: of its row.
        path: absolute path or address, for lists of marked photographs.
        href: address of the file relative to the page; empty if it is none.
        thumbnail: address of the small picture: of a file relative to the page, or with the picture in it; empty if
            there is none.
        extra: further columns of the row, as headings and texts.
    """

    name: str
    score: float | None
    status: str
    reason: str
    path: str
    href: str = ""
    thumbnail: str = ""
    extra: Sequence[tuple[str, str]] = ()


def data_address(jpeg: bytes) -> str:
    """Address that holds a JPEG file in itself."""
    return f"data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}"


def gallery_page(photographs: Sequence[Shown], *, model: str, digest: str, chosen_from: int = 0) -> str:
    """The whole page.

    Args:
        photographs: in the order of their rows.
        model: name of the model.
        digest: its checksum.
        chosen_from: number of images that were scored, if these are a choice of them; 0 if they are all.
    """
    scores = [one.score for one in photographs if one.score is not None]
    count = f"{len(photographs)} photographs" if len(photographs) != 1 else "1 photograph"
    facts = [count + (f", chosen from {chosen_from}" if chosen_from > len(photographs) else "")]
    if scores:
        facts.append(f"scores {min(scores):.3f} to {max(scores):.3f}, mean {sum(scores) / len(scores):.3f}")
    if len(scores) < len(photographs):
        facts.append(f"{len(photographs) - len(scores)} without a score")
    scored = [f". Scored by {model} (", tag("code", digest[:12]), "), 0 worst, 1 best."]
    nothing = tag("p", "No photograph fits these filters.", id="none", hidden=True)
    body = tag(
        "main",
        tag("p", "pocketiqa score", class_="kicker"),
        tag("h1", "Photographs by quality"),
        tag("p", "; ".join(facts), scored, class_="soft"),
        tag("noscript", tag("p", "This page shows its photographs by JavaScript, which your browser does not run.")),
        _overview(),
        _controls(),
        tag("div", tag("div", id="space"), nothing, id="grid"),
        _keys(),
        _viewer(),
    )
    script = files(__package__ or "distill.html").joinpath("gallery.js").read_text(encoding="utf-8")
    return _document(body, _json(photographs), script)


def _overview() -> Html:
    def strip(title: str, name: str) -> Html:
        return tag("section", tag("h2", title), tag("div", id=name, class_="strip"))

    ends = tag("div", tag("span", "0 worst"), tag("span", "choose a bar to see its photographs"), tag("span", "1 best"),
               class_="ends")  # fmt: skip
    return tag(
        "div",
        tag("div", strip("Worst", "worst"), strip("Best", "best"), class_="strips"),
        tag("section", tag("h2", "How many have which score"), tag("div", id="bars"), ends, class_="scale-card"),
    )


def _controls() -> Html:
    def number(name: str, label: str) -> Html:
        return tag("input", id=name, type="number", min="0", max="1", step="0.05", placeholder=label, aria_label=label)

    def choice(name: str, label: str, options: dict[str, str]) -> Html:
        return tag(
            "select", [tag("option", words, value=key) for key, words in options.items()], id=name, aria_label=label
        )

    orders = {"worst": "worst first", "best": "best first", "name": "by name", "given": "as given"}
    kinds = {"all": "all", "scored": "with a score", "unscored": "without a score", "marked": "marked"}
    return tag(
        "div",
        choice("sort", "Order", orders),
        tag("input", id="text", type="search", placeholder="name contains", aria_label="Name contains"),
        number("low", "from"),
        number("high", "to"),
        choice("only", "Show", kinds),
        tag("button", "Clear", id="clear", type="button"),
        tag(
            "button",
            "Save list",
            id="save",
            type="button",
            title="Paths of the marked photographs, for score @marked.txt",
        ),
        tag("span", id="info", role="status"),
        id="controls",
    )


def _keys() -> Html:
    keys = (
        ("arrows", "move"), ("Enter", "open"), ("Esc", "close"), ("m", "mark"), ("o", "open the file"), ("/", "search"),
        ("w", "worst first"), ("b", "best first"), ("n", "by name"), ("g", "as given"), ("Home", "first"),
        ("End", "last"),
    )  # fmt: skip
    return tag("p", [[tag("kbd", key), f" {what}   "] for key, what in keys], class_="keys")


def _viewer() -> Html:
    buttons = (("before", "Previous"), ("after", "Next"), ("mark", "Mark (m)"), ("close", "Close"))
    return tag(
        "dialog",
        tag("div", tag("img", id="large", alt=""), class_="picture"),
        tag(
            "div",
            tag("h2", id="title"),
            tag("p", id="path", class_="soft"),
            tag("p", id="score"),
            tag("dl", id="extra"),
            tag("p", "The file cannot be shown here; this is its thumbnail.", id="gone", class_="soft", hidden=True),
            tag(
                "div",
                [tag("button", words, id=name, type="button") for name, words in buttons],
                tag("a", "Open the file", id="file", target="_blank", rel="noopener"),
                tag("span", id="place", class_="soft"),
                class_="row",
            ),
            class_="words",
        ),
        id="viewer",
        tabindex="-1",
        aria_labelledby="title",
    )


def _json(photographs: Sequence[Shown]) -> str:
    rows = [
        [
            plain(one.name),
            None if one.score is None else round(one.score, 6),
            one.status,
            plain(one.reason),
            # As it is: a list of marked paths must find the files.
            one.path,
            one.href,
            one.thumbnail,
            [[plain(text) for text in pair] for pair in one.extra],
        ]
        for one in photographs
    ]
    names = hashlib.sha256("\0".join(one.path for one in photographs).encode("utf-8", "surrogatepass")).hexdigest()
    text = json.dumps({"id": names[:16], "rows": rows}, ensure_ascii=True, separators=(",", ":"))
    # Nothing in a name can end the element or begin a comment in it.
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _document(body: Html, rows: str, script: str) -> str:
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'; "
        "img-src 'self' data: file:; base-uri 'none'; form-action 'none'"
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", "Photographs by quality"),
        tag("style", Html(CSS + _CSS)),
    )
    data = tag("script", Html(rows), type="application/json", id="rows")
    return f"<!doctype html>\n{tag('html', head, tag('body', body, data, tag('script', Html(script))), lang='en')}\n"
