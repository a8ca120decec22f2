"""Tables that become a list of cards on a narrow screen, and the sections they stand in."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from distill.html.markup import Html, tag

MISSING = "–"


def data(value: float | None, text: Callable[[float], str], *, why: str = "") -> Html:
    """``value`` written by ``text``; a dash (and the reason, on hovering) if there is none."""
    if value is None:
        return tag("span", MISSING, class_="none", title=why or "not measured")
    # ``repr`` has all digits of a float: the page can be read back by a program.
    return tag("data", text(value), value=repr(value))


def decimals(value: float, digits: int = 3) -> str:
    """Fixed decimals, with a true minus sign."""
    written = f"{value:.{digits}f}"
    # -0.0004 rounds to a zero that must not look negative.
    return written.replace("-", "" if float(written) == 0 else "−")


def signed(value: float) -> str:
    """Three decimals with the sign of a difference."""
    written = decimals(value)
    # By the rounded value: 0.0004 is written 0.000, without a sign.
    return written if float(f"{value:.3f}") <= 0 else f"+{written}"


def count(value: float) -> str:
    """Whole number with separators."""
    return f"{value:,.0f}"


def figures(value: float, significant: int = 3) -> str:
    """So many significant figures, all whole ones of a larger number with separators, and never an exponent."""
    # By the rounded value: 9.996 has two decimals as it is, but none as 10.0.
    rounded = float(f"{value:.{significant}g}")
    decimals = significant - 1 - math.floor(math.log10(abs(rounded))) if rounded else 0
    written = f"{value:,.{max(decimals, 0)}f}"
    return written.rstrip("0").rstrip(".") if "." in written else written


def si(value: float) -> str:
    """Three figures and k, M or G."""
    # By the rounded value: 999.7 is 1 k, as 1000 is.
    rounded = abs(float(f"{value:.3g}"))
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if rounded >= size:
            return f"{figures(value / size)} {unit}"
    return figures(value)


def size(value: float) -> str:
    """Bytes as kB or MB (powers of ten)."""
    return f"{figures(value / 1e6)} MB" if value >= 1e6 else f"{figures(value / 1e3)} kB"


def milliseconds(value: float) -> str:
    """Milliseconds, or seconds from 10 s on."""
    return f"{figures(value / 1e3)} s" if value >= 1e4 else f"{figures(value)} ms"


def megabytes(value: float) -> str:
    """Megabytes."""
    return f"{value:,.0f} MB"


def percent(value: float) -> str:
    """A fraction of 1 as per cent."""
    return f"{figures(100 * value)} %"


def times(value: float) -> str:
    """A ratio."""
    return f"{figures(value, 2)}×"


def counted(counts: Mapping[str, int]) -> list[Html]:
    """Names with their counts, separated by commas."""
    return [
        tag("span", ", " if at else "", f"{name} ", data(number, count))
        for at, (name, number) in enumerate(counts.items())
    ]


def with_interval(metric: Mapping[str, Any], *, difference: bool = False) -> Html:
    """A metric with its 95 % interval beneath.

    Args:
        metric: ``value`` (or ``difference``), ``low``, ``high`` and ``reason`` of an evaluation.
        difference: whether it is one, so that its sign is always shown.
    """
    write = signed if difference else decimals
    value = metric["difference" if difference else "value"]
    ends = None
    if metric["low"] is not None and value is not None:
        ends = tag("span", data(metric["low"], write), " to ", data(metric["high"], write), class_="interval")
    elif value is not None:
        ends = tag("span", "no interval", class_="interval none", title=metric["interval_reason"])
    return tag("span", tag("span", data(value, write, why=metric["reason"]), class_="value"), ends, class_="measured")


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        id: anchor.
        title: heading.
        body: markup and texts below it.
    """

    id: str
    title: str
    body: Sequence[object]

    def html(self) -> Html:
        """The section as markup."""
        return tag("section", tag("h2", self.title), self.body, id=self.id)


def table(header: Sequence[str], rows: Sequence[Sequence[object]], *, caption: str = "") -> Html:
    """Rows under a header; the first cell of a row names it.

    Args:
        header: one text for each column; repeated before each value on a narrow screen.
        rows: cells as texts or markup.
        caption: sentence that says what the table shows, with n and unit where the header has none.
    """
    head = tag("thead", tag("tr", [tag("th", name, scope="col") for name in header]))
    body = []
    for cells in rows:
        first = tag("th", cells[0], scope="row")
        # On a narrow screen a row becomes a card, and each cell shows its column's name by this attribute (``style``).
        others = [tag("td", cell, data_label=name) for name, cell in zip(header[1:], cells[1:], strict=True)]
        body.append(tag("tr", first, others))
    return tag("table", tag("caption", caption) if caption else None, head, tag("tbody", body), class_="stack")


def soft(*text: object) -> Html:
    """A paragraph of explanation."""
    return tag("p", text, class_="soft")
