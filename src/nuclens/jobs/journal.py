"""Journal: the nuclei of a picture's finished tiles, in memory or as one file each that outlives the process."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from nuclens.core.errors import DataError, InputError, OutputError
from nuclens.core.files import replacing
from nuclens.core.json_texts import decode_json
from nuclens.core.plan import Plan
from nuclens.core.shapes import Shape, fits
from nuclens.core.suffixes import FORMATS
from nuclens.core.types import Instances

PLAN = "plan.json"
TILES = "tiles.json"
BLOCKS = "blocks"
PLANNED: dict[Any, Shape] = {str: (str, float, None, [int])}


class Journal(Protocol):
    """Where finished tiles are kept until the result is written."""

    def finished(self) -> frozenset[int]:
        """Indices of the tiles that are kept."""

    def add(self, index: int, nuclei: Instances) -> None:
        """Keep a tile's nuclei.

        Raises:
            OutputError: They cannot be kept.
        """

    def __iter__(self) -> Iterator[Instances]:
        """The nuclei of tile after tile, in the order of their indices."""


@dataclass(frozen=True, slots=True)
class MemoryJournal:
    """Keeps tiles in memory.

    Attributes:
        blocks: Nuclei by index of their tile.
    """

    blocks: dict[int, Instances] = field(default_factory=dict)

    def finished(self) -> frozenset[int]:
        """Indices of the tiles that are kept."""
        return frozenset(self.blocks)

    def add(self, index: int, nuclei: Instances) -> None:
        """Keep a tile's nuclei."""
        self.blocks[index] = nuclei

    def __iter__(self) -> Iterator[Instances]:
        """The nuclei of tile after tile."""
        return (self.blocks[index] for index in sorted(self.blocks))


@dataclass(frozen=True, slots=True)
class DiskJournal:
    """Keeps each tile as a file that is there whole or not at all, whatever ends the process.

    A tile is a function of the plan and its index alone, so that doing one twice
    writes the same file, and several processes may share a journal.

    Attributes:
        folder: Holds the plan and a folder of blocks.
        began: The plan it was begun with here, as its JSON has it; empty where it was not.
    """

    folder: Path
    began: dict[str, object] = field(default_factory=dict, compare=False)

    def begin(self, plan: Plan, tiles: int = 0) -> None:
        """Make the folder, or go on with the one that follows this plan; of another plan one without tiles goes.

        Args:
            plan: Of the picture.
            tiles: How many it has, for whoever looks on from outside.

        Raises:
            InputError: It has tiles of another plan; the text says what differs.
            OutputError: It cannot be written to.
        """
        wanted = json.loads(plan.to_json())
        differs = [name for name, value in wanted.items() if self.plan().get(name, value) != value]
        if differs and self.finished():
            raise InputError(
                f"{self.folder}: was begun with another {', '.join(differs)}; "
                f"give --overwrite to begin again, or another --out"
            )
        if differs or self.is_left():
            self.discard()
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with replacing(self.folder / PLAN) as path:
                path.write_text(json.dumps(wanted, indent=2) + "\n", encoding="utf-8")
            with replacing(self.folder / TILES) as path:
                path.write_text(json.dumps({"tiles": tiles}) + "\n", encoding="utf-8")
            (self.folder / BLOCKS).mkdir(exist_ok=True)  # last: blocks without a plan are nobody's
        except OutputError:
            raise
        except OSError as error:
            raise OutputError(f"{self.folder}: cannot be made ({error.strerror}); give another --out") from error
        self.began.update(wanted)

    def is_left(self) -> bool:
        """Whether blocks are there without a plan: one process kept a tile while another removed the journal."""
        return (self.folder / BLOCKS).exists() and not self.plan()

    def follows(self, plan: dict[str, object]) -> bool:
        """Whether it was begun with this plan, as its JSON has it."""
        return self.plan() == plan

    def moved(self) -> float:
        """When it last grew, in seconds since the epoch; 0 where there is none.

        Folders do not count: they change when a journal is removed.
        """
        times = [0.0]
        for path in (self.folder / PLAN, self.folder / TILES, *self.blocks()):
            with suppress(OSError):
                times.append(path.stat().st_mtime)
        return max(times)

    def discard(self) -> None:
        """Remove it, if it is there."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def finished(self) -> frozenset[int]:
        """Indices of the tiles that are kept."""
        return frozenset(int(path.stem) for path in self.blocks())

    def add(self, index: int, nuclei: Instances) -> None:
        """Keep a tile's nuclei; they are on the disk when this returns.

        Raises:
            OutputError: They cannot be written, or another process began the journal anew, with a plan of which this
                is no tile, or is done with it.
        """
        if self.began and not self.follows(self.began):
            raise OutputError(
                f"{self.folder}: is gone, or another process began it with another plan; "
                f"run the same command again when that has ended, or give another --out"
            )
        FORMATS.get("arrow").write(self.folder / BLOCKS / f"{index:06d}.arrow", nuclei)

    def __iter__(self) -> Iterator[Instances]:
        """The nuclei of tile after tile, one at a time in memory.

        Raises:
            DataError: A block is damaged; it is removed, so that a second run makes it again.
        """
        for path in sorted(self.blocks()):
            try:
                yield FORMATS.get("arrow").read(path)
            except DataError as error:
                path.unlink(missing_ok=True)
                raise DataError(f"{error}; removed: run the same command again to make it anew") from error

    def blocks(self) -> Iterator[Path]:
        """Files of the tiles that are kept, in no order."""
        return (path for path in (self.folder / BLOCKS).glob("*.arrow") if path.stem.isdecimal())

    def plan(self) -> dict[str, object]:
        """The plan it was begun with; nothing where there is none, or only part of one."""
        try:
            plan = decode_json((self.folder / PLAN).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return dict(plan) if fits(plan, PLANNED) else {}
