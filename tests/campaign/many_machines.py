"""``make many-machines``: Ray on three local nodes, workers and a node killed; then one node against two.

``python -m tests.campaign.many_machines`` labels a pool by real workers of a local cluster (``ray.cluster_utils``), and
kills workers at random moments and takes a node away. A worker that outlives all that writes its shard at the end.
Then a teacher that sleeps shows what the engine costs: rates of one and two nodes, and what it adds to one process.
``summary.json`` says what came out; exit status 1 if anything is not as promised.
"""

import argparse
import importlib
import json
import logging
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, NamedTuple

from pseudo_labels.outputs import MANIFEST
from pseudo_labels.pool import Pool, build_pool
from teachers.label import LabelOrder, label
from teachers.on_ray import RayCluster, Worker
from teachers.sharing import Ranks, Share
from tests.campaign.kills import write_photographs
from tests.helpers.labelling import shard_bytes

ROOT = Path(__file__).parents[2]
SLEEPING, LATE = "tests.helpers.own_teacher:sleeping", "tests.helpers.own_teacher:late"
_NODE = {"num_cpus": 1, "object_store_memory": 100 << 20, "include_dashboard": False}
# What two nodes must reach of twice one, and what Ray may add to the time of a shard.
LEAST_SPEEDUP, MOST_SCHEDULING_S = 1.8, 0.02


def main() -> int:
    """Run the parts that are asked for; returns the exit status."""
    words = argparse.ArgumentParser(prog="python -m tests.campaign.many_machines", description=__doc__)
    words.add_argument("--out", type=Path, default=Path("runs/many-machines"), help="folder for results, made anew")
    words.add_argument("--images", type=int, default=1000)
    words.add_argument("--shards", type=int, default=40)
    words.add_argument("--nodes", type=int, default=3)
    words.add_argument("--kills", type=int, default=20, help="of workers; one node is taken away besides")
    words.add_argument("--image-ms", type=float, default=50.0, help="sleep of the teacher for each image")
    words.add_argument("--most-wait-s", type=float, default=2.0, help="between two kills, at most")
    words.add_argument("--seed", type=int, default=0)
    words.add_argument("--only", choices=["kills", "scaling"])
    words.add_argument("--outlived", nargs=4, help=argparse.SUPPRESS)
    given = words.parse_args()
    if given.outlived:
        return outlived(*given.outlived)
    folder: Path = given.out.resolve()
    if folder.exists():
        sys.exit(f"{folder} exists: remove it, or name another --out")
    (folder / "workers").mkdir(parents=True)
    summary: dict[str, Any] = {key: value for key, value in vars(given).items() if isinstance(value, int | float)}
    write_photographs(folder / "photographs", given.images)
    pool = build_pool([str(folder / "photographs")], folder / "pool")
    if given.only != "scaling":
        summary["kills"] = with_kills(folder, pool, given)
    if given.only != "kills":
        summary["scaling"] = scaling(folder, pool, given)
    summary["as_promised"] = all(part["as_promised"] for part in summary.values() if isinstance(part, dict))
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n")
    print(json.dumps(summary, indent=1))
    return 0 if summary["as_promised"] else 1


def with_kills(folder: Path, pool: Pool, given: argparse.Namespace) -> dict[str, Any]:
    """Label the pool on several nodes under fire, and compare with the store of one process."""
    alone = label(pool.folder, SLEEPING, folder / "alone", shards=given.shards, options={"image_s": 0.0})
    out, said = folder / "labels", list[str]()
    cluster, nodes = local_cluster(given.nodes)
    late = subprocess.Popen(
        [sys.executable, "-m", "tests.campaign.many_machines", "--outlived", pool.folder, out, folder,
         str(given.shards - 1)], cwd=ROOT,
    )  # fmt: skip
    killer = Killer(folder / "workers", given.kills, given.most_wait_s, given.seed, lambda: another(cluster, nodes))
    killer.start()
    began_s = time.monotonic()
    try:
        options = {"image_s": given.image_ms / 1000, "workers": str(folder / "workers")}
        store = label(
            pool.folder, SLEEPING, out, shards=given.shards, options=options, warn=said.append,
            share=RayCluster(cluster.address, retries=given.kills),
        )  # fmt: skip
    finally:
        killer.stop.set()
        killer.join()
        cluster.shutdown()
    wall_s = time.monotonic() - began_s
    before = shard_bytes(out)
    waiting = late.poll() is None and (folder / "scoring").exists()
    (folder / "go").touch()
    late_status = late.wait(timeout=600)
    ids = store.labels()["id"].to_pylist()
    found = {
        "workers_killed": killer.killed,
        "nodes_taken": killer.nodes_taken,
        "rows_lost": len({ref.id for ref in pool} - set(ids)),
        "rows_doubled": len(ids) - len(pool),
        "digest_of_one_process": store.digest == alone.digest and before == shard_bytes(alone.folder),
        "late_worker": "no harm" if waiting and late_status == 0 and shard_bytes(out) == before else "harm",
        "shards_tried_again": sum("is labelled again" in text for text in said),
        "nodes_said_gone": sum("is gone" in text for text in said),
        "wall_s": round(wall_s, 1),
    }
    good = (killer.killed, killer.nodes_taken, found["rows_lost"], found["rows_doubled"]) == (given.kills, 1, 0, 0)
    return found | {"as_promised": good and found["digest_of_one_process"] and found["late_worker"] == "no harm"}


