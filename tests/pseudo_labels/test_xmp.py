"""Sidecars: read back by an XML parser of their own; ``exiftool`` and ``exiv2`` where they are installed."""

import json
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from pseudo_labels.errors import PocketiqaError
from pseudo_labels.xmp import NAMESPACE, Judgement, merged, new_sidecar

XMP = "{http://ns.adobe.com/xap/1.0/}"
RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
OWN = f"{{{NAMESPACE}}}"
GOOD, POOR = Judgement(0.8125, 5, "pocket-m", "ab" * 32), Judgement(0.1, 1, 'a "model" <&>', "cd" * 32)
HEAD = """<?xml version="1.0" encoding="UTF-8"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="XMP Core 4.4.0-Exiv2">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
"""
TAIL = " </rdf:RDF>\n</x:xmpmeta>\n"
OTHERS = """  <!-- of another program -->
  <rdf:Description rdf:about="uuid:1" xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:a="urn:a" {rating}
   xmlns:xap="http://ns.adobe.com/xap/1.0/" a:lines="one&#10;two&#9;&quot;three&quot; &lt;" xap:CreatorTool="x">
   {element}
   <dc:subject><rdf:Bag><rdf:li>Berge &amp; Seen</rdf:li><rdf:li xml:lang="de"> a  b </rdf:li></rdf:Bag></dc:subject>
  </rdf:Description>
"""


def sidecar(rating: str = "", element: str = "") -> bytes:
    return (HEAD + OTHERS.format(rating=rating, element=element) + TAIL).encode()


def properties(data: bytes) -> dict[str, list[str]]:
    """All simple properties, by namespace and name."""
    values: dict[str, list[str]] = {}
    for block in ElementTree.fromstring(data).iter(f"{RDF}Description"):
        for name, value in [*block.items(), *((child.tag, child.text or "") for child in block)]:
            values.setdefault(name, []).append(value)
    return values


def test_a_new_sidecar_has_stars_where_other_programs_look_for_them():
    values = properties(new_sidecar(GOOD))
    assert values[f"{XMP}Rating"] == ["5"]
    assert values[f"{OWN}Score"] == ["0.812500"]
    assert values[f"{OWN}Model"] == ["pocket-m"]
    assert values[f"{OWN}ModelSHA256"] == ["ab" * 32]
    assert values[f"{RDF}about"] == [""]
    assert properties(merged(new_sidecar(GOOD), POOR))[f"{XMP}Rating"] == ["1"]
    assert properties(merged(new_sidecar(GOOD), POOR))[f"{OWN}Model"] == ['a "model" <&>']
    assert merged(merged(new_sidecar(GOOD), POOR), GOOD) == new_sidecar(GOOD)


def test_what_others_wrote_stays():
    before, after = properties(sidecar()), properties(merged(sidecar(), GOOD))
    assert before["{urn:a}lines"] == ['one\ntwo\t"three" <']
    assert {name: after[name] for name in before if name != f"{RDF}about"} == {
        name: values for name, values in before.items() if name != f"{RDF}about"
    }
    assert after[f"{RDF}about"] == ["uuid:1", "uuid:1"]
    assert after[f"{XMP}Rating"] == ["5"]
    text = merged(sidecar(), GOOD).decode()
    assert "<!-- of another program -->" in text
    assert '<rdf:li xml:lang="de"> a  b </rdf:li>' in text
    assert merged(text.encode(), GOOD).decode() == text


@pytest.mark.parametrize("words", [("xap:Rating='2'", ""), ("", "<xap:Rating>2</xap:Rating>")])
def test_the_rating_of_a_person_stays(words: tuple[str, str]):
    values = properties(merged(sidecar(*words), GOOD))
    assert values[f"{XMP}Rating"] == ["2"]
    assert values[f"{OWN}Stars"] == ["5"]
    assert properties(merged(merged(sidecar(*words), GOOD), POOR))[f"{XMP}Rating"] == ["2"]


