"""Model cards: what a trained model is, what it was learned from, and how its inputs and outputs are to be read."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from nuclens.core.errors import CheckpointError, InputError
from nuclens.core.heads import Head
from nuclens.core.json_texts import decode_json
from nuclens.core.planes import COUNTS, Planes, planes_of
from nuclens.core.schema import ClassSchema, NucleusType

CARD_VERSION = 1


@dataclass(frozen=True, slots=True)
class Preprocessing:
    """What happens to 8-bit colours before the network: planes are made of them, then `(plane - mean) / std` of each.

    Attributes:
        mean: One number per plane.
        std: Likewise.
        planes: What is made of the colours.
    """

    mean: tuple[float, ...] = (127.5, 127.5, 127.5)
    std: tuple[float, ...] = (63.75, 63.75, 63.75)
    planes: Planes = "rgb"

    def __post_init__(self) -> None:
        """Check that the parts fit.

        Raises:
            InputError: There are no such planes, or not one mean and deviation for each.
        """
        if self.planes not in COUNTS:
            raise InputError(f"preprocessing: no planes {self.planes!r}; there are {', '.join(COUNTS)}")
        if {len(self.mean), len(self.std)} != {COUNTS[self.planes]}:
            raise InputError(
                f"preprocessing: {len(self.mean)} means and {len(self.std)} deviations; "
                f"wanted {COUNTS[self.planes]} for {self.planes}"
            )

    @classmethod
    def usual(cls, planes: Planes) -> Preprocessing:
        """What new models are trained with: every plane about from -2 to 2."""
        count = COUNTS[planes]
        return cls((127.5,) * count, (63.75,) * count, planes)

    @property
    def channels(self) -> int:
        """Planes the network takes."""
        return COUNTS[self.planes]

    def split(self, rgb: UInt8[np.ndarray, "h w 3"]) -> UInt8[np.ndarray, "h w c"]:
        """The planes, not yet normalised."""
        return planes_of(rgb, self.planes)

    def __call__(self, rgb: UInt8[np.ndarray, "h w 3"]) -> Float32[np.ndarray, "h w c"]:
        """Normalised planes."""
        mean, std = np.array(self.mean, np.float32), np.array(self.std, np.float32)
        normalised: np.ndarray = (self.split(rgb).astype(np.float32) - mean) / std
        return normalised


@dataclass(frozen=True, slots=True)
class DatasetNote:
    """A data set a model was trained on.

    Attributes:
        name: As its publication calls it.
        source: DOI or similar.
        license: SPDX identifier, or what is known instead.
        used_for: What the model learned from it.
    """

    name: str
    source: str
    license: str
    used_for: str


@dataclass(frozen=True, slots=True)
class Card:
    """Everything needed to run a model, and everything a user should know before trusting it.

    Attributes:
        name: Of the model.
        version: Of the weights.
        description: A paragraph for people.
        license: SPDX identifier of the weights.
        mpp: Micrometres per pixel it works at; None means pixels only.
        schema: Types of its results.
        network: Plug-in name of the network, and the options it was built with.
        encoding: Plug-in name of the decoder, and its settings.
        heads: Outputs of the network.
        preprocessing: Of its input.
        precision: "f32" or "int8".
        stride: Sides of tiles are multiples of this.
        reach: How far an input pixel moves an output by more than half an 8-bit level, pixels.
        datasets: What it was trained on.
        limits: What is unproven or known to fail, in plain words.
        metrics: Scores by test set; each names its protocol.
        training: Recipe digest, seed, steps, compute.
        tissues: What the channels of a head of the whole image stand for; none where there is no such head.
    """

    name: str
    version: str
    description: str
    license: str
    mpp: float | None
    schema: ClassSchema
    network: str
    network_options: dict[str, Any]
    encoding: str
    encoding_options: dict[str, Any]
    heads: tuple[Head, ...]
    preprocessing: Preprocessing
    precision: str
    stride: int
    reach: int
    datasets: tuple[DatasetNote, ...] = ()
    limits: tuple[str, ...] = ()
    metrics: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    tissues: tuple[str, ...] = ()

    def to_json(self) -> str:
        """The card as `card.json` holds it."""
        plain = {"card_version": CARD_VERSION, **asdict(self)}
        # Later additions: told only where they are used, so that cards of before keep their bytes.
        if self.preprocessing.planes == "rgb":
            del plain["preprocessing"]["planes"]
        if not self.tissues:
            del plain["tissues"]
        return json.dumps(plain, indent=2, ensure_ascii=False) + "\n"

    @property
    def resolution(self) -> str:
        """What images it takes, in words."""
        return "any resolution" if self.mpp is None else f"{self.mpp:g} µm/px"

    @property
    def digest(self) -> str:
        """SHA-256 of the card's text."""
        return hashlib.sha256(self.to_json().encode()).hexdigest()


def card_from_json(text: str | bytes, path: str) -> Card:
    """Rebuild a card; `path` is named in errors.

    Raises:
        CheckpointError: Not a card of this version.
    """
    try:
        plain = decode_json(text)
        version = plain.pop("card_version")
        if version != CARD_VERSION:
            raise CheckpointError(f"{path}: card version {version}, wanted {CARD_VERSION}; export the model again")
        schema = plain.pop("schema")
        types = tuple(
            NucleusType(kind["name"], tuple(kind["color"]), tuple(kind["leaves"])) for kind in schema["types"]
        )
        return Card(
            schema=ClassSchema(tuple(schema["leaves"]), types),
            heads=tuple(Head(**head) for head in plain.pop("heads")),
            preprocessing=_preprocessing(plain.pop("preprocessing")),
            datasets=tuple(DatasetNote(**note) for note in plain.pop("datasets")),
            limits=tuple(plain.pop("limits")),
            tissues=tuple(plain.pop("tissues", ())),
            **plain,
        )
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(
            f"{path}: not a model card ({error}); wanted the card.json of `nuclens export`"
        ) from error


def _preprocessing(plain: dict[str, Any]) -> Preprocessing:
    parts: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in plain.items()}
    return Preprocessing(**parts)
