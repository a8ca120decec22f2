"""The endpoints: equal to the runtime, plain about faults, and bounded."""

import io
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import schemathesis
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, settings
from PIL import Image
from schemathesis.specs.openapi.checks import positive_data_acceptance

from distill.serving.app import ServerSettings, create_app
from distill.serving.page import description_page
from students.runtime import Row, Scorer
from tests.helpers.typed import write_typed


def test_a_sent_image_and_a_named_one_have_the_score_of_the_runtime(client: TestClient, root: Path, scorer: Scorer):
    expected = scorer.score(root / "a.png").score
    sent = client.post("/score?name=a.png", content=(root / "a.png").read_bytes())
    named = client.post("/score", json={"path": "a.png"})
    assert sent.status_code == named.status_code == 200
    assert sent.json() == named.json()
    told = () if scorer.contract.types is None else ("type", "strength")
    assert {key: value for key, value in sent.json().items() if key not in told} == {
        "path": "a.png", "score": expected, "status": "ok", "reason": "",
        "model": "pocket-s", "model_sha256": scorer.digest,
    }  # fmt: skip
    assert set(told) <= set(sent.json())


def test_rows_say_what_is_wrong_where_the_model_tells_it(root: Path, tmp_path: Path):
    typed = Scorer(write_typed(tmp_path / "typed.onnx"))
    expected = typed.score(root / "a.png").damage
    assert expected is not None
    answers = []
    for types in (True, False):
        settings = ServerSettings(root=root, types=types)
        with TestClient(create_app(typed, settings), base_url="http://localhost") as client:
            batch = client.post("/score/batch", json={"paths": ["a.png", "bad.png"]}).json()["rows"]
            answers.append((client.post("/score", json={"path": "a.png"}).json(), batch))
    (one, batch), (plain, plain_batch) = answers
    assert (one["type"], one["strength"]) == (expected.type, pytest.approx(expected.strength))
    assert [row["type"] for row in batch] == [expected.type, None]
    assert not {"type", "strength"} & (set(plain) | set(plain_batch[0]))


@pytest.mark.parametrize(
    ("path", "code", "words"),
    [
        ("bad.png", 422, "not_an_image: begins with"),
        ("none.png", 404, "there is no file 'none.png'"),
        ("below", 404, "there is no file 'below'"),
        ("../outside.png", 403, "leads out of the server's folder"),
        ("../none.png", 403, "leads out"),
        ("link.png", 403, "leads out"),
        ("/etc/passwd", 403, "leads out"),
        ("", 422, "the path of an image"),
        ("a\x00.png", 422, "the path of an image"),
        (5, 422, "path is 5"),
        ("x" * 5000, 422, "cannot be read"),
    ],
)
def test_a_path_that_cannot_be_scored(path: Any, code: int, words: str, client: TestClient):
    answer = client.post("/score", json={"path": path})
    assert answer.status_code == code, answer.text
    assert words in answer.json()["detail"]


def test_without_a_root_no_file_is_read(scorer: Scorer, root: Path):
    with TestClient(create_app(scorer, ServerSettings()), base_url="http://localhost") as client:
        answer = client.post("/score", json={"path": str(root / "a.png")})
    assert (answer.status_code, "--root" in answer.json()["detail"]) == (403, True)


def test_bodies_are_bounded(client: TestClient):
    large = client.post("/score", content=b"x" * 100_001)
    # In parts, without a stated length.
    streamed = client.post("/score", content=iter([b"x" * 60_000] * 2))
    assert {large.status_code, streamed.status_code} == {413}
    assert "--max-bytes" in large.json()["detail"]
    assert client.post("/score", content=b"").status_code == 422
    assert client.post("/score", content=b"{", headers={"content-type": "application/json"}).status_code == 422
    assert client.post("/score", json=["a.png"]).status_code == 422


def test_a_batch_keeps_its_order_and_its_bad_images(client: TestClient, root: Path):
    names = ["below/b.png", "bad.png", "a.png"]
    by_path = client.post("/score/batch", json={"paths": names}).json()["rows"]
    assert [row["path"] for row in by_path] == names
    assert [row["score"] is None for row in by_path] == [False, True, False]
    assert by_path[1]["reason"]
    files = [("images", (name, (root / name).read_bytes())) for name in names]
    sent = client.post("/score/batch", files=files).json()["rows"]
    assert [(row["score"], row["status"]) for row in sent] == [(row["score"], row["status"]) for row in by_path]


