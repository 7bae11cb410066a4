from __future__ import annotations

import importlib.util
import json
import logging
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from nuclens.core.errors import DataError, InputError, MissingExtraError, OutputError, UnknownPluginError
from nuclens.core.suffixes import FORMATS
from nuclens.core.types import Frame, Instances, read_instances
from nuclens.jobs.translate import translate
from nuclens.testing.nuclei import SHAPE, made, moved


def picture(folder: Path, nuclei: Instances, name: str = "geoparquet", **record: object) -> Path:
    """A picture's folder as segmenting leaves it."""
    folder.mkdir(parents=True)
    path = folder / f"instances{FORMATS.get(name).suffix}"
    nuclei.save(path)
    said = {"files": [path.name], "height": SHAPE[0], "width": SHAPE[1]} | record
    (folder / "run.json").write_text(json.dumps(said), encoding="utf-8")
    return folder


def contents(path: Path) -> dict[str, bytes]:
    """All bytes of a file or a folder, by place in it."""
    files = [path] if path.is_file() else sorted(part for part in path.rglob("*") if part.is_file())
    return {str(file.relative_to(path)): file.read_bytes() for file in files}


def test_every_format_is_written_beside_the_result(tmp_path: Path) -> None:
    folder = picture(tmp_path / "a", made(54))
    # Those behind an extra are not everywhere, and one of them takes only what was read from DICOM.
    names = [name for name in FORMATS.names() if name != "geoparquet" and not getattr(FORMATS.get(name), "extra", "")]
    done = translate(folder, names)
    assert [one.error for one in done] == [None] * len(names)
    for one in done:
        plain = f"instances{FORMATS.get(one.format).suffix}"
        assert one.target.name in (plain, FORMATS.get(one.format).suffix)
        assert one.nuclei == 54
        lost = getattr(FORMATS.get(one.format), "lost", ())
        assert len(one.notes) == bool(lost)
        direct = tmp_path / one.format
        FORMATS.get(one.format).write(direct, made(54))
        if one.format not in ("coco", "pannuke"):  # whose files hold or follow their names
            assert contents(one.target) == contents(direct), one.format
    record = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    assert record["files"] == ["instances.parquet", *(one.target.name for one in done)]


