"""Elastic, grid and lens distortion: one field of displacements for pixels, labels and centres of a crop."""

from __future__ import annotations

import cv2
import numpy as np
from jaxtyping import Float32, Float64, Int32

from nuclens.training.augment_settings import AugmentSettings

STEEPEST = 0.7  # change of displacement per pixel: below 1 nothing folds, and every place has one origin
_LOOKS = 64  # places along a side where steepness is looked at
_ROUNDS = 12  # 0.7 ** 12 of a displacement is left as error


def displacement(
    rng: np.random.Generator, crop: int, settings: AugmentSettings
) -> Float32[np.ndarray, "crop crop 2"] | None:
    """Where the pixel at (x, y) of a crop comes from, as a way (x, y) in pixels from there; None for nowhere else.

    Elastic: normal ways at nodes `elastic_spacing` pixels apart, smooth in
    between. Grid: nodes of a grid moved by up to a share of its cells,
    straight in between. Lens: barrel or pincushion about the middle. All are
    added, and weakened if need be so that nothing folds.

    Source: Simard et al., ICDAR 2003 (with a blur instead of nodes); Fitzgibbon, CVPR 2001 (lens, one parameter).
    """
    field = np.zeros((crop, crop, 2), np.float32)
    moved = False
    if settings.elastic and rng.random() < settings.elastic:
        count = int(np.ceil(crop / settings.elastic_spacing)) + 1
        nodes = rng.normal(0, settings.elastic_px, (count, count, 2)).astype(np.float32)
        field += cv2.resize(nodes, (crop, crop), interpolation=cv2.INTER_CUBIC)
        moved = True
    if settings.grid and rng.random() < settings.grid:
        limit = settings.grid_limit * crop / settings.grid_cells
        nodes = rng.uniform(-limit, limit, (settings.grid_cells + 1,) * 2 + (2,)).astype(np.float32)
        field += cv2.resize(nodes, (crop, crop), interpolation=cv2.INTER_LINEAR)
        moved = True
    if settings.lens:
        field += _lens(crop, rng.uniform(-settings.lens, settings.lens))
        moved = True
    if not moved:
        return None
    stride = max(1, crop // _LOOKS)
    sparse = field[::stride, ::stride]
    slopes = sum((np.diff(sparse, axis=axis) ** 2).sum(axis=-1).max(initial=0) for axis in (0, 1))
    steepness = float(np.sqrt(slopes)) / stride
    return field * np.float32(STEEPEST / steepness) if steepness > STEEPEST else field


def moved_centres(
    centres: Float32[np.ndarray, "n 2"],
    affine: Float64[np.ndarray, "2 3"],
    field: Float32[np.ndarray, "crop crop 2"] | None,
) -> Float32[np.ndarray, "n 2"]:
    """Places in a crop, (row, column), of places in an image.

    Beyond the crop the field goes on as at its border, so that cut nuclei
    keep their centre.
    """
    straight = centres[:, ::-1] @ affine[:, :2].T + affine[:, 2]
    if field is not None:
        crop = len(field)
        near = ((straight > -crop) & (straight < 2 * crop)).all(axis=1)
        place = aim = straight[near].astype(np.float32)
        for _ in range(_ROUNDS if len(place) else 0):
            columns, rows = cv2.split(place[None])
            ways = cv2.remap(field, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            place = aim - ways[0]
        straight[near] = place
    moved: np.ndarray = straight[:, ::-1].astype(np.float32)
    return moved


def recentred(labels: Int32[np.ndarray, "h w"], centres: Float32[np.ndarray, "n 2"]) -> Float32[np.ndarray, "n 2"]:
    """Centres (row, column) of a crop's labels, 0 and -1 aside: centroids, but as given where the crop cuts a label.

    A distorted nucleus' centroid is not where its old one went.
    """
    inside = np.flatnonzero(labels > 0)
    ids = labels.take(inside).astype(np.int64)
    rows, columns = np.divmod(inside, labels.shape[1])
    size = np.bincount(ids, minlength=len(centres))
    sums = [np.bincount(ids, axis, minlength=len(centres)) for axis in (rows, columns)]
    whole = size > 0
    for border in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        whole[border[border > 0]] = False
    middles = np.stack(sums, axis=1) / np.maximum(size, 1)[:, None]
    return np.where(whole[:, None], middles, centres).astype(np.float32)


def _lens(crop: int, strength: float) -> Float32[np.ndarray, "crop crop 2"]:
    """Ways that grow with the cube of the distance to the middle, and are `strength` of it at a side's middle."""
    away = (np.arange(crop, dtype=np.float32) - (crop - 1) / 2) / (crop / 2)
    x, y = np.meshgrid(away, away)
    bend = np.float32(strength * crop / 2) * (x * x + y * y)
    return np.stack([bend * x, bend * y], axis=-1)
