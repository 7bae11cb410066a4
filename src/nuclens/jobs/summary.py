"""Summary of a slide: its counts as JSON, one page for people, and a thumbnail with tissue and tiles."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import imagecodecs

from nuclens.core.card import Card
from nuclens.core.census import Census
from nuclens.core.files import replacing
from nuclens.core.tissue import everything, overview
from nuclens.core.types import Frame, Instances
from nuclens.jobs.pictures import Picture, level_0
from nuclens.report.density import Cells
from nuclens.report.slide import Summary, summary_page
from nuclens.report.thumbnail import TileMark, View, thumbnail, thumbnail_scale


def census_of(picture: Picture, parts: Iterable[Instances]) -> Census:
    """Counts over all nuclei of a picture, in the frame of its level 0."""
    census: Census | None = None
    for part in on_level_0(picture, parts):
        census = census or Census(part.frame, part.schema)
        census.update(part)
    if census is None:
        raise ValueError("a result has at least one part, which may be empty")
    return census


def on_level_0(picture: Picture, parts: Iterable[Instances]) -> Iterator[Instances]:
    """Nuclei of a picture with centroids that count from its level 0, wherever that lies in the frame."""
    frame = Frame(*picture.slide.shape, picture.plan.mpp)
    return (replace(part, frame=frame, centroids=part.centroids - picture.plan.origin) for part in parts)


def write_summary(folder: Path, picture: Picture, census: Census, card: Card) -> list[str]:
    """Write the three files and return their names.

    Raises:
        OutputError: One cannot be written.
    """
    counted = census.result(picture.seen_mm2 if picture.plan.mpp else None)
    summary = Summary(
        name=Path(picture.name).name,
        census=counted,
        slide=_slide_facts(picture),
        model=_model_facts(card),
        run=_run_facts(picture),
        notes=picture.slide.notes,
        limits=card.limits,
    )
    view = view_of(picture)
    cells = Cells(census.cells, census.cell_px, picture.seen_px(census.cell_px), picture.plan.mpp)
    written = {
        "summary.json": json.dumps(counted, indent=1, ensure_ascii=False).encode() + b"\n",
        "summary.html": summary_page(summary, view, cells).encode(),
        "thumbnail.png": bytes(imagecodecs.png_encode(thumbnail(view), level=6)),
    }
    for name, content in written.items():
        with replacing(folder / name) as path:
            path.write_bytes(content)
    return list(written)


def view_of(picture: Picture) -> View:
    """The slide from afar, with what became of every tile."""
    states = {tile: "unreadable" if tile.index in picture.unreadable else "read" for tile in picture.tiles}
    tiles = sorted(states | dict.fromkeys(picture.skipped, "skipped"), key=lambda tile: tile.index)
    marks = tuple(
        TileMark(level_0(tile.core, picture.plan.scale), states.get(tile, "skipped"))  # type: ignore[arg-type]
        for tile in tiles
    )
    shape = picture.slide.shape
    rgb, lost = overview(picture.slide, thumbnail_scale(shape))
    frame, tissue = Frame(*shape, picture.plan.mpp), picture.tissue or everything(shape)
    return View(rgb, frame, tissue, marks, lost, picture.plan.region)


def _slide_facts(picture: Picture) -> dict[str, str]:
    slide, mpp = picture.slide, picture.plan.mpp
    height, width = slide.shape
    facts = {"size": f"{width:,} x {height:,} pixels"}
    if mpp:
        facts["area"] = f"{width * mpp / 1000:.2f} x {height * mpp / 1000:.2f} mm"
        facts["pixel size"] = f"{mpp:g} µm"
    if slide.power:
        facts["objective"] = f"{slide.power:g}x"
    facts["levels"] = ", ".join(f"1 : {height / rows:.3g}" for rows, _ in slide.levels)
    if picture.elected:
        facts["tissue, as the model tells it"] = "{tissue} ({tissue probability})".format_map(picture.elected)
    return facts | {"SHA-256": picture.plan.image}


def _model_facts(card: Card) -> dict[str, str]:
    data = ", ".join(f"{note.name} ({note.license})" for note in card.datasets)
    return {"name": f"{card.name} {card.version}", "weights": card.license, "learned from": data or "not stated"}


def _run_facts(picture: Picture) -> dict[str, str]:
    plan = picture.plan
    facts = {"engine": f"{plan.engine}, {plan.precision}", "tiles": f"{plan.core_px} px of {plan.scale:.3g} to 1"}
    if plan.region:
        top, left, bottom, right = plan.region
        facts["region"] = f"{right - left:,} x {bottom - top:,} pixels at ({left:,}, {top:,})"
    return facts | {"plan": plan.digest}
