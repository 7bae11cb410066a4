from __future__ import annotations

import json
import logging
import os
import re
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

import cv2
import numpy as np
import pytest
from jaxtyping import UInt8

from nuclens import __version__, cli
from nuclens.commands.segment import _logged
from nuclens.core import remote
from nuclens.core.datasets import DATASETS
from nuclens.core.errors import CheckpointError, MissingExtraError
from nuclens.testing.nuclei import made

GOLDEN = Path(__file__).parent / "golden"
COMMANDS = (
    *(
        "segment",
        "status",
        "cohort",
        "demo",
        "train",
        "export",
        "doctor",
        "check",
        "convert",
        "data",
        "evaluate",
        "models",
    ),
    *(f"evaluate {command}" for command in ("compare", "folds", "ceiling")),
    *(f"models {command}" for command in ("list", "info")),
    *(f"data {command}" for command in ("list", "info", "verify", "example", "convert", "preview")),
)
Paint = Callable[..., UInt8[np.ndarray, "h w 3"]]
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def nuclens(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """The command line inside this process: exit code, standard output, standard error."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["nuclens", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, said.out, said.err

    return run


@pytest.fixture
def picture(tmp_path: Path, paint: Paint) -> Path:
    return save(tmp_path / "good.png", paint(90, 100, [(20, 20, 8), (50, 70, 12)]))


def save(path: Path, rgb: UInt8[np.ndarray, "h w 3"]) -> Path:
    cv2.imwrite(str(path), rgb[..., ::-1])
    return path


def lines(text: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines()]


# --- help ---


@pytest.mark.parametrize("command", ["nuclens", *COMMANDS])
def test_help_reads_well_at_80_columns(nuclens: Run, command: str) -> None:
    code, out, err = nuclens(*([] if command == "nuclens" else command.split()), "--help")
    assert (code, err) == (0, "")
    assert max(map(len, lines(out))) <= 80
    golden = GOLDEN / f"help_{command.replace(' ', '_')}.txt"
    assert lines(out) == lines(golden.read_text(encoding="utf-8")), f"if it reads better now, write it to {golden.name}"


def test_no_command_is_help_and_version_is_a_number(nuclens: Run) -> None:
    assert nuclens() == nuclens("--help")
    assert nuclens("--version") == (0, f"{__version__}\n", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["segmnt"], 'Did you mean "segment"?'),
        (["segment", "--out", "x"], "INPUT requires an argument"),
        (["segment", "x.png"], "--out requires an argument"),
        (["segment", "x.png", "--out", "x", "--mpp", "fine"], "fine"),
        (["segment", "x.png", "--out", "x", "--tilesize", "256"], "--tile-size"),
    ],
)
def test_a_slip_of_the_pen_is_told(nuclens: Run, arguments: list[str], said: str) -> None:
    code, out, err = nuclens(*arguments)
    assert (code, out) == (2, "")
    assert said in " ".join(err.replace("│", "").split())


# --- segment ---


def test_segment_says_how_many_and_where(nuclens: Run, picture: Path, painted_model: Path, tmp_path: Path) -> None:
    command = ["segment", picture, "--out", tmp_path / "out", "--mpp", "0.25", "--model", painted_model]
    assert nuclens(*command) == (0, f"2 nuclei in 1 image: {tmp_path / 'out'}\n", "")
    assert {path.name for path in (tmp_path / "out" / "good").iterdir()} == {
        *("instances.csv", "instances.geojson", "instances.parquet", "label.tif", "overlay.png", "run.json"),
    }
    assert nuclens(*command) == (0, f"2 nuclei in 1 image, 1 of them done before: {tmp_path / 'out'}\n", "")
    code, out, _ = nuclens(*command, "--overwrite")
    assert (code, "before" in out) == (0, False)


def test_lines_wait_for_the_folder_of_the_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # What pytest keeps of a test's log goes to another process, which takes no letter that is none.
    monkeypatch.setattr(logging.getLogger("nuclens"), "propagate", False)
    logger, path = logging.getLogger("nuclens.test"), tmp_path / "out" / "nuclens.log"
    with _logged(path):
        logger.warning("early")
        path.parent.mkdir()
        logger.info("late, of \udcff.svs")
        path.unlink()  # as another run that ends does
        logger.info("last")
    assert path.read_text().endswith("INFO last\n")
    with _logged(tmp_path / "absent" / "nuclens.log"):
        logger.warning("lost")
    assert not (tmp_path / "absent").exists()


def test_a_log_that_cannot_be_written_is_told_once_and_ends_nothing(
    nuclens: Run, picture: Path, painted_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "out" / "nuclens.log").mkdir(parents=True)
    code, out, err = nuclens(
        "segment", picture, "--out", tmp_path / "out", "--mpp", "0.25", "--model", painted_model
    )  # fmt: skip
    assert (code, out) == (0, f"2 nuclei in 1 image: {tmp_path / 'out'}\n")
    assert err == f"{tmp_path / 'out' / 'nuclens.log'}: no log is kept (Is a directory)\n"


def test_a_store_that_is_asked_again_is_not_hidden_by_the_log(
    nuclens: Run, painted_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log's folder is not there yet when folders of stores are listed."""
    pytest.importorskip("fsspec", reason="fsspec is not installed")
    asked: list[str] = []

    class Overloaded:
        def invalidate_cache(self) -> None:
            pass

        def ls(self, place: str, detail: bool) -> NoReturn:
            asked.append(place)
            raise ConnectionResetError("overloaded")

    monkeypatch.setattr(remote, "file_system", lambda url: (Overloaded(), url))
    monkeypatch.setattr(remote, "_WAITS_S", (0, 0))
    code, _, err = nuclens("segment", "s3://bucket/in/", "--out", tmp_path / "out", "--model", painted_model)
    assert (code, err) == (2, "s3://bucket/in/: cannot be fetched (overloaded)\n")
    assert len(asked) == 3


@pytest.mark.parametrize("formats", [["csv,labels"], ["csv", "labels"], ["labels", "--formats", "csv"]])
def test_formats_in_any_spelling(
    nuclens: Run, picture: Path, painted_model: Path, tmp_path: Path, formats: list[str]
) -> None:
    command = ["segment", picture, "--out", tmp_path / "out", "--mpp", "0.25", "--model", painted_model]
    assert nuclens(*command, "--formats", *formats)[0] == 0
    left = {path.name for path in (tmp_path / "out" / "good").iterdir()}
    assert left == {"instances.csv", "label.tif", "run.json"}


def test_notes_and_warnings_go_to_the_error_stream(
    nuclens: Run, painted_model: Path, tmp_path: Path, paint: Paint
) -> None:
    path = tmp_path / "clear.png"
    cv2.imwrite(str(path), np.zeros((20, 30, 4), np.uint8))
    code, out, err = nuclens("segment", path, "--out", tmp_path / "out", "--mpp", "0.25", "--model", painted_model)
    assert (code, out) == (0, f"0 nuclei in 1 image: {tmp_path / 'out'}\n")
    noted, warned = err.splitlines()
    assert noted == f"{path}: alpha composited on white"
    assert warned.startswith(f"{path}: no nucleus found")


def test_a_cohort_from_its_csv_to_its_table(nuclens: Run, picture: Path, painted_model: Path, tmp_path: Path) -> None:
    file, out = tmp_path / "cohort.csv", tmp_path / "out"
    file.write_text("path,mpp,stage\ngood.png,0.25,T1\nabsent.png,0.25,T2\n", encoding="utf-8")
    code, said, err = nuclens("segment", file, "--out", out, "--model", painted_model)
    assert (code, said) == (5, f"2 nuclei in 1 image, 1 failed: {out}\ntable: {out / 'cohort.html'}\n")
    assert err == f"{tmp_path / 'absent.png'}: no such file; wanted a picture\n"

    code, said, err = nuclens("status", out)
    assert (code, err) == (0, "")
    assert [" ".join(line.split()) for line in lines(said)] == [
        "good done 1/1 tiles 2 nuclei",
        f"absent failed {tmp_path / 'absent.png'}: no such file; wanted a picture",
        "2 slides: 1 done, 1 failed; 1 of 1 tiles of those opened; 2 nuclei; "
        "run the same command again to try what failed",
    ]
    code, said, _ = nuclens("status", out, "--json")
    found = json.loads(said)
    assert [slide["state"] for slide in found["slides"]] == ["done", "failed"]

    code, said, err = nuclens("cohort", out, "--by", "stage")
    assert (code, said) == (0, f"1 of 2 slides: {out / 'cohort.html'}\n")
    assert err == f"absent: {tmp_path / 'absent.png'}: no such file; wanted a picture\n"
    assert nuclens("cohort", out, "--by", "grade")[0] == 2
    assert nuclens("status", tmp_path / "absent") == (
        2,
        "",
        f"{tmp_path / 'absent'}: no results of `nuclens segment`; wanted its --out\n",
    )


@pytest.mark.parametrize("command", ["status", "cohort"])
def test_status_and_cohort_are_of_folders_of_this_machine(nuclens: Run, command: str, tmp_path: Path) -> None:
    code, _, err = nuclens(command, "s3://key:secret@bucket/run")
    fetch = "fetch slides.json and every run.json and failed.json first, and give its path here"
    assert (code, err) == (2, f"s3://bucket/run: not on this machine; {fetch}\n")
    code, _, err = nuclens(command, tmp_path.as_uri())
    assert (code, err) == (2, f"{tmp_path}: no results of `nuclens segment`; wanted its --out\n")


def test_status_of_a_run_that_ended_in_the_middle(
    nuclens: Run, painted_model: Path, tmp_path: Path, paint: Paint, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    command = ["segment", save(tmp_path / "a.png", paint(300, 300, [(40, 40, 8)])), "--out", out, "--mpp", "0.25"]
    command += ["--model", painted_model, "--tile-size", "64"]
    with monkeypatch.context() as patched:
        patched.setattr("nuclens.jobs.batch._Tally.tile", raising(KeyboardInterrupt()))
        assert nuclens(*command)[0] == cli.INTERRUPTED
    [block, *_] = sorted((out / "a" / "journal" / "blocks").glob("*.arrow"))
    assert "a  running" in nuclens("status", out)[1]
    for path in (out, *out.rglob("*")):
        os.utime(path, (1e9, 1e9))
    row, foot = lines(nuclens("status", out)[1])
    assert re.fullmatch(r"a +stopped +\d+/\d\d tiles +\d nuclei +nothing new for [\d.]+ days", row)
    assert re.search(r"1 stopped; .*; nothing new for [\d.]+ days: run the same command again to go on$", foot)
    assert block.exists()


def png_of(width: int, height: int) -> bytes:
    """A PNG that claims a size and has no pixels."""
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)),
        (b"IDAT", zlib.compress(b"")),
        (b"IEND", b""),
    ]
    chunks = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def broken(folder: Path) -> dict[str, Path]:
    """Inputs that cannot be segmented, by what is wrong with them."""
    folder.mkdir(exist_ok=True)
    jpeg = cv2.imencode(".jpg", np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8))[1].tobytes()
    contents = {
        "text": ("text.png", b"this is no picture\n"),
        "truncated": ("truncated.jpg", jpeg[: len(jpeg) // 2]),
        "empty": ("empty.tif", b""),
        "huge": ("huge.png", png_of(150_000, 150_000)),
        "suffix": ("page.pdf", b"%PDF-1.7"),
    }
    paths = {"missing": folder / "missing.png"}
    for name, (file, content) in contents.items():
        paths[name] = folder / file
        paths[name].write_bytes(content)
    return paths


@pytest.mark.parametrize("name", ["text", "truncated", "empty", "huge", "suffix", "missing"])
def test_a_single_broken_input_is_one_line_and_its_own_code(
    nuclens: Run, painted_model: Path, tmp_path: Path, name: str
) -> None:
    path = broken(tmp_path / "in")[name]
    command = ["segment", path, "--out", tmp_path / "out", "--mpp", "0.25", "--model", painted_model]
    code, out, err = nuclens(*command)
    assert code == 3
    assert out == f"0 nuclei in 0 images, 1 failed: {tmp_path / 'out'}\n"
    [line] = err.splitlines()
    assert line.startswith(f"{path}: ")
    assert "Traceback" not in err


def test_all_inputs_broken_is_their_common_code(nuclens: Run, painted_model: Path, tmp_path: Path) -> None:
    paths = broken(tmp_path / "in").values()
    command = ["--out", tmp_path / "out", "--mpp", "0.25", "--model", painted_model]
    code, _, err = nuclens("segment", *paths, *command)
    assert code == 3
    assert [line.partition(": ")[0] for line in err.splitlines()] == [str(path) for path in paths]


def test_some_inputs_broken_is_a_code_of_its_own(
    nuclens: Run, picture: Path, painted_model: Path, tmp_path: Path
) -> None:
    paths = [*broken(tmp_path / "in").values(), picture]
    code, out, err = nuclens("segment", *paths, "--out", tmp_path / "out", "--mpp", "0.25", "--model", painted_model)
    assert (code, len(err.splitlines())) == (5, 6)
    assert out == f"2 nuclei in 1 image, 6 failed: {tmp_path / 'out'}\n"


def test_missing_mpp_ends_with_2(nuclens: Run, picture: Path, painted_model: Path, tmp_path: Path) -> None:
    code, _, err = nuclens("segment", picture, "--out", tmp_path / "out", "--model", painted_model)
    assert code == 2
    [line] = err.splitlines()
    assert "0.25 for a 40x scan, 0.5 for 20x" in line


def test_an_output_folder_that_is_a_file_ends_with_4(
    nuclens: Run, picture: Path, painted_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").touch()
    code, out, err = nuclens("segment", picture, "--out", tmp_path / "out", "--mpp", "0.25", "--model", painted_model)
    assert (code, out) == (4, "")
    [line] = err.splitlines()
    assert line.startswith(f"{tmp_path / 'out'}: cannot be written to")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nowhere/"], 3, "nowhere: no such file"),
        (["."], 2, "no picture there"),
        (["x.png", "--model", "defualt"], 2, "model defualt: no such folder and no such name"),
        (["x.png", "--formats", "geojsn"], 2, "did you mean geojson"),
        (["x.png", "--mpp", "40"], 2, "outside 0.05-4"),
        (["x.png", "--tile-size", "1000"], 2, "multiple of the network's stride"),
    ],
)
def test_a_senseless_request_is_one_line(
    nuclens: Run,
    painted_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    model = [] if "--model" in arguments else ["--model", painted_model]
    ended, _, err = nuclens("segment", *arguments, *model, "--out", "out")
    assert ended == code
    [line] = err.splitlines()
    assert said in line


def raising(error: BaseException) -> Callable[..., NoReturn]:
    def raiser(*args: Any, **kwargs: Any) -> NoReturn:
        raise error

    return raiser


def test_an_interrupt_ends_with_130_and_says_how_to_go_on(nuclens: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nuclens.jobs.batch.segment_files", raising(KeyboardInterrupt()))
    code, out, err = nuclens("segment", "x.png", "--out", "out")
    assert (code, out) == (130, "")
    assert err == "interrupted; run the same command again to go on\n"


def test_a_bug_keeps_its_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nuclens.jobs.batch.segment_files", raising(ZeroDivisionError("a bug")))
    monkeypatch.setattr(sys, "argv", ["nuclens", "segment", "x.png", "--out", "out"])
    with pytest.raises(ZeroDivisionError, match="a bug"):
        cli.main()


@pytest.mark.parametrize(
    ("error", "code"),
    [(MissingExtraError("needs 'torch'; pip install 'nuclens[train]'"), 4), (CheckpointError("x"), 4)],
)
def test_errors_end_with_their_code(nuclens: Run, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int) -> None:
    monkeypatch.setattr("nuclens.jobs.batch.segment_files", raising(error))
    assert nuclens("segment", "x.png", "--out", "out") == (code, "", f"{error}\n")


def test_a_reader_that_has_enough_is_no_error() -> None:
    """As `nuclens data list | head -1`: no traceback, the code that shells give a closed pipe."""
    command = [
        sys.executable,
        "-c",
        "import time; from nuclens.cli import main; time.sleep(0.2); main()",
        "data",
        "list",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait() == cli.CLOSED


def test_the_command_is_installed_and_answers_alone(tmp_path: Path) -> None:
    """As a process of its own, with its exit code and without a traceback."""
    command = [sys.executable, "-m", "nuclens", "segment", "absent.png", "--out", "out", "--model", "absent"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.startswith("model absent: no such folder")
    assert len(run.stderr.splitlines()) == 1


# --- the others ---


def test_demo_says_where_to_look(
    nuclens: Run, painted_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, picture: Path
) -> None:
    monkeypatch.setattr("nuclens.core.models.shipped", lambda: {"default": painted_model})
    monkeypatch.chdir(tmp_path)
    code, out, err = nuclens("demo", picture, "--mpp", "0.25")
    assert (code, err) == (0, "")
    assert out.startswith("2 nuclei in ")
    assert "1 small, 1 large" in out
    assert "nuclens-demo/good/overlay.png" in out
    assert "weights   CC0-1.0" in out
    assert "image" not in out
    code, out, _ = nuclens("demo", "--out", "elsewhere")
    assert code == 0
    assert "image     TNBC data set" in out
    assert (tmp_path / "elsewhere" / "tnbc_09_1" / "overlay.png").is_file()


def test_demo_without_its_image(nuclens: Run) -> None:
    code, out, err = nuclens("demo", "--mpp", "0.5")
    assert (code, out, len(err.splitlines())) == (2, "", 1)


def test_data_lists_every_set_with_its_licence(nuclens: Run) -> None:
    code, out, err = nuclens("data", "list")
    assert (code, err) == (0, "")
    found = {line.split()[0]: line for line in lines(out)}
    assert {"pannuke", "monuseg", "tnbc", "consep", "bccd", "dsb2018", "folder", "coco", "pack"} <= set(found)
    assert "7,901 images  5 types  CC-BY-NC-SA-4.0" in found["pannuke"]
    code, out, err = nuclens("data", "info", "tnbc")
    assert (code, err, lines(out)[0]) == (0, "", "TNBC")
    assert "  licence   CC-BY-4.0" in lines(out)
    assert nuclens("data", "info", "tnbx")[0] == 2


def test_data_makes_checks_converts_and_shows(nuclens: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert nuclens("data", "example", "consep", "made") == (0, "2 made images, laid out as consep: made\n", "")
    code, out, err = nuclens("data", "verify", "consep", "made")
    assert (code, lines(out)[:2], lines(out)[-1]) == (0, ["1 images of test", "1 images of train"], "sound")
    assert "1 images of train; 27 are published" in err
    told = (0, "7 nuclei in 2 images as folder: out\n", "")
    assert nuclens("data", "convert", "consep", "made", "out", "--to", "folder") == told
    assert nuclens("data", "convert", "consep", "made", "test", "--to", "coco", "--split", "test")[0] == 0
    code, out, err = nuclens("data", "preview", "folder", "out")
    assert (code, out, err) == (0, "2 images: folder-preview.png\n", "")
    assert (tmp_path / "folder-preview.png").is_file()


def test_data_tells_losses_and_damage(nuclens: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    nuclens("data", "example", "bccd", "made")
    command = ["data", "convert", "bccd", "made", "out", "--to", "pannuke", "--split", "test"]
    code, out, err = nuclens(*command)
    assert (code, out) == (2, "")
    assert err.startswith(
        "out: pannuke cannot hold names of 1 image; splits of 1 image; nuclei of 1 image; add --allow"
    )
    code, out, err = nuclens(*command, "--allow-loss")
    assert (code, out) == (0, "0 nuclei in 1 images as pannuke: out\n")
    assert lines(err) == ["lost: names of 1 image", "lost: splits of 1 image", "lost: nuclei of 1 image"]
    next((tmp_path / "made").rglob("c3d4.png")).write_bytes(b"")
    code, out, err = nuclens("data", "verify", "bccd", "made")
    assert (code, lines(out)[-1]) == (3, "1 problem")
    assert nuclens("data", "verify", "bccd", "absent")[0] == 3
    assert nuclens("data", "example", "bccd", "made")[0] == 4


def test_doctor_lists_and_ends_well(nuclens: Run) -> None:
    code, out, err = nuclens("doctor")
    assert (code, err) == (0, "")
    assert all(line[:2] in ("ok", "--") for line in out.splitlines())
    assert any(line.split()[1] == "numpy" for line in out.splitlines())


@pytest.mark.parametrize("arguments", [["train", "a.toml", "--data", "."], ["export", "run"]])
def test_without_torch_training_names_its_extra(tmp_path: Path, arguments: list[str]) -> None:
    script = "import sys; sys.modules['torch'] = None; from nuclens.cli import main; main()"
    command = [sys.executable, "-c", script, *arguments, "--out", "out"]
    run = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (run.returncode, run.stdout) == (4, "")
    # Where the light set alone is installed, the others that training needs are missing too.
    missing = ["torch", *(name for name in ("lightning", "safetensors") if find_spec(name) is None)]
    assert run.stderr == f"training needs {', '.join(missing)}; `pip install 'nuclens[train]'` brings them\n"


@pytest.mark.slow
def test_models_are_listed_and_told_as_text_and_as_json(nuclens: Run) -> None:
    code, out, err = nuclens("models", "list")
    assert (code, err) == (0, "")
    assert [line for line in lines(out) if not line.startswith(" ")] == ["models", "networks", "recipes"]
    code, out, err = nuclens("models", "info", "default", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["license"] == "CC-BY-NC-SA-4.0"
    code, out, err = nuclens("models", "info", "default")
    assert (code, err, lines(out)[0].split()) == (0, "", ["kind", "model"])
    assert nuclens("models", "info", "nucleus")[0] == 2


@pytest.mark.slow
def test_train_says_what_is_missing(nuclens: Run) -> None:
    pytest.importorskip("nuclens.training", exc_type=ImportError)
    assert nuclens("train", "default", "--data", ".") == (2, "", "train: no --out; wanted a run folder\n")
    assert nuclens("train", "default", "--out", "x")[0] == 2
    code, out, err = nuclens("train", "default", "--data", ".", "--out", "x", "--set", "train.stpes=3")
    assert (code, out) == (2, "")
    assert "train.stpes: no such setting; did you mean train.steps" in err
    code, out, err = nuclens("train", "default", "--data", ".", "--out", "x", "--set", "steps=3")
    assert "steps: no such setting; did you mean train.steps?" in err
    assert nuclens("train", "--import-ini", "absent.ini", "--out", "x")[0] == 2


# --- evaluate ---


@pytest.fixture
def squares(tmp_path: Path) -> tuple[Path, Path]:
    """Predicted and true label maps of two images; the prediction lacks one of six nuclei of each."""
    labels = np.kron(np.arange(1, 7).reshape(2, 3), np.pad(np.ones((8, 8), int), 2)).astype(np.int32)
    for side, lost in (("pred", 1), ("truth", 0)):
        (tmp_path / side).mkdir()
        for name in ("one", "two"):
            np.save(tmp_path / side / f"{name}.npy", np.where(labels == lost, 0, labels))
    return tmp_path / "pred", tmp_path / "truth"


def test_evaluate_prints_numbers_and_where_the_report_is(
    nuclens: Run, squares: tuple[Path, Path], tmp_path: Path
) -> None:
    code, out, err = nuclens("evaluate", *squares, "--protocol", "monuseg", "--out", tmp_path / "out")
    assert code == 0
    assert err == "the truth has no types: scores by type are undefined\n"
    first, *values, drawn, last = out.splitlines()
    assert first == "monuseg 1: 2 images, 12 true and 10 predicted nuclei"
    assert [line.split()[0] for line in values] == ["AJI", "PQ", "DQ", "SQ", "Dice"]
    assert values[1] == "  PQ             0.9091   0.9091 to 0.9091"
    assert (drawn, last) == ("intervals: 95 %, over 2 images", f"report: {tmp_path / 'out' / 'report.html'}")
    assert (tmp_path / "out" / "report.html").is_file()
    code, out, _ = nuclens("evaluate", *squares)
    assert code == 0
    assert out.endswith("no report is written; --out DIR writes one\n")
    assert "undefined" in out


@pytest.mark.data
def test_evaluate_gives_the_official_numbers(nuclens: Run, data_root: Path, tmp_path: Path) -> None:
    golden = data_root / "golden" / "pannuke_metrics"
    sides = golden / "pred.npz", golden / "true.npz"
    code, out, _ = nuclens(
        "evaluate", *sides, "--protocol", "pannuke", "--types", golden / "types.npy", "--out", tmp_path
    )
    assert code == 0
    assert "  mPQ            0.5760   " in out
    written = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))["scores"][0]["table"]["headline"]
    assert written["mPQ"] == pytest.approx(0.5760143852743482, abs=1e-9)
    assert written["bPQ"] == pytest.approx(0.6336406934526956, abs=1e-9)


def test_evaluate_segments_with_a_model(nuclens: Run, painted_model: Path, tmp_path: Path) -> None:
    DATASETS.get("monuseg").write_example(tmp_path)
    command = ["evaluate", "--model", painted_model, "--dataset", "monuseg", "--path", tmp_path, "--split", "test"]
    code, out, _ = nuclens(*command, "--protocol", "monuseg")
    assert code == 0
    assert out.startswith("monuseg 1: 1 image, 0 true and ")


def test_compare_prints_a_table(nuclens: Run, squares: tuple[Path, Path], tmp_path: Path) -> None:
    pred, truth = squares
    code, out, _ = nuclens(
        "evaluate", "compare", pred, truth, truth, "--protocol", "monuseg", "--out", tmp_path / "out"
    )
    assert code == 0
    head, *values, drawn, last = out.splitlines()
    assert head.split() == ["A", "B", "B", "-", "A", "interval", "p"]
    assert values[1].split()[:4] == ["PQ", "0.9091", "1.0000", "+0.0909"]
    assert (drawn, last) == ("intervals: 95 %, over 2 images", f"report: {tmp_path / 'out' / 'compare.html'}")


def test_folds_prints_mean_and_spread(nuclens: Run, tmp_path: Path) -> None:
    DATASETS.get("pannuke").write_example(tmp_path / "made")
    masks = [tmp_path / "made" / f"Fold {fold}" / "masks" / f"fold{fold}" / "masks.npy" for fold in (3, 3, 1)]
    code, out, err = nuclens("evaluate", "folds", *masks, tmp_path / "made", "--out", tmp_path / "out")
    assert (code, err) == (0, "")
    first, head, mean, *rest = out.splitlines()
    assert first == "pannuke 1: mean and sample standard deviation of 3 runs"
    assert head.split() == ["fold3", "fold3", "fold1", "mean", "deviation"]
    assert mean.split() == ["mPQ", "1.0000", "1.0000", "1.0000", "1.0000", "0.0000"]
    assert "  Breast          1.0000 ± 0.0000    1.0000 ± 0.0000    1.0000 ± 0.0000" in rest
    assert rest[-1] == f"report: {tmp_path / 'out' / 'report.html'}"
    code, _, err = nuclens("evaluate", "folds", *masks[:2], "--path", tmp_path / "made")
    assert (code, err) == (2, "folds: got 2 predictions; wanted 3, tested on fold3, fold3, fold1\n")


def test_ceiling_prints_a_line_per_encoding(nuclens: Run, tmp_path: Path) -> None:
    DATASETS.get("consep").write_example(tmp_path)
    command = [
        "evaluate",
        "ceiling",
        "--dataset",
        "consep",
        "--path",
        tmp_path,
        "--split",
        "test",
        "--encoding",
        "offset",
    ]
    code, out, err = nuclens(*command)
    assert (code, err) == (0, "")
    head, line = out.splitlines()
    assert head.split() == ["PQ", "DQ", "SQ", "mPQ", "AJI"]
    assert line.startswith("offset ")


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        ([], 2, "0 paths; wanted PRED and TRUTH"),
        (["pred"], 2, "1 paths; wanted PRED and TRUTH"),
        (["pred", "truth", "--model", "default"], 2, "with --model TRUTH alone"),
        (["pred", "truth", "--protocol", "panuke"], 2, "did you mean pannuke"),
        (["pred", "nowhere"], 3, "nowhere: there is no such file or folder"),
        (["pred", "other"], 2, "pred: 1 of 1 images have no prediction (three); 2 predictions have no image"),
        (["ceiling"], 2, "ceiling: no TRUTH"),
        (["truth", "pred", "--protocol", "pannuke"], 2, "averages over tissues"),
    ],
)
def test_what_cannot_be_evaluated_is_one_line(
    nuclens: Run,
    squares: tuple[Path, Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    arguments: list[str],
    code: int,
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other").mkdir()
    np.save(tmp_path / "other" / "three.npy", np.zeros((4, 4), np.int32))
    ended, out, err = nuclens("evaluate", *arguments)
    assert (ended, out) == (code, "")
    [line] = err.splitlines()
    assert said in line


# --- convert ---


def test_convert_says_what_was_written_what_is_lost_and_what_failed(nuclens: Run, tmp_path: Path) -> None:
    made(4).save(tmp_path / "a.parquet")
    code, out, err = nuclens("convert", tmp_path / "a.parquet", "--to", "coco,arrow", "csv")
    assert code == 0
    assert lines(out) == [
        f"4 nuclei as {name}: {tmp_path / 'a'}{end}"
        for name, end in (("coco", ".coco.json"), ("arrow", ".arrow"), ("csv", ".csv"))
    ]
    assert lines(err)[0] == "coco cannot hold ids, anchors, probabilities, measurements"
    code, out, err = nuclens("convert", tmp_path / "a.csv", "--to", "geojson", "arrow", "--overwrite")
    assert (code, len(lines(out))) == (5, 1)
    assert "4 of 4 nuclei have no outline" in err
    assert nuclens("convert", tmp_path / "a.csv", "--to", "geojson")[0] == 2
    assert nuclens("convert", tmp_path / "a.csv", "--to", "coco")[0] == 2
