from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from jaxtyping import Int32, UInt8

from nuclens.core.contours import rasterise
from nuclens.core.errors import (
    InputError,
    MemoryFault,
    NuclensError,
    ResolutionError,
    ShapeError,
    UnreadableImageError,
)
from nuclens.core.heads import RawHeads
from nuclens.core.models import open_model, shipped
from nuclens.core.slides import array_slide
from nuclens.core.tiling import Box
from nuclens.core.tissue import TissueMask
from nuclens.core.types import HEMATOXYLIN, Instances, concatenate
from nuclens.engines.openvino import PLUGIN as OPENVINO
from nuclens.jobs.pictures import Area, Picture
from nuclens.jobs.results import Results
from nuclens.jobs.segment import Segmenter, load_model, run, segment
from nuclens.report.density import Cells
from nuclens.report.slide import Summary, summary_page
from nuclens.report.thumbnail import LOST, View

Disc = tuple[int, int, int]
Paint = Callable[..., UInt8[np.ndarray, "h w 3"]]
CORES = (256, 512, 1024)


@pytest.fixture(scope="module")
def segmenter(painted_model: Path) -> Segmenter:
    return load_model(painted_model, tile_px=64)


@pytest.fixture(scope="module")
def tilings(painted_model: Path) -> list[Segmenter]:
    loaded = load_model(painted_model)
    return [replace(loaded, tile_px=core) for core in CORES]


@pytest.fixture(scope="module")
def default() -> Segmenter:
    if "default" not in shipped():
        pytest.skip("MODEL MISSING: no default model is inside the package; it was not tried on real images")
    return load_model("default")


def scattered(height: int, width: int, least: int = 4, pitch: int = 32) -> list[Disc]:
    """One disc of radius `least` to 12 in every field of a lattice, never nearer to its border than 1 pixel."""
    rng = np.random.default_rng(height * width)
    discs = []
    for top in range(0, height - pitch + 1, pitch):
        for left in range(0, width - pitch + 1, pitch):
            radius = int(rng.integers(least, 13))
            row, column = rng.integers(radius + 1, pitch - radius - 1, 2)
            discs.append((top + int(row), left + int(column), radius))
    return discs


def drawn(height: int, width: int, discs: list[Disc]) -> Int32[np.ndarray, "h w"]:
    """Labels of discs, the twin of what `paint` paints."""
    labels = np.zeros((height, width), np.int32)
    rows, columns = np.ogrid[:height, :width]
    for number, (row, column, radius) in reversed(list(enumerate(discs, 1))):
        labels[(rows - row) ** 2 + (columns - column) ** 2 <= radius**2] = number
    return labels


def redrawn(nuclei: Instances) -> Int32[np.ndarray, "h w"]:
    labels: Int32[np.ndarray, "h w"] = rasterise(
        nuclei.vertices, nuclei.offsets, (nuclei.frame.height, nuclei.frame.width)
    )
    return labels


def by_id(nuclei: Instances) -> Instances:
    return nuclei[np.lexsort(nuclei.ids.T)]


def same(first: Instances, second: Instances) -> bool:
    """Whether two results hold the same nuclei in any order."""
    first, second = by_id(first), by_id(second)
    names = ("ids", "anchors", "types", "scores", "probabilities", "centroids", "offsets", "vertices")
    equal = all(np.array_equal(getattr(first, name), getattr(second, name)) for name in names)
    measured = first.measurements.keys() == second.measurements.keys() and all(
        np.allclose(column, second.measurements[name], rtol=1e-5, atol=1e-6)
        for name, column in first.measurements.items()
    )
    return equal and measured


def within(seconds: float, work: Callable[[], Any]) -> Any:
    """What `work` returns or raises; fails if it hangs."""
    ended: list[Any] = []

    def target() -> None:
        try:
            ended.append((work(), None))
        except Exception as error:  # noqa: BLE001  # raised again by the test
            ended.append((None, error))

    thread = threading.Thread(target=target, daemon=True)
    thread.start()
    thread.join(seconds)
    assert ended, "hangs"
    result, error = ended[0]
    if error is not None:
        raise error
    return result


def own_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("nuclens-")]


