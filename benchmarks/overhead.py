"""Measures everything but the network: the whole job with recorded heads in the network's place.

    python benchmarks/overhead.py ../shared/data

Run it in an environment of the light install: where pandas is installed, pyarrow imports it, which takes a core-second.
Writes docs/results/overhead.md. A first process segments the MoNuSeg test images and records what the engine gave; a
second one, which is measured from its start to its end, does the whole job again and reads the records instead. The
time to read a record back is taken off. Python keeps its bytecode from the first process, as it does from any first
use. Bar: 1.5 core-s per mm² and 0.3 core-s per 1,000 nuclei on a core of 100 GFLOP/s, measured by a single-precision
matrix product on one core in the same run.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parent.parent / "docs" / "results" / "overhead.md"
SET = "monuseg/test/images"
MM2_SHARE, NUCLEI_SHARE, REFERENCE = 1.5, 0.3, 100.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="default")
    parser.add_argument("--worker", choices=("record", "replay"))
    parser.add_argument("--records", type=Path)
    arguments = parser.parse_args()
    if arguments.worker:
        print(json.dumps(worker(arguments)))
        return
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, str(arguments.data), "--model", arguments.model, "--records", folder]
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        subprocess.run([*command, "--worker", "record"], check=True, stdout=subprocess.DEVNULL, env=environment)
        rate = one_core_rate()
        replay = subprocess.run([*command, "--worker", "replay"], check=True, capture_output=True, env=environment)
        write(json.loads(replay.stdout.splitlines()[-1]), (rate + one_core_rate()) / 2)


def worker(arguments: argparse.Namespace) -> dict[str, Any]:
    """One whole job; `replay` tells its core-seconds."""
    from nuclens.jobs import batch

    began = cpu()
    tape = Tape(arguments.records, recording=arguments.worker == "record")

    def load(*args: Any, **kwargs: Any) -> Any:
        segmenter = batch_load(*args, **kwargs)
        return replace(segmenter, runner=tape.over(segmenter.runner))

    batch_load, batch.load_model = batch.load_model, load  # type: ignore[attr-defined]
    before = cpu()
    outcomes = batch.segment_files(
        [arguments.data / SET],
        Path(arguments.records) / arguments.worker,
        batch.BatchOptions(arguments.model, mpp=0.25),
    )
    records = [outcome.record for outcome in outcomes if outcome.error is None]
    return {
        "start": began,
        "load": tape.loaded - before,
        "total": cpu() - tape.seconds - (tape.loaded - before),
        "stages": summed(record["effort"]["core_seconds"] for record in records),
        "images": len(records),
        "mm2": sum(record["mm2"] for record in records),
        "nuclei": sum(record["nuclei"] for record in records),
    }


def summed(parts: Iterable[dict[str, float]]) -> dict[str, float]:
    """Core-seconds of each stage over all pictures."""
    total: dict[str, float] = {}
    for part in parts:
        for name, seconds in part.items():
            total[name] = total.get(name, 0) + seconds
    return total


class Tape:
    """Stands before the engine's runner: records what it gives, or gives what was recorded."""

    def __init__(self, folder: Path, *, recording: bool) -> None:
        self.folder, self.recording, self.count, self.seconds = folder, recording, 0, 0.0
        self.runner: Any = None
        self.loaded = 0.0

    def over(self, runner: Any) -> Tape:
        self.runner, self.loaded = runner, cpu()
        return self

    def run(self, rgb: Any) -> dict[str, Any]:
        import numpy as np

        began = time.thread_time()
        path = self.folder / f"{self.count}.npz"
        self.count += 1
        if self.recording:
            heads: dict[str, Any] = self.runner.run(rgb)
            np.savez(path, **heads)
        else:
            with np.load(path) as file:
                heads = dict(file)
        self.seconds += time.thread_time() - began
        return heads


def cpu() -> float:
    """Core-seconds of this process, all threads, start-up included."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def one_core_rate() -> float:
    """GFLOP/s of a single-precision matrix product on one core, best of five."""
    code = (
        "import time, numpy as np; a = np.ones((2048, 2048), np.float32); a @ a; best = 9e9\n"
        "for _ in range(5):\n    t = time.thread_time(); a @ a; best = min(best, time.thread_time() - t)\n"
        "print(2 * 2048**3 / best / 1e9)"
    )
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, env=environment)
    return float(run.stdout)


def write(found: dict[str, Any], rate: float) -> None:
    """The page."""
    allowed = (MM2_SHARE * found["mm2"] + NUCLEI_SHARE * found["nuclei"] / 1000) * REFERENCE / rate
    spent = found["total"]
    stages = found["stages"]
    rest = spent - found["start"] - sum(stages.values())
    listed = {"interpreter and imports": found["start"], **stages, "threads, garbage, summary": rest}
    lines = [
        "# Everything but the network",
        "",
        "Made by `python benchmarks/overhead.py ../shared/data`: one call on the MoNuSeg test images, all formats",
        "written; loading and compiling the model and the network itself are not in it.",
        "",
        f"{found['images']} images, {found['mm2']:.3f} mm², {found['nuclei']:,} nuclei. One core: {rate:.0f} GFLOP/s.",
        f"**{spent:.2f} core-s, of {allowed:.2f} allowed** "
        f"({MM2_SHARE} per mm² and {NUCLEI_SHARE} per 1,000 nuclei at {REFERENCE:.0f} GFLOP/s).",
        "",
        "| stage | core-s | ms per image |",
        "|---|---|---|",
    ]
    for name, seconds in sorted(listed.items(), key=lambda item: -item[1]):
        lines.append(f"| {name} | {seconds:.3f} | {1000 * seconds / found['images']:.1f} |")
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
