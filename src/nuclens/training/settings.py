"""Resolved settings of a training run: plain dataclasses that need no other package to be read from JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields, replace
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args, get_type_hints

from nuclens.core.card import DatasetNote
from nuclens.core.errors import CheckpointError
from nuclens.core.schema import ClassSchema, NucleusType

RECIPE = "recipe.json"
MIN_SIGMA, MAX_QUALITY = 0.3, 95
Number = TypeVar("Number", int, float)
_NOTHING_ELSE = {"extra": "forbid"}  # read where recipes are checked: a misspelt setting is a fault


class Range:
    """Bounds of a number, under pydantic's names: `gt`, `ge`, `lt`, `le`; read where recipes are checked."""

    def __init__(self, **bounds: float) -> None:
        self.bounds = bounds

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> dict[str, Any]:
        """The number's own schema with the bounds added; pydantic asks for it by this name."""
        return {**handler(source), **self.bounds}


Positive = Annotated[Number, Range(gt=0)]
NotNegative = Annotated[Number, Range(ge=0)]
Share = Annotated[float, Range(ge=0, le=1)]
Grey = Annotated[int, Range(ge=0, le=255)]


@dataclass(frozen=True, slots=True)
class TypeSettings:
    """A type of the results.

    Attributes:
        name: Of the type.
        color: Red, green, blue.
        leaves: Names of the leaf classes it gathers.
    """

    name: str
    color: tuple[Grey, Grey, Grey]
    leaves: tuple[str, ...]

    __pydantic_config__ = _NOTHING_ELSE


@dataclass(frozen=True, slots=True)
class DataSettings:
    """One source of training crops.

    Attributes:
        path: Folder below the data root.
        share: Weight of this source when crops are drawn.
        leaves: Leaf classes each of the source's own type ids may stand for; ids not told are unlabelled.
        outlined: False where only types are learned, not outlines.
        exclude: Groups that are never read: what is held out for tests.
        validate: Groups set aside for choosing settings.
    """

    path: str
    share: Positive[float] = 1.0
    dataset: str = "pack"
    leaves: dict[str, tuple[str, ...]] = field(default_factory=dict)
    outlined: bool = True
    exclude: tuple[str, ...] = ()
    validate: tuple[str, ...] = ()

    __pydantic_config__ = _NOTHING_ELSE


@dataclass(frozen=True, slots=True)
class AugmentSettings:
    """Ranges of the augmentation; 0 switches a part off.

    Attributes:
        turn: Share of crops turned by any angle and scaled; the others only by right angles, which keeps them sharp.
        scale: Largest relative enlargement or shrinking.
        stain: Relative jitter of each stain's optical density.
        stain_shift: Absolute jitter of each stain's optical density.
        brightness: Relative jitter of all pixel values.
        blur: Share of crops blurred.
        blur_sigma: Largest blur, pixels; the smallest is `MIN_SIGMA`.
        noise: Largest standard deviation of noise, grey levels.
        jpeg: Share of crops sent through JPEG.
        jpeg_quality: Lowest quality; the highest is `MAX_QUALITY`.
        symmetry: Right angles and flips that every crop may get: "all" eight, the four "flips", or "none".
        angle: Largest angle of those turned by any, degrees.
        shear: Largest shear of those turned, as a slope.
        elastic: Share of crops with elastic distortion.
        elastic_px: Standard deviation of its ways, pixels.
        elastic_spacing: Distance of its nodes, pixels.
        grid: Share of crops with grid distortion.
        grid_cells: Cells along a side.
        grid_limit: Largest way of a node, in cells.
        lens: Largest barrel or pincushion distortion, in half crops at a side's middle.
        gamma: Relative jitter of the exponent of pixel values.
        contrast: Relative jitter of the distance to the mean grey.
        saturation: Relative jitter of the distance to grey.
        hue: Largest turn of colours, in whole turns.
        sharpen: Share of crops sharpened.
        restain: Share of crops given the look of another training image.
        restain_by: Whether its "macenko" stains or its "reinhard" tones.
        dab: Share of crops made to look like hematoxylin and DAB.
    """

    turn: Share = 0.5
    scale: Share = 0.25
    stain: Share = 0.3
    stain_shift: Share = 0.05
    brightness: Share = 0.1
    blur: Share = 0.2
    blur_sigma: Annotated[float, Range(ge=MIN_SIGMA)] = 1.5
    noise: NotNegative[float] = 6.0
    jpeg: Share = 0.2
    jpeg_quality: Annotated[int, Range(ge=1, le=MAX_QUALITY)] = 40
    symmetry: Literal["all", "flips", "none"] = "all"
    angle: Annotated[float, Range(ge=0, le=180)] = 180.0
    shear: Share = 0.0
    elastic: Share = 0.0
    elastic_px: NotNegative[float] = 4.0
    elastic_spacing: Annotated[float, Range(ge=4)] = 32.0
    grid: Share = 0.0
    grid_cells: Positive[int] = 5
    grid_limit: Annotated[float, Range(ge=0, le=0.5)] = 0.2
    lens: Annotated[float, Range(ge=0, le=0.5)] = 0.0
    gamma: Share = 0.0
    contrast: Share = 0.0
    saturation: Share = 0.0
    hue: Annotated[float, Range(ge=0, le=0.5)] = 0.0
    sharpen: Share = 0.0
    restain: Share = 0.0
    restain_by: Literal["macenko", "reinhard"] = "macenko"
    dab: Share = 0.0

    __pydantic_config__ = _NOTHING_ELSE


