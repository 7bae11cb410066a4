"""The two sides of a comparison, truth and prediction: images by name, each read when asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Integer, UInt8

from nuclens.core.comparison import Comparison, Nuclei, from_layers
from nuclens.core.layers import need_layers
from nuclens.core.predictions import Prediction
from nuclens.core.types import Sample
from nuclens.core.vocabulary import Vocabulary, plain

_MOSTLY = 0.5  # share of a nucleus in places to be ignored from which it is ignored itself


@dataclass(frozen=True, slots=True, eq=False)
class Scene:
    """One image as one side has it.

    Attributes:
        nuclei: Those in it.
        rgb: Pixels, where this side has them.
        ignore: True where nothing is scored.
    """

    nuclei: Prediction
    rgb: UInt8[np.ndarray, "h w 3"] | None = None
    ignore: Bool[np.ndarray, "h w"] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Side:
    """What one side says of a set of images.

    Attributes:
        place: Where it is from, for messages and reports.
        names: Of its images.
        read: The image of a name; the other side's, where that was read before, knows its size and pixels.
        types: Names of its types, where they are known before anything is read.
        colors: Of types, by name.
        groups: Patient or slide by name of image.
        tissues: Organ by name of image.
        beyond: Names of images it also has, which are not asked for.
        mpp: Micrometres per pixel, or None where unknown.
    """

    place: str
    names: tuple[str, ...]
    read: Callable[[str, Scene | None], Scene]
    types: tuple[str, ...] = ()
    colors: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)
    tissues: Mapping[str, str] = field(default_factory=dict)
    beyond: tuple[str, ...] = ()
    mpp: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Joined(Sequence[Comparison]):
    """Comparisons of the images of two sides, in the truth's order; each is read anew when asked for.

    Attributes:
        truth: What is right.
        pred: What is scored; has the images of the truth, by the same names.
        words: What types mean.
        renames: What a type of the prediction is called instead, by its plain name.
    """

    truth: Side
    pred: Side
    words: Vocabulary = Vocabulary()  # noqa: RUF009 - it is frozen
    renames: Mapping[str, str] = field(default_factory=dict)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.truth.names)

    def __getitem__(self, index: int) -> Comparison:  # type: ignore[override]  # slices are not offered
        """Read both sides of an image.

        Raises:
            DataError: A file cannot be read.
        """
        return self.seen(self.truth.names[index])[1]

    def seen(self, name: str) -> tuple[UInt8[np.ndarray, "h w 3"] | None, Comparison]:
        """Pixels of an image, where either side has them, and its comparison."""
        truth = self.truth.read(name, None)
        pred = self.pred.read(name, truth)
        tissue = self.truth.tissues.get(name, "")
        left = _without_ignored(self._renamed(pred.nuclei), truth.ignore)
        tables = self._table(truth.nuclei), self._table(left)
        sides = self._typed(truth.nuclei, tables[0], tissue), self._typed(left, tables[1], left.tissue)
        rgb = truth.rgb if truth.rgb is not None else pred.rgb
        wordless = {
            (side, kind): count
            for side, nuclei, table in zip(("truth", "prediction"), (truth.nuclei, left), tables, strict=True)
            for kind, count in _wordless(nuclei, table).items()
        }
        return rgb, Comparison(*sides, id=name, group=self.truth.groups.get(name, ""), wordless=wordless)

    def _renamed(self, nuclei: Prediction) -> Prediction:
        if not self.renames:
            return nuclei
        return replace(nuclei, names=tuple(self.renames.get(plain(name), name) for name in nuclei.names))

    def _table(self, nuclei: Prediction) -> UInt8[np.ndarray, "types"]:
        """The id among the common words of every type that occurs or has a name; empty where nothing is typed."""
        if not self.words.names:
            return np.zeros(0, np.uint8)
        table = np.zeros(max(len(nuclei.names), int(nuclei.types.max(initial=0))) + 1, np.uint8)
        table[: len(nuclei.names) + 1] = self.words.ids(nuclei.names)
        return table

    def _typed(self, nuclei: Prediction, table: UInt8[np.ndarray, "types"], tissue: str) -> Nuclei:
        """Nuclei with type ids of the common words."""
        if not len(table):
            return Nuclei(nuclei.labels, tissue=tissue)
        types = table[nuclei.types]
        if nuclei.layers is not None:
            return from_layers(_mapped(nuclei.layers, table, len(self.words.names)), tissue)
        shares = None
        if nuclei.probabilities is not None:
            shares = np.zeros((len(types), len(self.words.names)), np.float32)
            for own, kind in enumerate(table[1 : nuclei.probabilities.shape[1] + 1].tolist()):
                if kind:
                    shares[:, kind - 1] += nuclei.probabilities[:, own]
        return Nuclei(nuclei.labels, types, None, shares, tissue)


def of_sample(sample: Sample, names: tuple[str, ...]) -> Scene:
    """An annotated image as a side."""
    nuclei = Prediction(sample.labels, sample.types, names, layers=sample.layers)
    return Scene(nuclei, sample.rgb, sample.ignore)


def shape_of(scene: Scene) -> tuple[int, int]:
    """Height and width of an image."""
    return scene.nuclei.labels.shape[0], scene.nuclei.labels.shape[1]


def _wordless(nuclei: Prediction, table: UInt8[np.ndarray, "types"]) -> Counter[str]:
    """How many nuclei have a type without a word, by its name."""
    lost = nuclei.types[nuclei.types > 0]
    lost = lost[table[lost] == 0] if len(table) else lost[:0]
    return Counter(nuclei.names[kind - 1] if kind <= len(nuclei.names) else str(kind) for kind in lost.tolist())


def _without_ignored(nuclei: Prediction, ignore: Bool[np.ndarray, "h w"] | None) -> Prediction:
    """Without the nuclei that lie mostly where nothing is scored."""
    if ignore is None or nuclei.labels.shape != ignore.shape or not ignore.any():
        return nuclei
    flat, count = nuclei.labels.reshape(-1), len(nuclei.types)
    share = np.bincount(flat, ignore.reshape(-1), count) / np.maximum(np.bincount(flat, minlength=count), 1)
    labels = np.where(share[nuclei.labels] > _MOSTLY, 0, nuclei.labels)
    return replace(nuclei, labels=labels, layers=None)


def _mapped(
    layers: Integer[np.ndarray, "h w types"], table: UInt8[np.ndarray, "types"], count: int
) -> Integer[np.ndarray, "h w {count}"]:
    """Layers of someone's own types as layers of types 1..count."""
    need_layers(layers)
    own = layers.shape[2]
    kinds = table[1 : own + 1].tolist()
    if kinds == list(range(1, count + 1)):
        return layers
    found = np.zeros((*layers.shape[:2], count), np.int64)
    high = int(layers.max(initial=0)) + 1
    for channel, kind in enumerate(kinds):
        if kind:
            # Two own types may be one here, and number their nuclei alike.
            plane = layers[..., channel].astype(np.int64)
            np.copyto(found[..., kind - 1], plane + channel * high, where=plane != 0)
    return found
