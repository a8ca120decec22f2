"""HTML and SVG that cannot be injected into: every text is escaped unless this module made it."""

import html
import re
from collections.abc import Iterable

_VOID = frozenset({"img", "br", "meta", "hr", "input"})
# Control characters, and those that turn the direction of the text around them, could make a name look like another.
_DECEIVING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
_MARK = "\ufffd"


class Html(str):
    """Markup made by ``tag``; anything else is text and is escaped."""

    __slots__ = ()


Content = "str | Html | None | Iterable[Content]"


def plain(text: object) -> str:
    """Text that is safe to show: deceiving characters and broken UTF-8 replaced by a mark."""
    # Names of files may hold bytes that are not UTF-8 (lone surrogates), which no page could be written with.
    readable = str(text).encode("utf-8", "replace").decode("utf-8")
    return _DECEIVING.sub(_MARK, readable)


def escape(text: object) -> Html:
    """Text as markup."""
    return text if isinstance(text, Html) else Html(html.escape(plain(text), quote=True))


def join(parts: object) -> Html:
    """Markup, texts, None and nested lists of them, one after another."""
    if parts is None:
        return Html("")
    # A text is iterable as well: taken for a list, it would call itself for each letter without end.
    if isinstance(parts, str) or not isinstance(parts, Iterable):
        return escape(parts)
    return Html("".join(join(part) for part in parts))


def tag(name: str, /, *children: object, **attributes: object) -> Html:
    """One element.

    Args:
        name: name of the element.
        children: texts (escaped), markup (kept), None (nothing), or lists of these.
        attributes: underscores become hyphens and one at the end goes (``class_``); None and False leave the attribute
            out, True gives it without a value.
    """
    written = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        label = key.rstrip("_").replace("_", "-")
        written.append(f" {label}" if value is True else f' {label}="{html.escape(plain(value), quote=True)}"')
    opening = f"<{name}{''.join(written)}>"
    return Html(opening if name in _VOID else f"{opening}{join(children)}</{name}>")


def document(title: str, body: Html, css: str) -> str:
    """A whole page that loads nothing from elsewhere.

    Args:
        title: title of the browser's window.
        body: markup of what is shown.
        css: all its style.
    """
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", title),
        tag("style", Html(css)),
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', body), lang='en')}\n"


def shortened(name: str, most: int = 48) -> str:
    """A name with its middle left out if it is long."""
    text = plain(name)
    return text if len(text) <= most else f"{text[: most // 2]}…{text[-most // 2 + 1 :]}"
