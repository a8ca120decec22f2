"""Labelling by a cluster of Ray: real workers on this machine, of which one dies; and a worker that writes late."""

import importlib.util
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import pytest

from distill.cli import app
from distill.terminal.console import run_cli
from pseudo_labels.errors import PocketiqaError
from pseudo_labels.pool import Pool
from pseudo_labels.store import LabelStore
from teachers.label import LabelOrder, label
from teachers.on_ray import RayCluster, Worker
from teachers.sharing import Part
from tests.helpers.labelling import shard_bytes, written
from tests.helpers.pools import clean_pool

OWN = "tests.helpers.own_teacher"
ROOT = Path(__file__).parents[2]
INSTALLED = importlib.util.find_spec("ray") is not None


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Pool:
    return clean_pool(tmp_path_factory.mktemp("pool"), images=7, max_side=80)


@pytest.fixture(scope="module")
def alone(pool: Pool, tmp_path_factory: pytest.TempPathFactory) -> LabelStore:
    return label(pool.folder, f"{OWN}:build", tmp_path_factory.mktemp("alone") / "labels", shards=5)


def order_of(pool: Pool, teacher: str, folder: Path, options: Mapping[str, object]) -> LabelOrder:
    return LabelOrder(pool_folder=pool.folder, teacher_name=f"{OWN}:{teacher}", out=folder / "labels", options=options)


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """A local cluster as the command starts it, for several tests: a process that is connected stays so."""
    if not INSTALLED:
        pytest.skip("Ray is an extra: pip install 'pocketiqa[ray]'")
    with RayCluster().connected() as (ray, _):
        yield
    assert not ray.is_initialized()


@pytest.mark.usefixtures("cluster")
def test_the_store_is_that_of_one_process_though_a_worker_dies(pool: Pool, alone: LabelStore, tmp_path: Path):
    said: list[str] = []
    seen: list[tuple[int, int]] = []
    store = label(
        pool.folder, f"{OWN}:dying", tmp_path / "labels", shards=5, options={"mark": str(tmp_path / "mark")},
        share=RayCluster(retries=1), warn=said.append, progress=lambda *step: seen.append(step),
    )  # fmt: skip
    assert store.digest == alone.digest
    assert shard_bytes(store.folder) == shard_bytes(alone.folder)
    (lost,) = [text for text in said if " is labelled again (1 of 1): its worker on node " in text]
    assert "was lost" in lost
    assert (seen[0], seen[-1]) == ((0, len(pool)), (len(pool), len(pool)))


@pytest.mark.usefixtures("cluster")
def test_a_teacher_that_fails_everywhere_ends_the_run_with_its_words(pool: Pool, tmp_path: Path):
    said: list[str] = []
    with pytest.raises(PocketiqaError, match="gave scores from 55 to 55"):
        label(
            pool.folder, f"{OWN}:percent", tmp_path / "labels", shards=7, share=RayCluster(retries=0),
            warn=said.append,
        )  # fmt: skip
    assert any("is given up: teacher 'contrast' gave scores from 55 to 55" in text for text in said)
    assert not LabelStore.open(tmp_path / "labels").manifest.complete


@pytest.mark.usefixtures("cluster")
def test_a_student_scores_a_pool_on_a_cluster_as_alone(pool: Pool, tmp_path: Path):
    words = ["label", str(pool.folder), "--teacher", "pocket-s-int8", "--shards", "3", "--out"]
    assert run_cli(app, [*words, str(tmp_path / "alone")]) == 0
    assert run_cli(app, [*words, str(tmp_path / "cluster"), "--engine", "ray"]) == 0
    assert LabelStore.open(tmp_path / "cluster").digest == LabelStore.open(tmp_path / "alone").digest


def test_a_worker_that_is_taken_for_dead_and_writes_late_does_no_harm(pool: Pool, alone: LabelStore, tmp_path: Path):
    """A worker is the same object in a process of Ray and here; another makes its shard while it still scores."""
    label(pool.folder, f"{OWN}:build", tmp_path / "labels", shards=5, share=Part(5, 5))
    orders = [
        order_of(pool, name, tmp_path, options)
        for name, options in (("late", {"folder": str(tmp_path)}), ("build", {}))
    ]
    outlived, other = (Worker(order, "cpu", str(ROOT), []) for order in orders)
    outlived.begin()
    other.begin()
    heard: list[list[str]] = []
    thread = threading.Thread(target=lambda: heard.append(outlived.label(2)))
    thread.start()
    while not (tmp_path / "scoring").exists():
        assert thread.is_alive()
        threading.Event().wait(0.01)
    assert other.label(2) == []
    before = written(tmp_path / "labels")
    (tmp_path / "go").touch()
    thread.join()
    assert heard == [[]]  # its shard was there with the same bytes, and it went on
    assert written(tmp_path / "labels") == before
    store = label(pool.folder, f"{OWN}:build", tmp_path / "labels")
    assert shard_bytes(store.folder) == shard_bytes(alone.folder)