def test_discs_come_back_pixel_by_pixel(segmenter: Segmenter, paint: Paint) -> None:
    shape = (133, 171)
    # Touching ones, one over the corner where four tiles meet, and three cut by the border of the image.
    discs = [(20, 20, 8), (20, 37, 8), (64, 64, 14), (0, 90, 9), (132, 100, 6), (60, 168, 11), (100, 20, 4)]
    nuclei = segment(paint(*shape, discs), model=segmenter, mpp=0.25)
    assert nuclei.frame.mpp == 0.25
    found = [tuple(anchor) for anchor in nuclei.anchors.tolist()]
    nuclei = nuclei[np.array([found.index((row, column)) for row, column, _ in discs])]
    labels = drawn(*shape, discs)
    np.testing.assert_array_equal(redrawn(nuclei), labels)
    assert [nuclei.schema.name(kind) for kind in nuclei.types] == ["small" if r < 10 else "large" for *_, r in discs]
    np.testing.assert_allclose(nuclei.area_um2, np.bincount(labels.reshape(-1))[1:] * 0.25**2, rtol=1e-6)
    np.testing.assert_allclose(nuclei.centroids[0], (20.5, 20.5))
    assert nuclei.scores.tolist() == [1] * 7
    assert {"model", "model digest", "plan", "image", "weights licence"} == set(nuclei.metadata)


@pytest.mark.parametrize("shape", [(530, 790), (257, 513), (256, 256), (1025, 301), (40, 2100)])
def test_nuclei_do_not_depend_on_tiles(tilings: list[Segmenter], paint: Paint, shape: tuple[int, int]) -> None:
    discs = scattered(*shape)
    picture = paint(*shape, discs)
    whole, *others = (segment(picture, model=one, mpp=0.25) for one in reversed(tilings))
    # As many as painted, with all their pixels: none is cut where tiles meet, none is there twice.
    assert len(whole) == len(discs)
    np.testing.assert_array_equal(redrawn(whole) > 0, picture[..., 0] < 128)
    for other in others:
        assert same(other, whole)


def test_debris_far_away_lowers_no_score(tilings: list[Segmenter], paint: Paint) -> None:
    picture = paint(300, 700, [(100, 100, 10), (200, 600, 10)])
    picture[50:250:8, 250:450:8] = 0, 128, 128  # dark pixels too far apart to be nuclei
    for one in tilings:
        assert segment(picture, model=one, mpp=0.25).scores.tolist() == [1, 1]


@pytest.mark.parametrize("mpp", [0.5, 0.17])
def test_a_resampled_picture_does_not_depend_on_tiles(tilings: list[Segmenter], paint: Paint, mpp: float) -> None:
    discs = scattered(333, 401, least=7)
    picture = paint(333, 401, discs, scale=mpp / 0.25)
    whole, *others = (segment(picture, model=one, mpp=mpp) for one in reversed(tilings))
    assert len(whole) == len(discs)
    for other in others:
        assert same(other, whole)


@pytest.mark.slow
@pytest.mark.data
def test_the_default_model_finds_the_same_whatever_the_tiles(default: Segmenter, data_root: Path) -> None:
    path = sorted((data_root / "monuseg" / "test" / "images").glob("*.webp"))[0]
    whole, *others = (segment(path, model=replace(default, tile_px=core), mpp=0.25) for core in reversed(CORES))
    outlines = {whole.ids[row].tobytes(): whole.outline(row).tobytes() for row in range(len(whole))}
    assert len(outlines) == len(whole) > 100
    for other in others:
        found = {other.ids[row].tobytes(): other.outline(row).tobytes() for row in range(len(other))}
        differing = dict(outlines.items() ^ found.items())
        assert len(differing) <= 0.001 * len(whole)


@pytest.mark.slow
@pytest.mark.data
def test_threads_of_the_engine_do_not_change_a_byte(default: Segmenter, data_root: Path, tmp_path: Path) -> None:
    path = sorted((data_root / "monuseg" / "test" / "images").glob("*.webp"))[1]
    files = []
    for threads in (1, 2):
        runner = OPENVINO.load(default.model, OPENVINO.options(threads=threads))
        files.append(tmp_path / f"{threads}.parquet")
        segment(path, model=replace(default, runner=runner, tile_px=512), mpp=0.25).save(files[-1])
    assert files[0].read_bytes() == files[1].read_bytes()


def test_mpp_is_the_files_own_or_the_callers(segmenter: Segmenter, paint: Paint, tmp_path: Path) -> None:
    picture, path = paint(64, 80, [(30, 40, 10)]), tmp_path / "a.tif"
    tifffile.imwrite(path, picture, resolution=(40_000, 40_000), resolutionunit="CENTIMETER")
    assert segment(path, model=segmenter).frame.mpp == pytest.approx(0.25)
    assert segment(path, model=segmenter, mpp=0.251).frame.mpp == 0.251
    assert segment(picture, model=segmenter, mpp=0.25).area_um2 == pytest.approx(
        segment(path, model=segmenter).area_um2
    )