def test_a_rating_that_was_ours_follows_until_somebody_changes_it():
    ours = merged(sidecar(), GOOD)
    assert properties(merged(ours, POOR))[f"{XMP}Rating"] == ["1"]
    changed = ours.replace(b'xmp:Rating="5"', b'xmp:Rating="3"')
    assert properties(merged(changed, POOR))[f"{XMP}Rating"] == ["3"]
    cleared = ours.replace(b' xmp:Rating="5"', b"")
    assert f"{XMP}Rating" not in properties(merged(cleared, POOR))
    # Another program writes all properties into one description, as elements or attributes.
    flat = sidecar(
        f'xmlns:p="{NAMESPACE}" p:Score="0.8" p:RatingWritten="5"', "<xap:Rating>5</xap:Rating><p:Stars>5</p:Stars>"
    )
    values = properties(merged(flat, POOR))
    assert values[f"{XMP}Rating"] == ["1"]
    assert values[f"{OWN}Score"] == ["0.100000"]
    assert values[f"{OWN}Stars"] == ["1"]
    assert values["{urn:a}lines"] == properties(flat)["{urn:a}lines"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "it is no XML"),
        (b"not xml", "it is no XML"),
        (b"<a/>", "it holds no XMP"),
        (b"\xff\xfa", "neither UTF-8 nor UTF-16"),
        (b"\xff\xfe\x00", "neither UTF-8 nor UTF-16"),
        (b"<!DOCTYPE x [<!ENTITY a 'b'>]><x>&a;</x>", "it has a document type"),
        (b"<a>" * 100_000, "it is no XML|nested too deeply"),
        (bytes(17 << 20), "above the limit"),
        (sidecar()[:-60], "it is no XML"),
        (sidecar().replace(TAIL.encode(), b"</rdf:RDF><rdf:RDF xmlns:rdf='" + RDF[1:-1].encode() + b"'/></x:xmpmeta>"),
         "no XMP"),
    ],
)  # fmt: skip
def test_what_is_no_sidecar_is_refused_with_the_next_step(data: bytes, message: str):
    with pytest.raises(PocketiqaError, match=message):
        merged(data, GOOD)


def test_other_encodings():
    wide = sidecar().decode().replace("UTF-8", "UTF-16").encode("utf-16")
    assert properties(merged(wide, GOOD))["{urn:a}lines"] == ['one\ntwo\t"three" <']
    assert merged(b"\xef\xbb\xbf" + sidecar(), GOOD) == merged(sidecar(), GOOD)


@pytest.mark.skipif(not shutil.which("exiftool"), reason="exiftool is not installed")
def test_exiftool_reads_it(tmp_path: Path):
    (tmp_path / "a.jpg.xmp").write_bytes(merged(sidecar(), GOOD))
    done = subprocess.run(["exiftool", "-j", "-G1", str(tmp_path / "a.jpg.xmp")], capture_output=True, check=True)
    (record,) = json.loads(done.stdout)
    assert record["XMP-xmp:Rating"] == 5
    assert record["XMP-pocketiqa:Score"] == 0.8125
    assert record["XMP-dc:Subject"][0] == "Berge & Seen"
    # And what exiftool has rewritten is still ours to change.
    subprocess.run(["exiftool", "-q", "-XMP-dc:Title=new", str(tmp_path / "a.jpg.xmp")], check=True)
    again = merged((tmp_path / "a.jpg.xmp").read_bytes(), POOR)
    assert properties(again)[f"{XMP}Rating"] == ["1"]
    assert b"new" in again


@pytest.mark.skipif(not shutil.which("exiv2"), reason="exiv2 is not installed")
def test_exiv2_reads_it(tmp_path: Path):
    (tmp_path / "a.jpg.xmp").write_bytes(new_sidecar(GOOD))
    done = subprocess.run(["exiv2", "-Pkv", "-px", str(tmp_path / "a.jpg.xmp")], capture_output=True, check=True)
    values = dict(line.split(None, 1) for line in done.stdout.decode().splitlines())
    assert values["Xmp.xmp.Rating"] == "5"
    assert values["Xmp.pocketiqa.Score"] == "0.812500"
