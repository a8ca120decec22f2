"""The application: endpoints, their answers and their OpenAPI description."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware.trustedhost import TrustedHostMiddleware

from distill.html.figures import heat_map
from distill.scoring.columns import IMAGE_COLUMNS, Layout, model_columns, type_columns
from distill.serving.bodies import below, is_json, read_body, read_fields, too_large, too_slow
from distill.serving.metrics import CONTENT_TYPE, Metrics
from distill.serving.page import description_page
from distill.serving.work import BusyError, Place, Work
from pseudo_labels.errors import shown
from pseudo_labels.images import DEFAULT_LIMITS, DecodeLimits, ImageError, decode, load
from pseudo_labels.records import Status
from students.runtime import Row, Scorer, keep_freed_memory

LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")
_RETRY_AFTER_S = 1
# Files of a multipart body are kept in a temporary file beyond a megabyte; together they may have so many bytes.
_BATCH_BODIES = 16


@dataclass(frozen=True)
class ServerSettings:
    """What a server accepts.

    Attributes:
        root: folder below which requests may name files; None reads no files.
        workers: images scored at a time.
        queue: requests that may wait for a worker; further ones are answered with 503.
        max_bytes: size of an image file in a request; a batch may have 16 times as many.
        max_images: images of a batch.
        seconds: for reading a body, and again for scoring each image.
        limits: of decoding.
        types: rows say what is wrong, where the model tells it.
        hosts: values of the header ``Host`` that are answered, so that a page of another site cannot reach a server on
            this machine by a name that leads here (DNS rebinding); None answers all.
    """

    root: Path | None = None
    workers: int = 1
    queue: int = 16
    max_bytes: int = 64 << 20
    max_images: int = 100
    seconds: float = 30.0
    limits: DecodeLimits = DEFAULT_LIMITS
    hosts: tuple[str, ...] | None = LOOPBACK_HOSTS
    types: bool = True


class ScoredRow(BaseModel):
    """What ``pocketiqa score --format json`` says of an image."""

    path: str = Field(description="As the request gave it; empty for an image without a name")
    score: float | None = Field(description="Quality from 0 (worst) to 1 (best); null unless the status is ok")
    status: str = Field(description="ok, or the kind of fault")
    reason: str = Field(description="The fault in words; empty if ok")
    model: str
    model_sha256: str
    type: str | None = Field(None, description="What is wrong; left out where the model does not tell it")
    strength: float | None = Field(None, description="How strongly, from 0 to 1; likewise")


class ScoredRows(BaseModel):
    """Rows of a batch, in the order of the request."""

    rows: list[ScoredRow]


class Health(BaseModel):
    """That the server answers, and with which model."""

    status: str
    model: str
    model_sha256: str


class Fault(BaseModel):
    """Why a request was refused."""

    detail: str


def _refusals(*codes: int) -> dict[int | str, dict[str, Any]]:
    words = {
        400: "The header Host, or the request itself, is not valid",
        403: "The path leads out of the server's folder, or the server reads no files",
        404: "No such file",
        408: "The body did not arrive in time",
        413: "The body is too large",
        422: "The image cannot be scored, or the request is not understood",
        503: "Too many requests: try again after the seconds of the header Retry-After",
        504: "Scoring took too long",
    }
    return {code: {"model": Fault, "description": words[code]} for code in (400, 408, 413, 422, 503, *codes)}


_IMAGE_OR_PATH = {
    "requestBody": {
        "required": True,
        "description": "The bytes of an image file, or the path of one below the server's folder",
        "content": {
            "image/*": {"schema": {"type": "string", "format": "binary"}},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {"path": {"type": "string", "minLength": 1}},
                    "required": ["path"],
                    "additionalProperties": False,
                }
            },
        },
    }
}
_IMAGES_OR_PATHS = {
    "requestBody": {
        "required": True,
        "description": "Image files as a form, or paths below the server's folder",
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "images": {"type": "array", "items": {"type": "string", "format": "binary"}, "minItems": 1}
                    },
                    "required": ["images"],
                }
            },
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "paths": {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1}
                    },
                    "required": ["paths"],
                    "additionalProperties": False,
                }
            },
        },
    }
}


@dataclass(frozen=True)
class _Item:
    """An image of a request: its name, and its bytes or its file."""

    name: str
    content: bytes | Path


class _Service:
    """Scores what requests bring."""

    def __init__(self, scorer: Scorer, settings: ServerSettings):
        self.scorer, self.settings, self.metrics = scorer, settings, Metrics()
        self.work = Work(settings.workers, settings.queue)
        columns = (
            *IMAGE_COLUMNS,
            *model_columns(scorer.contract.name, scorer.digest),
            *type_columns(settings.types, scorer.contract),
        )
        self._layout = Layout(columns)

    async def item(self, request: Request) -> _Item:
        """The image of a request with one."""
        if is_json(request):
            path = await read_fields(request, "path", self.settings.seconds)
            return _Item(path, below(self.settings.root, path))
        body = await read_body(request, self.settings.max_bytes, self.settings.seconds)
        if not body:
            raise HTTPException(422, "the body is empty: send the bytes of an image file")
        return _Item(request.query_params.get("name", ""), body)

    async def items(self, request: Request) -> list[_Item]:
        """The images of a batch."""
        most = self.settings.max_images
        if is_json(request):
            paths = await read_fields(request, "paths", self.settings.seconds)
            if not isinstance(paths, list) or not 0 < len(paths) <= most:
                raise HTTPException(422, f"paths is {shown(paths)}, but a list of 1 to {most} paths is needed")
            return [_Item(path, below(self.settings.root, path)) for path in paths]
        stated = request.headers.get("content-length", "")
        if not stated.isdecimal():
            raise HTTPException(422, "a form needs the header Content-Length, or the paths of images as JSON")
        if "transfer-encoding" in request.headers:  # the length of the body would be another one
            raise HTTPException(422, "a form with the header Content-Length has no Transfer-Encoding")
        if int(stated) > _BATCH_BODIES * self.settings.max_bytes:
            raise too_large(_BATCH_BODIES * self.settings.max_bytes)
        try:
            async with asyncio.timeout(self.settings.seconds):
                form = await request.form(max_files=most, max_fields=0)
        except TimeoutError:
            raise too_slow(self.settings.seconds) from None
        except StarletteHTTPException as error:
            raise HTTPException(422, f"the body is no form with the files 'images': {error.detail}") from None
        files = [value for key, value in form.multi_items() if key == "images" and not isinstance(value, str)]
        if not files or len(files) < len(form.multi_items()):
            raise HTTPException(422, "a form with files named 'images' is needed, or the paths of images as JSON")
        return [_Item(file.filename or "", await file.read()) for file in files]

    async def record(self, place: Place, item: _Item) -> tuple[Row, dict[str, Any]]:
        """Score an image within the time limit: its row, and the row as JSON values."""
        row = await place.run(lambda: self._row(item), self.settings.seconds)
        self.metrics.scored(row.status)
        return row, next(self._layout.dicts(row))

    def _row(self, item: _Item) -> Row:
        # By ``read``: the name in the row is that of the request, wherever the file is.
        return self.scorer.row(item.name, read=lambda _: item.content)

    def map_of(self, item: _Item) -> bytes:
        """The quality map of an image as PNG.

        Raises:
            ImageError: it cannot be decoded.
        """
        opened = load if isinstance(item.content, Path) else decode
        rgb = opened(item.content, self.settings.limits)  # type: ignore[arg-type]
        result = self.scorer.score(rgb)
        across = self.scorer.map_extent(rgb.shape, result.quality_map.shape)
        return heat_map(result.quality_map, (rgb.shape[1], rgb.shape[0]), across)


def create_app(scorer: Scorer, settings: ServerSettings) -> FastAPI:
    """The application of a server that scores with one model.

    Args:
        scorer: the model; its limits of decoding hold for scores.
        settings: see ``ServerSettings``.
    """
    service = _Service(scorer, settings)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        keep_freed_memory()
        with service.work.running():
            yield

    app = FastAPI(
        title="pocketiqa", description=f"Quality of photographs from 0 (worst) to 1 (best), by {scorer.contract.name}.",
        version=scorer.contract.code_version, lifespan=lifespan,
        # The pages that FastAPI makes load scripts of other hosts; ours is made below.
        docs_url=None, redoc_url=None,
    )  # fmt: skip
    if settings.hosts is not None:
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(settings.hosts))
    _count_requests(app, service.metrics)
    _add_endpoints(app, service)
    _add_pages(app, service)
    return app


def _count_requests(app: FastAPI, metrics: Metrics) -> None:
    @app.middleware("http")
    async def counted(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        started = time.monotonic()
        response = await call_next(request)
        # Of paths that are none of ours there may be any number: one name for all.
        route = request.scope.get("route")
        endpoint = getattr(route, "path", "other")
        metrics.answered(endpoint, response.status_code, time.monotonic() - started)
        return response

    @app.exception_handler(BusyError)
    async def busy(_: Request, _error: BusyError) -> JSONResponse:
        return JSONResponse(
            {"detail": "all places are taken: try again later"}, 503, headers={"Retry-After": str(_RETRY_AFTER_S)}
        )

    @app.exception_handler(TimeoutError)
    async def late(_: Request, _error: TimeoutError) -> JSONResponse:
        return JSONResponse({"detail": "scoring took too long: send a smaller image, or raise --timeout"}, 504)


def _add_endpoints(app: FastAPI, service: _Service) -> None:
    # What the model does not tell is left out, as in the rows of `score`.
    @app.post(
        "/score", responses=_refusals(403, 404, 504), openapi_extra=_IMAGE_OR_PATH, response_model_exclude_unset=True
    )
    async def score(request: Request, name: str = "") -> ScoredRow:
        """Score one image. A file that cannot be scored is answered with 422 and its status and reason."""
        async with service.work.place() as place:
            row, record = await service.record(place, await service.item(request))
        if row.status != Status.OK:
            raise HTTPException(422, f"{row.status}: {row.reason}")
        return ScoredRow(**record)

    @app.post(
        "/score/batch",
        responses=_refusals(403, 404, 504),
        openapi_extra=_IMAGES_OR_PATHS,
        response_model_exclude_unset=True,
    )
    async def score_batch(request: Request) -> ScoredRows:
        """Score several images, one after another. One that cannot be scored is a row with status and reason."""
        async with service.work.place() as place:
            rows = [(await service.record(place, item))[1] for item in await service.items(request)]
        return ScoredRows(rows=[ScoredRow(**row) for row in rows])

    image_png = {"content": {"image/png": {"schema": {"type": "string", "format": "binary"}}}}

    @app.post(
        "/map", responses={200: image_png, **_refusals(403, 404, 504)}, openapi_extra=_IMAGE_OR_PATH,
        response_class=Response,
    )  # fmt: skip
    async def quality_map(request: Request) -> Response:
        """The quality map of one image in colours, PNG: dark is its lowest quality, bright its highest."""
        async with service.work.place() as place:
            item = await service.item(request)
            try:
                data = await place.run(lambda: service.map_of(item), service.settings.seconds)
            except ImageError as error:
                raise HTTPException(422, f"{error.status}: {error.reason}") from None
        return Response(data, media_type="image/png")


def _add_pages(app: FastAPI, service: _Service) -> None:
    @app.get("/health", responses={400: {"model": Fault}})
    def health() -> Health:
        """Whether the server answers, and with which model."""
        return Health(status="ok", model=service.scorer.contract.name, model_sha256=service.scorer.digest)

    text_plain = {"content": {"text/plain": {"schema": {"type": "string"}}}}

    @app.get("/metrics", responses={200: text_plain, 400: {"model": Fault}}, response_class=Response)
    def metrics() -> Response:
        """Requests, images and seconds so far, in the text format of Prometheus."""
        return Response(service.metrics.text(service.work.taken), media_type=CONTENT_TYPE)

    @app.get("/", include_in_schema=False)
    def page() -> HTMLResponse:
        return HTMLResponse(description_page(app.openapi()))
