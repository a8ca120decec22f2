"""Pictures of test images beside their nearest training images."""

from collections.abc import Mapping, Sequence
from typing import Any

from distill.html.figures import thumbnail
from distill.html.markup import Html, shortened, tag
from distill.html.tables import data, decimals
from distill.leakage.image_sets import Image
from pseudo_labels.images import ImageError, decode


def gallery(rows: Sequence[Mapping[str, Any]], trained: Sequence[Image], tested: Sequence[Image]) -> Html:
    """A figure for each pair.

    Args:
        rows: entries of ``images`` in ``overlap.json``.
        trained: training images, which contain the neighbours.
        tested: test images, which contain the images of ``rows``.
    """
    trained_of = {image.sample.id: image for image in trained}
    tested_of = {image.sample.id: image for image in tested}
    return tag("div", [_pair(row, tested_of[row["id"]], trained_of[row["nearest"]]) for row in rows], class_="pairs")


def _pair(row: Mapping[str, Any], tested: Image, trained: Image) -> Html:
    pair = tag("div", _picture(tested, "tested"), _picture(trained, "trained"), class_="pair")
    scores = tag(
        "figcaption",
        [tag("b", "cosine ", data(row["cosine"], decimals)),
        "; scores ", data(row["score"], _two), " and ", data(row["nearest_score"], _two), tag("br"),
        f"{shortened(row['name'], 40)} and {shortened(row['nearest_name'], 40)}"],
    )  # fmt: skip
    return tag("figure", pair, scores)


def _picture(image: Image, image_set: str) -> Html:
    try:
        return thumbnail(decode(image.sample.read()), alt=f"{image_set}: {shortened(image.name)}")
    except ImageError as error:
        return tag("p", f"{image_set}: {error.reason}")


def _two(value: float) -> str:
    return decimals(value, 2)
