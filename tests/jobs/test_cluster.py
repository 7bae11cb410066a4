"""Tiles done by the workers of a Dask cluster: the same bytes, whoever dies meanwhile."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import numpy as np
import pytest
import tifffile
from jaxtyping import UInt8

distributed = pytest.importorskip("distributed", reason="Dask is not installed: no clusters")

import psutil  # noqa: E402
from distributed.diagnostics.plugin import SchedulerPlugin  # noqa: E402

from nuclens.cli import INTERRUPTED  # noqa: E402
from nuclens.core.errors import ClusterFault, DataError, InputError, MemoryFault, UnreadableImageError  # noqa: E402
from nuclens.core.plan import Plan, instruction_class  # noqa: E402
from nuclens.core.slides import array_slide, open_image  # noqa: E402
from nuclens.core.tiling import Tile  # noqa: E402
from nuclens.core.types import Frame, Progress, no_instances  # noqa: E402
from nuclens.jobs import bench as bench_module  # noqa: E402
from nuclens.jobs import cluster as cluster_module  # noqa: E402
from nuclens.jobs import scheduler as scheduler_module  # noqa: E402
from nuclens.jobs.batch import BatchOptions, segment_files  # noqa: E402
from nuclens.jobs.bench import Bench, Delivery, Order, Terms, terms_of  # noqa: E402
from nuclens.jobs.results import JOURNAL  # noqa: E402
from nuclens.jobs.segment import Tool  # noqa: E402

Paint = Callable[..., UInt8[np.ndarray, "h w 3"]]
FILES = ("instances.csv", "instances.geojson", "instances.parquet")
FORMATS = ("csv", "geojson", "geoparquet")
TILES = 108

pytestmark = [pytest.mark.slow, pytest.mark.enable_socket]


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory, paint: Paint) -> Path:
    """A tiled picture of 108 tiles of 64 pixels."""
    discs = [(row, column, 6 + (row + column) % 7) for row in range(20, 560, 40) for column in range(25, 700, 50)]
    path = tmp_path_factory.mktemp("slides") / "a slide with µ.tif"
    tifffile.imwrite(path, paint(570, 710, discs), tile=(128, 128), compression="deflate")
    return path


@pytest.fixture(scope="module")
def options(painted_model: Path) -> BatchOptions:
    return BatchOptions(model=str(painted_model), mpp=0.25, formats=FORMATS, tile_px=64, threads=2)


@pytest.fixture(scope="module")
def whole(slide: Path, tmp_path_factory: pytest.TempPathFactory, options: BatchOptions) -> dict[str, bytes]:
    """Files of a run on this machine alone."""
    out = tmp_path_factory.mktemp("whole")
    [outcome] = segment_files([slide], out, options)
    assert outcome.record["nuclei"] > 150
    return files(out / slide.stem)


def files(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def blocks(folder: Path) -> int:
    return len(list((folder / JOURNAL / "blocks").glob("[0-9]*.arrow")))


def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.01)


def group_exists(leader: int) -> bool:
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    return True


class Watch(SchedulerPlugin):  # type: ignore[misc]
    """Counts tiles that workers were given, and may slow down how fast they are."""

    def __init__(self) -> None:
        self.begun = self.done = 0

    def transition(self, key: str, start: str, finish: str, *_: Any, **__: Any) -> None:
        if str(key).startswith("nuclens-"):
            self.begun += finish == "processing"
            self.done += (start, finish) == ("processing", "memory")


@contextmanager
def crowd(workers: int = 2, **settings: Any) -> Iterator[Any]:
    """A cluster of processes on this machine, each of one thread, that others may use by its address."""
    settings |= {"threads_per_worker": 1, "dashboard_address": None, "silence_logs": 100}
    settings |= {"scheduler_kwargs": {"dashboard_address": "127.0.0.1:0"}}
    cluster = distributed.LocalCluster(n_workers=workers, **settings)
    with closing(cluster):
        yield cluster


@contextmanager
def started(*command: str, ready: str, environment: dict[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """A program of Dask's that has said that it is ready, and is killed at the end."""
    words = [sys.executable, "-m", "dask", *command]
    process = subprocess.Popen(
        words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=os.environ | (environment or {})
    )
    try:
        assert process.stderr is not None
        assert any(ready in line for line in process.stderr), f"{command[0]} ended before it was ready"
        yield process
    finally:
        with suppress(psutil.Error):  # one that was killed before
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
        process.kill()
        process.wait()
        if process.stderr is not None:
            process.stderr.close()


