"""``overlap.html`` of a comparison with known cosines: pairs in order, the threshold, and nothing to load."""

from dataclasses import replace

from distill.leakage.embeddings import Embeddings
from distill.leakage.page import overlap_page
from tests.helpers.markup import parsed
from tests.helpers.near_duplicate_scenes import compass, compass_record

ANGLES = {"a": 5.0, "b": 225.0, "c": 95.0}


def test_the_page_shows_every_section_and_loads_nothing() -> None:
    page = overlap_page(compass_record(ANGLES), compass(ANGLES))
    seen = parsed(page)
    assert [attributes["id"] for name, attributes in seen.tags if name == "section"] == [
        "copying",
        "cosines",
        "closest",
        "border",
        "scenes",
    ]
    pictures = [attributes for name, attributes in seen.tags if name == "img"]
    assert len(pictures) == 2 * (3 + 2 + 1)  # all pairs, then two just above the threshold and one just below
    assert [one["alt"] for one in pictures][:3] == ["tested: a.png", "trained: east.png", "tested: c.png"]
    assert all(str(one["src"]).startswith("data:image/jpeg") for one in pictures)
    assert "http" not in page
    assert "2 of 3 images are near duplicates of one of 4 trained ones" in seen.text
    assert "No split: the trained images are no files with scores." in seen.text


def test_what_was_not_measured_has_its_reason() -> None:
    record = compass_record(ANGLES) | {"copying": None, "copying_reason": "no scores <b>"}
    text = parsed(overlap_page(record, compass(ANGLES))).text
    assert "Not measured: no scores <b>." in text
    assert "SRCC of copying" not in text


def test_marks_of_the_benchmark_and_images_left_out_are_counted() -> None:
    record = compass_record(ANGLES) | {"marked": {"marked": 7, "found": 2, "both": 1}}
    example = {"id": "x.png", "status": "missing", "reason": "no such file"}
    record["tested"] |= {"images": 4, "without": {"missing": 1}, "examples": [example]}
    text = parsed(overlap_page(record, compass(ANGLES))).text
    assert "of 7 that the benchmark marks" in text
    assert "Left out of the tested images" in text
    assert "no such file" in text


def test_a_picture_that_is_gone_is_replaced_by_its_reason() -> None:
    compared = compass(ANGLES)
    broken = replace(compared.tested.images[0].sample, read=lambda: b"no image")
    images = (replace(compared.tested.images[0], sample=broken), *compared.tested.images[1:])
    tested = Embeddings(images, compared.tested.vectors, without=())
    seen = parsed(overlap_page(compass_record(ANGLES), replace(compared, tested=tested)))
    pictures = [attributes for name, attributes in seen.tags if name == "img"]
    assert "tested: a.png" not in [one["alt"] for one in pictures]
    assert len(pictures) == 2 * (3 + 2 + 1) - 2
