"""Inputs and results by URL: sent picture by picture, skipped when done, gone on with when not, and without secrets."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from jaxtyping import UInt8

from nuclens.core import remote
from nuclens.core.errors import DataError, InputError, MissingExtraError, OutputError
from nuclens.core.types import read_instances
from nuclens.jobs import delivery
from nuclens.jobs.batch import BatchOptions, segment_files
from nuclens.jobs.delivery import Destination
from nuclens.jobs.inputs import find_inputs
from nuclens.jobs.pictures import Area
from nuclens.jobs.segment import segment

fsspec: Any = pytest.importorskip("fsspec", reason="fsspec is not installed")
Paint = Callable[..., UInt8[np.ndarray, "h w 3"]]
DISCS = [(20, 20, 8), (50, 70, 12), (70, 20, 12)]


@pytest.fixture
def options(painted_model: Path, tmp_path: Path) -> BatchOptions:
    return BatchOptions(model=str(painted_model), mpp=0.25, formats=("csv",), tile_px=128, cache=tmp_path / "cache")


@pytest.fixture
def pictures(paint: Paint) -> dict[str, bytes]:
    """Three pictures, of one, two and three nuclei."""
    coded = (cv2.imencode(".png", paint(90, 100, DISCS[:count])[..., ::-1])[1] for count in (1, 2, 3))
    return {name: bytes(data) for name, data in zip("abc", coded, strict=True)}


@pytest.fixture
def memory(pictures: dict[str, bytes]) -> Iterator[Any]:
    system = fsspec.filesystem("memory")
    system.store.clear()
    for name, data in pictures.items():
        system.pipe(f"/in/{name}.png", data)
    yield system
    system.store.clear()
    system.pseudo_dirs[:] = [""]


INPUTS = ["memory://in/a.png", "memory://in/b.png", "memory://in/c.png"]


def files(system: Any, place: str = "/out") -> set[str]:
    return {name.removeprefix(f"{place}/") for name in system.find(place)}


def left(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


EACH = {"instances.csv", "run.json"}
SHARED = {"slides.json", "summary.csv"}
ALL = {f"{name}/{file}" for name in "abc" for file in EACH} | SHARED


def test_results_arrive_and_nothing_stays(memory: Any, options: BatchOptions) -> None:
    outcomes = segment_files(INPUTS, "memory://out", options)
    assert [outcome.record["nuclei"] for outcome in outcomes] == [1, 2, 3]
    assert [outcome.record["input"] for outcome in outcomes] == INPUTS
    assert files(memory) == ALL
    assert len(read_instances("memory://out/c/instances.csv")) == 3
    assert memory.cat_file("/out/summary.csv").decode().splitlines()[1].startswith("a.png,a,done,1")
    assert options.cache is not None
    assert [path.name for path in left(options.cache)] == [".nuclens"]


def test_files_are_those_of_a_run_in_a_folder(
    memory: Any, options: BatchOptions, tmp_path: Path, pictures: dict[str, bytes]
) -> None:
    for name, data in pictures.items():
        (tmp_path / f"{name}.png").write_bytes(data)
    segment_files([tmp_path / f"{name}.png" for name in pictures], tmp_path / "out", options)
    segment_files(INPUTS, "memory://out/deep/run", options)
    for name in pictures:
        here = (tmp_path / "out" / name / "instances.csv").read_bytes()
        assert memory.cat_file(f"/out/deep/run/{name}/instances.csv") == here
    assert files(memory, "/out/deep/run") == ALL


def test_what_is_done_there_is_skipped_without_being_fetched(
    memory: Any, options: BatchOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    segment_files(INPUTS[:2], "memory://out", options)
    fetched: list[str] = []
    real = remote._fetch

    def fetch(system: Any, file: Any, target: Path) -> None:
        fetched.append(file.name)
        real(system, file, target)

    monkeypatch.setattr(remote, "_fetch", fetch)
    outcomes = segment_files(INPUTS, "memory://out", options)
    assert [outcome.skipped for outcome in outcomes] == [True, True, False]
    assert [outcome.record["nuclei"] for outcome in outcomes] == [1, 2, 3]
    assert fetched == ["c.png"]
    assert files(memory) == ALL
    memory.pipe("/in/a.png", memory.cat_file("/in/a.png"))  # another state of the same bytes
    assert segment_files(INPUTS[:1], "memory://out", options)[0].skipped
    assert fetched == ["c.png", "a.png"]
    memory.pipe("/in/a.png", memory.cat_file("/in/b.png"))
    [outcome] = segment_files(INPUTS[:1], "memory://out", options)
    assert isinstance(outcome.error, InputError)
    assert "was made with another image" in str(outcome.error)


def test_the_record_is_sent_last_and_gone_while_files_are_replaced(
    memory: Any, options: BatchOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, bool]] = []
    real = remote.put

    def put(system: Any, path: Path, place: str) -> None:
        seen.append((path.name, memory.exists("/out/a/run.json")))
        real(system, path, place)

    monkeypatch.setattr(delivery, "put", put)
    segment_files(INPUTS[:1], "memory://out", options)
    changed = BatchOptions(**{name: getattr(options, name) for name in ("model", "mpp", "tile_px", "cache")},
                           formats=("npy",), overwrite=True)  # fmt: skip
    segment_files(INPUTS[:1], "memory://out", changed)
    assert [one for one in seen if one[0] in (*EACH, "label.npy")] == [
        ("instances.csv", False), ("run.json", False), ("label.npy", False), ("run.json", False),
    ]  # fmt: skip
    assert files(memory) == {"a/label.npy", "a/run.json"} | SHARED


def test_a_picture_that_cannot_be_sent_fails_alone_and_is_sent_by_the_next_run(
    memory: Any, options: BatchOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = remote.put

    def put(system: Any, path: Path, place: str) -> None:
        if path.parent.name == "b":  # as where the key may not write there
            raise PermissionError(f"403 for memory://out?X-Amz-Signature=secret {path.name}")
        real(system, path, place)

    monkeypatch.setattr(delivery, "put", put)
    outcomes = segment_files(INPUTS, "memory://out", options)
    assert isinstance(outcomes[1].error, OutputError)
    assert str(outcomes[1].error).startswith("memory://out: cannot be written to (no right to it")
    assert files(memory) == {file for file in ALL if not file.startswith("b/")}
    monkeypatch.setattr(delivery, "put", real)
    monkeypatch.setattr("nuclens.jobs.batch._opened", None)  # nothing is segmented again
    assert all(outcome.skipped for outcome in segment_files(INPUTS, "memory://out", options))
    assert files(memory) == ALL
    assert options.cache is not None
    assert [path.name for path in left(options.cache)] == [".nuclens"]


def table(path: Path, *names: str) -> Path:
    path.write_text("".join(["path\n", *(f"memory://in/{name}.png\n" for name in names)]))
    return path


def states(memory: Any) -> dict[str, str]:
    """What the table at the URL says of each slide."""
    rows = csv.DictReader(memory.cat_file("/out/cohort.csv").decode().splitlines())
    return {row["name"]: row["status"] for row in rows}


def test_the_table_grows_over_calls_and_machines(memory: Any, options: BatchOptions, tmp_path: Path) -> None:
    segment_files([table(tmp_path / "one.csv", "a", "absent")], "memory://out", options)
    assert json.loads(memory.cat_file("/out/absent/failed.json"))["input"] == "memory://in/absent.png"
    elsewhere = replace(options, cache=tmp_path / "other machine")
    segment_files([table(tmp_path / "two.csv", "b")], "memory://out", elsewhere)
    assert states(memory) == {"a": "done", "absent": "failed", "b": "done"}
    memory.pipe("/in/absent.png", memory.cat_file("/in/c.png"))
    segment_files([tmp_path / "one.csv"], "memory://out", options)
    assert states(memory) == {"b": "done", "a": "done", "absent": "done"}
    assert not memory.exists("/out/absent/failed.json")
    for machine in (options, elsewhere):
        assert machine.cache is not None
        assert [path.name for path in left(machine.cache)] == [".nuclens"]


@pytest.mark.parametrize("here", [True, False])
def test_a_run_that_ends_takes_nothing_from_another(
    here: bool, memory: Any, options: BatchOptions, tmp_path: Path
) -> None:
    """Each has finished slides when the other ends: on one machine they share a folder."""
    one, two = table(tmp_path / "one.csv", "a", "b"), table(tmp_path / "two.csv", "c")
    other = options if here else replace(options, cache=tmp_path / "other machine")
    said: list[int] = []

    def meanwhile(progress: Any) -> None:
        said.append(progress.done)
        if len(said) == 2:  # the first slide is there
            segment_files([two], "memory://out", other)
            listed = json.loads(memory.cat_file("/out/slides.json"))["slides"]
            assert [row["name"] for row in listed] == ["a", "b", "c"]  # those of a run that goes on too

    segment_files([one], "memory://out", replace(options, threads=1), meanwhile)
    assert states(memory) == {"a": "done", "b": "done", "c": "done"}
    assert options.cache is not None
    assert [path.name for path in left(options.cache)] == [".nuclens"]


def test_what_another_run_is_sending_is_not_sent_again(memory: Any, tmp_path: Path) -> None:
    first = Destination("memory://out", tmp_path)
    first.begin()
    (first.folder / "a").mkdir()
    (first.folder / "a" / "instances.csv").touch()
    (first.folder / "a" / "run.json").write_text('{"files": ["instances.csv"]}')
    (first.folder / "nuclens.log").write_text("line")
    with Destination("memory://out", tmp_path) as second:
        second.begin()
        second.end("nuclens.log")
    assert files(memory) == set()
    assert len(left(first.folder)) == 4
    with first:
        first.end("nuclens.log")
    assert files(memory) == {"nuclens.log"}
    Destination("memory://out", tmp_path).begin()  # the first was killed before it could send
    assert files(memory) == {"nuclens.log", "a/instances.csv", "a/run.json"}


def test_a_run_that_cannot_send_keeps_nobody_waiting(
    memory: Any, options: BatchOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a notebook, where the error keeps alive what it came through."""
    real, kept = remote.put, list[BaseException]()
    for refused in ("summary.csv", "run.json"):

        def put(system: Any, path: Path, place: str, refused: str = refused) -> None:
            if path.name == refused:
                raise PermissionError("403")
            real(system, path, place)

        monkeypatch.setattr(delivery, "put", put)
        for _ in range(2):  # what is left of the first is sent when the second begins
            try:
                segment_files(INPUTS[:1], f"memory://{refused}", options)
            except OutputError as error:
                kept.append(error)
    assert len(kept) == 3
    monkeypatch.setattr(delivery, "put", real)
    for refused in ("summary.csv", "run.json"):
        assert segment_files(INPUTS[:1], f"memory://{refused}", options)[0].skipped
        assert files(memory, f"/{refused}") == {f"a/{name}" for name in EACH} | SHARED


