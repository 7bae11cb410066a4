"""Batches of augmented crops: crop k of step s depends on the seed, s and k alone, so a resumed run sees the same."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, Int32, UInt8

from nuclens.core.datasets import DATASETS, Samples
from nuclens.core.errors import InputError, RecipeError
from nuclens.core.heads import TISSUE, UNKNOWN
from nuclens.core.machine import cores
from nuclens.core.rescaled import rescaled
from nuclens.core.schema import ClassSchema, leaf_masks
from nuclens.core.types import Sample, Truth, truth_of
from nuclens.training.augment import placement, recolour, warp
from nuclens.training.augment_fields import displacement, moved_centres, recentred
from nuclens.training.augment_stain import Look, immuno, look_of, relooked
from nuclens.training.balance import Draw, Place, draw_of, evened
from nuclens.training.settings import RANDOM, DataSettings, ResolvedRecipe

Batch = dict[str, np.ndarray]


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """One annotated image, ready to be cropped.

    Attributes:
        rgb: Pixels.
        labels: As float32; -1 where nothing is known.
        truth: Leaves and centres of its nuclei.
        outlined: Whether its outlines are learned.
        share: Weight of its data set divided by the pixels of the data set, times its own.
        id: Of the sample, behind the path of its data set.
        look: Its stains and tones, where crops are to have those of others.
        tissue: Place of its tissue among those of the recipe; `UNKNOWN` where it is none of them.
    """

    rgb: UInt8[np.ndarray, "h w 3"]
    labels: Float32[np.ndarray, "h w"]
    truth: Truth
    outlined: bool
    share: float
    look: Look | None = None
    id: str = ""
    tissue: int = UNKNOWN


def load_sources(recipe: ResolvedRecipe, root: Path, use: Use = "train") -> list[Source]:
    """All images of a recipe that are put to a use.

    Raises:
        CorruptDatasetError: A folder is missing or broken.
        RecipeError: A data set that is not there for tests has no image left to train on after exclusions, or none has.
    """
    sources = []
    for data in recipe.data:
        samples = [rescaled(sample, recipe.scale(data)) for sample in open_samples(data, root, use)]
        pixels = sum(sample.labels.size for sample in samples)
        if not pixels and use == "train" and not (data.test or data.test_split):
            raise RecipeError(f"data {data.path}: no image left to train on; exclude or validate fewer groups")
        shares = [data.share * sample.labels.size / pixels for sample in samples]
        if recipe.train.balance == "tissue":
            shares = evened(shares, [sample.tissue for sample in samples])
        made = [_source(sample, data, recipe, share) for sample, share in zip(samples, shares, strict=True)]
        sources += [replace(one, look=look_of(one.rgb)) for one in made] if recipe.augment.restain else made
    if not sources and use == "train":
        raise RecipeError("data: no image left to train on in any of them; exclude, validate or test fewer groups")
    return sources


def check_groups(recipe: ResolvedRecipe, root: Path) -> None:
    """Check that all groups and official parts a recipe names exist: a misspelt one would be trained on.

    Raises:
        CorruptDatasetError: A folder is missing.
        RecipeError: A data set has no such group or part.
    """
    for data in recipe.data:
        samples = DATASETS.get(data.dataset).open(root / data.path)
        if unknown := sorted({*data.exclude, *data.validate, *data.test} - set(samples.groups)):
            raise RecipeError(f"data {data.path}: no group {', '.join(unknown)} to set aside; check the names")
        parts = {data.split, data.validate_split, data.test_split} - {""}
        if unknown := sorted(parts - set(samples.splits)):
            known = ", ".join(sorted(set(samples.splits) - {""})) or "none"
            raise RecipeError(f"data {data.path}: no official part {', '.join(unknown)}; there are {known}")


Use = Literal["train", "validate", "test"]


def indices(data: DataSettings, samples: Samples, use: Use = "train") -> list[int]:
    """Which samples of one entry of a recipe are put to a use; what is set aside by group or part is not trained on."""

    def used(group: str, split: str) -> str:
        if group in data.exclude:
            return ""
        if group in data.test or (split and split == data.test_split):
            return "test"
        if group in data.validate or (split and split == data.validate_split):
            return "validate"
        return "train" if data.split in ("", split) else ""

    uses = [used(group, split) for group, split in zip(samples.groups, samples.splits, strict=True)]
    if data.random_validate or data.random_test:
        uses = _by_chance(uses, samples, (data.random_test, data.random_validate))
    if data.validate_share:
        uses = _by_group(uses, samples, data.validate_share)
    return [index for index, found in enumerate(uses) if found == use]


def _by_group(uses: list[str], samples: Samples, share: float) -> list[str]:
    """Uses with a share of the training groups, at least one, taken for validation."""
    groups = sorted({group for group, use in zip(samples.groups, uses, strict=True) if use == "train"}, key=_lot)
    aside = set(groups[: max(1, round(share * len(groups)))])
    drawn = zip(uses, samples.groups, strict=True)
    return ["validate" if use == "train" and group in aside else use for use, group in drawn]


def _by_chance(uses: list[str], samples: Samples, shares: tuple[float, float]) -> list[str]:
    """Uses with shares of each tissue's training images taken for tests and validation."""
    found = list(uses)
    tissues: dict[str, list[tuple[str, int]]] = {}
    for index, entry in enumerate(samples.entries):
        if uses[index] == "train":
            tissues.setdefault(entry.tissue, []).append((_lot(entry.id), index))
    for drawn in tissues.values():
        first = 0
        for use, share in zip(("test", "validate"), shares, strict=True):
            last = first + round(share * len(drawn))
            for _, index in sorted(drawn)[first:last]:
                found[index] = use
            first = last
    return found


