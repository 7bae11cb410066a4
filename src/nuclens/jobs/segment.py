"""Segment: pictures in, nuclei out; reading, network and decoding overlap so that every core stays busy."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeAlias, TypeVar

import numpy as np
from jaxtyping import Shaped

from nuclens.core.errors import NuclensError
from nuclens.core.flow import ahead
from nuclens.core.heads import TISSUE, RawHeads
from nuclens.core.kinds import Kind
from nuclens.core.machine import cores
from nuclens.core.models import Model, open_model
from nuclens.core.plan import MARGIN_PX, Plan, halo_px, scale_of
from nuclens.core.rows import no_rows, rows_of
from nuclens.core.slides import Slide, array_slide, open_image
from nuclens.core.tiling import Tile, inside, tile_plan, working_shape
from nuclens.core.tissue_votes import VOTES, elected, of_texts, to_text, votes
from nuclens.core.types import Frame, Instances, concatenate
from nuclens.core.urls import shown
from nuclens.jobs.pictures import Area, Picture, Pixels

ENGINES: Kind[Any] = Kind("nuclens.engines")
ENCODINGS: Kind[Any] = Kind("nuclens.encodings")
TILE_PX = 2048
_AHEAD = 2  # tiles read ahead of the network by each thread that reads
_BEHIND = 2  # tiles the network may be ahead of each thread that decodes
_CORES_READ = 8  # that the network keeps busy with what one thread reads, JPEG 2000 included
_CORES_DECODED = 4  # and with what one thread decodes
_USUAL = Area()

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Segmenter:
    """A model made ready to run.

    Attributes:
        model: What runs.
        runner: The engine's handle.
        engine: Engine and version, as plans hold them.
        tile_px: Side of a tile's core on the working grid.
        offset_px: Row and column of the working grid where a core begins.
        threads: Cores to keep busy.
        processor: What rounds, as plans hold it; that of the runner, unless another machine's runs.
    """

    model: Model
    runner: Any
    engine: str
    tile_px: int = TILE_PX
    offset_px: tuple[int, int] = (0, 0)
    threads: int = 1
    processor: str = ""

    def picture(self, name: str, slide: Slide, mpp: float | None, area: Area = _USUAL) -> Picture:
        """Plan an opened input; `mpp` overrides what the file says.

        Raises:
            ResolutionError: Nobody says how large a pixel is.
            InputError: The area lies outside.
            DataError: The tissue mask does not fit.
        """
        card = self.model.card
        mpp = slide.mpp if mpp is None else float(mpp)
        scale = scale_of(card, mpp, name, slide.power)
        region, tissue, origin = area.box(slide, mpp, name), area.mask(slide, mpp), area.origin(slide)
        plan = Plan(
            image=slide.digest,
            model=self.model.digest,
            engine=self.engine,
            precision=self.runner.precision,
            instructions=self.processor or self.runner.processor,
            core_px=self.tile_px,
            halo_px=halo_px(card),
            mpp=mpp,
            scale=scale,
            offset_px=self.offset_px,
            region=region,
            tissue=tissue.digest if tissue else "",
            origin=origin,
            reader=slide.reader,
        )
        grid = working_shape(slide.shape, scale)
        tiles = tile_plan(grid, plan.core_px, plan.halo_px, card.stride, margin_px=MARGIN_PX, offset=plan.offset_px)
        height, width = slide.plane if area.frame == "file" else slide.shape
        picture = Picture(name, slide, plan, Frame(height, width, mpp), (), (), tissue, area.strict)
        kept: list[Tile] = []
        skipped: list[Tile] = []
        for tile in tiles:
            (kept if picture.may_hold(tile) else skipped).append(tile)
        return replace(picture, tiles=tuple(kept), skipped=tuple(skipped))

    def rows(self, picture: Picture, tile: Tile, rgb: Pixels, raw: RawHeads) -> Instances:
        """Decode one tile into the wanted nuclei that it owns."""
        card = self.model.card
        encoding = ENCODINGS.get(card.encoding)
        told, raw = raw.get(TISSUE), {name: head for name, head in raw.items() if name != TISSUE}
        # Beyond the image there are mirrored pixels: context for the network, but no nuclei.
        tile, rgb, raw = _on_image(tile, rgb, raw, working_shape(picture.slide.shape, picture.plan.scale))
        with picture.clock.stage("decode"):
            found = encoding.decode(raw, card.schema, encoding.options(**card.encoding_options))
        with picture.clock.stage("outline and measure"):
            rows = rows_of(found, rgb, tile, picture.plan, (picture.frame, card.schema))
            if told is not None:
                rows = replace(rows, metadata={VOTES: to_text(votes(told, tile.core))})
            wanted = picture.wanted(rows.anchors)
            return rows if wanted.all() else rows[wanted]

    def tissue(self, picture: Picture) -> dict[str, str]:
        """What the finished tiles of a picture say of its tissue, as metadata has it; nothing of a model without."""
        tissues = self.model.card.tissues
        if tissues and not picture.elected:
            counted = of_texts(part.metadata[VOTES] for part in picture.journal)
            picture.elected.update(elected(counted, tissues))
        return picture.elected

    def result(self, picture: Picture) -> Iterator[Instances]:
        """The finished nuclei of a picture, a tile at a time, after an empty part that has all columns."""
        metadata = {
            "plan": picture.plan.digest,
            "image": picture.plan.image,
            "model": f"{self.model.card.name} {self.model.card.version}",
            "model digest": self.model.digest,
            "weights licence": self.model.card.license,
        }
        metadata |= getattr(picture.slide, "identifiers", {})
        if picture.unreadable:
            metadata["unreadable"] = " ".join(picture.unread())
        metadata |= self.tissue(picture)
        yield replace(no_rows(picture.plan, (picture.frame, self.model.card.schema)), metadata=metadata)
        for part in picture.journal:
            yield replace(part, metadata=metadata)


def load_model(
    model: str | Path,
    *,
    engine: str = "openvino",
    precision: str = "",
    tile_px: int = TILE_PX,
    threads: int | None = None,
) -> Segmenter:
    """Load a model into an engine.

    Args:
        model: Name of a shipped one, or folder.
        engine: What runs it.
        precision: Of its arithmetic, where the engine leaves a choice; empty for the engine's usual one.
        tile_px: Side of a tile's core on the working grid.
        threads: Cores to keep busy; all that the process may use, if not given. Results do not depend on it.

    Raises:
        InputError: No such model, engine or precision, or `tile_px` is no multiple of the model's stride.
        CheckpointError: The model is incomplete.
        MissingExtraError: The engine is not installed.
    """
    loaded = open_model(model)
    tile_plan((1, 1), tile_px, 0, loaded.card.stride)  # refuses here what would fail for every picture
    plugin = ENGINES.get(engine)
    threads = cores() if threads is None else threads
    chosen = {"precision": precision} if precision else {}
    runner = plugin.load(loaded, plugin.options(threads=threads, **chosen))
    return Segmenter(loaded, runner, plugin.version, tile_px, threads=threads)


@dataclass(frozen=True, slots=True)
class Tool:
    """What segments, as every worker loads it for itself.

    Attributes:
        model: Name, or a folder that all workers see under the same path.
        engine: What runs it.
        precision: Of its arithmetic; empty for the engine's usual one.
        tile_px: Side of a tile's core on the working grid.
    """

    model: str
    engine: str
    precision: str
    tile_px: int

    def load(self, threads: int | None) -> Segmenter:
        """The model ready to run with so many threads; with all that the process may use, if not given.

        Raises:
            InputError: No such model, engine or precision.
            CheckpointError: The model is incomplete.
            MissingExtraError: The engine is not installed.
        """
        return load_model(
            self.model, engine=self.engine, precision=self.precision, tile_px=self.tile_px, threads=threads
        )


def segment(
    source: str | Path | Shaped[np.ndarray, "..."],
    *,
    model: str | Path | Segmenter = "default",
    mpp: float | None = None,
    area: Area = _USUAL,
) -> Instances:
    """Find every nucleus in a picture, or on the tissue of a slide, and hold them all in memory.

    `segment_files` streams slides to files instead, and goes on after interruptions.

    Args:
        source: A file, a URL, or an array (h, w), (h, w, 3) or (h, w, 4).
        model: Name of a shipped model, folder of an exported one, or a loaded segmenter, which saves loading.
        mpp: Micrometres per pixel; overrides the file's own. Arrays need it.
        area: Which part is searched.

    Raises:
        UnreadableImageError: The file is absent, damaged or no picture.
        ResolutionError: Neither the file nor `mpp` says how large a pixel is.
        ShapeError: The array is no picture.
    """
    segmenter = model if isinstance(model, Segmenter) else load_model(model)
    slide: Slide = array_slide(source, mpp) if isinstance(source, np.ndarray) else open_image(source)
    name = "array" if isinstance(source, np.ndarray) else shown(source)
    with closing(slide):
        picture = segmenter.picture(name, slide, mpp, area)
        [result] = run(segmenter, [picture], lambda picture: concatenate(list(segmenter.result(picture))))
    if isinstance(result, NuclensError):
        raise result
    return result


def run(
    segmenter: Segmenter,
    pictures: Iterable[Picture | NuclensError],
    finish: Callable[[Picture], R],
    report: Callable[[Picture, int], None] = lambda picture, nuclei: None,
) -> Iterator[R | NuclensError]:
    """Segment pictures one after another and yield, in order, what `finish` makes of each, or the error that ended it.

    Threads read ahead, the caller's thread runs the network, others decode,
    keep the nuclei in the picture's journal, and finish. What is in flight is
    bounded, so memory is too. Tiles that the journal has are not done again.

    Args:
        segmenter: What to run.
        pictures: Opened lazily by a thread, closed when finished; an error stands for one that could not be.
        finish: Called with each picture whose tiles are done, in a thread.
        report: Called with the number of each tile's nuclei, in a thread.
    """
    decoders = max(2, segmenter.threads // _CORES_DECODED)
    readers = max(1, segmenter.threads // _CORES_READ)
    after = _After(segmenter, finish, report, threading.Semaphore(_BEHIND * decoders))
    pending: deque[Future[R | NuclensError]] = deque()
    with (
        ThreadPoolExecutor(decoders, "nuclens-decode") as pool,
        closing(ahead(_reads(pictures), _AHEAD * readers, readers)) as items,
    ):
        tasks: list[Future[None]] = []
        since = time.monotonic()
        for item in items:
            if isinstance(item, tuple):
                clock = item[0].clock
                since = clock.wait("reading", since)
                after.room.acquire()
                since = clock.wait("decoding", since)
                try:
                    raw = segmenter.runner.run(item[2])
                except (NuclensError, MemoryError) as error:
                    item[0].fail(error)
                    after.room.release()
                    continue
                since = clock.wait("network", since)
                tasks.append(pool.submit(after.tile, *item, raw))
            elif item is not None:
                # The pool serves in order, so the tiles are taken before the task that waits for them.
                pending.append(pool.submit(after.picture, item, tasks))
                tasks = []
            while pending and pending[0].done():
                yield pending.popleft().result()
        for future in pending:
            yield future.result()


@dataclass(frozen=True, slots=True)
class _After(Generic[R]):
    """What is done once the network has seen a tile, and once all tiles of a picture are done."""

    segmenter: Segmenter
    finish: Callable[[Picture], R]
    report: Callable[[Picture, int], None]
    room: threading.Semaphore

    def tile(self, picture: Picture, tile: Tile, rgb: Pixels, raw: RawHeads) -> None:
        try:
            nuclei = self.segmenter.rows(picture, tile, rgb, raw)
            with picture.clock.stage("journal"):
                picture.journal.add(tile.index, nuclei)
        except (NuclensError, MemoryError) as error:
            picture.fail(error)
        else:
            self.report(picture, len(nuclei))
        finally:
            self.room.release()

    def picture(self, picture: Picture | NuclensError, tiles: list[Future[None]]) -> R | NuclensError:
        if isinstance(picture, NuclensError):
            return picture
        try:
            for tile in tiles:
                tile.result()
            return picture.failures[0] if picture.failed else self.finish(picture)
        except NuclensError as error:
            return error
        finally:
            picture.slide.close()


Read: TypeAlias = tuple[Picture, Tile, Pixels] | None


def _reads(pictures: Iterable[Picture | NuclensError]) -> Iterator[Callable[[], Read | Picture | NuclensError]]:
    """What reads tile after tile, and each picture itself after its last tile; an error in place of what failed."""
    for picture in pictures:
        if isinstance(picture, Picture):
            for tile in picture.left():
                if picture.failures:
                    break
                yield partial(_read, picture, tile)
        yield partial(_itself, picture)


def _read(picture: Picture, tile: Tile) -> Read:
    """A tile's pixels; nothing where they cannot be read, or where the picture has failed."""
    rgb = None if picture.failures else picture.read(tile)
    return None if rgb is None else (picture, tile, rgb)


def _itself(picture: Picture | NuclensError) -> Picture | NuclensError:
    return picture


def _on_image(tile: Tile, rgb: Pixels, raw: RawHeads, shape: tuple[int, int]) -> tuple[Tile, Pixels, RawHeads]:
    """A tile without what its box holds beyond the image."""
    box = inside(tile.box, shape)
    rows = slice(box[0] - tile.box[0], box[2] - tile.box[0])
    columns = slice(box[1] - tile.box[1], box[3] - tile.box[1])
    return replace(tile, box=box), rgb[rows, columns], {name: head[:, rows, columns] for name, head in raw.items()}
