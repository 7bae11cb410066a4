"""What is read around damage is what a whole file has there, and nothing takes for ever."""

from __future__ import annotations

import errno
from collections import Counter
from collections.abc import Iterable

import cv2
import numpy as np
import pytest
from jaxtyping import UInt8

from nuclens.core.damage import read_around_damage
from nuclens.core.errors import UnreadableImageError
from nuclens.core.resample import read_working
from nuclens.core.slides import ArraySlide, array_slide
from nuclens.core.tiling import Box, working_shape

Holes = dict[int, list[Box]]
RGB: UInt8[np.ndarray, "h w 3"] = np.random.default_rng(0).integers(0, 255, (1400, 1000, 3), np.uint8)


class Damaged(ArraySlide):
    """A slide of some levels, with boxes of them that cannot be read; `tried` counts what was asked of each level."""

    pictures: tuple[np.ndarray, ...]
    holes: Holes
    cause: OSError | None
    tried: Counter[int]

    def __init__(self, halvings: int, holes: Holes, cause: OSError | None = None) -> None:
        super().__init__(RGB, 0.25, "made")
        sizes = [(1000 >> k, 1400 >> k) for k in range(halvings + 1)]
        object.__setattr__(self, "pictures", [cv2.resize(RGB, size, interpolation=cv2.INTER_AREA) for size in sizes])
        object.__setattr__(self, "holes", holes)
        object.__setattr__(self, "cause", cause)
        object.__setattr__(self, "tried", Counter())

    @property
    def levels(self) -> tuple[tuple[int, int], ...]:
        return tuple(picture.shape[:2] for picture in self.pictures)

    def read(self, box: Box, level: int = 0) -> UInt8[np.ndarray, "h w 3"]:
        self.tried[level] += 1
        if any(meet(box, hole) for hole in self.holes.get(level, [])):
            raise UnreadableImageError("torn") from self.cause
        pixels: UInt8[np.ndarray, "h w 3"] = self.pictures[level][box[0] : box[2], box[1] : box[3]]
        return pixels


def meet(one: Box, other: Box) -> bool:
    return all(one[k] < other[k + 2] and other[k] < one[k + 2] for k in (0, 1))


def whole(level: int) -> Box:
    return (0, 0, 1400 >> level, 1000 >> level)


def near(lost: np.ndarray, holes: Iterable[Box], scale: float, margin: float) -> bool:
    """Whether all that is lost is by a hole, whose middle is."""
    far = lost.copy()
    for hole in holes:
        top, left, bottom, right = (place * scale for place in hole)
        assert lost[int((top + bottom) / 2), int((left + right) / 2)]
        rows, columns = (slice(max(0, int(a - margin)), int(b + margin)) for a, b in ((top, bottom), (left, right)))
        far[rows, columns] = False
    return not far.any()


@pytest.mark.parametrize("scale", [1.0, 0.5, 0.13, 1.98])
def test_all_but_the_damage_is_as_in_a_whole_file(scale: float) -> None:
    holes: list[Box] = [(300, 200, 310, 210), (1350, 990, 1400, 1000)]
    box = (0, 0, *working_shape((1400, 1000), scale))
    pixels, lost = read_around_damage(Damaged(0, {0: holes}), box, scale)
    assert near(lost, holes, scale, 70)
    sound = read_working(array_slide(RGB), box, scale)
    assert np.array_equal(pixels[~lost], sound[~lost])
    assert (pixels[lost] == 255).all()
    again, none = read_around_damage(array_slide(RGB), box, scale)
    assert not none.any()
    assert np.array_equal(again, sound)


@pytest.mark.parametrize("hole", [(0, 0, 64, 64), whole(2)])
def test_finer_levels_show_what_a_coarse_one_does_not(hole: Box) -> None:
    """Also where nothing of the coarse one is sound, which is not tried for long."""
    box = (0, 0, *working_shape((1400, 1000), 0.25))
    slide, other = Damaged(2, {2: [hole]}), Damaged(1, {})
    pixels, lost = read_around_damage(slide, box, 0.25)
    assert not lost.any()
    beside = np.ones(lost.shape, bool)
    beside[: hole[2] + 32, : hole[3] + 32] = False
    assert np.array_equal(pixels[beside], slide.pictures[2][beside])
    inside = slice(0, hole[2]), slice(0, hole[3])
    assert np.array_equal(pixels[inside], read_working(other, box, 0.25)[inside])
    assert slide.tried[1] > 0
    assert slide.tried[0] == 0
    assert slide.tried[2] <= 200


def test_what_no_level_shows_is_lost() -> None:
    holes: Holes = {0: [(400, 400, 420, 420)], 1: [whole(1)], 2: [(0, 0, 200, 200)]}
    box = (0, 0, *working_shape((1400, 1000), 0.25))
    pixels, lost = read_around_damage(Damaged(2, holes), box, 0.25)
    assert near(lost, holes[0], 0.25, 40)
    assert lost.sum() <= 40**2
    assert (pixels[lost] == 255).all()


def test_a_file_without_a_sound_spot_is_all_lost_after_few_tries() -> None:
    hopeless = Damaged(2, {level: [whole(level)] for level in range(3)})
    pixels, lost = read_around_damage(hopeless, (0, 0, 350, 250), 0.25)
    assert lost.all()
    assert (pixels == 255).all()
    assert max(hopeless.tried.values()) <= 90


def test_a_file_riddled_with_holes_is_given_up_in_squares() -> None:
    """A level is not asked for ever: each time some readers open the file anew."""
    holes: list[Box] = [
        (row, column, row + 1, column + 1) for row in range(5, 1400, 20) for column in range(5, 1000, 20)
    ]
    riddled = Damaged(0, {0: [hole for hole in holes if hole[0] > 400]})
    _, lost = read_around_damage(riddled, whole(0), 1.0)
    assert not lost[:350].any()
    assert lost[450:].all()
    assert riddled.tried[0] < 2000


@pytest.mark.parametrize("number", [errno.EIO, errno.ESTALE, errno.ENOENT])
def test_where_the_system_cannot_read_another_try_may_succeed(number: int) -> None:
    holes: Holes = {0: [(0, 0, 10, 10)]}
    with pytest.raises(UnreadableImageError, match="torn"):
        read_around_damage(Damaged(0, holes, OSError(number, "gone")), whole(0), 1.0)
    for cause in (OSError("of no number"), OSError(errno.EINVAL, "an offset before the file")):
        assert read_around_damage(Damaged(0, holes, cause), whole(0), 1.0)[1].any()


def test_a_small_picture_is_one_square() -> None:
    slide = Damaged(2, {2: [(0, 0, 1, 1)]})
    pixels, lost = read_around_damage(slide, (0, 0, 20, 20), 0.25)
    assert not lost.any()
    assert slide.tried == {2: 2, 1: 1}
    assert pixels.shape == (20, 20, 3)
