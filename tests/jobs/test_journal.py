from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nuclens.core.errors import DataError, InputError, OutputError
from nuclens.core.plan import Plan
from nuclens.core.records import from_labels
from nuclens.core.schema import UNTYPED
from nuclens.core.types import Instances
from nuclens.jobs.journal import BLOCKS, PLAN, TILES, DiskJournal, Journal, MemoryJournal

PLANNED = Plan("image", "model", "engine 1", "f32", "avx2", 2048, 224, 0.25, 1.0)


def nuclei(count: int) -> Instances:
    labels = np.zeros((4, 4 * count + 1), np.int32)
    for nucleus in range(count):
        labels[1:3, 4 * nucleus : 4 * nucleus + 3] = nucleus + 1
    return from_labels(labels, np.zeros(count + 1, np.uint8), UNTYPED, 0.25)


def plain(plan: Plan) -> dict[str, object]:
    fields: dict[str, object] = json.loads(plan.to_json())
    return fields


@pytest.fixture
def disk(tmp_path: Path) -> DiskJournal:
    journal = DiskJournal(tmp_path / "journal")
    journal.begin(PLANNED)
    return journal


@pytest.fixture(params=["memory", "disk"])
def journal(request: pytest.FixtureRequest) -> Journal:
    return MemoryJournal() if request.param == "memory" else request.getfixturevalue("disk")


def test_tiles_come_back_in_the_order_of_their_indices(journal: Journal) -> None:
    for index in (7, 1_000_000, 0, 12):
        journal.add(index, nuclei(index % 5))
    assert journal.finished() == {0, 7, 12, 1_000_000}
    assert [len(part) for part in journal] == [0, 2, 2, 0]
    assert [len(part) for part in journal] == [0, 2, 2, 0], "a second look gives the same"


def test_an_empty_journal(journal: Journal) -> None:
    assert journal.finished() == frozenset()
    assert list(journal) == []


def test_a_journal_outlives_its_object(disk: DiskJournal) -> None:
    disk.add(3, nuclei(4))
    again = DiskJournal(disk.folder)
    again.begin(PLANNED)
    assert again.finished() == {3}
    [part] = again
    expected = nuclei(4)
    np.testing.assert_array_equal(part.vertices, expected.vertices)
    np.testing.assert_array_equal(part.ids, expected.ids)


def test_doing_a_tile_twice_gives_the_same_file(disk: DiskJournal) -> None:
    disk.add(3, nuclei(4))
    first = (disk.folder / BLOCKS / "000003.arrow").read_bytes()
    disk.add(3, nuclei(4))
    assert (disk.folder / BLOCKS / "000003.arrow").read_bytes() == first


def test_another_plan_is_refused_with_what_differs(disk: DiskJournal) -> None:
    other = replace(PLANNED, core_px=1024, region=(0, 0, 5, 5))
    disk.add(3, nuclei(4))
    assert not disk.follows(plain(other))
    with pytest.raises(InputError, match=r"another core_px, region; give --overwrite"):
        DiskJournal(disk.folder).begin(other)
    assert disk.follows(plain(PLANNED))


def test_a_journal_without_tiles_has_nothing_to_protect(disk: DiskJournal) -> None:
    other = replace(PLANNED, image="copied again")
    disk.begin(other)
    assert disk.follows(plain(other))
    assert disk.finished() == frozenset()


def test_a_tile_of_another_plan_is_not_kept(disk: DiskJournal) -> None:
    DiskJournal(disk.folder).begin(replace(PLANNED, image="of another run"))
    with pytest.raises(OutputError, match="another process began it with another plan"):
        disk.add(0, nuclei(1))
    assert disk.finished() == frozenset()


@pytest.mark.parametrize("text", ["", "{", "[]", "7"])
def test_a_damaged_plan_is_written_again(disk: DiskJournal, text: str) -> None:
    (disk.folder / PLAN).write_text(text, encoding="utf-8")
    assert not disk.follows(plain(PLANNED))
    disk.begin(PLANNED)
    assert disk.follows(plain(PLANNED))


def test_blocks_without_a_plan_are_of_nobody_knows_which(disk: DiskJournal) -> None:
    disk.add(3, nuclei(4))
    assert not disk.is_left()
    (disk.folder / PLAN).unlink()
    assert disk.is_left()
    disk.begin(replace(PLANNED, core_px=1024))
    assert disk.finished() == frozenset()
    assert not disk.is_left()


def test_how_many_tiles_there_are_is_beside_the_plan(disk: DiskJournal) -> None:
    disk.begin(PLANNED, 12)
    assert json.loads((disk.folder / TILES).read_text(encoding="utf-8")) == {"tiles": 12}
    assert disk.follows(plain(PLANNED))


def test_what_a_killed_process_was_writing_is_no_block(disk: DiskJournal) -> None:
    disk.add(1, nuclei(1))
    (disk.folder / BLOCKS / ".0a1b2c3d-000002.arrow").write_bytes(b"half")
    (disk.folder / BLOCKS / "notes.txt").write_text("mine", encoding="utf-8")
    assert disk.finished() == {1}
    assert len(list(disk)) == 1


def test_a_damaged_block_is_removed_and_told(disk: DiskJournal) -> None:
    disk.add(1, nuclei(1))
    disk.add(2, nuclei(2))
    block = disk.folder / BLOCKS / "000002.arrow"
    block.write_bytes(block.read_bytes()[:-100])
    with pytest.raises(DataError, match=r"000002\.arrow: .*run the same command again"):
        list(disk)
    assert disk.finished() == {1}


def test_a_journal_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(OutputError, match="give another --out"):
        DiskJournal(tmp_path / "file" / "journal").begin(PLANNED)


def test_discarding_what_is_not_there_does_nothing(disk: DiskJournal) -> None:
    disk.discard()
    disk.discard()
    assert not disk.folder.exists()
