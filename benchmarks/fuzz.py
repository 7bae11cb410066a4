"""Reads files with errors put into them, for as long as asked: nothing may crash, hang, swell, run code or lie.

    python benchmarks/fuzz.py ../shared/data --minutes 10 [--only geojson readers/tiff ...] [--first SEED]
    python benchmarks/fuzz.py ../shared/data --replay

For every reader, every format that is read, and what else people hand around (tables of slides, drawn tissue, cards of
models, folders of results), sound files (real ones where there are, else made) are changed at
random: bytes, numbers, pieces lost, doubled or swapped, also within what is compressed, has checksums or is a database.
A process of its own reads each and tells what is no `NuclensError` of one line that begins with the path, takes more
than 20 s or 2 GB, writes, connects or starts a program. Findings are kept as files in --out; --replay reads these again
and tells which are still open. Writes fuzz.json and fuzz.md in docs/results; each run goes on where the last one ended.
"""

from __future__ import annotations

import argparse
import fcntl
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
from collections.abc import Callable
from contextlib import closing, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_changes import changed, entry  # type: ignore[import-not-found]  # lies beside this file

from nuclens.core.errors import NuclensError
from nuclens.core.machine import peak_memory
from nuclens.core.slides import READERS
from nuclens.core.suffixes import FORMATS

