"""Files of other places: fetched once and whole, shared, gone with the last user, and told in one line if not."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest

from nuclens.core import remote
from nuclens.core.errors import DataError, InputError, OutputError, UnreadableImageError
from nuclens.core.remote import delivered, fetch, fetched, put, sending, state
from nuclens.core.schema import ClassSchema
from nuclens.core.slides import open_image
from nuclens.core.types import Frame, no_instances, read_instances
from nuclens.testing.slides import write_dicom, write_mrxs

fsspec: Any = pytest.importorskip("fsspec", reason="fsspec is not installed")
LOOPBACK = (pytest.mark.enable_socket, pytest.mark.allow_hosts(["127.0.0.1"]))
SECRETS = "?X-Amz-Signature=secret"


@dataclass
class Web:
    """A web server in threads, with the manners of many.

    Attributes:
        files: By path.
        ranges: Whether it gives parts.
        lengths: Whether it says how long a file is.
        head: Whether it answers HEAD.
        breaks: After how many bytes it hangs up, one answer after another.
        status: What it answers in place of a file, one answer after another.
        gets: First byte of every part that was asked for, with how many bytes were sent.
    """

    files: dict[str, bytes]
    ranges: bool = True
    lengths: bool = True
    head: bool = True
    breaks: list[int] = field(default_factory=list)
    status: list[int] = field(default_factory=list)
    gets: list[tuple[int, int]] = field(default_factory=list)
    tag: str = '"1"'
    port: int = 0
    cache: Path = Path()

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.port}/{name}{SECRETS}"

    def wait(self, size: int) -> None:
        """Until so many bytes have arrived in the cache, so that those on the way are not lost with the connection."""
        until = time.monotonic() + 5
        while time.monotonic() < until and not any(part.stat().st_size >= size for part in self.cache.rglob("*.part")):
            time.sleep(0.01)

    @property
    def sent(self) -> int:
        return sum(count for _, count in self.gets)


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Web]:
    pytest.importorskip("aiohttp", reason="aiohttp is not installed")
    monkeypatch.setattr(remote, "_WAITS_S", (0.01, 0.01))
    known = Web({}, cache=tmp_path)

    class Answer(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            data = known.files.get(self.path.partition("?")[0].lstrip("/"))
            if data is None or (not body and not known.head) or (body and known.status):
                self.send_error(known.status.pop(0) if body and known.status else 404 if data is None else 403)
                return
            begin, asked = 0, self.headers.get("Range")
            if asked and known.ranges:
                begin, _, last = asked.removeprefix("bytes=").partition("-")  # type: ignore[assignment]
                begin, end = int(begin), int(last) + 1 if last else len(data)
                self.send_response(206)
                self.send_header("Content-Range", f"bytes {begin}-{min(end, len(data)) - 1}/{len(data)}")
                data = data[begin:end]
            else:
                self.send_response(200)
            if known.lengths:
                self.send_header("Content-Length", str(len(data)))
            if known.tag:
                self.send_header("ETag", known.tag)
            self.end_headers()
            if body:
                kept = known.breaks.pop(0) if known.breaks else len(data)
                known.gets.append((begin, len(data[:kept])))
                self.wfile.write(data[:kept])
                if kept < len(data):
                    known.wait(begin + kept)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    known.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield known
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def memory() -> Iterator[Any]:
    system = fsspec.filesystem("memory")
    system.store.clear()
    yield system
    system.store.clear()


DATA = np.random.default_rng(0).integers(0, 256, 300_000, np.uint8).tobytes()


def left(cache: Path) -> list[Path]:
    return [path for path in cache.rglob("*") if path.is_file()]


@pytest.mark.parametrize(("ranges", "lengths", "head"), [
    (True, True, True), (False, True, True), (False, False, True), (True, True, False), (False, False, False),
])  # fmt: skip
class TestWebServers:
    pytestmark: ClassVar = list(LOOPBACK)

    def test_a_file_arrives_whole_and_goes_when_closed(
        self, web: Web, ranges: bool, lengths: bool, head: bool, tmp_path: Path
    ) -> None:
        web.files["b/a.bin"] = DATA
        web.ranges, web.lengths, web.head = ranges, lengths, head
        copy = fetch(web.url("b/a.bin"), tmp_path)
        assert copy.path.name == "a.bin"
        assert copy.path.read_bytes() == DATA
        copy.close()
        copy.close()
        assert left(tmp_path) == []

    def test_a_connection_that_breaks_is_made_again(
        self, web: Web, ranges: bool, lengths: bool, head: bool, tmp_path: Path
    ) -> None:
        """Where nobody says how long a file is, nobody can see that it was cut short."""
        if not lengths:
            pytest.skip("a file without a length has no end")
        web.files["a.bin"] = DATA
        web.ranges, web.lengths, web.head = ranges, lengths, head
        # Without HEAD the first two answers only say what there is.
        web.breaks = [*([0, 0] if not head else []), 200_000]
        with closing(fetch(web.url("a.bin"), tmp_path)) as copy:
            assert copy.path.read_bytes() == DATA
        if ranges and head:
            assert web.gets == [(0, 200_000), (200_000, 100_000)]


class TestFailures:
    pytestmark: ClassVar = list(LOOPBACK)

    @pytest.mark.parametrize(("status", "told"), [
        ([403] * 9, "no right to it: account, key or signature are missing, wrong or too old"),
        ([404] * 9, "there is no such file, or no right to see it"),
        ([500] * 9, "500, message='Internal Server Error', url='http://127.0.0.1:PORT/a.bin'"),
    ])  # fmt: skip
    def test_refusals_are_told_without_secrets(
        self, web: Web, status: list[int], told: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        web.files["a.bin"], web.status = DATA, status
        with pytest.raises(DataError) as caught:
            fetch(web.url("a.bin"), tmp_path)
        text = f"http://127.0.0.1:{web.port}/a.bin: cannot be fetched ({told.replace('PORT', str(web.port))})"
        assert str(caught.value) == text
        assert caught.value.__cause__ is None  # whose text would hold the signature
        assert "secret" not in "".join(record.getMessage() for record in caplog.records if "nuclens" in record.name)

    def test_a_server_that_is_overloaded_is_asked_again(self, web: Web, tmp_path: Path) -> None:
        web.files["a.bin"], web.status = DATA, [503, 429]
        with closing(fetch(web.url("a.bin"), tmp_path)) as copy:
            assert copy.path.read_bytes() == DATA

    def test_who_breaks_off_for_ever_is_given_up(self, web: Web, tmp_path: Path) -> None:
        web.files["a.bin"], web.breaks = DATA, [1000, *[0] * 99]
        with pytest.raises(DataError, match="cannot be fetched"):
            fetch(web.url("a.bin"), tmp_path)
        # What arrived is there for the next try.
        web.breaks, web.gets = [], []
        with closing(fetch(web.url("a.bin"), tmp_path)) as copy:
            assert copy.path.read_bytes() == DATA
        assert web.gets == [(1000, len(DATA) - 1000)]

    def test_another_state_is_another_copy(self, web: Web, tmp_path: Path) -> None:
        web.files["a.bin"] = DATA
        first = fetch(web.url("a.bin"), tmp_path)
        web.files["a.bin"], web.tag = DATA[::-1], '"2"'
        second = fetch(web.url("a.bin"), tmp_path)
        assert (first.path.read_bytes(), second.path.read_bytes()) == (DATA, DATA[::-1])
        first.close()
        second.close()
        assert left(tmp_path) == []

    def test_without_a_version_nothing_is_shared(self, web: Web, tmp_path: Path) -> None:
        web.files["a.bin"], web.tag = DATA, ""
        with closing(fetch(web.url("a.bin"), tmp_path)) as one, closing(fetch(web.url("a.bin"), tmp_path)) as other:
            assert one.path != other.path
        assert left(tmp_path) == []

    def test_no_room_is_told_before_anything_is_fetched(
        self, web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        web.files["a.bin"] = DATA
        usage = shutil.disk_usage(tmp_path)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
        with pytest.raises(OutputError, match=r"/a.bin: takes 0.00 GB more, .* has 0.00 GB free; give --cache DIR"):
            fetch(web.url("a.bin"), tmp_path)
        assert web.sent == 0

    def test_a_disk_that_fills_up_is_told_and_freed(
        self, web: Web, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        web.files["a.bin"] = DATA

        def full(*_: Any) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr(Path, "replace", full)
        with pytest.raises(OutputError, match=r"/a.bin: the disk of .* is full; give --cache DIR"):
            fetch(web.url("a.bin"), tmp_path)
        assert [path for path in left(tmp_path) if path.stat().st_size] == []


class TestSharing:
    pytestmark: ClassVar = list(LOOPBACK)

    def test_many_users_fetch_once(self, web: Web, tmp_path: Path) -> None:
        web.files["a.bin"] = DATA
        with ThreadPoolExecutor(8) as pool:
            copies = list(pool.map(lambda _: fetch(web.url("a.bin"), tmp_path), range(8)))
        assert web.sent == len(DATA)
        assert len({copy.path for copy in copies}) == 1
        for copy in copies:
            assert copy.path.read_bytes() == DATA
            copy.close()
        assert left(tmp_path) == []

    def test_opening_and_closing_at_the_same_time_never_meet_half_a_copy(self, web: Web, tmp_path: Path) -> None:
        web.files["a.bin"] = DATA

        def use(_: int) -> bool:
            with closing(fetch(web.url("a.bin"), tmp_path)) as copy:
                return copy.path.read_bytes() == DATA

        with ThreadPoolExecutor(6) as pool:
            assert all(pool.map(use, range(60)))
        assert left(tmp_path) == []

    def test_processes_share_and_a_killed_one_leaves_its_copy_to_the_next(self, web: Web, tmp_path: Path) -> None:
        web.files["a.bin"] = DATA
        program = (
            "import sys, time; from pathlib import Path; from nuclens.core.remote import fetch\n"
            "copy = fetch(sys.argv[1], Path(sys.argv[2])); print(copy.path, flush=True); time.sleep(60)"
        )
        command = [sys.executable, "-c", program, web.url("a.bin"), str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
            assert other.stdout is not None
            path = Path(other.stdout.readline().strip())
            with closing(fetch(web.url("a.bin"), tmp_path)) as copy:
                assert copy.path == path
            assert path.read_bytes() == DATA  # the other still uses it
            other.send_signal(signal.SIGKILL)
            other.wait()
        with closing(fetch(web.url("a.bin"), tmp_path)) as copy:
            assert copy.path.read_bytes() == DATA
        assert web.sent == len(DATA)
        assert left(tmp_path) == []

    def test_what_was_forgotten_for_a_day_is_removed(self, web: Web, tmp_path: Path) -> None:
        web.files["a.bin"] = web.files["b.bin"] = DATA
        users = fetch(web.url("a.bin"), tmp_path)
        kept = fetch(web.url("b.bin"), tmp_path)
        for turn in tmp_path.glob("*/turn"):
            os.utime(turn, (time.time() - 2 * 24 * 3600,) * 2)
        # As if its process had been killed: the lock is gone, the files are there.
        found = users._release.detach()
        assert found is not None
        os.close(found[2][1])
        web.files["c.bin"] = b"c"
        fetch(web.url("c.bin"), tmp_path).close()
        assert not users.path.exists()
        assert kept.path.read_bytes() == DATA
        kept.close()


def test_a_copy_nobody_closes_goes_with_its_last_reference(memory: Any, tmp_path: Path) -> None:
    memory.pipe("/b/a.bin", DATA)
    copy = fetch("memory://b/a.bin", tmp_path)
    assert copy.path.exists()
    del copy
    assert left(tmp_path) == []


def test_the_state_tells_files_apart_without_fetching_them(memory: Any, tmp_path: Path) -> None:
    memory.pipe("/b/a.bin", DATA)
    before = state("memory://b/a.bin")
    with closing(fetch("memory://b/a.bin", tmp_path)) as copy:
        assert copy.state == before == state("memory://b/a.bin")
    memory.pipe("/b/a.bin", DATA)
    assert state("memory://b/a.bin") not in ("", before)
    with pytest.raises(DataError, match="memory://b: a folder; wanted a file"):
        state("memory://b")


def picture(path: Path) -> np.ndarray:
    rgb = np.random.default_rng(0).integers(0, 256, (96, 64, 3), np.uint8)
    cv2.imwrite(str(path), rgb[..., ::-1])
    return rgb


def upload(memory: Any, folder: Path, place: str) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            memory.pipe(f"/{place}/{path.relative_to(folder)}", path.read_bytes())


def test_a_picture_is_opened_by_its_url(memory: Any, tmp_path: Path) -> None:
    rgb = picture(tmp_path / "a.png")
    memory.pipe("/b/a.png", (tmp_path / "a.png").read_bytes())
    for source in ("memory://b/a.png", Path("memory://b/a.png")):
        with closing(open_image(source, tmp_path / "cache")) as slide, closing(open_image(tmp_path / "a.png")) as here:
            np.testing.assert_array_equal(slide.read((0, 0, 96, 64)), rgb)
            for name in ("shape", "levels", "mpp", "power", "digest", "notes", "origin", "plane"):
                assert getattr(slide, name) == getattr(here, name)
            with pytest.raises(InputError, match="no level 1"):
                slide.read((0, 0, 1, 1), 1)
    assert left(tmp_path / "cache") == []
    with closing(open_image((tmp_path / "a.png").as_uri())) as slide:
        assert slide.shape == (96, 64)


@pytest.mark.parametrize(("name", "data", "told"), [
    ("a.png", b"no picture", "memory://b/a.png: .*"),
    ("a.doc", b"text", "memory://b/a.doc: no reader for .doc"),
    ("gone.png", None, "memory://b/gone.png: cannot be fetched .there is no such file"),
])  # fmt: skip
def test_errors_name_the_url_and_leave_nothing(
    memory: Any, name: str, data: bytes | None, told: str, tmp_path: Path
) -> None:
    if data is not None:
        memory.pipe(f"/b/{name}", data)
    with pytest.raises(UnreadableImageError, match=f"^{told}") as caught:
        open_image(f"memory://b/{name}", tmp_path)
    assert str(tmp_path) not in str(caught.value)
    assert left(tmp_path) == []


def test_slides_in_several_files_come_with_all_of_them(memory: Any, tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
    (tmp_path / "here" / "d").mkdir(parents=True)
    write_mrxs(tmp_path / "here" / "m.mrxs", {(2, 2): rgb, (3, 4): rgb}, (6, 8))
    write_dicom(tmp_path / "here" / "d" / "one.dcm", rgb, number=1)
    write_dicom(tmp_path / "here" / "d" / "two.dcm", rgb[::4, ::4].copy(), number=2, mpp=1.0)
    upload(memory, tmp_path / "here", "b/c")
    for name in ("m.mrxs", "d/one.dcm", "d/two.dcm"):
        with (
            closing(open_image(f"memory://b/c/{name}", tmp_path / "cache")) as slide,
            closing(open_image(tmp_path / "here" / name)) as here,
        ):
            assert (slide.digest, slide.levels) == (here.digest, here.levels)
            np.testing.assert_array_equal(slide.read((0, 0, *slide.shape)), here.read((0, 0, *slide.shape)))
    assert left(tmp_path / "cache") == []


def test_a_part_that_leads_out_of_the_folder_is_refused(
    memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory.pipe("/b/m.mrxs", b"")
    monkeypatch.setattr(type(memory), "find", lambda self, path: ["/b/m/../../../evil"])
    with pytest.raises(UnreadableImageError, match=r"memory://b/m.mrxs: a file beside it is called"):
        open_image("memory://b/m.mrxs", tmp_path)


def test_results_are_read_and_saved_by_url(memory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    nuclei = no_instances(Frame(9, 7, 0.25), ClassSchema(("a",), ()))
    nuclei.save("memory://b/run/instances.parquet")
    again = read_instances("memory://b/run/instances.parquet")
    assert (again.frame, again.schema) == (nuclei.frame, nuclei.schema)
    memory.pipe("/b/run/damaged.parquet", b"PAR1")
    with pytest.raises(DataError, match=r"^memory://b/run/damaged.parquet: "):
        read_instances("memory://b/run/damaged.parquet")
    with pytest.raises(InputError, match=r"^memory://b/run/a.nothing: no format"):
        nuclei.save("memory://b/run/a.nothing")
    with pytest.raises(OutputError, match=r"^https://host/a.csv: a web server takes no files"):
        nuclei.save(f"https://host/a.csv{SECRETS}")
    assert left(tmp_path) == []


def test_a_folder_is_sent_with_all_of_its_files(memory: Any, tmp_path: Path) -> None:
    (tmp_path / "a.zarr" / "deep").mkdir(parents=True)
    for name in ("one", "deep/two"):
        (tmp_path / "a.zarr" / name).write_bytes(name.encode())
    with sending("memory://b/a.zarr") as (system, place):
        put(system, tmp_path / "a.zarr", place)
    assert {name: memory.cat_file(name) for name in memory.find("/b")} == {
        "/b/a.zarr/one": b"one",
        "/b/a.zarr/deep/two": b"deep/two",
    }


def test_files_of_this_machine_are_themselves(tmp_path: Path) -> None:
    for enter in (fetched, delivered):
        call: Callable[[str | Path], Any] = enter
        for source in (tmp_path / "a b.csv", str(tmp_path / "a b.csv"), (tmp_path / "a b.csv").as_uri()):
            with call(source) as path:
                assert path == tmp_path / "a b.csv"