@pytest.mark.parametrize(
    "request_", [{"json": {"paths": []}}, {"json": {"paths": ["a.png"] * 4}}, {"content": b"x"}, {"data": {"a": "b"}}]
)
def test_a_batch_of_another_form_is_refused(request_: dict[str, Any], client: TestClient):
    assert client.post("/score/batch", **request_).status_code == 422
    files = [("images", ("a.png", b"x"))] * 4
    assert client.post("/score/batch", files=files).status_code == 422


def test_a_form_has_one_length(client: TestClient):
    body = b'--x\r\nContent-Disposition: form-data; name="images"; filename="a.png"\r\n\r\nx\r\n--x--\r\n'
    kind = {"content-type": "multipart/form-data; boundary=x"}
    assert client.post("/score/batch", content=body, headers=kind).status_code == 200
    both = client.post(
        "/score/batch", content=body, headers=kind | {"content-length": "9", "transfer-encoding": "chunked"}
    )
    assert (both.status_code, "Transfer-Encoding" in both.json()["detail"]) == (422, True)


def test_the_map_is_a_picture_of_the_photograph(client: TestClient):
    answer = client.post("/map", json={"path": "a.png"})
    assert answer.headers["content-type"] == "image/png"
    picture = Image.open(io.BytesIO(answer.content))
    assert picture.size == (112, 96)
    assert np.asarray(picture.convert("L")).std() > 5
    assert client.post("/map", json={"path": "bad.png"}).status_code == 422


def test_another_host_name_is_refused(client: TestClient):
    assert client.get("/health").json()["status"] == "ok"
    assert client.get("/health", headers={"host": "evil.example"}).status_code == 400


def test_requests_beyond_the_places_are_told_when_to_come_again(
    scorer: Scorer, root: Path, monkeypatch: pytest.MonkeyPatch
):
    """One worker, one may wait: of five at once some are refused at once, and all places are free afterwards."""
    opened = threading.Event()
    row = Scorer.row

    def held(self: Scorer, path: Any, read: Any = None) -> Row:
        opened.wait(10)
        return row(self, path, read)

    monkeypatch.setattr(Scorer, "row", held)
    data = (root / "a.png").read_bytes()
    app = create_app(scorer, ServerSettings(queue=1, seconds=20))
    answers: list[Any] = []
    with TestClient(app, base_url="http://localhost") as client:
        threads = [
            threading.Thread(target=lambda: answers.append(client.post("/score", content=data))) for _ in range(5)
        ]
        for thread in threads:
            thread.start()
        while len(answers) < 3:
            time.sleep(0.01)
        assert {answer.status_code for answer in answers} == {503}
        assert all(answer.headers["retry-after"] == "1" for answer in answers)
        assert b"pocketiqa_requests_in_work 2.0" in client.get("/metrics").content
        opened.set()
        for thread in threads:
            thread.join()
        assert sorted(answer.status_code for answer in answers) == [200, 200, 503, 503, 503]
        text = client.get("/metrics").text
    assert "pocketiqa_requests_in_work 0.0" in text
    assert 'pocketiqa_requests_total{code="503",endpoint="/score"} 3.0' in text
    assert 'pocketiqa_images_total{status="ok"} 2.0' in text


def test_work_that_takes_too_long_keeps_its_place_until_it_ends(
    scorer: Scorer, root: Path, monkeypatch: pytest.MonkeyPatch
):
    opened = threading.Event()
    monkeypatch.setattr(Scorer, "row", lambda self, path, read=None: opened.wait(10))
    data = (root / "a.png").read_bytes()
    with TestClient(create_app(scorer, ServerSettings(queue=0, seconds=0.2)), base_url="http://localhost") as client:
        assert client.post("/score", content=data).status_code == 504
        assert client.post("/score", content=data).status_code == 503
        opened.set()
        while b"in_work 0.0" not in client.get("/metrics").content:
            time.sleep(0.01)


def test_the_page_names_every_endpoint_and_loads_nothing(client: TestClient):
    page = client.get("/").text
    for path in client.get("/openapi.json").json()["paths"]:
        assert f" {path}</h2>" in page
    assert "<script" not in page
    assert "src=" not in page
    assert description_page({"info": {"description": "<b>"}, "paths": {}}).count("&lt;b&gt;") == 1


# The application of its own, as schemathesis wants one when it collects its cases.
_FUZZED = create_app(Scorer("pocket-s"), ServerSettings(max_bytes=100_000, max_images=3, hosts=None))

_SLOW = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]


@schemathesis.openapi.from_asgi("/openapi.json", _FUZZED).parametrize()
@settings(max_examples=10, deadline=None, derandomize=True, suppress_health_check=_SLOW)
def test_what_a_fuzzer_sends_is_answered_as_described(case: schemathesis.Case):
    # Random bytes are no photographs: that they are refused is no fault of the schema.
    case.call_and_validate(excluded_checks=[positive_data_acceptance])