def preload(path: Path, *lines: str) -> str:
    """A file that workers run before anything else; they do so twice."""
    path.write_text("\n".join(["import nuclens.jobs.bench as bench", "if not hasattr(bench, 'changed'):"]))
    with path.open("a") as file:
        file.write("".join(f"\n    {line}" for line in (*lines, "bench.changed = True")))
    return str(path)


def before_tiles(path: Path, *lines: str) -> str:
    """A file that has workers do something before each tile, or in place of it."""
    body = [f"    {line}" for line in (*lines, "return real(self, order, tile)")]
    head = "def tile(self, order, tile, real=bench.Bench.tile):"
    return preload(path, "import os, time", head, *body, "bench.Bench.tile = tile")


def slow(path: Path) -> str:
    """What has a run last for seconds, so that there is time to disturb it."""
    return before_tiles(path, "time.sleep(0.1)")


def test_local_workers_give_the_same_bytes(
    slide: Path, tmp_path: Path, options: BatchOptions, whole: dict[str, bytes]
) -> None:
    """Of several pictures, one of which cannot be opened; and what was begun alone is ended together."""
    broken = tmp_path / "broken.tif"
    broken.write_bytes(b"II*\0")
    seen: list[Progress] = []

    def end(progress: Progress) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        segment_files([slide], tmp_path / "out", options, end)
    for path in sorted((tmp_path / "out" / slide.stem / JOURNAL / "blocks").glob("*.arrow"))[20:]:
        path.unlink()  # what was under way was kept
    assert blocks(tmp_path / "out" / slide.stem) == 20
    outcomes = segment_files([broken, slide], tmp_path / "out", replace(options, scheduler="local:2"), seen.append)
    assert isinstance(outcomes[0].error, UnreadableImageError)
    assert outcomes[1].error is None
    assert files(tmp_path / "out" / slide.stem) == whole
    assert seen[-1].done == seen[-1].total == TILES
    assert outcomes[1].record["plan"]["instructions"] == instruction_class()
    assert outcomes[1].record["effort"]["core_seconds"]["decode"] > 0


