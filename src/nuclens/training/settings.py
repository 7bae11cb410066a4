"""Resolved settings of a training run: plain dataclasses that need no other package to be read from JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, fields, replace
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_type_hints

from nuclens.core.card import DatasetNote, Preprocessing
from nuclens.core.errors import CheckpointError
from nuclens.core.planes import Planes
from nuclens.core.schema import ClassSchema, NucleusType
from nuclens.training.augment_settings import AugmentSettings
from nuclens.training.ranges import NOTHING_ELSE, Grey, NotNegative, Positive, Range

RECIPE = "recipe.json"
# Later additions to a recipe and its data, which count where they are used.
_LATER = ("run", "split", "validate_split", "validate_share", "test", "test_split", "tissues")
RANDOM = ("random_validate", "random_test")  # shares of images drawn by chance
LENGTHY = ("polynomial", "cosine")  # schedules that fall over the whole run, unless they are told a length


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

    __pydantic_config__ = NOTHING_ELSE


@dataclass(frozen=True, slots=True)
class DataSettings:
    """One source of training crops.

    Attributes:
        path: Folder below the data root.
        share: Weight of this source when crops are drawn.
        leaves: Leaf classes each of the source's own type ids may stand for; ids not told are unlabelled.
        outlined: False where only types are learned, not outlines.
        mpp: Micrometres per pixel of its images, which are scaled to the recipe's; None takes them as they are.
        split: Official part that is trained on; "" takes all of them.
        exclude: Groups that are never read.
        validate: Groups set aside for choosing settings and weights.
        validate_split: Official part that is used so too.
        validate_share: Share of the training groups that is used so too: at least one, drawn by their names alone.
        test: Groups that the finished run is scored on, and nothing else.
        test_split: Official part that is used so too.
        random_validate: Share of the images of each tissue that is used so too, drawn by their names alone, whatever
            their groups: such splits put fields of one slide on both sides.
        random_test: Likewise.
    """

    path: str
    share: Positive[float] = 1.0
    dataset: str = "pack"
    leaves: dict[str, tuple[str, ...]] = field(default_factory=dict)
    outlined: bool = True
    mpp: Positive[float] | None = None
    split: str = ""
    exclude: tuple[str, ...] = ()
    validate: tuple[str, ...] = ()
    validate_split: str = ""
    validate_share: Annotated[float, Range(ge=0, lt=1)] = 0.0
    test: tuple[str, ...] = ()
    test_split: str = ""
    random_validate: Annotated[float, Range(ge=0, lt=1)] = 0.0
    random_test: Annotated[float, Range(ge=0, lt=1)] = 0.0

    __pydantic_config__ = NOTHING_ELSE


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """The optimiser's course.

    Attributes:
        steps: Where a run ends, unless its recipe tells another end and no steps.
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

    __pydantic_config__ = NOTHING_ELSE


@dataclass(frozen=True, slots=True)
class RunSettings:
    """When a run ends and how it is carried out; of several ends the first that is reached counts, 0 is none.

    Attributes:
        epochs: Ends after so many: as many crops each as cover the training pixels once.
        minutes: Ends after so many minutes of training.
        tflop: Ends after so many 10^12 operations, counted for the way there and estimated as three times that.
        cool: Share of the run, its last, over which the rate falls to 0.
        precision: Of the arithmetic; "auto" is bf16 where the device has it, else f32.
        accumulate: Parts a batch is computed in, one after another, which takes less memory.
        skip: Batches with numbers that are not finite that are left out before the run is ended.
        validate_every: Epochs between two validations, which are never nearer than checkpoints; 0 is never.
        best: What the best weights are chosen by: highest panoptic quality or lowest loss of what is set aside.
        patience: Validations without a better one that end the run.
        keep: Share of the weights a run was tuned from in those that are validated and exported.
    """

    epochs: NotNegative[float] = 0.0
    minutes: NotNegative[float] = 0.0
    tflop: NotNegative[float] = 0.0
    cool: Annotated[float, Range(ge=0, lt=1)] = 0.0
    precision: Literal["auto", "f32", "bf16", "fp16"] = "auto"
    accumulate: Positive[int] = 1
    skip: NotNegative[int] = 0
    validate_every: NotNegative[int] = 1
    best: Literal["pq", "loss"] = "pq"
    patience: NotNegative[int] = 0
    keep: Annotated[float, Range(ge=0, lt=1)] = 0.0

    __pydantic_config__ = NOTHING_ELSE


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

    __pydantic_config__ = NOTHING_ELSE