# Settings that a recipe's `augment.preset` stands for; others in the same table are put over them.
_OFF = {"turn": 0.0, "scale": 0.0, "stain": 0.0, "stain_shift": 0.0, "brightness": 0.0}
_OFF |= {"blur": 0.0, "noise": 0.0, "jpeg": 0.0}
_PLACES = {"turn": 0.5, "scale": 0.3, "shear": 0.1, "elastic": 0.3, "grid": 0.2}
_TONES = {"brightness": 0.15, "gamma": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.03, "restain": 0.2}
PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "none": {**_OFF, "symmetry": "none"},
    "flips": {**_OFF, "symmetry": "flips"},
    "strong": {**_PLACES, **_TONES, "stain": 0.35, "stain_shift": 0.06, "blur": 0.2, "sharpen": 0.1, "noise": 8.0},
}


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """The optimiser's course.

    Attributes:
        steps: Where a run at constant rate ends.
        batch: Crops per step.
        crop: Side of a crop, pixels.
        rate: Highest learning rate.
        warm_up: Steps of linear warm-up.
        decay: Weight decay.
        clip: Largest norm of the gradient, or of each of its values.
        clip_by: Which of the two; "nothing" leaves the gradient as it is.
        balance: Whether crops are drawn by "area", evenly over each "tissue" of a data set, or evenly over the kinds of
            "type" label, around a nucleus of that kind.
        ema: Decay of the averaged weights, which are what is kept.
        save_every: Steps between checkpoints.
        seed: Of weights and crops; the same seed gives the same run.
    """

    steps: Positive[int] = 20000
    batch: Positive[int] = 8
    crop: Positive[int] = 256
    rate: Positive[float] = 3e-3
    warm_up: NotNegative[int] = 100
    decay: NotNegative[float] = 1e-2
    clip: Positive[float] = 5.0
    ema: Annotated[float, Range(ge=0, lt=1)] = 0.998
    save_every: Positive[int] = 250
    seed: NotNegative[int] = 0
    clip_by: Literal["norm", "value", "nothing"] = "norm"
    balance: Literal["area", "tissue", "type"] = "area"

    __pydantic_config__ = _NOTHING_ELSE


@dataclass(frozen=True, slots=True)
class AboutSettings:
    """Parts of the model's card that only people know; they do not change the training.

    Attributes:
        version: Of the weights.
        description: A paragraph for people.
        license: SPDX identifier of the weights.
        datasets: What the model is trained on.
        limits: What is unproven or known to fail.
        metrics: Scores by test set.
    """

    version: str = "0"
    description: str = ""
    license: str = "unstated"
    datasets: tuple[DatasetNote, ...] = ()
    limits: tuple[str, ...] = ()
    metrics: dict[str, Any] = field(default_factory=dict)

    __pydantic_config__ = _NOTHING_ELSE


