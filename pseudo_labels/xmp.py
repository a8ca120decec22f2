"""XMP sidecars: a score and its stars beside a photograph, as other programs read them (ISO 16684-1).

``xmp:Rating`` holds the stars, 1 to 5. Score, stars, name and digest of the model are properties of a namespace of our
own. What a sidecar says besides stays: after each merge the rest is compared with what it was.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from xml.dom import minidom
from xml.parsers.expat import ExpatError

from pseudo_labels.errors import PocketiqaError

NAMESPACE = "urn:pocketiqa:xmp:1.0/"
"""Of our own properties: Score, Stars, Model, ModelSHA256, and RatingWritten, which says that the rating is ours."""
_OWN = ("Score", "Stars", "Model", "ModelSHA256", "RatingWritten")
_XMP = "http://ns.adobe.com/xap/1.0/"
_RDF = "http://www.w3.org/1999/02/22-rdf-syntax-ns#"
_XMLNS = "http://www.w3.org/2000/xmlns/"
MAX_BYTES = 16 << 20
"""Largest sidecar that is read; those of other programs have some kilobytes."""

_PACKET = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" x:xmptk="pocketiqa">
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>
"""
_STEP = "move it away, or add --xmp-existing keep"
# Characters that no text has, in the place of blanks in attributes while they are written.
_BLANKS = {"\n": "\ufdd0", "\r": "\ufdd1", "\t": "\ufdd2"}
_DECLARATION = re.compile(r"\s*<\?xml\s[^>]*\?>")


@dataclass(frozen=True)
class Judgement:
    """What is written of a photograph.

    Attributes:
        score: in [0, 1], 1 best.
        stars: 1 to 5.
        model: name of the model.
        digest: its checksum, hex SHA-256.
    """

    score: float
    stars: int
    model: str
    digest: str


def new_sidecar(judgement: Judgement) -> bytes:
    """A sidecar that holds nothing else."""
    return merged(_PACKET.encode(), judgement)


def merged(sidecar: bytes, judgement: Judgement) -> bytes:
    """A sidecar with the judgement in it; an earlier one of ours is replaced.

    A rating stays if a person or another program gave it, and none is given again where ours was taken away.

    Raises:
        PocketiqaError: it is no XMP, or cannot be written without changing what others wrote; the words fit behind the
            name of the file.
    """
    text = _decoded(sidecar)
    document, original = _parsed(text), _rdf_of(_parsed(text))
    rdf = _rdf_of(document)
    own = {local: value for block in _elements(rdf) for local, value, _ in _named(block, NAMESPACE)}
    ratings = [value for block in _elements(rdf) for local, value, _ in _named(block, _XMP) if local == "Rating"]
    rates = all(value == own.get("RatingWritten") for value in ratings) if ratings else not own
    about = next((block.getAttributeNS(_RDF, "about") for block in _elements(rdf)), "")
    for block in _elements(rdf):
        taken = [remove for _, _, remove in _named(block, NAMESPACE)]
        taken += [remove for local, _, remove in _named(block, _XMP) if rates and local == "Rating"]
        for remove in taken:
            remove()
        if taken and not _facts_of(block, set()):
            rdf.removeChild(block)
    _append(document, rdf, about, judgement, rates)
    written = _text_of(document)
    if _DECLARATION.match(text):
        written = '<?xml version="1.0" encoding="UTF-8"?>\n' + written
    left_out = {(NAMESPACE, name) for name in _OWN} | ({(_XMP, "Rating")} if rates else set())
    if _facts(_rdf_of(_parsed(written)), left_out) != _facts(original, left_out):
        raise PocketiqaError("it cannot be written without changing what other programs wrote: add --xmp-existing keep")
    return written.encode()


def _text_of(document: minidom.Document) -> str:
    # Line ends and tabs in attributes are blanks unless they are written as numbers, which minidom does since 3.13.
    for element in document.getElementsByTagName("*"):
        for attribute in _items(element):
            if any(letter in attribute.value for letter in _BLANKS):
                attribute.value = attribute.value.translate({ord(letter): mark for letter, mark in _BLANKS.items()})
    # Nodes outside the root are the packet's marks, which lines part.
    written = "\n".join(node.toxml() for node in document.childNodes) + "\n"
    for letter, mark in _BLANKS.items():
        written = written.replace(mark, f"&#{ord(letter)};")
    return written


