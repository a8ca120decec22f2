"""Pieces of the audit page: its look, tables, and pictures that are part of the file."""

import base64
import io
from html import escape
from pathlib import Path
from typing import Any

from PIL import Image

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.pool import Pool

_THUMBNAIL_PX = 160
STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; color: #1a202c; max-width: 1100px; margin: 2em auto; padding: 0 1em; }
h1, h2, h3 { line-height: 1.25; overflow-wrap: anywhere; } h2 { margin: 1.8em 0 .6em; } h3 { margin: 1.5em 0 .5em; }
.wide { overflow-x: auto; } .note { color: #4a5568; font-size: 13px; max-width: 75ch; }
table { border-collapse: collapse; } td, th { text-align: left; padding: .2em 1em .2em 0; vertical-align: top; }
th { font-weight: 600; vertical-align: bottom; } td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
td { white-space: nowrap; } td.long { overflow-wrap: anywhere; min-width: 9em; white-space: normal; }
tr + tr { border-top: 1px solid #e2e8f0; }
.warning { border-left: 4px solid #dd6b20; background: #fffaf0; padding: .4em .8em; margin: .4em 0; }
.warning, .good { overflow-wrap: anywhere; }
.good { border-left: 4px solid #38a169; background: #f0fff4; padding: .4em .8em; }
.row { display: flex; flex-wrap: wrap; gap: 1em; } figure { margin: 0; width: 165px; font-size: 12px; }
figcaption { overflow-wrap: anywhere; color: #4a5568; } img { max-width: 100%; display: block; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 330px), 1fr)); gap: 1em; }
.charts img, .matrix img { width: 100%; max-width: 420px; }
.matrix { display: grid; gap: .6em; }
@media (max-width: 640px) {
  .matrix { grid-template-columns: 1fr !important; } .matrix .none { display: none; }
  .row { display: grid; grid-template-columns: 1fr 1fr; gap: .8em; } figure { width: auto; }
}
"""


def table(head: list[str], rows: list[list[Any]]) -> str:
    """Rows under their heads: whole numbers with separators, others with three decimals, words as they are."""
    numbers = [any(isinstance(row[place], int | float) for row in rows) for place in range(len(head))]

    def cell(value: Any, place: int, tag: str = "td") -> str:
        text = f"{value:,}" if isinstance(value, int) else f"{value:.3f}" if isinstance(value, float) else str(value)
        kind = " class=n" if numbers[place] else " class=long" if len(text) > 24 else ""
        return f"<{tag}{kind}>{escape(text)}</{tag}>"

    def line(values: list[Any], tag: str) -> str:
        return "<tr>" + "".join(cell(value, place, tag) for place, value in enumerate(values)) + "</tr>"

    top = line(head, "th") if any(head) else ""
    return f'<div class="wide"><table>{top}{"".join(line(row, "td") for row in rows)}</table></div>'


def picture(pool: Pool | None, row: int, uri: str, caption: str) -> str:
    """A thumbnail of a row of the pool with a caption (HTML); in words why, where it cannot be shown.

    Args:
        pool: None where it is not to be had.
        row: in the pool.
        uri: of the row.
        caption: the name of the file is added.
    """
    under = f"<figcaption>{caption}<br>{escape(Path(uri).name)}</figcaption>"
    if pool is None:
        return f"<figure>{under}</figure>"
    try:
        image = Image.fromarray(pool.load(pool[row]))
    except PocketiqaError as error:
        return f"<figure><p>{escape(str(error))}</p>{under}</figure>"
    image.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return f'<figure><img alt="" src="{inline(buffer.getvalue(), "jpeg")}">{under}</figure>'


def inline(data: bytes, kind: str) -> str:
    """A data URI of an image."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"
