"""Tissue on made slides: pens, borders, dust, slopes of light, tiny cores, fat, nothing at all."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import cv2
import numpy as np
import pytest
from jaxtyping import Bool, Float64, UInt8

from nuclens.core.glass import tissue_in
from nuclens.core.slides import open_image
from nuclens.core.tissue import find_tissue, overview

UM = 8.0
SIZE = (500, 700)
Made = tuple[Float64[np.ndarray, "h w 3"], Bool[np.ndarray, "h w"]]


def stained(seed: int, height: int, width: int) -> Float64[np.ndarray, "h w 3"]:
    """Made tissue: hematoxylin and eosin in patches."""
    rng = np.random.default_rng(seed)
    amounts = (cv2.GaussianBlur(rng.random((height, width)), (0, 0), sigma) for sigma in (1, 2))
    hematoxylin, eosin = ((one - one.min()) / np.ptp(one) for one in amounts)
    density = 0.5 * hematoxylin[..., None] * (0.65, 0.70, 0.29) + 0.4 * eosin[..., None] * (0.07, 0.99, 0.11)
    rgb: np.ndarray = 240 * 10**-density
    return rgb


def glass(tint: tuple[int, int, int] = (241, 240, 243), slope: float = 20) -> Made:
    """Empty glass with a slope of light and dust."""
    down, across = np.mgrid[: SIZE[0], : SIZE[1]]
    light = np.array(tint) + ((across / SIZE[1] - 0.5) * slope + (down / SIZE[0] - 0.5) * slope / 2)[..., None]
    for row, column, radius in np.random.default_rng(3).integers((0, 0, 1), (*SIZE, 3), (80, 3)).tolist():
        cv2.circle(light, (column, row), radius, (60, 60, 62), -1)
    return light, np.zeros(SIZE, bool)


def put(made: Made, piece: Float64[np.ndarray, "h w 3"], top: int, left: int) -> None:
    """Lay an oval piece on the glass."""
    height, width = piece.shape[:2]
    oval = np.zeros((height, width), np.uint8)
    cv2.ellipse(oval, (width // 2, height // 2), (width // 2 - 2, height // 2 - 2), 0, 0, 360, 1, -1)
    for canvas, value in ((made[0], piece), (made[1], np.ones((height, width), bool))):
        window = canvas[top : top + height, left : left + width]
        window[oval > 0] = value[oval > 0]


def scanned(made: Made, noise: float = 1) -> UInt8[np.ndarray, "h w 3"]:
    rgb: np.ndarray = made[0] + np.random.default_rng(4).normal(0, noise, made[0].shape)
    return rgb.clip(0, 255).astype(np.uint8)


def two_pieces(**light: float) -> Made:
    made = glass(**light)  # type: ignore[arg-type]
    put(made, stained(0, 200, 240), 40, 60)
    put(made, stained(1, 150, 180), 320, 450)
    return made


def check(made: Made, *, noise: float = 1, most_glass: float = 0.01, area: float = 0.08) -> None:
    """All of the tissue is found, little of the glass that is not next to it, and the area is right."""
    found = tissue_in(scanned(made, noise), UM)
    assert found.mask[made[1]].mean() > 0.9995
    far = cv2.dilate(made[1].astype(np.uint8), np.ones((13, 13), np.uint8)) == 0
    assert found.mask[far].mean() <= most_glass
    assert (found.mask & ~found.margin).sum() == pytest.approx(made[1].sum(), rel=area)
    assert not found.margin[~found.mask].any()
    assert found.reason == ""


def test_pieces_on_glass_with_dust_and_a_slope_of_light() -> None:
    check(two_pieces())


@pytest.mark.parametrize("noise", [0, 1.7])
def test_noise_does_not_matter(noise: float) -> None:
    check(two_pieces(), noise=noise)


def test_steep_light_and_yellow_glass() -> None:
    check(two_pieces(slope=50))
    made = glass((244, 238, 226))
    put(made, stained(2, 200, 240), 40, 60)
    check(made)


def test_glass_of_uneven_tint() -> None:
    made = two_pieces(slope=0)
    across = np.linspace(-1, 1, SIZE[1])[None, :, None] * (4, -2, -5)
    check((np.where(made[1][..., None], made[0], made[0] + across), made[1]))


@pytest.mark.parametrize(
    "color", [(40, 70, 170), (70, 110, 200), (30, 130, 80), (40, 150, 160), (215, 35, 45), (28, 28, 32)]
)
def test_pens_are_no_tissue(color: tuple[int, int, int]) -> None:
    made = two_pieces()
    line = np.array([(380, 40), (640, 70), (660, 240), (500, 250)], np.int32)
    cv2.polylines(made[0], [line], False, color, 36, cv2.LINE_AA)
    check((cv2.GaussianBlur(made[0], (0, 0), 2), made[1]))


def test_a_pen_across_tissue_takes_only_what_it_covers() -> None:
    made = two_pieces()
    cv2.line(made[0], (0, 130), (400, 130), (40, 70, 170), 30, cv2.LINE_AA)
    made[1][108:153] = False
    found = tissue_in(scanned(made), UM)
    assert found.mask[made[1]].mean() > 0.9995
    assert found.mask[128:132, 320:400].mean() == 0


def test_a_stain_of_a_pens_colour_is_a_stain() -> None:
    made = glass()
    put(made, stained(5, 200, 240) * 0 + (70, 110, 200), 100, 100)
    check(made)


def test_black_borders_are_no_tissue() -> None:
    made = two_pieces()
    made[0][:36], made[0][:, :30], made[0][-20:] = 0, 9, 15
    check(made)


def test_glass_alone_is_empty_and_says_so() -> None:
    found = tissue_in(scanned(glass()), UM)
    assert not found.mask.any()
    assert "no tissue found" in found.reason


def test_all_black_is_kept_since_it_may_be_fluorescence() -> None:
    rgb = np.zeros((*SIZE, 3), np.uint8)
    rgb[50:60, 50:60] = 40
    found = tissue_in(rgb, UM)
    assert found.mask.all()
    assert "no bare glass" in found.reason


def test_a_picture_full_of_tissue_is_kept_whole() -> None:
    found = tissue_in(scanned((stained(6, *SIZE), np.ones(SIZE, bool))), UM)
    assert found.mask.all()
    assert not found.margin.any()


def test_cores_of_a_microarray_are_all_found() -> None:
    made = glass()
    for top in range(20, 420, 80):
        for left in range(20, 640, 80):
            put(made, stained(top + left, 40, 40), top, left)
    check(made, area=0.12)


def test_the_smallest_piece_is_a_hundredth_of_a_square_millimetre() -> None:
    for side, kept in ((15, True), (9, False)):
        made = glass()
        made[0][200 : 200 + side, 300 : 300 + side] = stained(1, side, side)
        assert tissue_in(scanned(made), UM).mask[205, 305] == kept, side


def test_faint_tissue_and_fat_are_kept() -> None:
    made = glass()
    pale = np.ones((150, 200, 3)) * (235, 218, 236)
    put(made, pale, 20, 20)
    put(made, fat(160, 200), 280, 400)
    check(made)


def fat(height: int, width: int) -> Float64[np.ndarray, "h w 3"]:
    """Thin pink walls around white cells of 80 µm."""
    fine = np.full((height * 4, width * 4, 3), 240.0)
    cells = cv2.Subdiv2D((0, 0, width * 4, height * 4))
    for point in (np.random.default_rng(7).random((height * width // 80, 2)) * (width * 4, height * 4)).tolist():
        cells.insert(tuple(point))
    for facet in cells.getVoronoiFacetList([])[0]:
        cv2.polylines(fine, [np.array(facet, np.int32)], True, (225, 170, 205), 1, cv2.LINE_AA)
    small: np.ndarray = cv2.resize(fine, (width, height), interpolation=cv2.INTER_AREA)
    return small


def test_a_mosaic_on_white_shows_its_glass_and_not_its_seams() -> None:
    made = two_pieces(slope=0)
    made[0][:30], made[0][30:60, :100] = 255, 255
    check(made, noise=0.5)


def test_turning_the_slide_turns_the_mask() -> None:
    rgb = scanned(two_pieces())
    mask = tissue_in(rgb, UM).mask
    assert (tissue_in(np.ascontiguousarray(rgb[::-1]), UM).mask == mask[::-1]).mean() > 0.999
    assert (tissue_in(np.ascontiguousarray(rgb.transpose(1, 0, 2)), UM).mask == mask.T).mean() > 0.999


@pytest.mark.parametrize("shape", [(1, 1), (1, 700), (3, 2), (2, 900)])
def test_odd_shapes_pass(shape: tuple[int, int]) -> None:
    assert tissue_in(np.full((*shape, 3), 241, np.uint8), UM).mask.shape == shape
    assert tissue_in(np.full((*shape, 3), 90, np.uint8), UM).mask.all()


@pytest.fixture
def region(data_root: Path) -> Path:
    return data_root / "slides" / "tcga-v5-a7re-region.tif"


@pytest.mark.data
def test_a_cropped_region_with_little_glass_is_kept_whole(region: Path) -> None:
    with closing(open_image(region)) as slide:
        tissue = find_tissue(slide, slide.mpp)
    assert tissue.mask.mean() > 0.99


@pytest.mark.data
def test_real_tissue_on_made_glass_is_found_with_its_fringe(region: Path) -> None:
    with closing(open_image(region)) as slide:
        real, _ = overview(slide, 0.2485 / 8)
    piece = np.tile(real[40:150, 60:170].astype(np.float64), (2, 2, 1))
    for light in (0, 40):
        made = glass(slope=light)
        put(made, piece[:200, :220], 40, 60)
        put(made, piece[:90, :90], 350, 500)
        check(made, area=0.05)


@pytest.mark.data
def test_the_seams_of_a_real_mosaic_are_no_tissue(data_root: Path) -> None:
    with closing(open_image(data_root / "slides" / "tcga-cr-7395-01a-01-ts1.svs")) as slide:
        tissue = find_tissue(slide, 2.0)
    # Upper left, upper right and lower left are glass, in part filled in by the scanner's program.
    for glass_only in ((0, 0, 480, 1100), (550, 4100, 1150, 4443), (3250, 0, 3567, 1150)):
        assert not tissue.touches(glass_only)
    assert 0.6 < tissue.mask.mean() < 0.7
    assert tissue.holds(np.array([[700.0, 1500], [1400, 2600], [3300, 3800], [120, 3250]])).all()


@pytest.mark.data
def test_a_real_biopsy_is_found_with_its_strands(data_root: Path) -> None:
    with closing(open_image(data_root / "slides" / "cmu-1-small-region.svs")) as slide:
        tissue = find_tissue(slide, slide.mpp)
    assert tissue.holds(np.array([[1120.0, 120], [260, 820], [2900, 700], [1300, 1950], [1500, 1400]])).all()
    assert not tissue.touches((100, 200, 800, 600))
    assert not tissue.touches((1500, 0, 2967, 380))
    assert 0.4 < tissue.mask.mean() < 0.6
