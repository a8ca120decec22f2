"""``pocketiqa serve``: scores over HTTP. Needs the extra ``serve`` (FastAPI, uvicorn), and no torch."""