def test_workers_killed_at_random(
    slide: Path, tmp_path: Path, options: BatchOptions, whole: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each death costs no more than what was under way, and no byte; also of one that had only just begun."""
    chance, watch, over = random.Random(3), Watch(), threading.Event()

    class Watched(distributed.LocalCluster):  # type: ignore[misc, name-defined]
        def __init__(self, **settings: Any) -> None:
            super().__init__(**settings)
            self.scheduler.add_plugin(watch)

    def kill() -> None:
        while len(killed) < 4 and not over.wait(chance.uniform(0, 3)):
            with suppress(psutil.Error):  # one that has ended by itself meanwhile
                workers = [one for one in psutil.Process().children() if "spawn_main" in " ".join(one.cmdline())]
                if workers and watch.done > 3:
                    killed.append(chance.choice(workers))
                    killed[-1].kill()

    killed: list[psutil.Process] = []
    monkeypatch.setattr("nuclens.jobs.scheduler.LocalCluster", Watched)
    thread = threading.Thread(target=kill)
    thread.start()
    try:
        [outcome] = segment_files(
            [slide], tmp_path / "out", replace(options, scheduler="local:2"), lambda _: time.sleep(0.05)
        )
    finally:
        over.set()
        thread.join()
    assert outcome.error is None
    assert killed
    assert files(tmp_path / "out" / slide.stem) == whole
    assert watch.done >= TILES
    # Two workers of one thread have at most four tiles between them.
    assert watch.begun - TILES <= 4 * len(killed)


def test_a_scheduler_that_dies_loses_what_was_under_way(
    slide: Path, tmp_path: Path, painted_model: Path, whole: dict[str, bytes]
) -> None:
    """Scheduler and workers are at other addresses than the run, and talk by TCP."""
    out = tmp_path / "out"
    folder, address = out / slide.stem, "tcp://127.0.0.2:28786"
    command = [sys.executable, "-m", "nuclens", "segment", str(slide), "--out", str(out), "--mpp", "0.25"]
    command += ["--model", str(painted_model), "--tile-size", "64", "--formats", *FORMATS, "--scheduler", address]
    scheduler = ("scheduler", "--host", "127.0.0.2", "--port", "28786", "--no-dashboard")
    worker = ("worker", address, "--host", "127.0.0.3", "--nthreads", "1", "--no-dashboard", "--death-timeout", "60")
    late = (*worker, "--preload", slow(tmp_path / "slow.py"))
    with started(*scheduler, ready="Scheduler at") as first, started(*late, ready="Registered to"):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        until(lambda: blocks(folder) >= 10 or process.poll() is not None)
        first.kill()
        said = process.communicate(timeout=60)[1]
        assert process.returncode == ClusterFault.exit_code
        assert said.count("\n") == 1
        assert "the scheduler is gone; finished tiles are kept" in said
        kept = blocks(folder)
        assert 10 <= kept < TILES
        assert not (folder / "run.json").exists()
    with started(*scheduler, ready="Scheduler at"), started(*worker, ready="Registered to"):
        assert subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0
    assert files(folder) == whole
    log = (out / "nuclens.log").read_text(encoding="utf-8")
    assert [int(count) for count in re.findall(r"tiles, (\d+) of them done before", log)] == [0, kept]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no groups of processes to signal")
def test_ctrl_c_ends_all_processes_in_a_line(slide: Path, tmp_path: Path, painted_model: Path) -> None:
    """A terminal interrupts the workers too, which must not mind; all are of one group, which is empty at the end."""
    command = [sys.executable, "-m", "nuclens", "segment", str(slide), "--out", str(tmp_path / "out"), "--mpp", "0.25"]
    command += ["--model", str(painted_model), "--tile-size", "64", "--threads", "2", "--scheduler", "local:2"]
    late = os.environ | {"DASK_DISTRIBUTED__WORKER__PRELOAD": str([slow(tmp_path / "slow.py")])}
    # Tests that a shell runs in the background ignore it, and so would what they start.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True, env=late
    )
    signal.signal(signal.SIGINT, before)
    until(lambda: blocks(tmp_path / "out" / slide.stem) >= 4 or process.poll() is not None)
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert (process.returncode, said) == (INTERRUPTED, "interrupted; run the same command again to go on\n")
    until(lambda: not group_exists(process.pid))


def test_a_scheduler_behind_tls(
    slide: Path, tmp_path: Path, painted_model: Path, options: BatchOptions, whole: dict[str, bytes]
) -> None:
    """Set up as docs/clusters.md says; who has no certificate is told."""
    security, address = distributed.Security.temporary(), "tls://127.0.0.2:28787"
    environment = {"DASK_DISTRIBUTED__COMM__TLS__CA_FILE": str(tmp_path / "ca.pem")}
    (tmp_path / "ca.pem").write_text(security.tls_ca_file)
    for role in ("scheduler", "worker", "client"):
        for part in ("cert", "key"):
            file = tmp_path / f"{role}-{part}.pem"
            file.write_text(getattr(security, f"tls_{role}_{part}"))
            environment[f"DASK_DISTRIBUTED__COMM__TLS__{role.upper()}__{part.upper()}"] = str(file)
    command = [sys.executable, "-m", "nuclens", "segment", str(slide), "--out", str(tmp_path / "out"), "--mpp", "0.25"]
    command += ["--model", str(painted_model), "--tile-size", "64", "--formats", *FORMATS, "--scheduler", address]
    scheduler = ("scheduler", "--protocol", "tls", "--host", "127.0.0.2", "--port", "28787", "--no-dashboard")
    worker = ("worker", address, "--host", "tls://127.0.0.3", "--nthreads", "2", "--no-dashboard", "--no-nanny")
    with (
        pytest.MonkeyPatch.context() as patch,
        started(*scheduler, ready="Scheduler at", environment=environment),
        started(*worker, ready="Registered to", environment=environment),
    ):
        with pytest.raises(ClusterFault, match="wanted certificates, and this command has none"):
            segment_files([slide], tmp_path / "out", replace(options, scheduler=address))
        for name, value in environment.items():
            patch.setenv(name, value)
        assert subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode == 0
    assert files(tmp_path / "out" / slide.stem) == whole


def test_two_runs_at_once_do_not_disturb_each_other(
    slide: Path, tmp_path: Path, options: BatchOptions, whole: dict[str, bytes]
) -> None:
    """The second begins and ends, with the same model, while the first is under way; and nothing piles up."""
    tasks: list[int] = []
    with crowd() as cluster:
        there = replace(options, scheduler=cluster.scheduler_address)

        def report(_: Progress) -> None:
            tasks.append(len(cluster.scheduler.tasks))
            if len(tasks) == 10:
                [second] = segment_files([slide], tmp_path / "second", there)
                assert second.error is None

        [first] = segment_files([slide], tmp_path / "first", there, report)
        assert first.error is None
        assert not [name for name in cluster.scheduler.worker_plugins if name.startswith("nuclens")]
    assert files(tmp_path / "first" / slide.stem) == files(tmp_path / "second" / slide.stem) == whole
    # Two workers of one thread have at most four tiles between them; those that are let go leave a moment later.
    assert max(tasks) <= 12


def test_what_a_killed_run_left_on_workers_is_cleared(slide: Path, tmp_path: Path, options: BatchOptions) -> None:
    """A model on every worker, of a command that is no longer there to dismiss it."""
    with crowd(1) as cluster:
        with distributed.Client(cluster) as client:
            tool = Tool(options.model, "openvino", "", 64)
            client.register_plugin(Bench(tool, terms_of(tool.load(1)), client.id))
            left = f"nuclens {client.id}"
        assert left in cluster.scheduler.worker_plugins
        [outcome] = segment_files([slide], tmp_path / "out", replace(options, scheduler=cluster.scheduler_address))
        assert outcome.error is None
        assert left not in cluster.scheduler.worker_plugins


def test_a_crew_counts_those_that_take_tiles() -> None:
    """Not those that were refused, or are paused because their memory is nearly full; and not the first five only."""
    worker = {"nthreads": 2, "resources": {"ours": 2}, "status": "running"}
    workers = {f"tcp://{k}": worker for k in range(7)}
    workers |= {"refused": worker | {"resources": {}}, "full": worker | {"status": "paused"}}

    class Client:
        status = "running"

        def scheduler_info(self, n_workers: int = 5) -> dict[str, Any]:
            names = list(workers)[: n_workers if n_workers >= 0 else None]
            return {"workers": {name: workers[name] for name in names}}

    from nuclens.jobs.cluster import Crew

    assert Crew(Client(), "here", "ours", "avx2").hands() == 14


def test_workers_that_round_otherwise_are_refused(
    slide: Path,
    tmp_path: Path,
    options: BatchOptions,
    whole: dict[str, bytes],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """They stand idle, and are named, unless the user says that it does not matter."""
    other = tmp_path / "other.py"
    other.write_text("import nuclens.engines.openvino as engine\nengine.instruction_class = lambda: 'abacus'\n")
    file = tmp_path / "scheduler.json"
    with crowd() as cluster:
        address = cluster.scheduler_address
        file.write_text(json.dumps(cluster.scheduler.identity()))
        worker = ("worker", address, "--nthreads", "1", "--no-dashboard", "--no-nanny", "--preload", str(other))
        with started(*worker, ready="Registered to"):
            until(lambda: len(cluster.scheduler.workers) == 3)
            [outcome] = segment_files([slide], tmp_path / "out", replace(options, scheduler=address))
            assert outcome.error is None
            assert outcome.record["plan"]["instructions"] == instruction_class()
            assert files(tmp_path / "out" / slide.stem) == whole
            [line] = [record.message for record in caplog.records if "is refused" in record.message]
            assert f"processor abacus and not {instruction_class()}" in line
            mixed = replace(options, scheduler=str(file), mixed=True)
            [outcome] = segment_files([slide], tmp_path / "mixed", mixed)
            assert outcome.record["plan"]["instructions"] == "mixed"
            assert outcome.record["nuclei"] > 150


def test_a_tile_that_kills_its_workers_ends_its_picture(slide: Path, tmp_path: Path, options: BatchOptions) -> None:
    """Not the cluster, nor the others."""
    deadly = before_tiles(tmp_path / "deadly.py", "if order.name.endswith('bad.tif') and tile.index == 7: os._exit(1)")
    bad = tmp_path / "bad.tif"
    bad.write_bytes(slide.read_bytes())
    import dask

    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        crowd(preload=[deadly]) as cluster,
    ):
        outcomes = segment_files([bad, slide], tmp_path / "out", replace(options, scheduler=cluster.scheduler_address))
    assert isinstance(outcomes[0].error, ClusterFault)
    assert str(outcomes[0].error).startswith(f"{bad}: ")
    assert "tile 7 died" in str(outcomes[0].error)
    assert outcomes[1].error is None
    assert 0 < blocks(tmp_path / "out" / "bad") < TILES


def test_tiles_that_cannot_be_read_are_left_out_as_without(slide: Path, tmp_path: Path, options: BatchOptions) -> None:
    damaged = tmp_path / "damaged.tif"
    data = bytearray(slide.read_bytes())
    with tifffile.TiffFile(slide) as file:
        place = file.pages.first.dataoffsets[8]
    data[place : place + 40] = b"\xff" * 40
    damaged.write_bytes(data)
    [alone] = segment_files([damaged], tmp_path / "alone", options)
    [together] = segment_files([damaged], tmp_path / "together", replace(options, scheduler="local:1"))
    assert alone.record["unreadable"] == together.record["unreadable"] != {}
    assert alone.record["counts"] == together.record["counts"]
    assert files(tmp_path / "alone" / "damaged") == files(tmp_path / "together" / "damaged")


@pytest.mark.parametrize("scheduler", ["10.0.0.1", "local:0", "local:two", "absent.json"])
def test_what_is_no_scheduler_is_refused(slide: Path, tmp_path: Path, options: BatchOptions, scheduler: str) -> None:
    with pytest.raises(InputError, match=r"wanted local, local:N, an address"):
        segment_files([slide], tmp_path / "out", replace(options, scheduler=scheduler))


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"address": 8786}', '{"address": "tcp://127'])
def test_a_file_that_no_scheduler_wrote_is_refused(
    slide: Path, tmp_path: Path, options: BatchOptions, text: str
) -> None:
    file = tmp_path / "scheduler.json"
    file.write_text(text)
    with pytest.raises(InputError, match=r"scheduler\.json: no address in it; wanted what"):
        segment_files([slide], tmp_path / "out", replace(options, scheduler=str(file)))


def test_a_scheduler_that_is_not_there_is_told(
    slide: Path, tmp_path: Path, options: BatchOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler_module, "_ANSWER_S", 1)
    with pytest.raises(ClusterFault, match=r"^--scheduler tcp://127\.0\.0\.1:9: no answer .*`dask scheduler`$"):
        segment_files([slide], tmp_path / "out", replace(options, scheduler="tcp://127.0.0.1:9"))


def test_what_takes_the_call_and_says_nothing_is_told(
    slide: Path, tmp_path: Path, options: BatchOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduler_module, "_ANSWER_S", 1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"tcp://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(ClusterFault, match=rf"^--scheduler {address}: no answer \(silence\); start one"):
            segment_files([slide], tmp_path / "out", replace(options, scheduler=address))


def test_a_crew_without_the_model_is_told(slide: Path, tmp_path: Path, options: BatchOptions) -> None:
    """A model folder that workers do not see, or see another one in."""
    other = preload(
        tmp_path / "without.py",
        "from nuclens.core.errors import InputError",
        "def load(self, threads): raise InputError('model m: no such folder')",
        "bench.Tool.load = load",
    )
    with crowd(1, preload=[other]) as cluster:
        address = cluster.scheduler_address
        with pytest.raises(ClusterFault, match=r"no worker can do these tiles: tcp://.*: model m: no such folder"):
            segment_files([slide], tmp_path / "out", replace(options, scheduler=address))


def test_a_bug_ends_the_run(slide: Path, tmp_path: Path, options: BatchOptions) -> None:
    """It is no fault of a picture, and nothing waits for what will not come."""
    faulty = before_tiles(tmp_path / "faulty.py", "raise ZeroDivisionError('a bug')")
    with crowd(1, preload=[faulty]) as cluster, pytest.raises(ZeroDivisionError, match="a bug"):
        segment_files([slide], tmp_path / "out", replace(options, scheduler=cluster.scheduler_address))


def test_a_worker_whose_disk_is_gone_leaves_no_hole(slide: Path, tmp_path: Path, options: BatchOptions) -> None:
    """The others can read what it cannot, so its tile is no part of the slide that is damaged."""
    lost = before_tiles(
        tmp_path / "lost.py", "if tile.index == 7: return bench.Delivery(None, f'{order.name}: vanished', {})"
    )
    with crowd(1, preload=[lost]) as cluster:
        [outcome] = segment_files([slide], tmp_path / "out", replace(options, scheduler=cluster.scheduler_address))
    assert re.search(r"µ\.tif: vanished \(on tcp://.*\), but can here; see to that machine", str(outcome.error))
    assert not (tmp_path / "out" / slide.stem / "run.json").exists()


def test_a_picture_that_does_not_fit_into_a_workers_memory_fails_alone(
    slide: Path, tmp_path: Path, options: BatchOptions
) -> None:
    full = before_tiles(
        tmp_path / "full.py", "if order.name.endswith('big.tif'): raise MemoryError('Unable to allocate 3.2 GiB')"
    )
    big = tmp_path / "big.tif"
    big.write_bytes(slide.read_bytes())
    with crowd(1, preload=[full]) as cluster:
        outcomes = segment_files([big, slide], tmp_path / "out", replace(options, scheduler=cluster.scheduler_address))
    assert isinstance(outcomes[0].error, MemoryFault)
    assert re.search(r"too little memory \(Unable to allocate 3\.2 GiB\); give a smaller", str(outcomes[0].error))
    assert outcomes[1].error is None


def test_a_worker_without_nuclens_is_named_and_lives(slide: Path, tmp_path: Path, options: BatchOptions) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\n"
        "class Wall:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'nuclens': raise ModuleNotFoundError(f'No module named {name!r}')\n"
        "sys.meta_path.insert(0, Wall())\n"
    )
    with crowd(1) as cluster:
        address = cluster.scheduler_address
        worker = ("worker", address, "--nthreads", "1", "--no-dashboard", "--no-nanny")
        with started(*worker, ready="Registered to", environment={"PYTHONPATH": str(tmp_path)}) as process:
            until(lambda: len(cluster.scheduler.workers) == 2)
            with pytest.raises(ClusterFault, match=r"there is no nuclens where tcp://.* was started; install it there"):
                segment_files([slide], tmp_path / "out", replace(options, scheduler=address))
            assert process.poll() is None


@pytest.mark.parametrize("later_s", [0, 0.5])
def test_a_scheduler_that_dies_before_a_worker_comes_is_told(
    slide: Path, tmp_path: Path, options: BatchOptions, monkeypatch: pytest.MonkeyPatch, later_s: float
) -> None:
    """Whether or not it was asked for one already."""
    file = tmp_path / "scheduler.json"
    begin = ("scheduler", "--scheduler-file", str(file), "--port", "0", "--host", "127.0.0.1", "--no-dashboard")
    real = cluster_module._found

    def found(*given: Any) -> Any:
        timer = threading.Timer(later_s, process.kill)
        timer.start()
        try:
            return real(*given)
        finally:
            timer.join()

    monkeypatch.setattr(cluster_module, "_found", found)
    with started(*begin, ready="Scheduler at") as process:
        until(lambda: file.exists() and file.read_text().endswith("}"))
        with pytest.raises(ClusterFault, match=r"scheduler\.json: the scheduler is gone; start it again"):
            segment_files([slide], tmp_path / "out", replace(options, scheduler=str(file)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no forks: nothing to test")
def test_a_forked_process_has_a_loop_of_its_own() -> None:
    """The parent's runs in a thread that a child does not have; waiting for it would take for ever."""
    said = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, timeout=120, check=False)
    assert said.stdout == "True True\n", said.stderr