def test_without_mpp_the_error_says_what_to_give(segmenter: Segmenter, paint: Paint, tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), paint(64, 80, []))
    with pytest.raises(ResolutionError, match=r"a\.png.*0\.25 .*0\.5 ") as caught:
        segment(path, model=segmenter)
    assert str(caught.value).startswith(str(path))
    with pytest.raises(ResolutionError, match=r"array.*0\.25 .*0\.5 "):
        segment(paint(64, 80, []), model=segmenter)


@pytest.mark.parametrize("mpp", [0, -0.25, 40, float("nan"), float("inf")])
def test_impossible_mpp_is_refused(segmenter: Segmenter, paint: Paint, mpp: float) -> None:
    with pytest.raises(ResolutionError, match=r"outside 0\.05-4"):
        segment(paint(64, 80, []), model=segmenter, mpp=mpp)


@pytest.mark.parametrize(("mpp", "error_px"), [(0.5, 0.5), (0.125, 1), (0.3, 1)])
def test_a_scaled_picture_has_results_in_its_own_pixels(
    segmenter: Segmenter, paint: Paint, mpp: float, error_px: float
) -> None:
    shape, discs = (150, 203), [(40, 50, 12), (100, 150, 20), (90, 60, 16)]
    nuclei = segment(paint(*shape, discs, scale=mpp / 0.25), model=segmenter, mpp=mpp)
    nuclei = nuclei[np.lexsort(nuclei.centroids.T[::-1])]
    discs = sorted(discs)
    assert (nuclei.frame.height, nuclei.frame.width, nuclei.frame.mpp) == (*shape, mpp)
    np.testing.assert_allclose(nuclei.centroids, [(row + 0.5, column + 0.5) for row, column, _ in discs], atol=error_px)
    areas = np.array([(drawn(*shape, [disc]) > 0).sum() * mpp**2 for disc in discs])
    np.testing.assert_allclose(nuclei.area_um2, areas, rtol=0.06)
    # The working grid is finer or coarser by the ratio of resolutions.
    np.testing.assert_allclose(nuclei.anchors, np.array(discs)[:, :2] * mpp / 0.25, atol=2)


def test_nearly_the_models_resolution_is_not_resampled(segmenter: Segmenter, paint: Paint) -> None:
    discs = [(30, 40, 10)]
    nuclei = segment(paint(64, 80, discs), model=segmenter, mpp=0.2485)
    np.testing.assert_array_equal(redrawn(nuclei), drawn(64, 80, discs))
    assert nuclei.area_um2[0] == pytest.approx((drawn(64, 80, discs) > 0).sum() * 0.2485**2)


def test_grey_and_alpha(segmenter: Segmenter, paint: Paint) -> None:
    rgb = paint(96, 120, scattered(96, 120))
    plain = segment(rgb, model=segmenter, mpp=0.25)
    opaque = np.dstack([rgb, np.full(rgb.shape[:2], 255, np.uint8)])
    np.testing.assert_array_equal(segment(opaque, model=segmenter, mpp=0.25).vertices, plain.vertices)
    opaque[..., 3] = 0
    assert len(segment(opaque, model=segmenter, mpp=0.25)) == 0
    # Grey 128 is no way at all: each such pixel of a grey picture would be a centre; white ones are no nuclei.
    grey = np.full((96, 120), 255, np.uint8)
    grey[40:60, 30:50] = 127
    stacked = np.repeat(grey[..., None], 3, axis=2)
    card = replace(segmenter.model.card, encoding_options={"peak": 0.5, "min_score": 0.0})
    easy = replace(segmenter, model=replace(segmenter.model, card=card))
    found = [segment(one, model=easy, mpp=0.25) for one in (grey, stacked)]
    assert len(found[0]) > 0
    np.testing.assert_array_equal(found[0].vertices, found[1].vertices)


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (64, 64), (65, 64)])
def test_nothing_painted_nothing_found(segmenter: Segmenter, shape: tuple[int, int], tmp_path: Path) -> None:
    nuclei = segment(np.full((*shape, 3), 255, np.uint8), model=segmenter, mpp=0.25)
    assert len(nuclei) == 0
    assert HEMATOXYLIN in nuclei.measurements
    for suffix in (".parquet", ".geojson", ".csv"):
        nuclei.save(tmp_path / f"a{suffix}")