def _lot(name: str) -> str:
    """Orders names as if drawn, the same way wherever they lie: their own order may be that of dates or hospitals."""
    return sha256(name.encode()).hexdigest()


def open_samples(data: DataSettings, root: Path, use: Use = "train") -> Iterator[Sample]:
    """Samples of one entry of a recipe that are put to a use; no others are read."""
    samples = DATASETS.get(data.dataset).open(root / data.path)
    for index in indices(data, samples, use):
        yield samples[index]


def doubts(recipe: ResolvedRecipe, sources: list[Source]) -> tuple[str, ...]:
    """What to say of classes and tissues that no training image has, and of splits that make scores too good."""
    seen = 0
    for source in sources:
        seen |= int(np.bitwise_or.reduce(source.truth.leaves, initial=0))
    classes = [leaf for bit, leaf in enumerate(recipe.leaves) if not seen >> bit & 1]
    there = {source.tissue for source in sources}
    tissues = [tissue for place, tissue in enumerate(recipe.tissues) if place not in there]
    random = [data.path for data in recipe.data if any(getattr(data, name) for name in RANDOM)]
    return (
        *(f"class {leaf}: no nucleus of the training images has it, so it is not taught" for leaf in classes),
        *((f"no training image is of {', '.join(tissues)}: those tissues are not taught",) if tissues else ()),
        *(f"data {path}: images are set aside by chance, so that fields of one slide are on both sides: scores are "
          f"too good, and do not compare with those of official folds" for path in random),
    )  # fmt: skip


def leaves_of(sample: Sample, data: DataSettings, schema: ClassSchema) -> UInt8[np.ndarray, "n+1"]:
    """Leaf masks of a sample's nuclei under a recipe's table."""
    table = {int(type_id): schema.mask(*names) for type_id, names in data.leaves.items()}
    masks: np.ndarray = leaf_masks(table, 256)[sample.types]
    return masks


def _source(sample: Sample, data: DataSettings, recipe: ResolvedRecipe, share: float) -> Source:
    truth = truth_of(sample.labels, leaves_of(sample, data, recipe.schema))
    labels = sample.labels.astype(np.float32)
    if sample.ignore is not None:
        labels[sample.ignore] = -1
    id = f"{data.path}/{sample.id}"
    tissue = recipe.tissues.index(sample.tissue) if sample.tissue in recipe.tissues else UNKNOWN
    return Source(sample.rgb, labels, truth, data.outlined and sample.outlined, share, id=id, tissue=tissue)