SAVED = Path(__file__).parent.parent / "docs" / "results" / "fuzz.json"
MOST_BYTES, MOST_SECONDS = 2 << 30, 20.0
MOST_FILES = 5000  # that one process reads: what libraries keep would add up
CHANGING = "in changing it"
INPUTS = ("cohort", "tissue", "card", "run")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
FORBIDDEN = {"subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "pickle.find_class", "socket.connect"}
PAGE = """# Files with errors put into them

Made by `python benchmarks/fuzz.py DATA --minutes 10`, which says what is done to files. A finding is any error that
is not ours or not in one line, a crash, more than {seconds:g} s of one core or {gigabytes} GB, anything written, run or
connected to. What is open is read again with `--replay`. Every file is read in all ways there are for its kind.
Minutes are those of the clock, on two cores that others used as well; findings that differ in numbers only count once.

| target | minutes | files read | found | fixed | open |
|---|---|---|---|---|---|
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--only", nargs="+")
    parser.add_argument("--first", type=int, help="seed to begin with; by default the next one")
    parser.add_argument("--out", type=Path, default=Path("runs/fuzz"), help="folder for findings")
    parser.add_argument("--replay", action="store_true", help="read what was found again")
    parser.add_argument("--child", help="read what comes, as one of these processes")
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child, arguments.out, arguments.first, once=arguments.replay)
        return
    known = targets()
    chosen = [name for one in arguments.only or [""] for name in known if one in ("", name, name.partition("/")[2])]
    for name in chosen:
        if arguments.replay:
            replayed(name, arguments)
        else:
            fuzzed(name, arguments)
        print(name, rows().get(name), flush=True)


def targets() -> list[str]:
    """Readers and formats of this machine, and other inputs."""
    names = [f"readers/{name}" for name in READERS.names() if find_spec("cucim") or name != "cucim"]
    read = [name for name in FORMATS.names() if hasattr(FORMATS.get(name), "read")]
    names += [f"inputs/{name}" for name in INPUTS]
    return names + [f"formats/{name}" for name in read if find_spec(getattr(FORMATS.get(name), "needs", "nuclens"))]


def rows() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(SAVED.read_text(encoding="utf-8")) if SAVED.exists() else {}
    return found


def save(name: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Change what is told of a target, and the page; several of these programs may run at once."""
    with (SAVED.parent / ".fuzz").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        found = rows()
        change(found.setdefault(name, {"minutes": 0, "files": 0, "next": 0, "findings": {}}))
        SAVED.write_text(json.dumps(dict(sorted(found.items())), indent=1) + "\n", encoding="utf-8")
        SAVED.with_suffix(".md").write_text(page(found), encoding="utf-8")
    Path(lock.name).unlink(missing_ok=True)


def page(found: dict[str, Any]) -> str:
    lines = [PAGE.format(seconds=MOST_SECONDS, gigabytes=MOST_BYTES >> 30)]
    for name, row in sorted(found.items()):
        still = sum(one["open"] for one in row["findings"].values())
        kinds = len(row["findings"])
        lines.append(f"| `{name}` | {row['minutes']:g} | {row['files']:,} | {kinds} | {kinds - still} | {still} |\n")
    told = [
        f"* `{name}`, seed {one['seed']}: {kind}\n"
        for name, row in sorted(found.items())
        for kind, one in row["findings"].items()
        if one["open"]
    ]
    return "".join([*lines, *(["\nOpen:\n\n", *told] if told else [])])


def fuzzed(name: str, arguments: argparse.Namespace) -> None:
    """Fuzz one reader or format in a process that is begun anew whenever it has to be ended."""
    first = rows().get(name, {}).get("next", 0) if arguments.first is None else arguments.first
    with tempfile.TemporaryDirectory() as temporary:
        folder = sown(name, arguments, Path(temporary))
        began, seed = time.monotonic(), first
        findings: dict[str, Any] = {}
        while time.monotonic() < began + 60 * arguments.minutes:
            fault, seed = followed(name, arguments, folder, seed, began + 60 * arguments.minutes)
            if fault and (folder / "damaged").exists():
                kept = arguments.out / name / str(seed - 1)
                shutil.rmtree(kept, ignore_errors=True)
                shutil.copytree(folder / "damaged", kept)
                findings.setdefault(kind_of(fault, kept), {"seed": seed - 1, "open": True})
                print(name, seed - 1, fault, flush=True)

    def add(row: dict[str, Any]) -> None:
        row["minutes"] = round(row["minutes"] + arguments.minutes, 2)
        row["files"] += seed - first
        row["next"] = max(row["next"], seed)
        row["findings"] |= findings

    save(name, add)


def sown(name: str, arguments: argparse.Namespace, folder: Path) -> Path:
    """A folder with sound files in it."""
    (folder / "seeds").mkdir()
    subprocess.run(command(name, arguments, folder, -1), check=True)
    return folder


def followed(name: str, arguments: argparse.Namespace, folder: Path, seed: int, until: float) -> tuple[str, int]:
    """What was wrong with the last file of a process, if anything, and the next seed."""
    (folder / "state").unlink(missing_ok=True)
    log = folder / "log"
    with log.open("wb") as said:
        process = subprocess.Popen(command(name, arguments, folder, seed), stdout=subprocess.DEVNULL, stderr=said)
    fault = watched(process, folder, until)
    state = json.loads((folder / "state").read_text() or "{}") if (folder / "state").exists() else {}
    if state.get("fault") == CHANGING:  # what makes errors has some itself
        fault = ""
    words = state.get("fault") or f"{fault}: {log.read_text(errors='replace')[-300:]}"
    return words if fault else "", int(state.get("seed", seed)) + 1


def command(name: str, arguments: argparse.Namespace, folder: Path, seed: int) -> list[str]:
    start = [sys.executable, "-B", "-W", "ignore", __file__, str(arguments.data)]
    return [*start, "--child", name, "--out", str(folder), "--first", str(seed), *["--replay"] * arguments.replay]


def kind_of(fault: str, kept: Path) -> str:
    """A finding without what differs between files."""
    return re.sub(r"/\S+/damaged/|\d{3,}", "", " ".join(fault.replace(str(kept), "").split()))[:160]


def replayed(name: str, arguments: argparse.Namespace) -> None:
    """Read what was found once more."""
    for kind, one in rows().get(name, {"findings": {}})["findings"].items():
        kept = arguments.out / name / str(one["seed"])
        if not one["open"] or not kept.exists():
            continue
        with tempfile.TemporaryDirectory() as temporary:
            folder = sown(name, arguments, Path(temporary))
            shutil.copytree(kept, folder / "damaged")
            fault, _ = followed(name, arguments, folder, one["seed"], time.monotonic() + 300)
        print(name, one["seed"], fault or "fixed", flush=True)
        save(name, lambda row, kind=kind, fault=fault: row["findings"][kind].update(open=bool(fault)))  # type: ignore[misc]


def watched(process: subprocess.Popen[bytes], folder: Path, until: float) -> str:
    """Wait for the end of a process, or of the time; what was wrong, if anything."""
    beat, last = folder / "state", (0.0, "")
    while process.poll() is None:
        time.sleep(0.2)
        with suppress(OSError):
            text = beat.read_text()
            if text != last[1]:
                last = (cpu_of(process.pid), text)
            elif cpu_of(process.pid) - last[0] > MOST_SECONDS:
                return ended(process, "hang")
        if held_by(process.pid) > 2 * MOST_BYTES:
            return ended(process, "memory")
        if time.monotonic() > until:
            return ended(process, "")
    return "" if process.returncode == 0 else f"ended with {process.returncode}"


def ended(process: subprocess.Popen[bytes], why: str) -> str:
    process.kill()
    process.wait()
    return why


def held_by(pid: int) -> int:
    with suppress(OSError, IndexError, ValueError):
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return 0


def cpu_of(pid: int) -> float:
    with suppress(OSError, IndexError, ValueError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return 0.0


# --- the process that reads ---


def child(name: str, folder: Path, seed: int, *, once: bool) -> None:
    """Read changed files until something is wrong, which is told by the code it ends with.

    Before the first one sound files are made, in a process of their own.
    """
    if seed < 0:
        from fuzz_samples import samples  # type: ignore[import-not-found]  # here, since it imports what it needs

        samples(name, Path(sys.argv[1]), folder / "seeds")
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 28, 1 << 28))
    read, work, broken = reading(name), folder / "damaged", list[str]()
    # What is imported late is not of a file's making; of what others read, some is refused.
    seeds = [one for one in sorted((folder / "seeds").iterdir()) if not refusal_of(partial(read, entry(one)))]
    started, watching = peak_memory() or 0, [False]

    def audit(event: str, told: tuple[Any, ...]) -> None:
        if watching[0]:
            forbidden(event, told, broken)

    sys.addaudithook(audit)
    for number in range(seed, seed + (1 if once else MOST_FILES)):
        if once:
            path = entry(work)
        else:
            rng = np.random.default_rng(number)
            shutil.rmtree(work, ignore_errors=True)
            tell(folder, {"seed": number, "fault": CHANGING})
            path = changed(seeds[int(rng.integers(len(seeds)))], work, rng)
        tell(folder, {"seed": number})
        watching[0] = True
        fault = fault_of(read, path)
        watching[0] = False
        if broken:
            fault = f"did {broken[0]}"
        elif (peak_memory() or 0) - started > MOST_BYTES:
            fault = f"memory of {peak_memory()} bytes"
        if fault:
            tell(folder, {"seed": number, "fault": fault})
            sys.exit(3)


