"""A page that describes the endpoints, from the OpenAPI description; it loads nothing from elsewhere."""

from collections.abc import Iterator, Mapping
from typing import Any

from distill.html.markup import Html, document, join, tag
from distill.html.style import CSS

_EXAMPLES = {
    "/score": "curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' http://HOST/score",
    "/score/batch": "curl -F images=@one.jpg -F images=@two.jpg http://HOST/score/batch",
    "/map": "curl --data-binary @photo.jpg -H 'Content-Type: image/jpeg' http://HOST/map -o map.png",
    "/health": "curl http://HOST/health",
    "/metrics": "curl http://HOST/metrics",
}


def description_page(openapi: Mapping[str, Any]) -> str:
    """The page.

    Args:
        openapi: OpenAPI description of the application.
    """
    info = openapi["info"]
    head = [
        tag("p", "pocketiqa", class_="kicker"),
        tag("h1", "Scores over HTTP"),
        tag("p", info["description"], class_="lead"),
    ]
    link = tag("p", "For programs: ", tag("a", "openapi.json", href="/openapi.json"), ".")
    body = tag("main", head, link, list(_sections(openapi["paths"])))
    return document("pocketiqa: scores over HTTP", body, CSS)


def _sections(paths: Mapping[str, Any]) -> Iterator[Html]:
    for path, methods in paths.items():
        for method, one in methods.items():
            answers = [
                tag("tr", tag("th", code, scope="row"), tag("td", answer.get("description", "")))
                for code, answer in sorted(one["responses"].items())
            ]
            bodies = one.get("requestBody", {}).get("content", {})
            accepted = [tag("p", "Takes ", join([", ".join(bodies)]), ".")] if bodies else []
            example = tag("pre", tag("code", _EXAMPLES[path])) if path in _EXAMPLES else None
            yield tag(
                "section",
                tag("h2", f"{method.upper()} {path}"),
                tag("p", one.get("description", "")),
                accepted,
                example,
                tag("table", tag("tbody", answers)),
            )
