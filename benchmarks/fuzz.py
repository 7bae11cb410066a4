"""Reads files with errors put into them, for as long as asked: nothing may crash, hang, swell, run code or lie.

    python benchmarks/fuzz.py ../shared/data --minutes 10 [--only geojson readers/tiff ...] [--first SEED]

For every reader and every format that is read, sound files (real ones where there are, else made) are changed at
random: bytes, numbers, pieces lost, doubled or swapped, also within what is compressed. A process of its own reads each
and tells what is no `NuclensError` of one line that begins with the path, takes more than 20 s or 2 GB, writes,
connects or starts a program. Findings are kept as files in --out, with the seed that makes them again. Writes
fuzz.json in docs/results.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import zipfile
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from nuclens.core.errors import NuclensError
from nuclens.core.machine import peak_memory
from nuclens.core.slides import READERS
from nuclens.core.suffixes import FORMATS

SAVED = Path(__file__).parent.parent / "docs" / "results" / "fuzz.json"
MOST_BYTES, MOST_SECONDS = 2 << 30, 20.0
TEXTS = (".json", ".geojson", ".csv", ".xml", ".zattrs", ".zgroup", ".zarray")
NUMBERS = re.compile(rb"-?\d+(?:\.\d+)?")
TOKENS = (
    *(b"-1", b"0.5", b"1e308", b"1e999", b"NaN", b"null", b"true", b"[]", b"{}", b'"x"', b'""', b"\x00", b"\n"),
    *(b"2147483648", b"-9223372036854775809", b"9" * 40, b"[" * 3000, b"1000000000", b'"\\ud800"', b"\xff", b"../../x"),
)
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
FORBIDDEN = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "pickle.find_class", "socket.connect"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--first", type=int, default=0, help="seed to begin with")
    parser.add_argument("--out", type=Path, default=Path("runs/fuzz"))
    parser.add_argument("--child", help="read what comes, as one of these processes")
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child, arguments.out, arguments.first)
        return
    names = [f"readers/{name}" for name in READERS.names()]
    names += [f"formats/{name}" for name in FORMATS.names() if hasattr(FORMATS.get(name), "read")]
    chosen = [name for name in names if not arguments.only or {name, name.partition("/")[2]} & set(arguments.only)]
    for name in chosen:
        with tempfile.TemporaryDirectory() as folder:
            row = fuzzed(name, arguments, Path(folder))
        found = json.loads(SAVED.read_text(encoding="utf-8")) if SAVED.exists() else {}
        SAVED.write_text(json.dumps(dict(sorted((found | {name: row}).items())), indent=1) + "\n", encoding="utf-8")
        print(name, row, flush=True)


def fuzzed(name: str, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Fuzz one reader or format in a process that is begun anew whenever it has to be ended."""
    seeds = folder / "seeds"
    seeds.mkdir()
    samples(name, arguments.data, seeds)
    findings: list[str] = []
    until, seed = time.monotonic() + 60 * arguments.minutes, arguments.first
    command = [sys.executable, __file__, str(arguments.data), "--child", name, "--out", str(folder)]
    while time.monotonic() < until:
        log = folder / "log"
        with log.open("wb") as said:
            process = subprocess.Popen([*command, "--first", str(seed)], stdout=subprocess.DEVNULL, stderr=said)
        fault = watched(process, folder, until)
        state = json.loads((folder / "state").read_text() or "{}") if (folder / "state").exists() else {}
        seed = int(state.get("seed", seed)) + 1
        if fault:
            words = state.get("fault") or f"{fault}: {log.read_text(errors='replace')[-300:]}"
            findings.append(f"seed {seed - 1}: {words}")
            kept = arguments.out / name / str(seed - 1)
            shutil.rmtree(kept, ignore_errors=True)
            shutil.copytree(folder / "work", kept)
            print(name, findings[-1], flush=True)
    kinds = sorted({re.sub(r"seed \d+: ", "", finding)[:160] for finding in findings})
    return {"minutes": arguments.minutes, "files": seed - arguments.first, "findings": len(findings), "kinds": kinds}


def watched(process: subprocess.Popen[bytes], folder: Path, until: float) -> str:
    """Wait for the end of a process, or of the time; what was wrong, if anything."""
    beat, last = folder / "state", (0.0, "")
    while process.poll() is None:
        time.sleep(0.5)
        with suppress(OSError):
            text = beat.read_text()
            if text != last[1]:
                last = (cpu_of(process.pid), text)
            elif cpu_of(process.pid) - last[0] > MOST_SECONDS:
                process.kill()
                process.wait()
                return "hang"
        if time.monotonic() > until:
            process.kill()
            process.wait()
            return ""
    return "" if process.returncode == 0 else f"ended with {process.returncode}"