def tell(folder: Path, state: dict[str, Any]) -> None:
    (folder / ".state").write_text(json.dumps(state))
    (folder / ".state").replace(folder / "state")


def fault_of(read: Callable[[Path], object], path: Path) -> str:
    """What is wrong with how a file is read, or refused."""
    try:
        read(path)
    except NuclensError as error:
        return "" if str(error).startswith(str(path)) and "\n" not in str(error) else f"text: {error!r}"
    except Exception as error:  # noqa: BLE001 - anything else is what is looked for
        frames = traceback.extract_tb(error.__traceback__)
        where = next((frame for frame in reversed(frames) if "nuclens" in frame.filename), frames[-1])
        return f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}: {error}"[:300]
    return ""


def forbidden(event: str, told: tuple[Any, ...], broken: list[str]) -> None:
    writes = event == "open" and isinstance(told[2], int) and told[2] & WRITES and "/dev/" not in str(told[0])
    if event in FORBIDDEN or writes:
        broken.append(f"{event} {told!r:.200}")


def refusal_of(way: Callable[[], object]) -> NuclensError | None:
    """What a way of reading says against a file, which the other ways have to read all the same."""
    try:
        way()
    except NuclensError as error:
        return error
    return None


def reading(name: str) -> Callable[[Path], object]:
    kind, _, plugin = name.partition("/")
    if kind == "formats":
        one = FORMATS.get(plugin)

        def read(path: Path) -> None:
            ways: list[Callable[[], object]] = [lambda: one.read(path)]
            if hasattr(one, "predict"):
                ways.append(lambda: one.predict(path))
            if hasattr(one, "images"):
                ways.append(lambda: [image() for image in one.images(path).values()])
            if hasattr(one, "parts"):
                ways.append(lambda: [len(part) for part in one.parts(path)])
            refused = [refusal for way in ways if (refusal := refusal_of(way))]
            if refused:
                raise refused[0]

        return read
    if kind == "inputs":
        return input_reader(plugin)
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


def input_reader(name: str) -> Callable[[Path], object]:
    from nuclens.core.card import card_from_json  # here, as each child needs one
    from nuclens.core.tissue_files import read_tissue
    from nuclens.jobs.cohort_file import read_cohort
    from nuclens.jobs.status import status_of

    def table(path: Path) -> None:
        try:
            read_cohort(path)
        except NuclensError as error:  # which has a line for each fault
            raise type(error)(str(error).partition("\n")[0]) from error

    readers: dict[str, Callable[[Path], object]] = {
        "cohort": table,
        "tissue": lambda path: read_tissue(path, (2000, 3000), 0.25),
        "card": lambda path: card_from_json(path.read_bytes(), str(path)),
        "run": status_of,
    }
    return readers[name]


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    main()