@dataclass(frozen=True, slots=True)
class ResolvedRecipe:
    """Everything a run is made of; saved beside its weights as JSON.

    Attributes:
        name: Of the model.
        mpp: Micrometres per pixel the model works at.
        network: Plug-in name, and its options.
        encoding: Plug-in name, and its decoder's options.
        leaves: Leaf classes.
        types: Types of the results.
        data: Where crops come from.
        losses: Weight of each term, named by its head and its loss.
        loss_options: Options of some terms, by the term's name.
        schedule: Name of the course of the learning rate, and its options.
        optimiser: Name, and its options.
        augment: How crops are varied.
        train: The optimiser's course.
        about: What the model's card says beside it.
    """

    name: str
    mpp: Positive[float]
    network: str
    network_options: dict[str, Any]
    encoding: str
    encoding_options: dict[str, Any]
    leaves: tuple[str, ...]
    types: tuple[TypeSettings, ...]
    data: tuple[DataSettings, ...]
    losses: dict[str, NotNegative[float]]
    loss_options: dict[str, dict[str, Any]] = field(default_factory=dict)
    schedule: str = "constant"
    schedule_options: dict[str, Any] = field(default_factory=dict)
    optimiser: str = "adamw"
    optimiser_options: dict[str, Any] = field(default_factory=dict)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    about: AboutSettings = field(default_factory=AboutSettings)

    __pydantic_config__ = _NOTHING_ELSE

    @property
    def schema(self) -> ClassSchema:
        """The class schema it declares.

        Raises:
            InputError: Too many leaves, or a type that gathers none, or two types of one name.
        """
        types = tuple(
            NucleusType(kind.name, kind.color, tuple(self.leaves.index(leaf) for leaf in kind.leaves))
            for kind in self.types
        )
        return ClassSchema(self.leaves, types)

    @property
    def digest(self) -> str:
        """SHA-256 of what decides the weights.

        The number of steps, how often they are saved, the decoder and the card do not count: a run can be prolonged
        and its results told or decoded otherwise.
        """
        plain = asdict(self)
        for name in ("about", "encoding_options"):
            del plain[name]
        for name in ("steps", "save_every"):
            del plain["train"][name]
        return sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()

    def retold(self, other: ResolvedRecipe) -> ResolvedRecipe:
        """This recipe with the other's decoder settings and card texts: what may change after training."""
        return replace(self, about=other.about, encoding_options=other.encoding_options)

    def to_json(self) -> str:
        """The recipe as `recipe.json` holds it."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n"


def recipe_of(run: Path) -> ResolvedRecipe:
    """The recipe saved in a run folder.

    Raises:
        CheckpointError: There is none, or it is broken.
    """
    path = run / RECIPE
    try:
        recipe: ResolvedRecipe = from_plain(ResolvedRecipe, json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: no saved recipe ({error}); wanted the --out of `nuclens train`") from error
    return recipe


def from_plain(kind: type[Any], value: dict[str, Any]) -> Any:
    """Rebuild a dataclass from what JSON made of it: lists become tuples, objects become dataclasses.

    Keys that no field has are left out, so that a newer version's recipe can be read.
    """
    hints = get_type_hints(kind)
    known = {part.name for part in fields(kind)}
    return kind(**{name: _rebuilt(hints[name], part) for name, part in value.items() if name in known})


def _rebuilt(hint: Any, value: Any) -> Any:
    if hasattr(hint, "__dataclass_fields__"):
        return from_plain(hint, value)
    if hint is float:
        return float(value)
    inner = get_args(hint) or (Any,)
    if isinstance(value, list):
        return tuple(_rebuilt(inner[0], part) for part in value)
    if isinstance(value, dict):
        return {name: _rebuilt(inner[-1], part) for name, part in value.items()}
    return value
