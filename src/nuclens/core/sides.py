"""The two sides of a comparison, truth and prediction: images by name, each read when asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Integer, UInt8

from nuclens.core.comparison import Comparison, Nuclei, from_layers
from nuclens.core.layers import need_layers
from nuclens.core.predictions import Prediction
from nuclens.core.types import Sample
from nuclens.core.vocabulary import Vocabulary

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
        wordless: How many nuclei had a type that means nothing here, by side and name; grows as images are read.
    """

    truth: Side
    pred: Side
    words: Vocabulary = Vocabulary()  # noqa: RUF009 - it is frozen
    wordless: Counter[tuple[str, str]] = field(default_factory=Counter)

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
        left = _without_ignored(pred.nuclei, truth.ignore)
        sides = self._typed("truth", truth.nuclei, tissue), self._typed("prediction", left, "")
        rgb = truth.rgb if truth.rgb is not None else pred.rgb
        return rgb, Comparison(*sides, id=name, group=self.truth.groups.get(name, ""))

    def _typed(self, side: str, nuclei: Prediction, tissue: str) -> Nuclei:
        """Nuclei with type ids of the common words."""
        if not self.words.names:
            return Nuclei(nuclei.labels, tissue=tissue)
        table = self.words.ids(nuclei.names)
        table = np.pad(table, (0, max(0, int(nuclei.types.max(initial=0)) + 1 - len(table))))
        types = table[nuclei.types]
        for kind in np.unique(nuclei.types[types == 0]).tolist():
            if kind:
                name = nuclei.names[kind - 1] if kind <= len(nuclei.names) else str(kind)
                self.wordless[side, name] += int((nuclei.types == kind).sum())
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


def _without_ignored(nuclei: Prediction, ignore: Bool[np.ndarray, "h w"] | None) -> Prediction:
    """Without the nuclei that lie mostly where nothing is scored."""
    if ignore is None or nuclei.labels.shape != ignore.shape or not ignore.any():
        return nuclei
    flat, count = nuclei.labels.reshape(-1), len(nuclei.types)
    share = np.bincount(flat, ignore.reshape(-1), count) / np.maximum(np.bincount(flat, minlength=count), 1)
    labels = np.where(share[nuclei.labels] > _MOSTLY, 0, nuclei.labels)
    return Prediction(labels, nuclei.types, nuclei.names, nuclei.scores, nuclei.probabilities)


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
