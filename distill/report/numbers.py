"""Numbers as people read them. Each is a ``<data>`` element that carries the exact value, as in the JSON twin."""

from collections.abc import Callable, Mapping
from typing import Any

from distill.report.markup import Html, tag

MISSING = "–"


def data(value: float | None, text: Callable[[float], str], *, why: str = "") -> Html:
    """``value`` written by ``text``; a dash (and the reason, on hovering) if there is none."""
    if value is None:
        return tag("span", MISSING, class_="none", title=why or "not measured")
    return tag("data", text(value), value=repr(value))


def decimals(value: float, digits: int = 3) -> str:
    """Fixed decimals, with a true minus sign."""
    written = f"{value:.{digits}f}"
    # -0.0004 rounds to a zero that must not look negative.
    return written.replace("-", "" if float(written) == 0 else "−")


def signed(value: float) -> str:
    """Three decimals with the sign of a difference."""
    written = decimals(value)
    return written if float(f"{value:.3f}") <= 0 else f"+{written}"


def count(value: float) -> str:
    """Whole number with separators."""
    return f"{value:,.0f}"


def si(value: float) -> str:
    """Three figures and k, M or G."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.3g}"


def size(value: float) -> str:
    """Bytes as kB or MB (powers of ten)."""
    return f"{value / 1e6:.3g} MB" if value >= 1e6 else f"{value / 1e3:.3g} kB"


def milliseconds(value: float) -> str:
    """Milliseconds, or seconds from 10 s on."""
    return f"{value / 1e3:.3g} s" if value >= 1e4 else f"{value:.3g} ms"


def megabytes(value: float) -> str:
    """Megabytes."""
    return f"{value:,.0f} MB"


def percent(value: float) -> str:
    """A share of 1 as per cent."""
    return f"{100 * value:.3g} %"


def times(value: float) -> str:
    """A ratio."""
    return f"{value:.2g}×" if value < 10 else f"{value:,.0f}×"


def counted(found: Mapping[str, int]) -> list[Html]:
    """Names with their counts, separated by commas."""
    return [
        tag("span", ", " if at else "", f"{name} ", data(number, count))
        for at, (name, number) in enumerate(found.items())
    ]


def with_interval(found: Mapping[str, Any], *, difference: bool = False) -> Html:
    """A metric with its 95 % interval beneath.

    Args:
        found: ``value`` (or ``difference``), ``low``, ``high`` and ``reason`` of an evaluation.
        difference: whether it is one, so that its sign is always shown.
    """
    write = signed if difference else decimals
    value = found["difference" if difference else "value"]
    ends = None
    if found["low"] is not None and value is not None:
        ends = tag("span", data(found["low"], write), " to ", data(found["high"], write), class_="interval")
    elif value is not None:
        ends = tag("span", "no interval", class_="interval none", title=found["interval_reason"])
    return tag("span", tag("span", data(value, write, why=found["reason"]), class_="value"), ends, class_="measured")