@dataclass(frozen=True, slots=True)
class ResolvedRecipe:
    """Everything a run is made of; saved beside its weights as JSON.

    Attributes:
        name: Of the model.
        network: Plug-in name, and its options.
        encoding: Plug-in name, and its decoder's options.
        leaves: Leaf classes.
        types: Types of the results.
        data: Where crops come from.
        losses: Weight of each term, named by its head and its loss.
        mpp: Micrometres per pixel the model works at; None takes images as they are.
        planes: What the network is shown of an image; its channels follow from it.
        loss_options: Options of some terms, by the term's name.
        schedule: Name of the course of the learning rate, and its options.
        optimiser: Name, and its options.
        augment: How crops are varied.
        train: The optimiser's course.
        run: When a run ends and how it is carried out.
        about: What the model's card says beside it.
        tissues: Names that data sets give whole images, which the network learns to tell apart; an image of another
            one teaches nothing of it. None leaves that out.
    """

    name: str
    network: str
    network_options: dict[str, Any]
    encoding: str
    encoding_options: dict[str, Any]
    leaves: tuple[str, ...]
    types: tuple[TypeSettings, ...]
    data: tuple[DataSettings, ...]
    losses: dict[str, NotNegative[float]]
    mpp: Positive[float] | None = None
    planes: Planes = "rgb"
    loss_options: dict[str, dict[str, Any]] = field(default_factory=dict)
    schedule: str = "constant"
    schedule_options: dict[str, Any] = field(default_factory=dict)
    optimiser: str = "adamw"
    optimiser_options: dict[str, Any] = field(default_factory=dict)
    augment: AugmentSettings = field(default_factory=AugmentSettings)
    train: TrainSettings = field(default_factory=TrainSettings)
    run: RunSettings = field(default_factory=RunSettings)
    about: AboutSettings = field(default_factory=AboutSettings)
    tissues: tuple[str, ...] = ()

    __pydantic_config__ = NOTHING_ELSE

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

    def scale(self, data: DataSettings) -> float:
        """Pixels it works on for one pixel of a data set's images."""
        return data.mpp / self.mpp if data.mpp and self.mpp else 1.0

    @property
    def digest(self) -> str:
        """SHA-256 of what decides the weights.

        When it ends, how often it is saved and looked at, the decoder and the card do not count: a run can be
        prolonged and its results told or decoded otherwise. Where the rate falls over the whole run, its end does
        count. Of later additions only what is used counts, so that older runs can go on.
        """
        plain = asdict(self)
        ends = (self.train.steps, self.run.epochs, self.run.tflop) if self.falls_to_the_end else None
        for name in ("about", "encoding_options"):
            del plain[name]
        for name in ("steps", "save_every"):
            del plain["train"][name]
        plain["run"] = {name: plain["run"][name] for name in ("precision", "accumulate")}
        plain["run"] = {name: value for name, value in plain["run"].items() if value != getattr(RunSettings(), name)}
        if ends:
            plain["run"]["ends"] = ends
        for table in plain["data"]:
            if table["mpp"] is None:
                del table["mpp"]
        if self.planes == "rgb":
            del plain["planes"]
        for table in (plain, *plain["data"]):
            for name in (*_LATER, *RANDOM):
                if name in table and not table[name]:
                    del table[name]
        return sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()

    @property
    def preprocessing(self) -> Preprocessing:
        """What happens to pixels before the network."""
        return Preprocessing.usual(self.planes)

    @property
    def falls_to_the_end(self) -> bool:
        """Whether the rate falls over the whole run, since its schedule is of that kind and was told no length."""
        return self.schedule in LENGTHY and not self.schedule_options.get("length")

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
    if hint is float or (hint == float | None and value is not None):
        return float(value)
    inner = get_args(hint) or (Any,)
    if isinstance(value, list):
        return tuple(_rebuilt(inner[0], part) for part in value)
    if isinstance(value, dict):
        return {name: _rebuilt(inner[-1], part) for name, part in value.items()}
    return value
