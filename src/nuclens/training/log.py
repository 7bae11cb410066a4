"""The log of a run: a CSV file with one row for each step."""

from __future__ import annotations

import csv
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nuclens.core.files import replacing

LOG, VALIDATION = "log.csv", "validation.csv"


class Log:
    """Rows of a run's log, on the disk after every flush and at the end, whatever ends it.

    Rows of steps that the run has not done, since a checkpoint older than they are was gone back to, are dropped.

    Args:
        path: Of the file.
        step: Steps done.
        writes: Whether anything is written: of several processes one does.
    """

    def __init__(self, path: Path, step: int, *, writes: bool = True) -> None:
        self.path, self.writes = path, writes
        self.rows: list[dict[str, str]] = []
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                self.rows = [row for row in csv.DictReader(file) if int(row["step"]) <= step]
        self.first = int(self.rows[0]["step"]) - 1 if self.rows else step
        self.began = time.monotonic() - (float(self.rows[-1]["seconds"]) if self.rows else 0.0)

    def __enter__(self) -> Log:
        """The log itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Write what was added."""
        self.flush()

    @property
    def seconds(self) -> float:
        """Of training until now, that before interruptions included."""
        return time.monotonic() - self.began

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Add the row of a step; `seconds` of training are told with it."""
        told = {name: f"{value:.6g}" for name, value in values.items()}
        self.rows.append({"step": str(step), **told, "seconds": f"{self.seconds:.1f}"})

    def flush(self) -> None:
        """Write all rows.

        Raises:
            OutputError: The file cannot be written.
        """
        if self.rows and self.writes:
            with replacing(self.path) as path, path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(dict.fromkeys(name for row in self.rows for name in row)))
                writer.writeheader()
                writer.writerows(self.rows)


class Board:
    """The same numbers for TensorBoard, where that is installed; nothing elsewhere."""

    def __init__(self, folder: Path, step: int) -> None:
        self.writer: Any = None
        if find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(folder), purge_step=step + 1)

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Add the numbers of a step."""
        if self.writer is not None:
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is left."""
        if self.writer is not None:
            self.writer.close()
