"""A contact sheet: windows of several annotated pictures with their outlines, to see at a glance what a data set is."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from nuclens.core.records import from_labels, named_schema
from nuclens.core.schema import ClassSchema
from nuclens.core.types import Sample
from nuclens.report.overlay import FAINT, PAPER, TEXT, LegendEntry, legend, outlined, text_width, write_text

CELL, GAP, CAPTION, COLUMNS = 360, 16, 44, 4  # px
_ACROSS = 14  # nuclei of middling size, side by side, in a window


def contact_sheet(title: str, samples: Iterable[Sample], schema: ClassSchema) -> UInt8[np.ndarray, "h w 3"]:
    """Samples in rows of four, each with its name and what is known of it, and the types with their colours below.

    Of each a square window is shown in which a nucleus of middling size takes
    a fourteenth of the side, around the nucleus in the midst of them; of a
    picture without nuclei, its middle. What is to be ignored is grey.
    """
    shown = list(samples)
    kinds = sorted({int(kind) for sample in shown for kind in sample.types[1:]})
    schema = _named(schema, max(kinds, default=0))
    cells = [_cell(sample, schema) for sample in shown]
    columns = min(COLUMNS, max(len(cells), 1))
    blank = np.full((CELL + CAPTION, CELL, 3), PAPER, np.uint8)
    cells += [blank] * (-len(cells) % columns)
    rows = [_row(cells[start : start + columns]) for start in range(0, len(cells), columns)]
    width = rows[0].shape[1] if rows else CELL
    head = np.full((CAPTION, width, 3), PAPER, np.uint8)
    write_text(head, title, (GAP, CAPTION - 16), TEXT)
    unknown = "type unknown" if schema.types else "nucleus"
    names = [LegendEntry(schema.name(kind) if kind else unknown, color=schema.color(kind)) for kind in kinds]
    return np.vstack([head, *rows, legend(names, width)])


def window(sample: Sample) -> tuple[int, int, int]:
    """Top, left and side of the square that is shown of a sample."""
    shape = np.array(sample.labels.shape)
    pixels = np.argwhere(sample.labels)
    side, middle = 256.0, shape / 2
    if len(pixels):
        # The size that the middle pixel's nucleus has: small fragments do not count.
        owners = sample.labels[tuple(pixels.T)]
        side = _ACROSS * math.sqrt(np.median(np.bincount(owners)[owners]))
        middle = pixels[np.abs(pixels - pixels.mean(axis=0)).sum(axis=1).argmin()]
    length = int(np.clip(side, 64, max(64, shape.min())))
    top, left = np.clip(middle - length // 2, 0, np.maximum(shape - length, 0)).astype(int).tolist()
    return top, left, length


def _cell(sample: Sample, schema: ClassSchema) -> UInt8[np.ndarray, "h w 3"]:
    top, left, side = window(sample)
    part = sample.rgb[top : top + side, left : left + side]
    if sample.ignore is not None:
        hidden = sample.ignore[top : top + side, left : left + side, None]
        part = np.where(hidden, part // 2 + 64, part)
    nuclei = from_labels(sample.labels, sample.types, schema)
    moved = nuclei.vertices - np.array([top, left], np.float32)
    drawn = outlined(part, replace(nuclei, vertices=moved), CELL / side)
    cell = np.full((CELL + CAPTION, CELL, 3), PAPER, np.uint8)
    cell[: drawn.shape[0], : drawn.shape[1]] = drawn
    write_text(cell, _short(sample.id), (0, CELL + 18), TEXT)
    count = len(sample.types) - 1
    said = [f"{count:,} {'nucleus' if count == 1 else 'nuclei'}", f"{sample.rgb.shape[1]} x {sample.rgb.shape[0]} px"]
    write_text(cell, ", ".join([*said, *([sample.tissue] if sample.tissue else [])]), (0, CELL + 38), FAINT)
    return cell


def _row(cells: list[UInt8[np.ndarray, "h w 3"]]) -> UInt8[np.ndarray, "h w 3"]:
    return np.hstack([np.pad(cell, ((0, 6), (GAP // 2, GAP // 2), (0, 0)), constant_values=255) for cell in cells])


def _short(name: str) -> str:
    """A name that fits; of a long one its ends, which differ most."""
    if text_width(name) <= CELL:
        return name
    keep = next(keep for keep in range(len(name) // 2, 0, -1) if text_width(f"{name[:keep]}...{name[-keep:]}") <= CELL)
    return f"{name[:keep]}...{name[-keep:]}"


def _named(schema: ClassSchema, highest: int) -> ClassSchema:
    """The schema with a name and a colour for types up to the highest id, which packs do not name."""
    known = len(schema.types)
    if highest <= known:
        return schema
    names = [*schema.names, *(f"type {kind}" for kind in range(known + 1, highest + 1))]
    return named_schema(Path(), names, {kind.name: kind.color for kind in schema.types})
