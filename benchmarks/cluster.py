"""Measures tiles done by other processes: what the scheduler costs, and what killed workers cost.

    python benchmarks/cluster.py ../shared/data [--only overhead settings kills namespaces] [--repeats 4]

`overhead`: two slides of `--repeats` x `--repeats` copies of a region, segmented in turn by one process of two threads,
by two processes of one thread that have a slide each, and by a scheduler's two workers of one thread, `--turns` times;
core-seconds of all processes, start-up included, and whether files are equal.
`settings`: the same by two workers that are started by hand, as Dask has them and as docs/clusters.md does.
`kills`: the region in tiles of 512 pixels by two workers, one of which is killed (`kill -9`) twenty times at random
moments, until the run has ended; tiles that were given out more than once are what was lost. `namespaces` (as root, on
Linux): scheduler, workers and run in three network namespaces that only a bridge joins. Writes cluster.json in
docs/results.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import made_slide  # type: ignore[import-not-found]  # lies beside this file
from overhead import one_core_rate  # type: ignore[import-not-found]

SAVED = Path(__file__).parent.parent / "docs" / "results" / "cluster.json"
REGION = "slides/tcga-v5-a7re-region.tif"
FORMATS = ("geoparquet", "geojson", "csv")
PARTS = ("overhead", "settings", "kills", "namespaces")
KILLS = 20
QUIET = {
    "DASK_DISTRIBUTED__NANNY__PRE_SPAWN_ENVIRON": "{'MALLOC_TRIM_THRESHOLD_': None}",
    "DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED": "False",
    "DASK_DISTRIBUTED__WORKER__MEMORY__MONITOR_INTERVAL": "500ms",
    "DASK_DISTRIBUTED__ADMIN__SYSTEM_MONITOR__INTERVAL": "10s",
    "DASK_DISTRIBUTED__ADMIN__TICK__INTERVAL": "2s",
    "DASK_DISTRIBUTED__ADMIN__TICK__LIMIT": "30s",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--turns", type=int, default=2)
    arguments = parser.parse_args()
    found = json.loads(SAVED.read_text(encoding="utf-8")) if SAVED.exists() else {}
    for part in arguments.only:
        with tempfile.TemporaryDirectory() as folder:
            numbers = (arguments.repeats, arguments.turns)
            found[part] = globals()[part](arguments.data / REGION, Path(folder), *numbers)
        SAVED.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        print(part, json.dumps(found[part], indent=1))


# --- the parts ---


def overhead(region: Path, scratch: Path, repeats: int, turns: int) -> dict[str, Any]:
    slides = two_slides(region, scratch, repeats)
    rows: list[dict[str, Any]] = []
    results = []
    ways: dict[str, list[tuple[Any, ...]]] = {
        "one process": [(*slides, "--threads", "2")],
        "two processes": [(slide, "--threads", "1") for slide in slides],
        "two workers": [(*slides, "--threads", "2", "--scheduler", "local:2")],
    }
    for turn in range(turns):
        for name, calls in ways.items():
            before, began, out = children(), time.monotonic(), scratch / f"{name} {turn}"
            processes = [subprocess.Popen(command(out, *map(str, call))) for call in calls]
            codes = [process.wait() for process in processes]
            if any(codes):
                raise SystemExit(f"{name} failed")
            seconds = time.monotonic() - began
            rows.append({"who": name, "core_s": round(children() - before, 1), "seconds": round(seconds)})
            print(rows[-1], flush=True)
            results += [files(out / slide.stem) for slide in slides]
            record = json.loads((out / "a" / "run.json").read_text(encoding="utf-8"))
            shutil.rmtree(out)
    spent = {name: [row["core_s"] for row in rows if row["who"] == name] for name in ways}
    against = {
        f"against {name}": [round(many / one, 3) for one, many in zip(spent[name], spent["two workers"], strict=True)]
        for name in ("one process", "two processes")
    }
    return {
        "slides": 2,
        "mm2": record["mm2"],
        "nuclei": record["nuclei"],
        "tiles": record["tiles"],
        "rate": round(one_core_rate()),
        "runs": rows,
        **against,
        "equal": all(result == results[0] for result in results),
    }


def settings(region: Path, scratch: Path, repeats: int, turns: int) -> dict[str, Any]:
    slides, address = two_slides(region, scratch, repeats), scratch / "address.json"
    dask, file = (sys.executable, "-m", "dask"), ("--scheduler-file", str(address))
    spent: dict[str, list[float]] = {"as Dask has them": [], "as docs/clusters.md has them": []}
    for _ in range(turns):
        for name, changes in zip(spent, ({}, QUIET), strict=True):
            before = children()
            starts = [(*dask, "scheduler", *file, "--port", "0", "--no-dashboard")]
            starts += [(*dask, "worker", *file, "--nthreads", "1", "--no-dashboard")] * 2
            background = [subprocess.Popen(start, env=os.environ | changes) for start in starts]
            while not address.exists():
                time.sleep(0.1)
            more = (*map(str, slides), "--threads", "2", "--scheduler", str(address))
            subprocess.run(command(scratch / "out", *more), check=True)
            for process in reversed(background):
                process.terminate()
                process.wait()
            address.unlink(missing_ok=True)
            shutil.rmtree(scratch / "out")
            spent[name].append(round(children() - before, 1))
            print(name, spent[name], flush=True)
    return {**spent, "rate": round(one_core_rate())}


def kills(region: Path, scratch: Path, *_: int) -> dict[str, Any]:
    import psutil
    from distributed import LocalCluster
    from distributed.diagnostics.plugin import SchedulerPlugin

    from nuclens.jobs import scheduler
    from nuclens.jobs.batch import BatchOptions, segment_files

    class Watch(SchedulerPlugin):  # type: ignore[misc]
        begun = done = 0

        def transition(self, key: str, start: str, finish: str, *_: Any, **__: Any) -> None:
            if str(key).startswith("nuclens-"):
                self.begun += finish == "processing"
                self.done += (start, finish) == ("processing", "memory")

    class Watched(LocalCluster):  # type: ignore[misc]
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            self.scheduler.add_plugin(watch)

    options = BatchOptions(formats=FORMATS, tile_px=512)
    segment_files([region], scratch / "whole", options)
    whole, watch, chance = files(scratch / "whole" / region.stem), Watch(), random.Random(5)
    killed: list[int] = []
    over = threading.Event()

    def kill() -> None:
        # Whenever a few tiles were done, so that the run gets on; workers that have only just begun are killed too.
        goal = 3
        while len(killed) < KILLS and not over.wait(chance.uniform(0, 0.5)):
            with suppress(psutil.Error):  # one that has ended by itself meanwhile
                workers = [one for one in psutil.Process().children() if "spawn_main" in " ".join(one.cmdline())]
                if workers and watch.done >= goal:
                    chance.choice(workers).kill()
                    killed.append(watch.done)
                    goal = watch.done + chance.randrange(1, 8)

    setattr(scheduler, "LocalCluster", Watched)  # noqa: B010 - which is not ours to export
    thread = threading.Thread(target=kill)
    thread.start()
    [outcome] = segment_files([region], scratch / "killed", replace(options, scheduler="local:2"))
    over.set()
    thread.join()
    return {
        "kills": len(killed),
        "tiles": outcome.record["tiles"],
        "after": killed,
        "given_again": watch.begun - outcome.record["tiles"],
        "done_again": watch.done - outcome.record["tiles"],
        "in_flight": 4,
        "equal": files(scratch / "killed" / region.stem) == whole,
    }


def namespaces(region: Path, scratch: Path, *_: int) -> dict[str, Any]:
    subprocess.run(command(scratch / "alone", str(region), "--tile-size", "1024"), check=True)
    with joined(("sched", "10.87.0.1"), ("work", "10.87.0.2"), ("run", "10.87.0.3")) as inside:
        dask = (sys.executable, "-m", "dask")
        background = [
            subprocess.Popen([*inside("sched"), *dask, "scheduler", "--host", "10.87.0.1", "--no-dashboard"]),
            subprocess.Popen([*inside("work"), *dask, "worker", "tcp://10.87.0.1:8786", "--nthreads", "1"]),
        ]
        try:
            time.sleep(5)
            more = ("--tile-size", "1024", "--scheduler", "tcp://10.87.0.1:8786")
            subprocess.run([*inside("run"), *command(scratch / "apart", str(region), *more)], check=True)
        finally:
            for process in reversed(background):
                process.terminate()
                process.wait()
    return {"equal": files(scratch / "alone" / region.stem) == files(scratch / "apart" / region.stem)}


# --- what they share ---


def two_slides(region: Path, scratch: Path, repeats: int) -> list[Path]:
    slides = [scratch / "a.tif", scratch / "b.tif"]
    made_slide.write(region, slides[0], repeats)
    shutil.copy(slides[0], slides[1])
    return slides


def command(out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "nuclens", "segment", *more, "--out", str(out), "--formats", ",".join(FORMATS)]


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("instances.*"))}


def children() -> float:
    """Core-seconds of all processes that were begun here and have ended, and of those that they began."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


@contextmanager
def joined(*hosts: tuple[str, str]) -> Iterator[Any]:
    """Network namespaces with an address each, joined by a bridge; gives what a command in one begins with."""

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True)

    bridge = f"nb{os.getpid()}"
    ip("link", "add", bridge, "type", "bridge")
    ip("link", "set", bridge, "up")
    try:
        for number, (name, address) in enumerate(hosts):
            space, inner, outer = f"{bridge}-{name}", f"i{number}-{bridge}", f"o{number}-{bridge}"
            ip("netns", "add", space)
            ip("link", "add", outer, "type", "veth", "peer", "name", inner)
            ip("link", "set", outer, "master", bridge, "up")
            ip("link", "set", inner, "netns", space)
            for words in (("addr", "add", f"{address}/24", "dev", inner), ("link", "set", inner, "up")):
                ip("-n", space, *words)
            ip("-n", space, "link", "set", "lo", "up")
        yield lambda name: ["ip", "netns", "exec", f"{bridge}-{name}"]
    finally:
        for name, _ in hosts:
            subprocess.run(["ip", "netns", "del", f"{bridge}-{name}"], check=False)
        ip("link", "del", bridge)


if __name__ == "__main__":
    main()
