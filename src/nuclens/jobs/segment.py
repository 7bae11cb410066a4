"""Segment: pictures in, nuclei out; reading, network and decoding overlap so that every core stays busy."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
from jaxtyping import Shaped, UInt8

from nuclens.core.errors import NuclensError
from nuclens.core.flow import Stopwatch, ahead
from nuclens.core.heads import RawHeads
from nuclens.core.kinds import Kind
from nuclens.core.models import Model, open_model
from nuclens.core.plan import MARGIN_PX, Plan, halo_px, instruction_class, scale_of
from nuclens.core.resample import read_working
from nuclens.core.rows import rows_of
from nuclens.core.slides import Slide, array_slide, open_image
from nuclens.core.tiling import Tile, inside, tile_plan, working_shape
from nuclens.core.types import Frame, Instances, concatenate, no_instances

ENGINES: Kind[Any] = Kind("nuclens.engines")
ENCODINGS: Kind[Any] = Kind("nuclens.encodings")
TILE_PX = 2048
_AHEAD = 2  # tiles read ahead of the network
_BEHIND = 4  # tiles the network may be ahead of decoding

R = TypeVar("R")
Pixels: TypeAlias = UInt8[np.ndarray, "h w 3"]


@dataclass(frozen=True, slots=True)
class Picture:
    """One input that was opened.

    Attributes:
        name: For messages.
        slide: Its pixels.
        plan: Everything that decides its result.
        tiles: What the network reads.
    """

    name: str
    slide: Slide
    plan: Plan
    tiles: tuple[Tile, ...]

    @property
    def frame(self) -> Frame:
        """Grid of the results."""
        height, width = self.slide.shape
        return Frame(height, width, self.plan.mpp)

    @property
    def mm2(self) -> float:
        """Area, 0 where mpp is unknown."""
        return self.frame.height * self.frame.width * ((self.plan.mpp or 0) / 1000) ** 2


@dataclass(frozen=True, slots=True)
class Segmenter:
    """A model made ready to run.

    Attributes:
        model: What runs.
        runner: The engine's handle.
        engine: Engine and version, as plans hold them.
        tile_px: Side of a tile's core on the working grid.
        clock: Where time went.
    """

    model: Model
    runner: Any
    engine: str
    tile_px: int = TILE_PX
    clock: Stopwatch = field(default_factory=Stopwatch)

    def picture(self, name: str, slide: Slide, mpp: float | None) -> Picture:
        """Plan an opened input; `mpp` overrides what the file says.

        Raises:
            ResolutionError: Nobody says how large a pixel is.
        """
        card = self.model.card
        mpp = slide.mpp if mpp is None else mpp
        scale = scale_of(card, mpp, name, slide.power)
        plan = Plan(
            image=slide.digest,
            model=self.model.digest,
            engine=self.engine,
            precision=card.precision,
            instructions=instruction_class(),
            core_px=self.tile_px,
            halo_px=halo_px(card),
            mpp=mpp,
            scale=scale,
        )
        shape = working_shape(slide.shape, scale)
        tiles = tile_plan(shape, plan.core_px, plan.halo_px, card.stride, margin_px=MARGIN_PX)
        return Picture(name, slide, plan, tuple(tiles))

    def rows(self, picture: Picture, tile: Tile, rgb: Pixels, raw: RawHeads) -> Instances:
        """Decode one tile into the nuclei it owns."""
        card = self.model.card
        encoding = ENCODINGS.get(card.encoding)
        # Beyond the image there are mirrored pixels: context for the network, but no nuclei.
        tile, rgb, raw = _on_image(tile, rgb, raw, working_shape(picture.slide.shape, picture.plan.scale))
        with self.clock.stage("decode"):
            found = encoding.decode(raw, card.schema, encoding.options(**card.encoding_options))
        with self.clock.stage("outline and measure"):
            return rows_of(found, rgb, tile, picture.plan, (picture.frame, card.schema))

    def whole(self, picture: Picture, parts: list[Instances]) -> Instances:
        """The result of a picture from those of its tiles."""
        metadata = {
            "plan": picture.plan.digest,
            "image": picture.plan.image,
            "model": f"{self.model.card.name} {self.model.card.version}",
            "model digest": self.model.digest,
            "weights licence": self.model.card.license,
        }
        nuclei = concatenate(parts) if parts else no_instances(picture.frame, self.model.card.schema)
        return replace(nuclei, metadata=metadata)


def load_model(model: str | Path, *, engine: str = "openvino", tile_px: int = TILE_PX) -> Segmenter:
    """Load a model into an engine.

    Raises:
        InputError: No such model or engine, or `tile_px` is no multiple of the model's stride.
        CheckpointError: The model is incomplete.
        MissingExtraError: The engine is not installed.
    """
    loaded = open_model(model)
    tile_plan((1, 1), tile_px, 0, loaded.card.stride)  # refuses here what would fail for every picture
    plugin = ENGINES.get(engine)
    return Segmenter(loaded, plugin.load(loaded, plugin.options()), plugin.version, tile_px)


def segment(
    source: str | Path | Shaped[np.ndarray, "..."],
    *,
    model: str | Path | Segmenter = "default",
    mpp: float | None = None,
) -> Instances:
    """Find every nucleus in a picture.

    Args:
        source: A file, or an array (h, w), (h, w, 3) or (h, w, 4).
        model: Name of a shipped model, folder of an exported one, or a loaded segmenter, which saves loading.
        mpp: Micrometres per pixel; overrides the file's own. Arrays need it.

    Raises:
        UnreadableImageError: The file is absent, damaged or no picture.
        ResolutionError: Neither the file nor `mpp` says how large a pixel is.
        ShapeError: The array is no picture.
    """
    segmenter = model if isinstance(model, Segmenter) else load_model(model)
    slide: Slide = array_slide(source, mpp) if isinstance(source, np.ndarray) else open_image(source)
    name = "array" if isinstance(source, np.ndarray) else str(source)
    with closing(slide):
        [result] = run(segmenter, [segmenter.picture(name, slide, mpp)], lambda picture, nuclei: nuclei)
    if isinstance(result, NuclensError):
        raise result
    return result


def run(
    segmenter: Segmenter,
    pictures: Iterable[Picture | NuclensError],
    finish: Callable[[Picture, Instances], R],
    report: Callable[[Picture, Instances], None] = lambda picture, nuclei: None,
) -> Iterator[R | NuclensError]:
    """Segment pictures one after another and yield, in order, what `finish` makes of each, or the error that ended it.

    A thread reads ahead, the caller's thread runs the network, two threads
    decode and finish. What is in flight is bounded, so memory is too.

    Args:
        segmenter: What to run.
        pictures: Opened lazily by the reading thread, closed when finished; an error stands for one that could not be.
        finish: Called with each picture and its nuclei, in a thread.
        report: Called with each tile's nuclei, in a thread.
    """
    pending: deque[Future[R | NuclensError]] = deque()
    room = threading.Semaphore(_BEHIND)

    def decode(picture: Picture, tile: Tile, rgb: Pixels, raw: RawHeads) -> Instances:
        try:
            nuclei = segmenter.rows(picture, tile, rgb, raw)
        finally:
            room.release()
        report(picture, nuclei)
        return nuclei

    def close(picture: Picture | NuclensError, parts: list[Future[Instances]]) -> R | NuclensError:
        if isinstance(picture, NuclensError):
            return picture
        try:
            return finish(picture, segmenter.whole(picture, [part.result() for part in parts]))
        except NuclensError as error:
            return error
        finally:
            picture.slide.close()

    with ThreadPoolExecutor(2, "nuclens-decode") as pool, closing(ahead(_read(segmenter, pictures), _AHEAD)) as items:
        parts: list[Future[Instances]] = []
        for item in items:
            if isinstance(item, tuple):
                room.acquire()
                parts.append(pool.submit(decode, *item, segmenter.runner.run(item[2])))
            else:
                # The pool serves in order, so the tiles are taken before the task that waits for them.
                pending.append(pool.submit(close, item, parts))
                parts = []
            while pending and pending[0].done():
                yield pending.popleft().result()
        for future in pending:
            yield future.result()


def _read(
    segmenter: Segmenter, pictures: Iterable[Picture | NuclensError]
) -> Iterator[tuple[Picture, Tile, Pixels] | Picture | NuclensError]:
    """Tiles with their pixels, and each picture after its last tile; an error in place of what failed."""
    for picture in pictures:
        if isinstance(picture, NuclensError):
            yield picture
            continue
        try:
            for tile in picture.tiles:
                with segmenter.clock.stage("read"):
                    rgb = read_working(picture.slide, tile.box, picture.plan.scale)
                yield picture, tile, rgb
            yield picture
        except NuclensError as error:
            picture.slide.close()
            yield error


def _on_image(tile: Tile, rgb: Pixels, raw: RawHeads, shape: tuple[int, int]) -> tuple[Tile, Pixels, RawHeads]:
    """A tile without what its box holds beyond the image."""
    box = inside(tile.box, shape)
    rows = slice(box[0] - tile.box[0], box[2] - tile.box[0])
    columns = slice(box[1] - tile.box[1], box[3] - tile.box[1])
    return replace(tile, box=box), rgb[rows, columns], {name: head[:, rows, columns] for name, head in raw.items()}