def test_an_interrupted_picture_goes_on_where_it_was(memory: Any, options: BatchOptions, paint: Paint) -> None:
    picture = paint(300, 400, DISCS)
    memory.pipe("/in/big.png", bytes(cv2.imencode(".png", picture[..., ::-1])[1]))
    calls = 0

    def stop(progress: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        segment_files(["memory://in/big.png"], "memory://out", options, stop)
    assert files(memory) == {"slides.json"}
    folder = Destination("memory://out", options.cache).folder
    blocks = list(folder.glob("big/journal/blocks/*.arrow"))
    assert len(blocks) > 2
    for block in blocks[2:]:
        block.unlink()
    done: list[int] = []
    segment_files(["memory://in/big.png"], "memory://out", options, lambda progress: done.append(progress.done))
    assert done[0] == 3
    assert files(memory) == {"big/instances.csv", "big/run.json"} | SHARED


@pytest.mark.parametrize("user", ["key:secret", "k@y:'secret", 'key:s@"secret'])
def test_secrets_are_written_nowhere(
    user: str, memory: Any, options: BatchOptions, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A signature opens its file; in results, names, errors and the log there is nothing of it."""
    caplog.set_level(logging.DEBUG, "nuclens")
    opened: list[str] = []

    def file_system(url: str) -> tuple[Any, str]:
        opened.append(url)
        return memory, url.partition("?")[0].replace(f"s3://{user}@", "/")

    monkeypatch.setattr(remote, "file_system", file_system)
    inputs = [f"s3://{user}@in/{name}.png?X-Amz-Signature=secret" for name in ("a", "gone")]
    outcomes = segment_files(inputs, f"s3://{user}@out", options)
    assert outcomes[0].record["input"] == "s3://in/a.png"
    assert str(outcomes[1].error).startswith("s3://in/gone.png: cannot be fetched")
    assert any("Signature=secret" in url for url in opened)
    written = [memory.cat_file(f"/out/{name}") for name in files(memory)]
    said = [record.getMessage() for record in caplog.records if record.name.startswith("nuclens")]
    assert len(written) == 5
    assert len(said) >= 3
    assert "secret" not in "".join([*(data.decode() for data in written), *said, *map(str, outcomes)])


@pytest.mark.parametrize("out", ["folder", "memory://out"])
def test_slides_that_differ_in_the_query_alone_have_their_own_results(
    out: str, memory: Any, options: BatchOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def file_system(url: str) -> tuple[Any, str]:
        return memory, url.replace("https://host/f.png?id=", "/in/").replace("memory://", "/") + (
            ".png" if "?" in url else ""
        )

    monkeypatch.setattr(remote, "file_system", file_system)
    table = tmp_path / "cohort.csv"
    table.write_text("path,name,mpp\nhttps://host/f.png?id=b,two,\nhttps://host/f.png?id=c,three,0.3\n")
    there = out if "://" in out else str(tmp_path / out)
    outcomes = segment_files([table], there, options)
    assert [outcome.record["nuclei"] for outcome in outcomes] == [2, 3]
    assert [outcome.record["request"]["mpp"] for outcome in outcomes] == [0.25, 0.3]
    for name, nuclei in (("two", 2), ("three", 3)):
        assert len(read_instances(f"{there}/{name}/instances.csv")) == nuclei
    assert all(outcome.skipped for outcome in segment_files([table], there, options))


def test_a_table_is_of_this_machine(memory: Any, options: BatchOptions, tmp_path: Path) -> None:
    table = tmp_path / "cohort.csv"
    table.write_text("path\nmemory://in/b.png\n")
    [outcome] = segment_files([table.as_uri()], tmp_path / "out", options)
    assert outcome.record["nuclei"] == 2
    with pytest.raises(InputError, match=r"^https://host/cohort\.csv: not on this machine; fetch the table") as told:
        segment_files(["https://me:hunter2@host/cohort.csv?sig=hunter2"], tmp_path / "out", options)
    assert "hunter2" not in str(told.value)


def test_a_mask_that_is_no_file_is_told_without_secrets(memory: Any, options: BatchOptions, tmp_path: Path) -> None:
    elsewhere = replace(options, area=Area(tissue="https://me:secret@host/mask.png"))
    with pytest.raises(InputError, match=r"^--tissue https://host/mask\.png: "):
        segment_files(INPUTS, tmp_path / "out", elsewhere)


@pytest.mark.parametrize(("out", "error", "told"), [
    ("https://host/run?X-Amz-Signature=secret", OutputError, "^https://host/run: a web server takes no files"),
    ("zip://run", InputError, "^zip://run: zip:// is not opened"),
    ("gs://bucket/run", MissingExtraError, "^gs://bucket/run: gs:// needs gcsfs"),
])  # fmt: skip
def test_places_that_take_no_results_are_told_at_once(
    out: str, error: type[Exception], told: str, options: BatchOptions
) -> None:
    if "gcsfs" in told and find_spec("gcsfs"):
        pytest.skip("gcsfs is installed")
    with pytest.raises(error, match=told):
        segment_files(["memory://in/a.png"], out, options)


def test_two_urls_that_would_share_a_folder_are_refused() -> None:
    with pytest.raises(InputError, match="would share the output folder 'a'"):
        find_inputs(["s3://one/a.svs", "s3://two/a.svs"])


@pytest.mark.parametrize("pattern", ["memory://in/", "memory://in/*.png", "memory://in/[ab]*"])
def test_folders_are_listed(pattern: str, memory: Any, options: BatchOptions) -> None:
    memory.pipe("/in/notes.txt", b"a")
    memory.pipe("/in/deeper/d.png", b"d")
    outcomes = segment_files([pattern], "memory://out", options)
    wanted = INPUTS[:2] if "[" in pattern else INPUTS
    assert [outcome.record["input"] for outcome in outcomes] == wanted


def test_a_dicom_folder_is_one_slide(memory: Any) -> None:
    for name in ("2.dcm", "1.dcm", "a.png"):
        memory.pipe(f"/in/d/{name}", b"")
    assert find_inputs(["memory://in/d/"]) == [Path("memory://in/d/1.dcm"), Path("memory://in/d/a.png")]


@pytest.mark.parametrize(("pattern", "told"), [
    ("memory://in/*.svs", r"^memory://in/\*\.svs: no picture there"),
    ("memory://nowhere/", "^memory://nowhere/: cannot be fetched .there is no such file"),
    ("https://host/slides/", "^https://host/slides/: cannot be listed"),
    ("s3://*/a.svs*", "cannot be listed"),
])  # fmt: skip
def test_what_lists_no_pictures_is_told(pattern: str, told: str, memory: Any) -> None:
    with pytest.raises(InputError, match=told):
        find_inputs([pattern])


def test_logs_are_continued_there(memory: Any, tmp_path: Path) -> None:
    for line in ("one\n", "two\n"):
        place = Destination("memory://out", tmp_path)
        place.begin()
        (place.folder / "nuclens.log").write_text(line)
        (place.folder / "summary.csv").write_text(line)
        place.end("summary.csv", "nuclens.log", "absent.csv")
    assert memory.cat_file("/out/nuclens.log") == b"one\ntwo\n"
    assert memory.cat_file("/out/summary.csv") == b"two\n"


def test_a_folder_is_a_folder(tmp_path: Path) -> None:
    for out in (tmp_path / "run", str(tmp_path / "run"), (tmp_path / "run").as_uri()):
        place = Destination(out, tmp_path / "cache")
        assert place.folder == tmp_path / "run"
        place.begin()
        place.end("summary.csv")
    assert list(tmp_path.iterdir()) == []


class TestS3:
    """Against moto's S3 on this machine, the way s3fs finds its account and server anywhere."""

    pytestmark = [pytest.mark.enable_socket, pytest.mark.allow_hosts(["127.0.0.1"])]  # noqa: RUF012

    @pytest.fixture
    def bucket(self, monkeypatch: pytest.MonkeyPatch, pictures: dict[str, bytes]) -> Iterator[Any]:
        s3fs = pytest.importorskip("s3fs", reason="s3fs is not installed")
        server = pytest.importorskip("moto.server", reason="moto is not installed").ThreadedMotoServer(
            "127.0.0.1", 0, verbose=False
        )
        server.start()
        host, port = server.get_host_and_port()
        for name, value in {
            "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        }.items():  # fmt: skip
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        system = s3fs.S3FileSystem()
        if system.exists("lab"):  # the servers of one process share their buckets
            system.rm("lab", recursive=True)
        system.mkdir("lab")
        for name, data in pictures.items():
            system.pipe(f"lab/in/{name}.png", data)
        yield system
        s3fs.S3FileSystem.clear_instance_cache()
        server.stop()

    def test_from_bucket_to_bucket(self, bucket: Any, options: BatchOptions) -> None:
        inputs = [f"s3://lab/in/{name}.png" for name in ("a", "b", "c", "gone")]
        outcomes = segment_files(inputs, "s3://lab/run", options)
        assert [outcome.record.get("nuclei") for outcome in outcomes] == [1, 2, 3, None]
        assert "s3://lab/in/gone.png: cannot be fetched (there is no such file" in str(outcomes[3].error)
        bucket.invalidate_cache()
        assert files(bucket, "lab/run") == ALL | {"gone/failed.json"}
        assert json.loads(bucket.cat_file("lab/run/c/run.json"))["nuclei"] == 3
        again = segment_files(inputs[:3], "s3://lab/run", options)
        assert all(outcome.skipped for outcome in again)
        assert len(segment("s3://lab/in/c.png", model=options.model, mpp=0.25)) == 3

    def test_a_bucket_that_is_not_there(self, bucket: Any, options: BatchOptions) -> None:
        with pytest.raises(OutputError, match=r"^s3://nowhere/run: cannot be written to"):
            segment_files(["s3://lab/in/a.png"], "s3://nowhere/run", options)

    def test_a_file_beside_a_slide_that_changes_is_noticed(self, bucket: Any, tmp_path: Path) -> None:
        """What is listed is remembered, and would say that all is as it was."""
        for name in "12":
            bucket.pipe(f"lab/in/{name}.dcm", b"before")
        before = remote.state("s3://lab/in/1.dcm")
        other = type(bucket)(skip_instance_cache=True)
        real = remote._stream

        def stream(system: Any, file: Any, part: Path) -> None:
            if file.name == "2.dcm" and part.parent.parent.parent == tmp_path:
                other.pipe("lab/in/2.dcm", b"behind")
            real(system, file, part)

        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(remote, "_stream", stream)
            patched.setattr(remote, "_WAITS_S", ())
            with pytest.raises(DataError, match="it changed while it was fetched"):
                remote.fetch("s3://lab/in/1.dcm", tmp_path)
        assert remote.state("s3://lab/in/1.dcm") != before
