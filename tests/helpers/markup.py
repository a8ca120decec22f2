"""Reads a page as a browser does."""

from html.parser import HTMLParser


class Collected(HTMLParser):
    """What a browser would find."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def parsed(markup: str) -> Collected:
    """Elements with their attributes, and the text."""
    collected = Collected()
    collected.feed(markup)
    return collected
