"""``make object-stores``: processes share a store in a bucket of a real S3 server, under kills and faults.

``python -m tests.campaign.object_stores`` starts moto's server behind a proxy that refuses, loses, cuts and delays
answers, lets several processes claim open shards of one store, kills them at random moments and starts others in their
place. ``summary.json`` says what came out; exit status 1 if anything is not as promised.
"""

import argparse
import json
import multiprocessing
import random
import shutil
import sys
import time
from pathlib import Path
from typing import Any, cast

from pseudo_labels import remote
from pseudo_labels.pool import Pool, build_pool
from pseudo_labels.remote import Address, location
from pseudo_labels.shards import parquet_bytes
from pseudo_labels.store import LabelStore
from teachers.label import label
from teachers.sharing import OpenShards
from tests.campaign.kills import write_photographs
from tests.helpers.s3_server import S3, s3_server

SLEEPING = "tests.helpers.own_teacher:sleeping"
OUT = "s3://campaign/labels"


def main() -> int:
    """Run the campaign; returns the exit status."""
    words = argparse.ArgumentParser(prog="python -m tests.campaign.object_stores", description=__doc__)
    words.add_argument("--out", type=Path, default=Path("runs/object-stores"), help="folder for results, made anew")
    words.add_argument("--images", type=int, default=240)
    words.add_argument("--shards", type=int, default=24)
    words.add_argument("--processes", type=int, default=3)
    words.add_argument("--kills", type=int, default=20)
    words.add_argument(
        "--faults", type=float, default=0.1, help="fraction of the answers that are not as they should be"
    )
    words.add_argument("--image-ms", type=float, default=50.0, help="sleep of the teacher for each image")
    words.add_argument("--most-wait-s", type=float, default=4.0, help="between two kills, at most")
    words.add_argument("--seed", type=int, default=0)
    given = words.parse_args()
    folder: Path = given.out.resolve()
    if folder.exists():
        sys.exit(f"{folder} exists: remove it, or name another --out")
    folder.mkdir(parents=True)
    write_photographs(folder / "photographs", given.images)
    pool = build_pool([str(folder / "photographs")], folder / "pool")
    alone = label(pool.folder, SLEEPING, folder / "alone", shards=given.shards, options={"image_s": 0.0})
    with s3_server("campaign") as s3:
        summary = under_fire(folder, pool, alone, s3, given)
    settings = {key: value for key, value in vars(given).items() if isinstance(value, int | float)}
    (folder / "summary.json").write_text(json.dumps(settings | summary, indent=1) + "\n")
    print(json.dumps(settings | summary, indent=1))
    return 0 if summary["as_promised"] else 1


def life(pool: str, shards: int, image_s: float, cache: str) -> None:
    """One process: claims open shards until the store is finished."""
    import os

    os.environ["POCKETIQA_CACHE"] = cache
    label(pool, SLEEPING, OUT, shards=shards, options={"image_s": image_s}, share=OpenShards())


def under_fire(folder: Path, pool: Pool, alone: LabelStore, s3: S3, given: argparse.Namespace) -> dict[str, Any]:
    """Label the pool into the bucket, and compare with the store of one process on a disk."""
    s3.faults.fraction, s3.faults.slow_s = given.faults, 2.0
    context, draw = multiprocessing.get_context("forkserver"), random.Random(given.seed)
    context.set_forkserver_preload(["teachers.label", "tests.helpers.own_teacher", "s3fs"])
    arguments = (str(pool.folder), given.shards, given.image_ms / 1000, str(folder / "cache"))

    def start() -> Any:
        process = context.Process(target=life, args=arguments)
        process.start()
        return process

    began_s, killed, failed = time.monotonic(), 0, 0
    living = [start() for _ in range(given.processes)]
    while any(process.is_alive() for process in living):
        time.sleep(draw.uniform(0.1, given.most_wait_s))
        failed += sum(process.exitcode not in (None, 0) for process in living)
        living = [process for process in living if process.is_alive()]
        if killed < given.kills and living:
            victim = draw.choice(living)
            victim.kill()
            victim.join()
            if victim.exitcode == -9:
                killed += 1
            living.remove(victim)
            living.append(start())
    wall_s, seen = time.monotonic() - began_s, dict(s3.faults.seen)
    s3.faults.fraction = 0.0
    # What the last killed one left undone, as a user would finish it.
    life(*arguments)
    store = LabelStore.open(location(OUT))
    names = remote.names_below(cast(Address, store.folder))
    ids = store.labels()["id"].to_pylist()
    found = {
        "processes_killed": killed,
        "processes_failed": failed,
        "requests": seen.pop("passed"),
        "faults_met": seen,
        "rows_lost": len({ref.id for ref in pool} - set(ids)),
        "rows_doubled": len(ids) - len(pool),
        "rows_of_one_process": parquet_bytes(store.labels()) == parquet_bytes(alone.labels()),
        "digest_of_one_process": store.digest == alone.digest,
        "objects_left_over": len(names) - 1 - given.shards * 3,
        "wall_s": round(wall_s, 1),
    }
    shutil.rmtree(folder / "cache", ignore_errors=True)
    return found | {
        "as_promised": found["digest_of_one_process"]
        and found["rows_of_one_process"]
        and killed == given.kills
        and not any(found[name] for name in ("rows_lost", "rows_doubled", "objects_left_over", "processes_failed"))
    }


if __name__ == "__main__":
    sys.exit(main())