def test_a_run_of_many_pictures_keeps_its_folders(tmp_path: Path) -> None:
    for count, name in ((5, "geoparquet"), (7, "arrow"), (9, "geojson")):
        picture(tmp_path / "run" / name, made(count), name)
    (tmp_path / "run" / "summary.csv").write_text("", encoding="utf-8")
    done = translate(tmp_path / "run", ["csv", "annotation_store"], tmp_path / "out")
    assert [one.nuclei for one in done] == [7, 7, 9, 9, 5, 5]
    found = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").glob("*/*")}
    assert found == {f"{name}/instances.{end}" for name in ("geoparquet", "arrow", "geojson") for end in ("csv", "db")}
    assert json.loads((tmp_path / "run" / "arrow" / "run.json").read_bytes())["files"] == ["instances.arrow"]


@pytest.mark.parametrize("name", ["geojson", "coco", "labels", "annotation_store", "geoparquet", "npy"])
def test_a_file_that_lies_alone(name: str, tmp_path: Path) -> None:
    suffix = FORMATS.get(name).suffix
    path = tmp_path / f"case-1{suffix if suffix.startswith('.') else f'_{suffix}'}"
    made(12).save(path, name)
    (one,) = translate(path, ["arrow"])
    assert one.target == tmp_path / "case-1.arrow"
    assert len(read_instances(one.target)) == 12
    (one,) = translate(path, ["labels"], tmp_path / "new" / "folder")
    assert one.target == tmp_path / "new" / "folder" / "case-1_label.tif"
    (one,) = translate(path, ["geojson"], tmp_path / "new" / "b.geojson.gz", read_as=name)
    assert one.target == tmp_path / "new" / "b.geojson.gz"
    assert len(read_instances(one.target)) == 12


def test_slides_are_packed_and_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing asks a streamed format for all nuclei at once."""
    from nuclens.formats import geoparquet

    monkeypatch.setattr(geoparquet, "ROWS", 10)
    folder = picture(tmp_path / "a", moved(made(54), 3, 1000), height=50_000, width=40_000)
    monkeypatch.delattr(geoparquet.GeoParquet, "read")
    done = translate(folder, ["geojson", "csv", "arrow", "annotation_store"])
    assert [one.error for one in done] == [None] * 4
    assert [one.target.name for one in done] == [
        "instances.geojson.gz",
        "instances.csv",
        "instances.arrow",
        "instances.db",
    ]


def test_what_cannot_be_written_is_told_and_the_rest_is_written(tmp_path: Path) -> None:
    large = replace(made(5), frame=Frame(20_000, 20_000, 0.25))
    done = translate(picture(tmp_path / "a", large), ["labels", "csv"])
    assert isinstance(done[0].error, InputError)
    assert "20000 x 20000 pixels" in str(done[0].error)
    assert done[1].error is None
    bare = tmp_path / "bare.csv"
    made(3).save(bare)
    (one,) = translate(bare, ["geojson"])
    assert "3 of 3 nuclei have no outline" in str(one.error)
    assert not (tmp_path / "bare.geojson").exists()


def test_repairs_are_told(tmp_path: Path) -> None:
    nuclei = made(9)
    vertices = nuclei.vertices.copy()
    vertices[: nuclei.offsets[1]] = 5
    logger = logging.getLogger("nuclens")
    before = logger.level
    logger.setLevel(logging.ERROR)  # as the command line has it
    try:
        (one,) = translate(picture(tmp_path / "a", replace(nuclei, vertices=vertices)), ["geojson"])
    finally:
        logger.setLevel(before)
    assert one.error is None
    assert one.notes[0].endswith("1 outlines were invalid: 0 repaired, 1 left out")


def test_a_heat_map_is_drawn_of_any_result(tmp_path: Path) -> None:
    folder = picture(tmp_path / "a", made(30))
    made(30).save(tmp_path / "b.csv")
    for source, target in ((folder, folder / "heatmap.png"), (tmp_path / "b.csv", tmp_path / "b_heatmap.png")):
        (one,) = translate(source, ["heatmap"])
        assert (one.target, one.nuclei, one.error) == (target, 30, None)
        assert "not read back" in one.notes[0]
        assert np.asarray(cv2.imread(str(target))).std() > 1
    assert "heatmap.png" in json.loads((folder / "run.json").read_text(encoding="utf-8"))["files"]


def test_a_name_that_is_of_another_format_is_refused(tmp_path: Path) -> None:
    made(3).save(tmp_path / "a.parquet")
    with pytest.raises(InputError, match=r"b\.geojson: a file of arrow ends in \.arrow; wanted that, or a folder"):
        translate(tmp_path / "a.parquet", ["arrow"], tmp_path / "b.geojson")
    assert not (tmp_path / "b.geojson").exists()


def test_pictures_of_a_run_are_told_apart_in_coco(tmp_path: Path) -> None:
    for name in ("a", "b"):
        picture(tmp_path / "run" / name, made(3))
    for one in translate(tmp_path / "run", ["coco"]):
        assert list(FORMATS.get("coco").images(one.target)) == [one.source.parent.name]


def test_nothing_is_replaced_unless_asked_for(tmp_path: Path) -> None:
    folder = picture(tmp_path / "a", made(9))
    (folder / "instances.csv").write_text("mine", encoding="utf-8")
    with pytest.raises(InputError, match="there already; --overwrite replaces them"):
        translate(folder, ["arrow", "csv"])
    assert not (folder / "instances.arrow").exists()
    assert (folder / "instances.csv").read_text(encoding="utf-8") == "mine"
    translate(folder, ["arrow", "csv"], overwrite=True)
    assert len(read_instances(folder / "instances.csv")) == 9


def test_a_failure_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.arrow"
    made(9).save(path)
    path.write_bytes(path.read_bytes()[:-60])
    (tmp_path / "a.csv").write_text("mine", encoding="utf-8")
    (one,) = translate(path, ["csv"], overwrite=True)
    assert isinstance(one.error, DataError)
    assert (tmp_path / "a.csv").read_text(encoding="utf-8") == "mine"


def test_impossible_requests(tmp_path: Path) -> None:
    folder = picture(tmp_path / "a", made(3))
    for source, formats, error, said in (
        (tmp_path / "b", ["csv"], DataError, "no such file or folder"),
        (folder, [], InputError, "no format to write"),
        (folder, ["geoparquet"], InputError, "is what is read"),
        (folder, ["csv", "csv"], InputError, "would be written twice"),
        (folder, ["cvs"], UnknownPluginError, "did you mean csv"),
    ):
        with pytest.raises(error, match=said):
            translate(source, formats)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="neither a result nor a run"):
        translate(tmp_path / "empty", ["csv"])
    (folder / "instances.parquet").unlink()
    with pytest.raises(DataError, match=r"no instances\.parquet"):
        translate(folder, ["csv"])
    (tmp_path / "file").write_text("", encoding="utf-8")
    made(3).save(tmp_path / "c.arrow")
    (one,) = translate(tmp_path / "c.arrow", ["csv"], tmp_path / "file")
    assert isinstance(one.error, OutputError)


def test_frame_and_metadata_of_slides_come_along(tmp_path: Path) -> None:
    nuclei = moved(made(20), 1 / 0.9137, 1000)
    (one,) = translate(picture(tmp_path / "a", nuclei), ["annotation_store"])
    back = read_instances(one.target)
    assert (back.frame, back.schema, back.metadata) == (nuclei.frame, nuclei.schema, nuclei.metadata)
    np.testing.assert_array_equal(back.ids, nuclei.ids)
    np.testing.assert_array_equal(back.vertices, nuclei.vertices)


def test_a_missing_package_is_told_before_anything_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = picture(tmp_path / "a", made(3))
    found = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "anndata" else found(name))
    with pytest.raises(MissingExtraError, match=r"anndata: needs 'anndata'.*nuclens\[anndata\]"):
        translate(folder, ["csv", "anndata"])
    assert not (folder / "instances.csv").exists()