def test_an_array_that_is_no_picture(segmenter: Segmenter) -> None:
    with pytest.raises(ShapeError):
        segment(np.zeros((5, 5, 7), np.uint8), model=segmenter, mpp=0.25)


def test_a_file_that_is_not_there(segmenter: Segmenter, tmp_path: Path) -> None:
    with pytest.raises(UnreadableImageError, match="no such file"):
        segment(tmp_path / "absent.png", model=segmenter, mpp=0.25)


def test_a_model_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="shipped are"):
        load_model(tmp_path / "absent")


@pytest.mark.parametrize("tile_px", [0, -16, 100])
def test_tiles_fit_the_stride(painted_model: Path, tile_px: int) -> None:
    with pytest.raises(InputError, match="stride, 16"):
        load_model(painted_model, tile_px=tile_px)


@dataclass(frozen=True)
class Fragile:
    """A slide that fails from some row on."""

    slide: Any
    error: Exception
    row: int = 64
    closed: threading.Event = field(default_factory=threading.Event)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.slide, name)

    def read(self, box: Box, level: int = 0) -> UInt8[np.ndarray, "h w 3"]:
        if box[2] > self.row:
            raise self.error
        pixels: UInt8[np.ndarray, "h w 3"] = self.slide.read(box, level)
        return pixels

    def close(self) -> None:
        self.closed.set()


def pictures_of(segmenter: Segmenter, *slides: Any) -> list[Picture | NuclensError]:
    return [segmenter.picture(f"{number}", slide, 0.25) for number, slide in enumerate(slides)]


def counted(segmenter: Segmenter) -> Callable[[Picture], int]:
    return lambda picture: sum(map(len, segmenter.result(picture)))


def test_a_picture_that_fails_half_way_fails_alone(segmenter: Segmenter, paint: Paint) -> None:
    good = array_slide(paint(200, 100, scattered(200, 100)))
    bad = Fragile(good, UnreadableImageError("torn"), 150)
    missing = InputError("never opened")
    pictures = [*pictures_of(segmenter, good, bad), missing, *pictures_of(segmenter, good)]
    assert isinstance(pictures[1], Picture)
    pictures[1] = replace(pictures[1], strict=True)
    results = within(60, lambda: list(run(segmenter, pictures, counted(segmenter))))
    assert results == [len(scattered(200, 100)), bad.error, missing, len(scattered(200, 100))]
    assert bad.closed.is_set()
    assert own_threads() == []


def test_a_tile_that_cannot_be_read_is_left_out_and_marked(segmenter: Segmenter, paint: Paint) -> None:
    discs = scattered(200, 60)
    good = array_slide(paint(200, 60, discs))
    bad = Fragile(good, UnreadableImageError("torn"), 150)  # tiles are read 80 px beyond their cores
    [picture] = pictures_of(segmenter, bad)
    assert isinstance(picture, Picture)
    [parts] = within(60, lambda: list(run(segmenter, [picture], lambda picture: list(segmenter.result(picture)))))
    assert picture.unread() == dict.fromkeys(["0,64,60,64", "0,128,60,64", "0,192,60,8"], "torn")
    assert set(parts[0].metadata["unreadable"].split()) == set(picture.unread())
    assert sum(map(len, parts)) == sum(row < 64 for row, *_ in discs)


def test_densities_are_of_what_was_read(segmenter: Segmenter, paint: Paint, tmp_path: Path) -> None:
    bad = Fragile(array_slide(paint(200, 60, scattered(200, 60))), UnreadableImageError("torn"), 150)
    [record] = run(segmenter, pictures_of(segmenter, bad), Results(segmenter, tmp_path, {}, ("csv", "summary")))
    assert not isinstance(record, NuclensError)
    seen = 64 * 60 * 0.00025**2
    summary = json.loads((tmp_path / "0" / "summary.json").read_text())
    for tissue in (record["mm2"], record["counts"]["tissue_mm2"], summary["tissue_mm2"]):
        assert tissue == pytest.approx(seen, abs=1e-6)
    assert summary["per_mm2"] == record["counts"]["per_mm2"] == pytest.approx(record["nuclei"] / seen, rel=1e-5)