def _append(document: minidom.Document, rdf: minidom.Element, about: str, judgement: Judgement, rates: bool) -> None:
    """Add a description of ours."""
    prefix = rdf.tagName.rpartition(":")[0]
    block = document.createElementNS(_RDF, f"{prefix}:Description" if prefix else "Description")
    # An attribute without a prefix would have no namespace.
    block.setAttribute("xmlns:rdf", _RDF)
    block.setAttribute("rdf:about", about)
    values = [f"{judgement.score:.6f}", str(judgement.stars), judgement.model, judgement.digest]
    if rates:
        block.setAttribute("xmlns:xmp", _XMP)
        block.setAttribute("xmp:Rating", str(judgement.stars))
        values.append(str(judgement.stars))
    block.setAttribute("xmlns:pocketiqa", NAMESPACE)
    for name, value in zip(_OWN, values, strict=False):
        block.setAttribute(f"pocketiqa:{name}", value)
    while isinstance(rdf.lastChild, minidom.Text) and not rdf.lastChild.data.strip():
        rdf.removeChild(rdf.lastChild)  # else each merge would add a blank line
    rdf.appendChild(document.createTextNode("\n  "))
    rdf.appendChild(block)
    rdf.appendChild(document.createTextNode("\n "))


def _decoded(sidecar: bytes) -> str:
    if len(sidecar) > MAX_BYTES:
        raise PocketiqaError(f"it has {len(sidecar)} bytes, above the limit of {MAX_BYTES}: is it a sidecar?")
    try:
        is_wide = sidecar.startswith((b"\xff\xfe", b"\xfe\xff"))
        return sidecar.decode("utf-16" if is_wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        raise PocketiqaError(f"it is neither UTF-8 nor UTF-16: {_STEP}") from error


def _parsed(text: str) -> minidom.Document:
    # No XMP has one; entities could make a small file large.
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise PocketiqaError(f"it has a document type, which no sidecar has: {_STEP}")
    try:
        return minidom.parseString(_DECLARATION.sub("", text, count=1).encode())
    except (ExpatError, RecursionError, ValueError) as error:
        words = "nested too deeply" if isinstance(error, RecursionError) else error
        raise PocketiqaError(f"it is no XML ({words}): {_STEP}") from error


def _rdf_of(document: minidom.Document) -> minidom.Element:
    elements = document.getElementsByTagNameNS(_RDF, "RDF")
    if len(elements) != 1:
        raise PocketiqaError(f"it holds no XMP: {_STEP}")
    return elements[0]


def _elements(node: minidom.Element) -> list[minidom.Element]:
    return [child for child in node.childNodes if isinstance(child, minidom.Element)]


def _items(element: minidom.Element) -> list[minidom.Attr]:
    items = (element.attributes.item(index) for index in range(element.attributes.length))
    return [one for one in items if isinstance(one, minidom.Attr)]


def _named(block: minidom.Element, namespace: str) -> Iterator[tuple[str, str, Callable[[], object]]]:
    """Properties of a namespace in a description: local name, value, and what removes it."""
    for attribute in _items(block):
        if attribute.namespaceURI == namespace:
            yield attribute.localName or "", attribute.value, partial(block.removeAttributeNode, attribute)
    for child in _elements(block):
        if child.namespaceURI == namespace:
            yield child.localName or "", _text(child), partial(block.removeChild, child)


def _text(element: minidom.Element) -> str:
    return "".join(node.data for node in element.childNodes if isinstance(node, minidom.Text)).strip()


Fact = tuple[object, ...]


def _facts(rdf: minidom.Element, left_out: set[tuple[str, str]]) -> Counter[Fact]:
    """Everything that the descriptions say, in whichever of them and in whichever order, but for some properties."""
    return Counter(fact for block in _elements(rdf) for fact in _facts_of(block, left_out))


def _facts_of(block: minidom.Element, left_out: set[tuple[str, str]]) -> list[Fact]:
    facts: list[Fact] = [fact for fact in _attributes(block) if fact[0] != _RDF and fact[:2] not in left_out]
    facts += [_tree(child) for child in _elements(block) if (child.namespaceURI, child.localName) not in left_out]
    return facts


def _attributes(element: minidom.Element) -> list[Fact]:
    named = [(one.namespaceURI or "", one.localName or one.name, one.value) for one in _items(element)]
    return sorted(one for one in named if one[0] != _XMLNS)


def _tree(element: minidom.Element) -> Fact:
    inner = [_tree(child) for child in _elements(element)]
    # White space between elements means nothing; around a text alone it may.
    text = "".join(node.data for node in element.childNodes if isinstance(node, minidom.Text))
    return element.namespaceURI, element.localName, tuple(_attributes(element)), text.strip() if inner else text, *inner