def outlived(pool: str, out: str, folder: str, shard: str) -> int:
    """A worker whose cluster has long forgotten it: begins a shard early, and commits it when all is done."""
    while not (Path(out) / MANIFEST).exists():
        time.sleep(0.02)
    worker = Worker(
        LabelOrder(pool_folder=Path(pool), teacher_name=LATE, out=Path(out), options={"folder": folder}),
        "cpu", str(ROOT), [],
    )  # fmt: skip
    worker.begin()
    worker.label(int(shard))
    return 0


class Killer(threading.Thread):
    """Ends workers at random moments, and takes one node away halfway.

    Args:
        workers: folder in which workers note their process numbers.
        kills: how many.
        most_wait_s: between two.
        seed: of the moments and choices.
        take_node: takes a node away.
    """

    def __init__(self, workers: Path, kills: int, most_wait_s: float, seed: int, take_node: Callable[[], None]):
        super().__init__(daemon=True)
        self.stop = threading.Event()
        self.killed = self.nodes_taken = 0
        self._workers, self._kills, self._most_wait_s, self._take_node = workers, kills, most_wait_s, take_node
        self._random = random.Random(seed)

    def run(self) -> None:
        while self.killed < self._kills and not self.stop.wait(self._random.uniform(0.0, self._most_wait_s)):
            if self.killed >= self._kills // 2 and not self.nodes_taken:
                self._take_node()
                self.nodes_taken += 1
            # This process, too, builds the teacher once, for its stamp.
            numbers = {path.name for path in self._workers.iterdir()} - {str(os.getpid())}
            living = [self._workers / number for number in sorted(numbers) if Path(f"/proc/{number}").exists()]
            if living:
                path = self._random.choice(living)
                path.unlink()
                with suppress(ProcessLookupError):
                    os.kill(int(path.name), signal.SIGKILL)
                    self.killed += 1


def local_cluster(nodes: int) -> tuple[Any, list[Any]]:
    """A cluster of so many nodes of one CPU on this machine, and those nodes that can be taken away."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    cluster_utils = importlib.import_module("ray.cluster_utils")
    logging.getLogger("ray").setLevel(logging.ERROR)
    # Without handlers of signals: a node that is brought by another thread could not set them. Who asked for the
    # cluster ends it.
    cluster = cluster_utils.Cluster(initialize_head=True, head_node_args=_NODE, shutdown_at_exit=False)
    return cluster, [cluster.add_node(**_NODE) for _ in range(nodes - 1)]


def another(cluster: Any, nodes: list[Any]) -> None:
    """Kill a node with all that runs on it, and bring another one."""
    cluster.remove_node(nodes.pop(), allow_graceful=False)
    nodes.append(cluster.add_node(**_NODE))


def scaling(folder: Path, pool: Pool, given: argparse.Namespace) -> dict[str, Any]:
    """Rates of one process, of one node and of two, without the beginnings of the workers and the last shards.

    What Ray costs a shard is the time of one node less that of one process: reading images and writing a shard are
    work of both.
    """
    process, one, two = (_pace(folder, pool, given, nodes) for nodes in (0, 1, 2))
    sleep_s = len(pool) / given.shards * given.image_ms / 1000
    scheduling_s = one.shard_s - process.shard_s
    return {
        "images_measured": one.images,
        "images_a_second": [round(pace.images_a_second, 2) for pace in (process, one, two)],
        "two_nodes_to_one": round(two.images_a_second / one.images_a_second, 3),
        "ms_a_shard_beyond_the_sleep": [round((pace.shard_s - sleep_s) * 1000, 1) for pace in (process, one)],
        "scheduling_ms_a_shard": round(scheduling_s * 1000, 1),
        "as_promised": two.images_a_second >= LEAST_SPEEDUP * one.images_a_second and scheduling_s <= MOST_SCHEDULING_S,
    }


class Pace(NamedTuple):
    """How fast so many images came, in the middle of a store."""

    images: int
    images_a_second: float
    shard_s: float


def _pace(folder: Path, pool: Pool, given: argparse.Namespace, nodes: int) -> Pace:
    """Label the pool on so many nodes, 0 for one process without Ray."""
    times: list[tuple[float, int]] = []
    with ExitStack() as stack:
        share: Share = Ranks()
        if nodes:
            cluster, _ = local_cluster(nodes)
            stack.callback(cluster.shutdown)
            share = RayCluster(cluster.address)
        label(
            pool.folder, SLEEPING, folder / f"labels-{nodes}", shards=given.shards, share=share,
            options={"image_s": given.image_ms / 1000},
            progress=lambda done, _all: times.append((time.monotonic(), done)),
        )  # fmt: skip
    middle = times[len(times) * 4 // 10 : len(times) * 9 // 10]
    (first_s, first), (last_s, last) = middle[0], middle[-1]
    rate = (last - first) / (last_s - first_s)
    return Pace(last - first, rate, len(pool) / given.shards / rate)


if __name__ == "__main__":
    sys.exit(main())
