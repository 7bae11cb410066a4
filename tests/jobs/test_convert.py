from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nuclens.core.datasets import DATASETS, Entry, Samples
from nuclens.core.errors import CorruptDatasetError, InputError, OutputError, UnknownPluginError
from nuclens.core.made import made_nuclei
from nuclens.core.schema import ClassSchema
from nuclens.core.types import Progress, Sample
from nuclens.jobs.convert import Conversion, convert
from nuclens.jobs.data import example, open_samples
from nuclens.testing.datasets import same

PANNUKE = DATASETS.get("pannuke").card.schema


def made(name: str, folder: Path) -> Samples:
    example(name, folder)
    return open_samples(name, folder)


def memory(*samples: Sample, schema: ClassSchema = PANNUKE, split: str = "fold1") -> Samples:
    """Samples that are nowhere on the disk."""
    entries = {Entry(one.id, Path(one.id), Path(one.id), one.group, split, one.tissue): one for one in samples}
    return Samples(tuple(entries), entries.__getitem__, schema)


def typed(name: str = "fold1_0000") -> Sample:
    rgb, labels, types = made_nuclei(48, 48, nuclei=5, types=5)
    return Sample(name, "fold1", rgb, labels, types)


# --- nothing is lost ---


@pytest.mark.parametrize("name", [name for name in DATASETS.names() if name != "pack"])
@pytest.mark.parametrize("target", ["folder", "coco"])
def test_every_set_comes_back_whole(tmp_path: Path, name: str, target: str) -> None:
    samples = made(name, tmp_path / "in")
    done = convert(samples, target, tmp_path / "out")
    again = open_samples(target, tmp_path / "out").pick(samples.ids)
    assert done.lost == ()
    assert done.images == len(samples)
    assert (again.groups, again.splits, again.schema.names) == (samples.groups, samples.splits, samples.schema.names)
    for first, second in zip(samples, again, strict=True):
        same(first, second)


def test_a_pack_comes_back_with_its_bare_type_numbers(tmp_path: Path) -> None:
    samples = made("pack", tmp_path / "in")
    assert convert(samples, "folder", tmp_path / "out").lost == ()
    assert open_samples("folder", tmp_path / "out")[1].types.max() == 3
    with pytest.raises(InputError, match=r"type 3 has no name.*convert to folder first"):
        convert(samples, "coco", tmp_path / "coco")


@pytest.mark.parametrize("between", ["folder", "coco"])
def test_pannuke_and_back_gives_the_same_arrays(tmp_path: Path, between: str) -> None:
    convert(made("pannuke", tmp_path / "in"), "pannuke", tmp_path / "first")
    convert(open_samples("pannuke", tmp_path / "first"), between, tmp_path / "between")
    done = convert(open_samples(between, tmp_path / "between"), "pannuke", tmp_path / "second")
    assert done.lost == ()
    for path in (tmp_path / "first").rglob("*.npy"):
        assert (tmp_path / "second" / path.relative_to(tmp_path / "first")).read_bytes() == path.read_bytes()


def test_regions_to_ignore_and_marks_survive(tmp_path: Path) -> None:
    ignore = np.zeros((48, 48), bool)
    ignore[3:9, 40:] = True
    for target in ("folder", "coco"):
        one = replace(typed("a"), ignore=ignore, outlined=False, tissue="Colon")
        other = replace(typed("b"), ignore=np.zeros((48, 48), bool))
        samples = memory(one, other)
        assert convert(samples, target, tmp_path / target).lost == ()
        for first, second in zip(samples, open_samples(target, tmp_path / target), strict=True):
            same(first, second)


def test_nuclei_may_be_numbered_otherwise(tmp_path: Path) -> None:
    """PanNuke's order is by class; no nucleus is lost by that."""
    sample = typed()
    turned = replace(sample, types=np.append(0, sample.types[:0:-1]).astype(np.uint8))
    assert convert(memory(turned), "pannuke", tmp_path / "out").lost == ()


