"""Tables that become a list of cards on a narrow screen, and the sections they stand in."""

from collections.abc import Sequence
from dataclasses import dataclass

from distill.report.markup import Html, tag


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        id: anchor.
        title: heading.
        body: what stands below it.
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
        caption: what the table shows, with n and unit where the header has none.
    """
    head = tag("thead", tag("tr", [tag("th", name, scope="col") for name in header]))
    body = []
    for cells in rows:
        first = tag("th", cells[0], scope="row")
        others = [tag("td", cell, data_label=name) for name, cell in zip(header[1:], cells[1:], strict=True)]
        body.append(tag("tr", first, others))
    return tag("table", tag("caption", caption) if caption else None, head, tag("tbody", body), class_="stack")


def soft(*text: object) -> Html:
    """A paragraph of explanation."""
    return tag("p", text, class_="soft")
