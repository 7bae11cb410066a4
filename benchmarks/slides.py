"""Measures whole slides: everything but the network on one region, growth to 64 regions, kills, tilings.

    python benchmarks/slides.py ../shared/data [--only region growth quarter kills tilings]

Run it in an environment of the light install, on a quiet machine. Slides are made by benchmarks/made_slide.py: a region
of a real slide, repeated up to 8 x 8 times (46,592 pixels a side). Where our own machinery is what is timed, recorded
answers stand in for the engine: heads of the region as if it were repeated without end, cut out for each tile; the time
to cut them out is taken off. Every measurement is a process of its own. Writes docs/results/slides.json.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from overhead import cpu, one_core_rate  # type: ignore[import-not-found]  # lies beside this file

HERE = Path(__file__).parent
SAVED = HERE.parent / "docs" / "results" / "slides.json"
REGION = "slides/tcga-v5-a7re-region.tif"
SIDE, MARGIN = 5824, 320  # px of a repeat; px from its borders within which a nucleus may differ
FORMATS = ("geoparquet", "geojson")
MM2_SHARE, NUCLEI_SHARE, REFERENCE = 1.0, 0.2, 100.0
PARTS = ("region", "growth", "quarter", "kills", "tilings")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--scratch", type=Path, help="folder for made slides, which take 1 GB")
    parser.add_argument("--worker", choices=("record", "replay", "real"))
    parser.add_argument("--slide", type=Path)
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(worker(arguments.worker, arguments.slide, arguments.out, arguments.scratch)))
        return
    with tempfile.TemporaryDirectory() as folder:
        scratch = arguments.scratch or Path(folder)
        found = json.loads(SAVED.read_text(encoding="utf-8")) if SAVED.exists() else {}
        for part in arguments.only:
            found[part] = globals()[part](arguments.data, scratch)
            SAVED.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
            print(part, json.dumps(found[part], indent=1))


# --- the parts ---


def region(data: Path, scratch: Path) -> dict[str, Any]:
    """One region end to end with recorded answers, three times, and with the network."""
    record(data, scratch)
    slide = made(data, scratch, 1)
    rates, runs = [one_core_rate()], []
    for number in range(3):
        runs.append(job("replay", slide, scratch / f"replay-{number}", scratch))
        rates.append(one_core_rate())
    real = [job("real", slide, scratch / f"real-{number}", scratch) for number in range(3)]
    return {"core_gflops": rates, "replayed": runs, "real": real}


def growth(data: Path, scratch: Path) -> list[dict[str, Any]]:
    """1, 4, 16 and 64 regions, one after another, twice."""
    record(data, scratch)
    found = []
    for turn in range(2):
        for repeats in (1, 2, 4, 8):
            out = scratch / f"growth-{repeats}"
            run = job("replay", made(data, scratch, repeats), out, scratch)
            found.append({"turn": turn, "repeats": repeats, **run, **away_from_borders(out, repeats)})
    return found


def quarter(data: Path, scratch: Path) -> dict[str, Any]:
    """16 regions with the network."""
    out = scratch / "quarter"
    return {**job("real", made(data, scratch, 4), out, scratch), **away_from_borders(out, 4)}


def kills(data: Path, scratch: Path) -> dict[str, Any]:
    """One region in small tiles, killed 20 times at random moments, against a run without interruption."""
    slide = made(data, scratch, 1)
    command = [sys.executable, "-m", "nuclens", "segment", str(slide), "--tile-size", "512"]
    command += ["--formats", "csv", "geojson", "geoparquet", "summary"]

    def files(out: Path) -> dict[str, bytes]:
        found = (path for path in sorted((out / slide.stem).iterdir()) if path.name != "run.json")
        return {path.name: path.read_bytes() for path in found}

    began = time.monotonic()
    subprocess.run([*command, "--out", str(scratch / "whole")], check=True, stdout=subprocess.DEVNULL)
    seconds = time.monotonic() - began
    whole = files(scratch / "whole")
    chance = random.Random(0)  # the moments are spread, not secret
    rounds: list[dict[str, Any]] = []
    while sum(len(one["tiles_kept"]) for one in rounds) < 20:
        out, kept = scratch / f"killed-{len(rounds)}", []
        for _ in range(4):
            process = subprocess.Popen([*command, "--out", str(out)], stdout=subprocess.DEVNULL)
            time.sleep(chance.uniform(0.05, 0.4) * seconds)
            process.send_signal(signal.SIGKILL)
            if process.wait() == -signal.SIGKILL and not (out / slide.stem / "run.json").exists():
                kept.append(len(list((out / slide.stem / "journal" / "blocks").glob("[0-9]*.arrow"))))
        subprocess.run([*command, "--out", str(out)], check=True, stdout=subprocess.DEVNULL)
        log = (out / "nuclens.log").read_text(encoding="utf-8")
        gone_on_with = [int(count) for count in re.findall(r"tiles, (\d+) of them done before", log)]
        rounds.append({"tiles_kept": kept, "gone_on_with": gone_on_with, "same_bytes": files(out) == whole})
    return {"seconds": seconds, "files": sorted(whole), "rounds": rounds}


def tilings(data: Path, scratch: Path) -> list[dict[str, Any]]:
    """The region in three tile sizes at three offsets."""
    from dataclasses import replace

    from nuclens.jobs.segment import load_model, segment

    slide, loaded = made(data, scratch, 1), load_model("default")
    stride = loaded.model.card.stride
    found: list[dict[str, Any]] = []
    first: dict[bytes, bytes] = {}
    for core in (2048, 1024, 512):
        for offset in ((0, 0), (stride * 5, stride * 11), (core // 2, core - stride)):
            nuclei = segment(slide, model=replace(loaded, tile_px=core, offset_px=offset))
            rows = {nuclei.ids[k].tobytes(): nuclei.outline(k).tobytes() for k in range(len(nuclei))}
            first = first or rows
            differing = {key for key, _ in rows.items() ^ first.items()}
            found.append({"core": core, "offset": offset, "nuclei": len(rows), "differing": len(differing)})
    return found


# --- one measured process ---


def worker(kind: str, slide: Path, out: Path, scratch: Path) -> dict[str, Any]:
    """One whole job, and what it took since the interpreter began."""
    from nuclens.core.machine import peak_memory
    from nuclens.jobs import batch, segment

    tape, real = Tape(scratch / "heads"), segment.load_model
    loading = [0.0]

    def load(*args: Any, **kwargs: Any) -> Any:
        before = cpu()
        segmenter = real(*args, **kwargs)
        loading[0] = cpu() - before
        return tape.over(segmenter) if kind == "replay" else segmenter

    vars(segment)["load_model"] = load
    began = time.monotonic()
    [outcome] = batch.segment_files([slide], out, batch.BatchOptions(formats=FORMATS, overwrite=True))
    wall = time.monotonic() - began
    if outcome.error:
        raise outcome.error
    record = outcome.record
    plan = record["plan"]
    return {
        "mm2": record["mm2"],
        "nuclei": record["nuclei"],
        "tiles": record["tiles"],
        "read_to_core": tape.area / tape.core if kind == "replay" else None,
        "core_seconds": cpu() - tape.seconds - loading[0],
        "loading": loading[0],
        "answering": tape.seconds,
        "seconds": wall,
        "stages": record["effort"]["core_seconds"],
        "waits": record["effort"]["seconds"],
        "peak_mb": (peak_memory() or 0) / 1e6,
        "precision": plan["precision"],
    }


@dataclass
class Tape:
    """Answers for the engine: heads of the endlessly repeated region, cut out for one tile after another."""

    folder: Path
    seconds: float = 0.0
    area: int = 0
    core: int = 0
    tiles: Iterator[Any] = field(default_factory=lambda: iter(()))
    heads: dict[str, Any] = field(default_factory=dict)
    precision: str = ""
    processor: str = ""

    def over(self, segmenter: Any) -> Any:
        """The segmenter with this in place of its runner."""
        from dataclasses import replace

        self.heads = {path.stem: np.load(path, mmap_mode="r") for path in sorted(self.folder.glob("*.npy"))}
        self.precision, self.processor = segmenter.runner.precision, segmenter.runner.processor
        tape = self

        class Replaying(type(segmenter)):  # type: ignore[misc]
            __slots__ = ()

            def picture(self, *args: Any, **kwargs: Any) -> Any:
                picture = super().picture(*args, **kwargs)
                tape.tiles = iter(picture.left())
                return picture

        names = segmenter.__dataclass_fields__
        return replace(Replaying(**{name: getattr(segmenter, name) for name in names}), runner=self)

    def run(self, rgb: Any) -> dict[str, Any]:
        """Heads of the next tile."""
        began = time.thread_time()
        box, core = (tile := next(self.tiles)).box, tile.core
        rows, columns = np.arange(box[0], box[2]) % SIDE, np.arange(box[1], box[3]) % SIDE
        heads = {name: np.ascontiguousarray(head[:, rows][:, :, columns]) for name, head in self.heads.items()}
        self.area += (box[2] - box[0]) * (box[3] - box[1])
        self.core += (core[2] - core[0]) * (core[3] - core[1])
        self.seconds += time.thread_time() - began
        return heads


def record(data: Path, scratch: Path) -> None:
    """Heads of the region as if it were repeated without end."""
    folder = scratch / "heads"
    if folder.exists():
        return
    import tifffile

    from nuclens.core.plan import halo_px
    from nuclens.jobs.segment import load_model

    pixels = tifffile.imread(made(data, scratch, 1), series=0, level=0)
    loaded = load_model("default")
    halo = halo_px(loaded.model.card)
    folder.mkdir()
    files: dict[str, Any] = {}
    for top in range(0, SIDE, 1456):
        for left in range(0, SIDE, 1456):
            rows, columns = (np.arange(first - halo, first + 1456 + halo) % SIDE for first in (top, left))
            for name, head in loaded.runner.run(np.ascontiguousarray(pixels[rows][:, columns])).items():
                if name not in files:
                    shape = (head.shape[0], SIDE, SIDE)
                    files[name] = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", head.dtype, shape)
                files[name][:, top : top + 1456, left : left + 1456] = head[:, halo:-halo, halo:-halo]


def made(data: Path, scratch: Path, repeats: int) -> Path:
    """The made slide, written once."""
    path = scratch / f"made{repeats}.tif"
    if not path.exists():
        command = [
            sys.executable,
            str(HERE / "made_slide.py"),
            str(data / REGION),
            str(path),
            "--repeats",
            str(repeats),
        ]
        subprocess.run(command, check=True)
    return path


def job(kind: str, slide: Path, out: Path, scratch: Path) -> dict[str, Any]:
    """What one process measured."""
    command = [sys.executable, __file__, ".", "--worker", kind, "--slide", str(slide), "--out", str(out)]
    run = subprocess.run([*command, "--scratch", str(scratch)], check=True, capture_output=True, text=True)
    result: dict[str, Any] = json.loads(run.stdout.splitlines()[-1])
    return result


def away_from_borders(out: Path, repeats: int) -> dict[str, Any]:
    """Nuclei far from the borders of repeats: how many repeats have exactly those that most have."""
    import pyarrow.parquet as pq

    path = next(out.glob("*/instances.parquet"))
    columns = ["anchor_row", "anchor_col"]
    table = pq.read_table(path, columns=columns)
    anchors = np.stack([table[name].to_numpy() for name in columns], axis=1).astype(np.int64)
    cells, places = np.divmod(anchors, SIDE)
    inner = np.all((places >= MARGIN) & (places < SIDE - MARGIN), axis=1)
    sets: dict[int, set[tuple[int, ...]]] = {cell: set() for cell in range(repeats * repeats)}
    for cell, place in zip((cells[inner] @ [repeats, 1]).tolist(), places[inner].tolist(), strict=True):
        sets[cell].add(tuple(place))
    usual = sets[0]
    return {
        "inner_nuclei": int(inner.sum()),
        "of_one_repeat": len(usual),
        "repeats_that_are_equal": sum(found == usual for found in sets.values()),
        "groups": pq.ParquetFile(path).num_row_groups,
    }


if __name__ == "__main__":
    main()
