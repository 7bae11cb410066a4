"""Annotated images at another resolution than their own."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64

from nuclens.core.labels import compact
from nuclens.core.resample import read_working, taps
from nuclens.core.slides import ArraySlide
from nuclens.core.tiling import working_shape
from nuclens.core.types import Sample

_NOISE = 1e-4  # of sums of single precision


def rescaled(sample: Sample, scale: float) -> Sample:
    """An annotated image on a working grid: pixels as `segment` reads them, nuclei where half a pixel is theirs.

    A working pixel is of a nucleus if half of it or more is covered by nuclei, and of the one that covers most. So
    areas stay what they were; taking every pixel that a nucleus touches makes them half as large again at a quarter
    of the resolution. Nuclei that keep no pixel are left out, and so are the layers of data that have overlaps.

    Args:
        sample: The image.
        scale: Working pixels per pixel of the image.

    Raises:
        InputError: The scale is not a positive number.
    """
    if scale == 1:
        return sample
    slide = ArraySlide(sample.rgb, None, "")
    shape = working_shape(slide.shape, scale)
    axes = [_Axis.of(*sizes, scale) for sizes in zip(shape, slide.shape, strict=True)]
    labels, kept = compact(np.where(_half(sample.labels > 0, axes), _most(sample.labels, axes), 0))
    return replace(
        sample,
        rgb=read_working(slide, (0, 0, *shape), scale),
        labels=labels,
        types=sample.types[np.append(0, kept)],
        ignore=None if sample.ignore is None else _half(sample.ignore, axes),
        layers=None,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Axis:
    """Along one axis, what of the image each working pixel covers.

    Attributes:
        share: Of it, by pixel of the image; rows add up to one.
        points: Pixels that lie evenly within it, about as many as it covers.
    """

    share: Float32[np.ndarray, "n size"]
    points: Int64[np.ndarray, "n points"]

    @classmethod
    def of(cls, count: int, size: int, scale: float) -> _Axis:
        """An axis of `count` working pixels over `size` of the image."""
        # Enlarged, a pixel lies within one.
        points = max(1, math.ceil(1 / scale))
        places = (np.arange(count)[:, None] + (np.arange(points) + 0.5) / points) / scale
        share = np.zeros((count, size), np.float32)
        if scale < 1:
            covered = taps(0, count, scale, size)
            np.add.at(share, (np.arange(count)[:, None], covered.index), covered.weight)
        else:
            share[np.arange(count), np.minimum(places[:, 0].astype(np.int64), size - 1)] = 1
        return cls(share, np.minimum(places.astype(np.int64), size - 1))


def _half(mask: Bool[np.ndarray, "h w"], axes: list[_Axis]) -> Bool[np.ndarray, "n m"]:
    """Where half of a working pixel or more is covered."""
    covered: Bool[np.ndarray, "n m"] = axes[0].share @ mask.astype(np.float32) @ axes[1].share.T > 0.5 - _NOISE
    return covered


def _most(labels: Int32[np.ndarray, "h w"], axes: list[_Axis]) -> Int32[np.ndarray, "n m"]:
    """The label that most points of each working pixel have, background apart; 0 where none has any."""
    rows, columns = axes[0].points.T, axes[1].points.T
    found = np.stack([labels[np.ix_(row, column)] for row in rows for column in columns])
    best, votes = np.zeros(found.shape[1:], np.int32), np.zeros(found.shape[1:], np.int64)
    for own in found:
        count = np.where(own > 0, (found == own).sum(axis=0), 0)
        best, votes = np.where(count > votes, own, best), np.maximum(count, votes)
    return best
