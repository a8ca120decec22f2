"""What a server has done so far, in the text format of Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from pseudo_labels.records import Status

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class Metrics:
    """Counters of one server; thread-safe."""

    def __init__(self) -> None:
        # Of its own: two servers in one process, as in tests, do not add up.
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "pocketiqa_requests", "Requests answered", ["endpoint", "code"], registry=self._registry
        )
        self._images = Counter("pocketiqa_images", "Images by status of their row", ["status"], registry=self._registry)
        self._seconds = Histogram(
            "pocketiqa_request_seconds", "Seconds from a request to its answer", ["endpoint"], buckets=_SECONDS,
            registry=self._registry,
        )  # fmt: skip
        self._taken = Gauge("pocketiqa_requests_in_work", "Requests in work or waiting", registry=self._registry)

    def answered(self, endpoint: str, code: int, seconds: float) -> None:
        """Count a request."""
        self._requests.labels(endpoint, str(code)).inc()
        self._seconds.labels(endpoint).observe(seconds)

    def scored(self, status: Status) -> None:
        """Count an image."""
        self._images.labels(str(status)).inc()

    def text(self, taken: int) -> bytes:
        """Everything, with the number of requests that are in work now."""
        self._taken.set(taken)
        return generate_latest(self._registry)