def test_a_worker_with_another_teacher_than_the_store_was_begun_with_is_refused(pool: Pool, tmp_path: Path):
    label(pool.folder, f"{OWN}:build", tmp_path / "labels", shards=5, share=Part(5, 5))
    order = order_of(pool, "build", tmp_path, {"nan_below": 0.5})
    with pytest.raises(PocketiqaError, match=r"made differently .*nan_below: 0.0 -> 0.5"):
        Worker(order, "cpu", str(ROOT), []).begin()


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"gpus_per_task": 1.5}, r"1\.5 GPUs a task: choose a fraction below 1, or a whole number"),
        ({"gpus_per_task": -1.0}, r"-1\.0 GPUs a task"),
        ({"gpus_per_task": float("nan")}, "nan GPUs a task"),
        ({"retries": -1}, "-1 retries: at least 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings: dict[str, float], named: str):
    with pytest.raises(PocketiqaError, match=named):
        RayCluster(**settings)  # type: ignore[arg-type]


@pytest.mark.skipif(INSTALLED, reason="Ray is installed")
def test_what_is_to_be_installed_is_said(pool: Pool, tmp_path: Path):
    with pytest.raises(PocketiqaError, match=r"ray is not installed: .*\[ray\]"):
        label(pool.folder, f"{OWN}:build", tmp_path / "labels", share=RayCluster())
    assert not (tmp_path / "labels").exists()


def test_options_of_the_cluster_go_with_it_alone(pool: Pool, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = ["label", str(pool.folder), "--teacher", f"{OWN}:build", "--out", str(tmp_path / "labels")]
    refused = {
        ("--retries", "2"): "--retries is for a cluster: add --engine ray",
        ("--ray-address", "auto"): "--ray-address is for a cluster",
        ("--engine", "ray", "--claim"): "--claim and --engine are ways to share the work: choose one",
        ("--engine", "ray", "--gpus-per-task", "2.5"): "2.5 GPUs a task",
    }
    for more, message in refused.items():
        assert run_cli(app, [*words, *more]) == 1
        assert message in capsys.readouterr().err
    assert run_cli(app, [*words, "--engine", "dask"]) == 2
    assert not (tmp_path / "labels").exists()


@pytest.mark.usefixtures("cluster")
def test_copies_made_on_a_cluster_are_those_of_one_process(pool: Pool, tmp_path: Path):
    words = ["distort", str(pool.folder), "--per-image", "3", "--out"]
    assert run_cli(app, [*words, str(tmp_path / "alone"), "--workers", "1"]) == 0
    assert run_cli(app, [*words, str(tmp_path / "ray"), "--engine", "ray"]) == 0
    alone, shared = (Pool.open(tmp_path / name) for name in ("alone", "ray"))
    assert shared.digest == alone.digest
    assert len(alone) == 4 * len(pool)


@pytest.mark.usefixtures("cluster")
def test_an_item_whose_worker_dies_goes_elsewhere(tmp_path: Path):
    with RayCluster(retries=1).ready(pytest.fail) as in_order:
        assert list(in_order(partial(dying_once, tmp_path), range(6))) == [0, 1, 4, 9, 16, 25]
    assert (tmp_path / "died").exists()


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(
    ("raised", "message"),
    [
        (PocketiqaError("three is too many"), "three is too many"),
        (None, "a worker of Ray cannot do its task"),  # an exception that cannot be read again
    ],
)
def test_what_a_function_raises_on_a_cluster_ends_the_work(raised: Exception | None, message: str):
    with RayCluster().ready(pytest.fail) as in_order:
        results = in_order(partial(fails_at_three, raised), range(100))
        assert [next(results) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(PocketiqaError, match=message):
            next(results)


@pytest.mark.usefixtures("cluster")
def test_closing_early_waits_for_what_has_begun(tmp_path: Path):
    with RayCluster().ready(pytest.fail) as in_order:
        results = in_order(partial(marks, tmp_path), range(40))
        assert next(results) == 0
        results.close()
        made = {path.name for path in tmp_path.iterdir()}
        time.sleep(0.5)
        assert {path.name for path in tmp_path.iterdir()} == made
    assert len(made) < 80


@pytest.mark.skipif(not INSTALLED, reason="Ray is an extra: pip install 'pocketiqa[ray]'")
def test_an_address_that_nobody_answers_at_is_refused_at_once_and_nothing_is_replaced(pool: Pool, tmp_path: Path):
    words = ["distort", str(pool.folder), "--per-image", "1", "--out", str(tmp_path / "copies")]
    assert run_cli(app, words) == 0
    digest = Pool.open(tmp_path / "copies").digest
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    asked = ["--seed", "1", "--overwrite", "--engine", "ray", "--ray-address", f"127.0.0.1:{port}"]
    # In a process of its own: this one may be connected.
    command = [sys.executable, "-m", "distill.cli", *words, *asked]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 1
    assert f"no Ray cluster can be used at '127.0.0.1:{port}'" in " ".join(ended.stderr.split())
    assert Pool.open(tmp_path / "copies").digest == digest


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--workers", "2", "--engine", "ray"], "--workers and --engine are ways to share the work: choose one"),
        (["--retries", "1"], "--retries is for a cluster: add --engine ray"),
    ],
)
def test_options_of_distort_that_would_do_nothing_are_refused(
    words: list[str], message: str, pool: Pool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    assert run_cli(app, ["distort", str(pool.folder), "--out", str(tmp_path / "copies"), *words]) == 1
    assert message in " ".join(capfd.readouterr().err.split())
    assert not (tmp_path / "copies").exists()


def dying_once(folder: Path, number: int) -> int:
    mark = folder / "died"
    if number == 3 and not mark.exists():
        mark.touch()
        os._exit(1)
    return number * number


class UnreadableError(PocketiqaError):
    def __init__(self, what: str, number: int):
        super().__init__(f"{what} {number}")


def fails_at_three(raised: Exception | None, number: int) -> int:
    if number == 3:
        raise raised or UnreadableError("no", number)
    return number


def marks(folder: Path, number: int) -> int:
    (folder / f"{number}.begin").touch()
    time.sleep(0.1)
    (folder / f"{number}.end").touch()
    return number
