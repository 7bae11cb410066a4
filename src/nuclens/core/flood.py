"""Flood: labels grow from seeds over a landscape of bytes, the lowest ground first."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int32, Int64, UInt8


def flood(
    seeds: Int32[np.ndarray, "h w"], landscape: UInt8[np.ndarray, "h w"], mask: Bool[np.ndarray, "h w"]
) -> Int32[np.ndarray, "h w"]:
    """Labels of the seeds, grown over the mask to all that is 4-connected to one.

    All pixels of the frontier that are not above the water take their free
    neighbours at once; when none is left, the water rises by one. A pixel that
    two labels reach at once goes to the one above it, then left, right, below.
    So the result knows neither the order of the labels nor where the map was
    cut from a larger one.

    Args:
        seeds: 0 is free ground.
        landscape: Height of every pixel.
        mask: What may be flooded; seeds outside it are dropped.

    Example:
        >>> seeds = np.array([[1, 0, 0, 0, 0, 2]], np.int32)
        >>> flood(seeds, np.array([[0, 1, 2, 9, 1, 0]], np.uint8), seeds > -1)
        array([[1, 1, 1, 2, 2, 2]], dtype=int32)

    Source: Meyer, Un algorithme optimal pour la ligne de partage des eaux, RFIA 1991; no lines between labels here.
    """
    height, width = seeds.shape
    labels = np.zeros((height + 2, width + 2), np.int32)
    labels[1:-1, 1:-1] = np.where(mask, seeds, 0)
    free = np.zeros(labels.shape, bool)
    free[1:-1, 1:-1] = mask
    free &= labels == 0
    ground = np.zeros(labels.shape, np.uint8)
    ground[1:-1, 1:-1] = landscape
    water = _Water(labels.reshape(-1), free.reshape(-1), width + 2)
    waiting = np.flatnonzero(labels)
    waiting = waiting[water.beside_free(waiting)]
    heights = ground.reshape(-1)
    while len(waiting):
        level = heights.take(waiting).min()
        waiting = _risen(water, heights, waiting, int(level))
    return labels[1:-1, 1:-1].copy()


class _Water:
    """Flat labels with a margin of one pixel, and which pixels are free."""

    def __init__(self, labels: Int32[np.ndarray, "p"], free: Bool[np.ndarray, "p"], width: int) -> None:
        self.labels, self.free = labels, free
        # Where a pixel lies seen from the neighbour that takes it: below that one first, so the upper neighbour wins.
        self.neighbours = (width, 1, -1, -width)

    def beside_free(self, pixels: Int64[np.ndarray, "k"]) -> Bool[np.ndarray, "k"]:
        """Which pixels have a free neighbour."""
        beside = np.zeros(len(pixels), bool)
        for neighbour in self.neighbours:
            beside |= self.free.take(pixels + neighbour)
        return beside

    def spread(self, frontier: Int64[np.ndarray, "k"]) -> Int64[np.ndarray, "m"]:
        """Give the labels of these pixels to their free neighbours, which are returned."""
        taken = []
        for neighbour in self.neighbours:
            reached = frontier + neighbour
            fresh = self.free.take(reached)
            reached = reached[fresh]
            self.labels[reached] = self.labels.take(frontier[fresh])
            self.free[reached] = False
            taken.append(reached)
        return np.concatenate(taken)


def _risen(
    water: _Water, heights: UInt8[np.ndarray, "p"], waiting: Int64[np.ndarray, "k"], level: int
) -> Int64[np.ndarray, "m"]:
    """Flood up to a level; what is left waits for higher water."""
    low = heights.take(waiting) <= level
    frontier, later = waiting[low], [waiting[~low]]
    while len(frontier):
        reached = water.spread(frontier)
        low = heights.take(reached) <= level
        frontier = reached[low]
        later.append(reached[~low])
    return np.concatenate(later)