# --- something is lost ---


def broken(one: Sample, **changes: object) -> Sample:
    return replace(one, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(("samples", "lost"), [
    (memory(typed("tile_7")), "names of 1 image"),
    (memory(broken(typed(), group="patient 3")), "patients of 1 image"),
    (memory(typed(), split="train"), "splits of 1 image"),
    (memory(broken(typed(), types=np.zeros(6, np.uint8))), "nuclei of 1 image"),
    (memory(broken(typed(), ignore=np.ones((48, 48), bool))), "regions to ignore of 1 image"),
    (memory(broken(typed(), outlined=False)), "marks that outlines are not to be trusted of 1 image"),
])  # fmt: skip
def test_what_pannuke_cannot_hold_is_named_and_nothing_is_left(tmp_path: Path, samples: Samples, lost: str) -> None:
    with pytest.raises(InputError, match=rf"out: pannuke cannot hold {lost}; add --allow-loss"):
        convert(samples, "pannuke", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    assert convert(samples, "pannuke", tmp_path / "out", allow_loss=True).lost == (lost,)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_losses_are_counted_by_image(tmp_path: Path) -> None:
    samples = memory(typed("a"), typed("b"), broken(typed("c"), outlined=False))
    done = convert(samples, "pannuke", tmp_path / "out", allow_loss=True)
    assert done == Conversion(3, 15, ("names of 3 images", "marks that outlines are not to be trusted of 1 image"))


# --- it cannot be done ---


def test_pictures_of_several_sizes_have_no_place_in_one_array(tmp_path: Path) -> None:
    samples = made("tnbc", tmp_path / "in")
    with pytest.raises(InputError, match=r"01_2: \(64, 64\) pixels, others \(48, 64\)"):
        convert(samples, "pannuke", tmp_path / "out", allow_loss=True)
    assert not (tmp_path / "out").exists()


def test_layouts_that_are_not_written(tmp_path: Path) -> None:
    samples = made("tnbc", tmp_path / "in")
    with pytest.raises(InputError, match="convert: monuseg is not written; there are coco, folder, pannuke"):
        convert(samples, "monuseg", tmp_path / "out")
    with pytest.raises(UnknownPluginError):
        convert(samples, "cocoa", tmp_path / "out")


def test_folders_with_something_in_them_are_left_alone(tmp_path: Path) -> None:
    samples = made("tnbc", tmp_path / "in")
    (tmp_path / "out").mkdir()
    assert convert(samples, "folder", tmp_path / "out").images == 3  # an empty one is filled
    with pytest.raises(OutputError, match="there is something already"):
        convert(samples, "folder", tmp_path / "out")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match=r"file/out: cannot be written to"):
        convert(samples, "folder", tmp_path / "file" / "out")


def test_a_broken_picture_leaves_nothing_behind(tmp_path: Path) -> None:
    samples = made("tnbc", tmp_path / "in")
    (tmp_path / "in" / "Slide_02" / "02_1.png").write_bytes(b"")
    with pytest.raises(CorruptDatasetError, match=r"02_1\.png"):
        convert(samples, "folder", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_progress_is_told(tmp_path: Path) -> None:
    steps: list[Progress] = []
    convert(made("tnbc", tmp_path / "in"), "folder", tmp_path / "out", report=steps.append)
    assert [(step.stage, step.done, step.total) for step in steps] == [("convert", k, 3) for k in (1, 2, 3)]


@pytest.mark.data
def test_real_tiles_with_their_types_come_back_from_coco(data_root: Path, tmp_path: Path) -> None:
    samples = open_samples("consep", data_root / "consep", "test").pick(["test_7", "test_10"])
    done = convert(samples, "coco", tmp_path / "out")
    assert done.lost == ()
    for first, second in zip(samples, open_samples("coco", tmp_path / "out").pick(samples.ids), strict=True):
        same(first, second)