@dataclass(frozen=True, slots=True, eq=False)
class Sampler:
    """Makes the batch of any step.

    Attributes:
        recipe: Crop size, batch size, augmentation and seed.
        encoding: What turns labels into targets.
        sources: Where crops come from.
        part: Which of how many equal parts of every batch is made: that of one process of several.
        workers: Threads that make batches; 0 is half of the processors.
        draw: Which of them is next.
    """

    recipe: ResolvedRecipe
    encoding: Any
    sources: list[Source]
    part: tuple[int, int] = (0, 1)
    workers: int = 0
    draw: Draw = field(init=False)

    def __post_init__(self) -> None:
        """Count what there is to draw from."""
        object.__setattr__(self, "draw", draw_of(self.sources, self.recipe.train.balance))

    def batch(self, step: int) -> Batch:
        """Planes `pixels` uint8 (n, h, w, c), the encoding's targets, `known` and `outlined` uint8 (n, h, w).

        Where the recipe has tissues, `tissue` int64 (n,) too: their places, `UNKNOWN` where that is not known.
        """
        crops = [self._crop(rng, source, focus) for rng, source, focus in self._drawn(step)]
        return {name: np.stack([crop[name] for crop in crops]) for name in crops[0]}

    def names(self, step: int) -> list[str]:
        """Ids of the images that the crops of a step are taken from."""
        return [source.id for _, source, _ in self._drawn(step)]

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        """Batches of a range of steps; the next ones are made while the caller works on the present one."""
        steps = iter(range(first, last))
        workers = self.workers or max(1, cores() // 2)
        with ThreadPoolExecutor(workers, "nuclens-crops") as pool:
            queue = deque(pool.submit(self.batch, step) for step in islice(steps, workers))
            try:
                while queue:
                    ready = queue.popleft().result()
                    queue.extend(pool.submit(self.batch, step) for step in islice(steps, 1))
                    yield ready
            finally:
                pool.shutdown(cancel_futures=True)

    def _drawn(self, step: int) -> Iterator[tuple[np.random.Generator, Source, Place | None]]:
        """Generator, image and place of each crop of this part of a step."""
        place, parts = self.part
        size = self.recipe.train.batch // parts
        for index in range(place * size, (place + 1) * size):
            rng = np.random.default_rng((self.recipe.train.seed, step, index))
            chosen, focus = self.draw(rng)
            yield rng, self.sources[chosen], focus

    def _crop(self, rng: np.random.Generator, source: Source, focus: Place | None) -> Batch:
        size, augment = self.recipe.train.crop, self.recipe.augment
        affine = placement(rng, (source.labels.shape[0], source.labels.shape[1]), size, augment, focus)
        field = displacement(rng, size, augment)
        rgb, labels = warp(source.rgb, source.labels, affine, size, field)
        known = labels >= 0
        # Centres were taken from the whole image, so cut nuclei still point at their own centre.
        centres = moved_centres(source.truth.centres, affine, field)
        if field is not None:
            centres = recentred(labels, centres)
        targets: Batch = self.encoding.encode(
            Truth(labels.clip(0), source.truth.leaves, centres), self.encoding.options(**self.recipe.encoding_options)
        )
        outlined = known & source.outlined
        coloured = recolour(rng, self._restained(rng, rgb, labels, source), augment)
        return {
            "pixels": self.recipe.preprocessing.split(coloured),
            "known": known.astype(np.uint8),
            "outlined": outlined.astype(np.uint8),
            **({TISSUE: np.array(source.tissue, np.int64)} if self.recipe.tissues else {}),
            **targets,
        }

    def _restained(
        self,
        rng: np.random.Generator,
        rgb: UInt8[np.ndarray, "h w 3"],
        labels: Int32[np.ndarray, "h w"],
        source: Source,
    ) -> UInt8[np.ndarray, "h w 3"]:
        augment = self.recipe.augment
        if augment.restain and rng.random() < augment.restain:
            other = self.sources[rng.integers(len(self.sources))]
            if source.look and other.look:
                rgb = relooked(rgb, source.look, other.look, augment)
        if augment.dab and rng.random() < augment.dab:
            rgb = immuno(rng, rgb, labels)
        return rgb


def calibration_crops(recipe: ResolvedRecipe, root: Path, count: int = 40) -> UInt8[np.ndarray, "n h w 3"]:
    """Plain crops of the training images, spread over all of them, for fixing the ranges of 8-bit arithmetic.

    Raises:
        CorruptDatasetError: A folder is missing or broken.
        InputError: No image is as large as a crop.
    """
    size = recipe.train.crop
    crops = []
    pixels = [
        rescaled(sample, recipe.scale(data)).rgb
        for data in recipe.data
        if data.outlined
        for sample in open_samples(data, root)
    ]
    large = [rgb for rgb in pixels if min(rgb.shape[:2]) >= size]
    if not large:
        raise InputError(f"{root}: no outlined training image is as large as a crop of {size} pixels; set train.crop")
    rng = np.random.default_rng(recipe.train.seed)
    for index in range(count):
        rgb = large[index * len(large) // count]
        row, column = (int(rng.integers(0, side - size + 1)) for side in rgb.shape[:2])
        crops.append(rgb[row : row + size, column : column + size])
    return np.stack(crops)