FORK = """
import asyncio, os, signal
from nuclens.jobs.scheduler import _loop

async def one():
    return 1

def alive():
    return asyncio.run_coroutine_threadsafe(one(), _loop().asyncio_loop).result(60) == 1

before = alive()
child = os.fork()
if not child:
    signal.alarm(60)
    os._exit(0 if alive() else 1)
print(before, os.waitpid(child, 0)[1] == 0)
"""


def test_a_slide_that_is_being_fetched_keeps_no_other_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is opened once, whoever wants it meanwhile, and closed when none of the last few was read for longer."""
    here, opened, closed = threading.Event(), list[str](), list[str]()

    class Opened:
        levels = ((9, 9),)

        def __init__(self, name: str) -> None:
            self.name = name

        def close(self) -> None:
            closed.append(self.name)

    def slowly(source: str, *_: Any, **__: Any) -> Opened:
        opened.append(source)
        assert source != "far" or here.wait(30)
        return Opened(source)

    def lent(name: str) -> str:
        # Of URLs the query alone, which is not in the name, may tell two slides apart.
        with slides.lent(Order("shown", name, plan, Frame(9, 9, 0.25), ((9, 9),), None)) as slide:
            return cast("Opened", slide).name

    monkeypatch.setattr(bench_module, "open_image", slowly)
    plan, slides = Plan("image", "model", "engine", "f32", "avx2", 64, 32, 0.25, 1.0), bench_module._Slides()
    with ThreadPoolExecutor(2) as pool:
        far = [pool.submit(lent, "far") for _ in range(2)]
        until(lambda: opened == ["far"])
        assert [lent(name) for name in ("a", "b", "a", "c", "d")] == ["a", "b", "a", "c", "d"]
        here.set()
        assert [one.result() for one in far] == ["far", "far"]
    assert (opened, closed) == (["far", "a", "b", "c", "d"], ["b"])
    slides.close()
    assert sorted(closed) == ["a", "b", "c", "d", "far"]


def test_workers_open_a_signed_url_that_nobody_is_shown(
    slide: Path, tmp_path: Path, options: BatchOptions, whole: dict[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    pytest.importorskip("aiohttp", reason="aiohttp is not installed: no URLs")

    class Signed(SimpleHTTPRequestHandler):
        def send_head(self) -> Any:
            return super().send_head() if self.path.endswith("?signature=secret") else self.send_error(403)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    out = tmp_path / "out"
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Signed, directory=slide.parent)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/{quote(slide.name)}"
        try:
            [outcome] = segment_files(
                [f"{url}?signature=secret"], out, replace(options, scheduler="local:2", cache=tmp_path / "cache")
            )
        finally:
            server.shutdown()
            thread.join()
    assert outcome.error is None
    [folder] = (path for path in out.iterdir() if path.is_dir())
    assert files(folder) == whole
    assert "secret" not in caplog.text + "".join(path.read_text("latin-1") for path in out.rglob("*.*"))
    plan, frame = Plan("image", "model", "engine", "f32", "avx2", 64, 32, 0.25, 1.0), Frame(9, 9, 0.25)
    assert "secret" not in repr(Order(url, f"{url}?signature=secret", plan, frame, ((9, 9),), None))  # as Dask logs it


def test_a_picture_that_is_another_on_the_worker_is_refused(slide: Path, painted_model: Path) -> None:
    tool = Tool(str(painted_model), "openvino", "", 64)
    segmenter = tool.load(1)
    with closing(open_image(slide)) as opened:
        picture = segmenter.picture("a", opened, 0.25)
    size = slide.stat().st_size
    order = Order(str(slide), str(slide), picture.plan, picture.frame, ((570, 710),), size)
    bench = Bench(tool, terms_of(segmenter), "here")

    class Worker:
        address, status = "here", None

        class State:
            nthreads = 1

        state = State()

        async def set_resources(self, **resources: float) -> None:
            assert resources == {bench.name: 1}

    import asyncio

    asyncio.run(bench.setup(Worker()))
    assert bench.tile(order, picture.tiles[0]).nuclei is not None
    bench.teardown(Worker())
    asyncio.run(bench.setup(Worker()))
    image = replace(order.plan, reader="image")  # which reads no TIFF
    with pytest.raises(UnreadableImageError, match="wanted a PNG"):
        bench.tile(replace(order, plan=image), picture.tiles[0])
    for change in ({"levels": ((570, 711),)}, {"size": size + 1}):
        with pytest.raises(DataError, match=r"has levels of .*wanted the same file under the same path"):
            bench.tile(replace(order, **change), picture.tiles[0])
    bench.teardown(Worker())


def test_terms_tell_what_differs() -> None:
    own = Terms("1.0", "openvino 1", "abc", "avx2")
    assert own.differences(own) == ""
    assert own.differences(replace(own, nuclens="0.9")) == "nuclens 0.9 and not 1.0"
    assert own.differences(replace(own, processor="sse")) == "processor sse and not avx2"
    assert replace(own, processor="").differences(replace(own, processor="sse")) == ""


def test_pictures_wait_until_the_files_of_others_are_written(
    painted_model: Path, paint: Paint, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Workers that do tiles faster than files are written do not fill the memory with open pictures."""

    class Done:
        def __init__(self, order: Order) -> None:
            self.delivery = Delivery(no_instances(order.frame, segmenter.model.card.schema), "", {})

        def add_done_callback(self, call: Callable[[Any], None]) -> None:
            call(self)

        def result(self) -> Delivery:
            return self.delivery

        def release(self) -> None:
            pass

    class Client:
        status = "running"

        def scheduler_info(self, n_workers: int) -> dict[str, Any]:
            return {"workers": {"one": {"nthreads": 8, "resources": {"bench": 8}, "status": "running"}}}

        def submit(self, task: Any, bench: str, order: Order, tile: Tile, **_: Any) -> Done:
            return Done(order)

    segmenter = Tool(str(painted_model), "openvino", "", 64).load(1)
    begun, ended, most = [0], [0], [0]

    def pictures() -> Iterator[Any]:
        for _ in range(30):
            begun[0] += 1
            most[0] = max(most[0], begun[0] - ended[0])
            yield segmenter.picture("a", array_slide(paint(60, 60, [])), 0.25)

    def finish(_: Any) -> None:
        time.sleep(0.02)
        ended[0] += 1

    monkeypatch.setattr(cluster_module, "_HELD_PX", 1)
    crew = cluster_module.Crew(Client(), "here", "bench", "none")
    assert list(cluster_module.run_on(crew, segmenter, pictures(), finish)) == [None] * 30
    assert most[0] <= 6