def cpu_of(pid: int) -> float:
    with suppress(OSError, IndexError, ValueError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


# --- the process that reads ---


def child(name: str, folder: Path, seed: int) -> None:
    """Read changed files until something is wrong, which is told by the code it ends with."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 28, 1 << 28))
    seeds = sorted(path for path in (folder / "seeds").iterdir())
    read, work = reading(name), folder / "work"
    broken: list[str] = []
    read(seeds[0])  # what is imported late is not of a file's making
    watching = [False]

    def audit(event: str, told: tuple[Any, ...]) -> None:
        if watching[0]:
            forbidden(event, told, broken)

    sys.addaudithook(audit)
    started = peak_memory() or 0
    while True:
        rng = np.random.default_rng(seed)
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        path = changed(seeds[int(rng.integers(len(seeds)))], work, rng)
        state = folder / ".state"
        state.write_text(json.dumps({"seed": seed}))
        state.replace(folder / "state")
        fault = ""
        watching[0] = True
        try:
            read(path)
        except NuclensError as error:
            if not str(error).startswith(str(path)) or "\n" in str(error):
                fault = f"text: {error!r}"
        except Exception as error:  # noqa: BLE001 - anything else is what is looked for
            where = traceback.extract_tb(error.__traceback__)[-1]
            fault = f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}: {error}"[:300]
        finally:
            watching[0] = False
        if broken:
            fault = f"did {broken[0]}"
        elif (peak_memory() or 0) - started > MOST_BYTES:
            fault = f"memory of {peak_memory()} bytes"
        if fault:
            (folder / "state").write_text(json.dumps({"seed": seed, "fault": fault}))
            sys.exit(3)
        seed += 1


def forbidden(event: str, told: tuple[Any, ...], broken: list[str]) -> None:
    writes = event == "open" and isinstance(told[2], int) and told[2] & WRITES and "/dev/" not in str(told[0])
    if event in FORBIDDEN or writes:
        broken.append(f"{event} {told!r:.200}")


def reading(name: str) -> Callable[[Path], object]:
    kind, _, plugin = name.partition("/")
    if kind == "formats":
        one = FORMATS.get(plugin)

        def read(path: Path) -> None:
            one.read(path)
            if hasattr(one, "predict"):
                one.predict(path)
            for image in one.images(path).values() if hasattr(one, "images") else ():
                image()

        return read
    reader = READERS.get(plugin)

    def look(path: Path) -> None:
        with closing(reader.open(path)) as slide:
            height, width = slide.shape
            for top, left in ((0, 0), (height // 2, width // 2), (max(0, height - 300), max(0, width - 300))):
                slide.read((top, left, min(height, top + 300), min(width, left + 300)))
            height, width = slide.levels[-1]
            slide.read((0, 0, min(400, height), min(400, width)), len(slide.levels) - 1)
            slide.digest  # noqa: B018 - which reads all files of the slide

    return look


# --- what is read ---


def samples(name: str, data: Path, folder: Path) -> None:
    """Sound files of a kind."""
    from nuclens.testing.nuclei import CASES

    kind, _, plugin = name.partition("/")
    if kind == "formats":
        one = FORMATS.get(plugin)
        for case in ("one", "many", "foreign", "untyped", "pixels only"):
            with suppress(NuclensError):
                one.write(
                    folder / f"{case}{one.suffix if one.suffix.startswith('.') else '-' + one.suffix}", CASES[case]()
                )
        return
    pictures = sorted((data / "tnbc").rglob("*.webp"))[:1] + sorted((data / "monuseg").rglob("*.webp"))[:1]
    for number, (suffix, write) in enumerate(made_pictures(pictures[0])):
        if suffix in READERS.get(plugin).suffixes:
            write(folder / f"{number}{suffix}")
    for path in sorted((data / "slides").iterdir()):
        if path.suffix in READERS.get(plugin).suffixes and path.stat().st_size < 5 << 20:
            shutil.copy(path, folder / path.name)


def made_pictures(picture: Path) -> Iterator[tuple[str, Callable[[Path], object]]]:
    """Small pictures and slides of every kind, by suffix, and what writes each."""
    import imagecodecs
    import tifffile

    from nuclens.testing.slides import write_dicom, write_mrxs, write_svs

    rgb = np.ascontiguousarray(imagecodecs.imread(picture)[:300, :280, :3])
    yield ".png", lambda path: path.write_bytes(imagecodecs.png_encode(rgb))
    yield ".jpg", lambda path: path.write_bytes(imagecodecs.jpeg8_encode(rgb))
    yield ".webp", lambda path: path.write_bytes(imagecodecs.webp_encode(rgb))
    yield ".bmp", lambda path: path.write_bytes(imagecodecs.bmp_encode(rgb))
    yield ".jp2", lambda path: path.write_bytes(imagecodecs.jpeg2k_encode(rgb))
    for compression in ("jpeg", "deflate", "lzw", None):
        yield ".tif", partial(tifffile.imwrite, data=rgb, tile=(64, 64), compression=compression)
    yield ".tif", lambda path: tifffile.imwrite(path, rgb[..., 0].astype(np.uint16), metadata={"axes": "YX"}, ome=True)
    yield ".svs", lambda path: write_svs(path, rgb)
    yield ".dcm", lambda path: write_dicom(path, rgb)
    images = {(row, row): rgb[32 * row : 32 * row + 32, :32] for row in range(4)}
    yield ".mrxs", lambda path: write_mrxs(path, images, (4, 4))


def changed(source: Path, work: Path, rng: np.random.Generator) -> Path:
    """A copy of a file or folder with errors in it."""
    path = work / source.name
    beside = source.with_suffix("")  # MRXS keeps its tiles in a folder
    if source.is_dir():
        shutil.copytree(source, path)
    else:
        shutil.copy(source, path)
        if source.suffix == ".mrxs" and beside.is_dir():
            shutil.copytree(beside, work / beside.name)
    files = sorted(part for part in work.rglob("*") if part.is_file())
    victim = files[int(rng.integers(len(files)))]
    if len(files) > 1 and rng.random() < 0.05:
        victim.unlink()
        return path
    data = victim.read_bytes()
    for _ in range(int(rng.integers(1, 5))):
        data = unpacked(data, rng, victim.suffix in TEXTS or source.suffix in TEXTS)
    victim.write_bytes(data)
    return path


def unpacked(data: bytes, rng: np.random.Generator, text: bool) -> bytes:
    """Errors put into data, and mostly into what is compressed in it, where it is."""
    if data[:2] == b"\x1f\x8b" and rng.random() < 0.8:
        with suppress(OSError, EOFError):
            return gzip.compress(mutated(gzip.decompress(data), rng, True), mtime=0)
    if data[:2] == b"PK" and rng.random() < 0.8:
        with suppress(zipfile.BadZipFile, OSError, EOFError, NotImplementedError, ValueError, RuntimeError):
            return zipped(data, rng)
    return mutated(data, rng, text)


def zipped(data: bytes, rng: np.random.Generator) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as before, zipfile.ZipFile(packed, "w") as after:
        names = before.namelist()
        victim = names[int(rng.integers(len(names)))]
        for one in names:
            content = before.read(one)
            after.writestr(one, mutated(content, rng, False) if one == victim else content)
    return packed.getvalue()


def mutated(data: bytes, rng: np.random.Generator, text: bool) -> bytes:
    if not data:
        return TOKENS[int(rng.integers(len(TOKENS)))]
    if text and rng.random() < 0.6:
        return respelt(data, rng)
    # Headers and directories are at the ends of files.
    near = int(rng.integers(3))
    reach = min(len(data), 4096)
    place = int(rng.integers(len(data))) if near == 0 else int(rng.integers(reach))
    place = len(data) - 1 - place if near == 2 else place
    kind = int(rng.integers(7))
    if kind == 0:
        return data[:place] + bytes([data[place] ^ (1 << int(rng.integers(8)))]) + data[place + 1 :]
    if kind == 1:
        return data[:place] + rng.bytes(int(rng.integers(1, 9))) + data[place + 1 :]
    if kind in (2, 3):
        size = 1 << int(rng.integers(4))
        numbers = (0, 1, 0x7F, 0x80, 0xFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 40, (1 << 64) - 1)
        value = numbers[int(rng.integers(len(numbers)))] & ((1 << 8 * size) - 1)
        order: Any = "little" if rng.random() < 0.7 else "big"
        return data[:place] + value.to_bytes(size, order) + data[place + size :]
    length = int(rng.integers(1, max(2, min(len(data), 2000))))
    if kind == 4:
        return data[:place] + data[place + length :]
    if kind == 5:
        return data[:place] + data[place : place + length] * int(rng.integers(2, 5)) + data[place + length :]
    return data[:place] if rng.random() < 0.5 else data[:place] + data[:length] + data[place + length :]


def respelt(data: bytes, rng: np.random.Generator) -> bytes:
    """A number, a word or a mark of a text, changed."""
    token = TOKENS[int(rng.integers(len(TOKENS)))]
    spans = [found.span() for found in NUMBERS.finditer(data)]
    if spans and rng.random() < 0.6:
        start, end = spans[int(rng.integers(len(spans)))]
        return data[:start] + token + data[end:]
    marks = [place for place, byte in enumerate(data) if byte in b'{}[],:"\n']
    place = marks[int(rng.integers(len(marks)))] if marks else 0
    return data[:place] + (token if rng.random() < 0.5 else b"") + data[place + 1 :]


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    main()
