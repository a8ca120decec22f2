"""The page of ``pocketiqa best --page``: each group of similar photographs, the best first."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from distill.html.gallery import data_address
from distill.html.markup import Html, document, shortened, tag
from distill.html.style import CSS
from distill.html.tables import Section, count, data, decimals, table
from distill.scoring.galleries import small_jpeg
from distill.scoring.inputs import ImageSource
from distill.scoring.shots import Shot
from pseudo_labels.files import utf8_path
from pseudo_labels.images import DecodeLimits, ImageError
from students.damage import NONE
from students.meaning.model_record import ModelName

# One file with everything in it: about 15 KB a photograph.
_MOST_SHOWN, _MOST_NAMED = 2000, 500
_CSS = """
main { max-width: 1280px; }
.group {
  display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 190px), 1fr)); gap: 16px;
  margin-top: 12px;
}
.group img, .group .lost { width: 100%; aspect-ratio: 4 / 3; object-fit: contain; }
.group .lost { border-radius: 8px; background: var(--wash); color: var(--soft); padding: 8px; font-size: .8rem; }
.group .kept img, .group .kept .lost { outline: 3px solid var(--good); outline-offset: 2px; }
.mark { color: var(--good); font-weight: 600; }
"""


@dataclass(frozen=True)
class BestPage:
    """What the page says besides the photographs.

    Attributes:
        model: that ranked them.
        limits: of decoding.
        keep: photographs that are kept of each group.
        types: what is wrong with a photograph is said, where it is known.
    """

    model: ModelName
    limits: DecodeLimits
    keep: int
    types: bool = True

    def html(self, rows: Sequence[Shot], images: Mapping[str, ImageSource]) -> str:
        """A page that needs nothing but itself.

        Args:
            rows: group by group.
            images: by the names of the rows.
        """
        groups = [list(own) for number, own in groupby(rows, key=lambda row: row.group) if number is not None]
        several = [group for group in groups if len(group) > 1]
        alone = [group[0] for group in groups if len(group) == 1]
        left, sections = _MOST_SHOWN, list[Section]()
        for group in several:
            if len(group) > left:
                break
            left -= len(group)
            sections.append(self._group(group, images))
        hidden = len(several) - len(sections)
        body = tag(
            "main",
            tag("p", "pocketiqa best", class_="kicker"),
            tag("h1", "Similar photographs, the best first"),
            tag("p", self._lead(several), class_="lead"),
            tag("dl", _tiles(rows, several, alone), class_="tiles"),
            [section.html() for section in sections],
            tag("p", f"{hidden} more groups are not shown here; the rows have them.", class_="soft")
            if hidden
            else None,
            _named("alone", "Alone", alone),
            _named("without", "Without a score", [row for row in rows if row.group is None]),
            tag("footer", f"Ranked by {self.model}; wins and confidence are probabilities by its head on pairs."),
        )
        return document("Similar photographs", body, CSS + _CSS)

    def _lead(self, several: Sequence[Sequence[Shot]]) -> str:
        if not several:
            return "No two photographs are of one moment."
        best = "The best" if self.keep == 1 else f"The {self.keep} best"
        return f"{best} of each group {'is' if self.keep == 1 else 'are'} framed in green."

    def _group(self, group: Sequence[Shot], images: Mapping[str, ImageSource]) -> Section:
        number = group[0].group
        cards = tag("div", [self._card(row, images[row.path]) for row in group], class_="group")
        return Section(f"group-{number}", f"{number}: {len(group)} photographs", [cards])

    def _card(self, row: Shot, image: ImageSource) -> Html:
        name = shortened(utf8_path(image.place.name))
        try:
            picture = tag("img", src=data_address(small_jpeg(image, self.limits)), alt=name, loading="lazy")
        except (ImageError, MemoryError):  # it vanished or changed since it was scored
            picture = tag("div", "cannot be shown", class_="lost")
        words = [tag("b", f"{row.rank}. ", name), ": score ", data(row.score, decimals)]
        if row.wins is not None:
            words += [", wins ", data(row.wins, decimals)]
        if self.types and row.damage is not None and row.damage.type != NONE:
            words += [f", {row.damage.type} ", data(row.damage.strength, decimals)]
        if row.kept:
            sure = [] if row.confidence is None else [", confidence ", data(row.confidence, decimals)]
            words += [" ", tag("span", "kept", class_="mark"), sure]
        return tag("figure", picture, tag("figcaption", words), class_="kept" if row.kept else None)


def _tiles(rows: Sequence[Shot], several: Sequence[Sequence[Shot]], alone: Sequence[Shot]) -> list[Html]:
    kept = sum(bool(row.kept) for row in rows)
    grouped = [row for row in rows if row.group is not None]
    numbers = {
        "Photographs": len(rows),
        "Groups of similar ones": len(several),
        "Alone": len(alone),
        "Kept": kept,
        "Not kept": len(grouped) - kept,
    }
    return [tag("div", tag("dt", label), tag("dd", data(number, count))) for label, number in numbers.items()]


def _named(id: str, title: str, rows: Sequence[Shot]) -> Html | None:
    """Names of photographs that are not shown as pictures."""
    if not rows:
        return None
    cells = [
        [shortened(row.path), "" if row.score is None else data(row.score, decimals), str(row.status), row.reason]
        for row in rows[:_MOST_NAMED]
    ]
    caption = f"{len(rows)} in all" + (f", the first {_MOST_NAMED}" if len(rows) > _MOST_NAMED else "")
    listed = table(["photograph", "score", "status", "reason"], cells, caption=caption)
    return Section(id, title, [tag("details", tag("summary", "Names"), listed)]).html()
