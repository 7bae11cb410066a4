"""The log of a run: a CSV file with one row for each step."""

from __future__ import annotations

import csv
import time
from collections.abc import Mapping
from pathlib import Path

from nuclens.core.files import replacing

LOG = "log.csv"


class Log:
    """Rows of a run's log, on the disk after every flush and at the end, whatever ends it.

    Rows of steps that the run has not done, since a checkpoint older than they are was gone back to, are dropped.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        self.rows: list[dict[str, str]] = []
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                self.rows = [row for row in csv.DictReader(file) if int(row["step"]) <= step]
        self.began = time.monotonic() - (float(self.rows[-1]["seconds"]) if self.rows else 0.0)

    def __enter__(self) -> Log:
        """The log itself."""
        return self

    def __exit__(self, *exception: object) -> None:
        """Write what was added."""
        self.flush()

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Add the row of a step; `seconds` of training are told with it."""
        told = {name: f"{value:.6g}" for name, value in values.items()}
        self.rows.append({"step": str(step), **told, "seconds": f"{time.monotonic() - self.began:.1f}"})

    def flush(self) -> None:
        """Write all rows.

        Raises:
            OutputError: The file cannot be written.
        """
        if self.rows:
            with replacing(self.path) as path, path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(self.rows[0]))
                writer.writeheader()
                writer.writerows(self.rows)