def test_pictures_of_a_damaged_slide_are_grey_there_and_say_so(
    segmenter: Segmenter, paint: Paint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = Fragile(array_slide(paint(200, 60, scattered(200, 60))), UnreadableImageError("torn"), 150)
    [picture] = pictures_of(segmenter, bad)
    assert isinstance(picture, Picture)
    tissue = TissueMask(np.ones((20, 6), bool), 0.1, (200, 60), unseen=0.25)
    pages: list[tuple[View, Cells]] = []

    def page_of(summary: Summary, view: View, cells: Cells) -> str:
        pages.append((view, cells))
        return summary_page(summary, view, cells)

    monkeypatch.setattr("nuclens.jobs.summary.summary_page", page_of)
    results = Results(segmenter, tmp_path, {}, ("csv", "overlay", "summary", "heatmap"))
    [record] = run(segmenter, [replace(picture, tissue=tissue)], results)
    assert not isinstance(record, NuclensError)
    assert "25.0% of the slide is damaged: searched, but no area of tissue" in record["warnings"]
    assert "overlay.png is grey where the file is damaged" in record["notes"]
    drawn = cv2.imread(str(tmp_path / "0" / "overlay.png"))
    assert drawn is not None
    times = drawn.shape[1] // 60
    grey = (drawn[: 200 * times] == LOST[0]).all(axis=2)[times // 2 :: times, times // 2 :: times]
    assert grey[155:].all()
    assert not grey[:100].any()
    [(view, cells)] = pages
    assert view.lost is not None
    assert view.lost[150:].all()
    assert cells.areas_px.sum() == pytest.approx(64 * 60)
    page = (tmp_path / "0" / "summary.html").read_text(encoding="utf-8")
    assert "25.0% of the slide is damaged" in page
    assert "the picture below is grey where the file is damaged" in page


def test_a_sound_slide_says_nothing_of_damage(segmenter: Segmenter, paint: Paint, tmp_path: Path) -> None:
    good = array_slide(paint(200, 60, scattered(200, 60)))
    results = Results(segmenter, tmp_path, {}, ("csv", "overlay", "summary", "heatmap"))
    [record] = run(segmenter, pictures_of(segmenter, good), results)
    assert not isinstance(record, NuclensError)
    assert "damaged" not in str(record["warnings"] + record["notes"])
    assert "damaged" not in (tmp_path / "0" / "summary.html").read_text(encoding="utf-8")


def test_the_area_that_was_seen_is_that_of_the_tiles_that_were_read(segmenter: Segmenter) -> None:
    """Densities divide by it: cores, region, tissue and margin are cut exactly, also where pixels are resampled."""
    rgb = np.full((500, 400, 3), 200, np.uint8)
    area = Area(region="20,30,300,400")
    mpp = 0.3  # a core of 64 working pixels is 53 1/3 of the file's
    picture = segmenter.picture("a", array_slide(rgb), mpp, area)
    mask = np.random.default_rng(0).random((50, 40)) < 0.5
    tissue = TissueMask(mask, 0.1, (500, 400), margin=mask & (np.arange(40) < 20))
    for searched in (picture, replace(picture, tissue=tissue)):
        whole = searched.mm2
        assert searched.seen_mm2 == whole > 0
        tile = next(tile for tile in searched.tiles if tile.core[:2] == (128, 192))
        searched.unreadable[tile.index] = "torn"
        top, left, bottom, right = (place / picture.plan.scale for place in tile.core)
        box = (top, left, bottom, min(right, 320))
        pixels = (box[2] - box[0]) * (box[3] - box[1]) if searched.tissue is None else tissue.area_px(box)
        assert pixels > 0
        assert searched.seen_mm2 == pytest.approx(whole - pixels * (mpp / 1000) ** 2, rel=1e-12)
        squares = searched.seen_px(16.0)
        assert squares.sum() * (mpp / 1000) ** 2 == pytest.approx(searched.seen_mm2, rel=1e-3)
        assert squares[int(top / 16) + 1, int(left / 16) + 1] == 0
        assert not squares[:, :1].any()  # left of the region
        searched.unreadable.update(dict.fromkeys((tile.index for tile in searched.tiles), "torn"))
        assert searched.seen_mm2 == 0
        assert not searched.seen_px(16.0).any()
        searched.unreadable.clear()


def test_a_picture_without_one_readable_tile_fails(segmenter: Segmenter, paint: Paint) -> None:
    bad = Fragile(array_slide(paint(100, 100, [])), UnreadableImageError("torn"), 0)
    picture = segmenter.picture("a", bad, 0.25)
    assert within(60, lambda: list(run(segmenter, [picture], counted(segmenter)))) == [picture.failures[0]]
    assert str(picture.failures[0]) == "torn"


def test_a_file_that_vanishes_ends_its_picture(segmenter: Segmenter, paint: Paint) -> None:
    bad = Fragile(array_slide(paint(200, 100, [])), UnreadableImageError("stale handle"), 150)
    picture = segmenter.picture("mount/gone.svs", bad, 0.25)
    [error] = within(60, lambda: list(run(segmenter, [picture], counted(segmenter))))
    assert str(error) == "mount/gone.svs: vanished while it was read; run the same command again when it is back"


def test_tiles_of_the_journal_are_not_done_again(segmenter: Segmenter, paint: Paint) -> None:
    discs = scattered(200, 200)
    picture = segmenter.picture("a", array_slide(paint(200, 200, discs)), 0.25)
    [whole] = run(segmenter, [picture], lambda picture: list(segmenter.result(picture)))
    assert not isinstance(whole, NuclensError)
    again = segmenter.picture("a", picture.slide, 0.25)
    for index in (3, 0, 7):
        again.journal.add(index, whole[1 + index])
    done: list[int] = []
    [parts] = run(
        segmenter, [again], lambda picture: list(segmenter.result(picture)), lambda picture, n: done.append(n)
    )
    assert not isinstance(parts, NuclensError)
    assert len(done) == len(picture.tiles) - 3
    assert same(concatenate(parts), concatenate(whole))


@pytest.mark.parametrize("region", ["40,30,100,80", "10,7.5,25,20um"])
@pytest.mark.parametrize("core", [64, 128])
def test_a_region_holds_the_nuclei_whose_anchor_it_holds(
    segmenter: Segmenter, paint: Paint, region: str, core: int
) -> None:
    discs = scattered(200, 200)
    slide = array_slide(paint(200, 200, discs))
    picture = replace(segmenter, tile_px=core).picture("a", slide, 0.25, Area(region=region))
    [parts] = run(segmenter, [picture], lambda picture: list(segmenter.result(picture)))
    assert not isinstance(parts, NuclensError)
    found = {tuple(anchor) for part in parts for anchor in part.anchors.tolist()}
    wanted = {(r, c) for r, c, _ in discs if 30 <= r < 110 and 40 <= c < 140}
    assert found == wanted
    assert len(picture.tiles) < len(segmenter.picture("a", slide, 0.25).tiles) or core == 128


@pytest.mark.parametrize(
    "region", ["1,2,3", "a,b,c,d", "0,0,5,5,5", "0 0 5 5", "300,0,10,10", "0,0,0,10", "-50,0,50,10"]
)
def test_a_region_that_is_none_or_lies_outside_is_refused(segmenter: Segmenter, paint: Paint, region: str) -> None:
    with pytest.raises(InputError, match="--region"):
        segmenter.picture("a", array_slide(paint(200, 200, [])), 0.25, Area(region=region))


def test_only_nuclei_on_tissue_are_kept_whatever_the_tiles(segmenter: Segmenter, paint: Paint, tmp_path: Path) -> None:
    discs = scattered(400, 400)
    slide = array_slide(paint(400, 400, discs))
    mask = np.zeros((50, 50), np.uint8)
    mask[10:30, 5:20] = 255
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    wanted = {(r, c) for r, c, _ in discs if mask[int((r + 0.5) / 8), int((c + 0.5) / 8)]}
    plans = set()
    for core in (64, 256):
        picture = replace(segmenter, tile_px=core).picture("a", slide, 0.25, Area(tissue=tmp_path / "mask.png"))
        [parts] = run(segmenter, [picture], lambda picture: list(segmenter.result(picture)))
        assert not isinstance(parts, NuclensError)
        assert {tuple(anchor) for part in parts for anchor in part.anchors.tolist()} == wanted
        plans.add(picture.plan.tissue)
    assert len(plans) == 1
    assert plans != {""}
    assert picture.mm2 == pytest.approx(20 * 15 * 64 * 0.25**2 / 1e6)


@dataclass(frozen=True)
class Marked:
    """A slide that is a part of its file's plane."""

    slide: Any
    origin: tuple[int, int] = (1000, 70)
    plane: tuple[int, int] = (5000, 4000)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.slide, name)


def test_the_frame_moves_results_and_nothing_else(segmenter: Segmenter, paint: Paint) -> None:
    slide: Any = Marked(array_slide(paint(200, 200, scattered(200, 200))))
    found = []
    for area in (Area(), Area(frame="file"), Area(frame="file", region="70,1000,200,200")):
        picture = segmenter.picture("a", slide, 0.25, area)
        [parts] = run(segmenter, [picture], lambda picture: list(segmenter.result(picture)))
        assert not isinstance(parts, NuclensError)
        found.append(concatenate(parts))
    shown, moved, region = found
    assert (shown.frame.height, moved.frame.height, moved.frame.width) == (200, 5000, 4000)
    np.testing.assert_array_equal(moved.vertices, shown.vertices + np.array([1000, 70], np.float32))
    np.testing.assert_allclose(moved.centroids, shown.centroids + np.array([1000, 70]))
    np.testing.assert_array_equal(moved.ids, shown.ids)
    np.testing.assert_array_equal(region.ids, shown.ids)


def test_pictures_of_a_marked_slide_lie_on_its_pixels(segmenter: Segmenter, paint: Paint, tmp_path: Path) -> None:
    slide = array_slide(paint(200, 200, scattered(200, 200)))
    drawn = []
    for area in (Area(), Area(frame="file")):
        marked: Any = Marked(slide)
        picture = segmenter.picture("a", marked, 0.25, area)
        [record] = run(segmenter, [picture], Results(segmenter, tmp_path / area.frame, {}, ("labels", "overlay")))
        assert not isinstance(record, NuclensError)
        assert record["files"] == ["label.tif", "overlay.png"]
        drawn.append((tmp_path / area.frame / "a" / "overlay.png").read_bytes())
    assert drawn[0] == drawn[1]
    assert tifffile.imread(tmp_path / "file" / "a" / "label.tif").shape == (5000, 4000)
    np.testing.assert_array_equal(
        tifffile.imread(tmp_path / "file" / "a" / "label.tif")[1000:1200, 70:270],
        tifffile.imread(tmp_path / "bounds" / "a" / "label.tif"),
    )


def test_labels_of_a_huge_plane_are_refused(segmenter: Segmenter, paint: Paint, tmp_path: Path) -> None:
    marked: Any = Marked(array_slide(paint(200, 200, scattered(200, 200))), plane=(100_000, 50_000))
    picture = segmenter.picture("a", marked, 0.25, Area(frame="file"))
    [record] = run(segmenter, [picture], Results(segmenter, tmp_path, {}, ("labels", "csv")))
    assert not isinstance(record, NuclensError)
    assert record["files"] == ["instances.csv"]
    assert record["notes"][0].startswith("labels not written: frame of 100000 x 50000 pixels")


def test_a_bug_in_reading_reaches_the_caller(segmenter: Segmenter, paint: Paint) -> None:
    bad = Fragile(array_slide(paint(150, 150, [])), ZeroDivisionError("a bug"))
    with pytest.raises(ZeroDivisionError, match="a bug"):
        within(60, lambda: list(run(segmenter, pictures_of(segmenter, bad), lambda picture: None)))
    assert own_threads() == []


class Heads:
    """A runner whose heads, of these numbers of channels, see nothing."""

    precision = processor = "none"

    def __init__(self, channels: dict[str, int]) -> None:
        self.channels = channels

    def run(self, rgb: UInt8[np.ndarray, "h w 3"]) -> RawHeads:
        return {name: np.zeros((count, *rgb.shape[:2]), np.uint8) for name, count in self.channels.items()}


def test_a_bug_in_decoding_reaches_the_caller_with_its_traceback(
    segmenter: Segmenter, paint: Paint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: Any) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("nuclens.jobs.segment.rows_of", broken)
    slides = [array_slide(paint(150, 150, [])), array_slide(paint(150, 150, []))]
    with pytest.raises(ZeroDivisionError, match="a bug") as caught:
        within(60, lambda: list(run(segmenter, pictures_of(segmenter, *slides), lambda picture: None)))
    assert "broken" in [entry.name for entry in caught.traceback]
    assert own_threads() == []


@pytest.mark.parametrize("place", ["finish", "report"])
def test_a_bug_of_the_callers_own_reaches_the_caller(segmenter: Segmenter, paint: Paint, place: str) -> None:
    def broken(picture: Picture, nuclei: int = 0) -> None:
        raise ZeroDivisionError("a bug")

    def fine(picture: Picture, nuclei: int = 0) -> None:
        pass

    pictures = pictures_of(segmenter, array_slide(paint(150, 150, [])))
    with pytest.raises(ZeroDivisionError, match="a bug"):
        within(60, lambda: list(run(segmenter, pictures, *((broken, fine) if place == "finish" else (fine, broken)))))
    assert own_threads() == []


@pytest.mark.parametrize("place", ["network", "reading"])
def test_a_picture_that_does_not_fit_into_memory_fails_alone(segmenter: Segmenter, paint: Paint, place: str) -> None:
    """As on a graphics card that is too small for its tiles, or a machine."""
    error = MemoryFault("too large for the card") if place == "network" else MemoryError("Unable to allocate 3 GiB")

    class Small:
        def __getattr__(self, name: str) -> Any:
            return getattr(segmenter.runner, name)

        def run(self, rgb: UInt8[np.ndarray, "h w 3"]) -> Any:
            if place == "network" and not rgb.any():
                raise error
            return segmenter.runner.run(rgb)

    good, black = array_slide(paint(100, 100, [])), array_slide(np.zeros((100, 100, 3), np.uint8))
    bad = Fragile(black, error, 1000 if place == "network" else 0)
    own = replace(segmenter, runner=Small())
    results = within(60, lambda: list(run(own, pictures_of(own, good, bad, good), counted(own))))
    assert [results[0], results[2]] == [0, 0]
    assert isinstance(results[1], MemoryFault)
    assert bad.closed.is_set()
    assert own_threads() == []


def test_heads_of_another_model_are_an_error_of_each_picture(segmenter: Segmenter, paint: Paint) -> None:
    wrong = replace(segmenter, runner=Heads({"nucleus": 3}))
    pictures = pictures_of(wrong, *[array_slide(paint(200, 200, []))] * 2)
    results = within(60, lambda: list(run(wrong, pictures, lambda picture: None)))
    assert [type(result) for result in results] == [ShapeError, ShapeError]
    with pytest.raises(ShapeError):
        segment(paint(20, 20, []), model=wrong, mpp=0.25)


def test_leaving_early_ends_all_threads(segmenter: Segmenter, paint: Paint) -> None:
    opened = []

    def endless() -> Iterator[Picture | NuclensError]:
        while True:
            opened.append(1)
            yield segmenter.picture("one", array_slide(paint(64, 64, [])), 0.25)

    results = run(segmenter, endless(), lambda picture: None)
    next(results)
    within(60, results.close)  # type: ignore[attr-defined]
    assert own_threads() == []
    assert len(opened) < 20


def test_what_is_in_flight_is_bounded(segmenter: Segmenter, paint: Paint) -> None:
    begun: list[int] = []
    ended: list[int] = []
    most = 0

    class Counting(Heads):
        def run(self, rgb: UInt8[np.ndarray, "h w 3"]) -> RawHeads:
            nonlocal most
            begun.append(1)
            most = max(most, len(begun) - len(ended))
            return super().run(rgb)

    def slow(picture: Picture, nuclei: int) -> None:
        time.sleep(0.005)
        ended.append(1)

    counting = replace(segmenter, runner=Counting({"nucleus": 1, "offset": 2, "type": 2}))
    picture = counting.picture("a", array_slide(paint(300, 300, [])), 0.25)
    within(60, lambda: list(run(counting, [picture], lambda picture: None, slow)))
    assert len(begun) == len(ended) == 25
    assert most <= 8


def test_the_plan_holds_what_decides(painted_model: Path, segmenter: Segmenter, paint: Paint) -> None:
    slide = array_slide(paint(64, 64, []))
    plan = segmenter.picture("a", slide, 0.5).plan
    assert (plan.mpp, plan.scale, plan.core_px, plan.halo_px) == (0.5, 2.0, 64, 80)
    assert plan.model == open_model(painted_model).digest
    assert plan.digest != segmenter.picture("a", slide, 0.25).plan.digest
    assert plan.digest == segmenter.picture("another name", slide, 0.5).plan.digest


def test_tiles_of_a_size_follow_each_other(segmenter: Segmenter, paint: Paint) -> None:
    """And all are done, but those that are kept already."""
    slide = array_slide(paint(300, 420, []))
    picture = segmenter.picture("a", slide, 0.25)
    picture.journal.add(picture.tiles[3].index, segment(paint(20, 20, []), model=segmenter, mpp=0.25))
    left = picture.left()
    assert {tile.index for tile in left} == {tile.index for tile in picture.tiles} - {picture.tiles[3].index}
    sizes = [(tile.box[2] - tile.box[0], tile.box[3] - tile.box[1]) for tile in left]
    assert len(set(sizes)) > 2
    assert len(list(groupby(sizes))) == len(set(sizes))
