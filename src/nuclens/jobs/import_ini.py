"""Recipes of the seed system: its INI file, read as literals and never run, written as a recipe in TOML.

Source: the "slightly flexible U-Net" of T. Arai and S. Arai, Apache-2.0,
github.com/sarah-antillia/Image-Segmentation-Neoplastic-Cell, 2023; its settings, not its code.
"""

from __future__ import annotations

import ast
import configparser
import tomllib
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from nuclens.core.errors import RecipeError
from nuclens.core.files import replacing
from nuclens.jobs.finetune import toml

LOSSES = {
    "binary_crossentropy": "bce",
    "categorical_crossentropy": "ce",
    "dice_loss": "dice",
    "iou_loss": "iou",
    "bce_dice_loss": "bce_dice",
    "bce_iou_loss": "bce_iou",
    "ssim_loss": "ssim",
    "basnet_hybrid_loss": "basnet",
}
# Settings that are ours by another name, and of what kind they have to be.
PLAIN: dict[str, tuple[str, type]] = {
    "model.base_filters": ("network.base_filters", int),
    "model.num_layers": ("network.layers", int),
    "model.dropout_rate": ("network.dropout", float),
    "model.activation": ("network.activation", str),
    "model.learning_rate": ("train.rate", float),
    "train.epochs": ("run.epochs", float),
    "train.batch_size": ("train.batch", int),
    "train.patience": ("run.patience", int),
    "model.clipvalue": ("train.clip", float),
}
REASONS = {
    "model.metrics": "the run folder has losses and panoptic quality",
    "model.show_summary": "`nuclens models info RECIPE` shows it",
    "train.model_dir": "all of a run lies in --out",
    "train.eval_dir": "all of a run lies in --out",
    "train.mask_datapath": "wanted as labels/ beside images/, each file with its image's name",
    "train.masks_dir": "wanted as labels/ beside images/, each file with its image's name",
    "eval.image_datapath": "name what is set aside in [[data]], as validate or validate_split",
    "infer.images_dir": "given to `nuclens segment` as its input",
    "tiledinfer.overlapping": "tiles overlap by what the network needs",
}


@dataclass(slots=True)
class Reading:
    """What has become of the settings of a file.

    Attributes:
        values: By section and key.
        made: Settings of the recipe.
        faults: What is wrong.
        left: Keys that are not carried, and why.
    """

    values: dict[str, Any]
    made: dict[str, Any] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def take(self, key: str, default: Any = None) -> Any:
        """A value, which is then dealt with."""
        return self.values.pop(key, default)


def import_ini(path: Path, out: Path) -> list[str]:
    """Write the recipe that a file comes to; returns which keys it could not carry, each with what to do.

    Raises:
        RecipeError: The file cannot be read, a value is no literal, or settings are missing or contradict each other;
            all is told at once, and nothing is written.
        OutputError: The recipe cannot be written.
    """
    reading = Reading(*_values(path))
    for rule in (_shape, _planes, _kernels, _classes, _plain, _data):
        rule(reading)
    if reading.faults:
        raise RecipeError(
            "\n  ".join([f"{path}: {len(reading.faults)} of its settings cannot be used", *reading.faults])
        )
    for key in sorted(reading.values):
        reading.left.append(f"{key}: not carried over; {REASONS.get(key, 'nothing here corresponds to it')}")
    text = _written(path, out, reading.made)
    tomllib.loads(text)
    with replacing(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return reading.left


def _values(path: Path) -> tuple[dict[str, Any], dict[str, Any], list[str]]:
    """Literals by section and key; what is none is a fault, whatever it would give if it were run."""
    parser = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=(";", " #"), strict=True)
    try:
        parser.read_string(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError, configparser.Error) as error:
        line = " ".join(str(error).split())
        raise RecipeError(f"{path}: cannot be read ({line:.200}); wanted an INI file of the seed system") from error
    values, faults = {}, []
    for section in parser.sections():
        for name, text in parser.items(section):
            key = f"{section}.{name}"
            try:
                values[key] = ast.literal_eval(text.strip())
            except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
                faults.append(f"{key}: {text.strip()!r:.80} is code or text without quotes; wanted a number, text in "
                              f"quotes, True, False, or a list of these")  # fmt: skip
    return values, {}, faults


def _shape(reading: Reading) -> None:
    sides = [reading.take(f"model.image_{side}") for side in ("width", "height")]
    layers = reading.values.get("model.num_layers", 6)
    if sides[0] != sides[1] or not isinstance(sides[0], int) or sides[0] < 1:
        reading.faults.append(f"model.image_width, image_height: {sides[0]} x {sides[1]}; wanted one number of pixels")
    elif isinstance(layers, int) and 0 < layers < 32 and sides[0] % 2 ** (layers - 1):
        reading.faults.append(f"model.image_width: {sides[0]}; wanted a multiple of {2 ** (layers - 1)}")
    reading.made["train.crop"] = sides[0]


def _planes(reading: Reading) -> None:
    channels = reading.take("model.image_channels", 3)
    known = {1: "grey", 3: "rgb"}
    if isinstance(channels, bool) or channels not in known:
        reading.faults.append(f"model.image_channels: {channels!r}; wanted 1, which is grey, or 3")
    else:
        reading.made["planes"] = known[channels]


def _kernels(reading: Reading) -> None:
    """Pairs of equal numbers; a dilation of two different ones was ignored, so it is 1."""
    for key, name in (("model.base_kernels", "network.base_kernel"), ("model.dilation", "network.dilation")):
        default = (3, 3) if key.endswith("kernels") else (1, 1)
        pair = reading.take(key, default)
        sound = isinstance(pair, tuple | list) and len(pair) == 2 and all(isinstance(one, int) for one in pair)
        if not sound or (pair[0] != pair[1] and key.endswith("kernels")):
            reading.faults.append(f"{key}: {pair}; wanted two equal whole numbers")
        else:
            reading.made[name] = pair[0] if pair[0] == pair[1] else 1
    reading.made["network.normalization"] = "both" if reading.take("model.normalization", False) else "none"


def _classes(reading: Reading) -> None:
    """One class is nucleus or not; of several, the first is the background."""
    count, named = reading.take("model.num_classes", 1), reading.take("mask.classes", [])
    loss = reading.take("model.loss")
    if not isinstance(count, int) or count < 1:
        reading.faults.append(f"model.num_classes: {count}; wanted a whole number from 1 on")
        return
    names = [str(name) for name in named][-(count - 1) :] if count > 1 else []
    names = names if len(names) == count - 1 else [f"class {number}" for number in range(1, count)]
    reading.made["leaves"] = names
    shades = [[40 + (97 * number) % 200, 200 - (61 * number) % 160, (151 * number) % 256] for number in range(count)]
    reading.made["types"] = [
        {"name": name, "color": shade, "leaves": [name]} for name, shade in zip(names, shades, strict=False)
    ]
    if loss not in LOSSES:
        reading.faults.append(f"model.loss: {loss!r}; wanted one of {', '.join(LOSSES)}")
    else:
        reading.made[f"losses.{'class' if names else 'nucleus'}_{LOSSES[loss]}"] = 1.0


def _plain(reading: Reading) -> None:
    for key, (name, kind) in PLAIN.items():
        value = reading.take(key)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else kind):
            reading.faults.append(f"{key}: {value!r}; wanted {kind.__name__}")
        else:
            reading.made[name] = kind(value)
    # It had no warm-up, and watched the loss.
    reading.made |= {"train.warm_up": 0, "train.decay": 0.0, "run.best": "loss"}
    if "train.clip" in reading.made:
        reading.made["train.clip_by"] = "value"
    patience, factor = reading.take("train.reducer_patience", 4), reading.take("train.reducer_factor", 0.1)
    if reading.take("train.learning_rate_reducer", False):
        reading.made |= {"schedule.name": "plateau", "schedule.patience": patience, "schedule.factor": factor}
    optimiser = reading.take("model.optimizer", "Adam")
    if optimiser not in ("Adam", "AdamW"):
        reading.faults.append(f"model.optimizer: {optimiser!r}; wanted Adam or AdamW")
    else:
        reading.made["optimiser.name"] = optimiser.lower()


def _data(reading: Reading) -> None:
    """The folder that holds the folder of images."""
    folder = reading.take("train.image_datapath") or reading.take("train.images_dir")
    if not isinstance(folder, str):
        reading.faults.append(f"train.image_datapath: {folder!r}; wanted the folder of the training images")
        return
    kinds = {str(number): [name] for number, name in enumerate(reading.made.get("leaves", []), start=1)}
    reading.made["data"] = [{"path": str(PurePosixPath(folder).parent), "dataset": "folder", "leaves": kinds}]


def _written(path: Path, out: Path, made: dict[str, Any]) -> str:
    """The recipe, table by table."""
    lines = [
        f"# {path.stem}: a flexible U-Net, from the settings of the seed system.",
        "#",
        f"# Command   nuclens train {out.name} --data PATH --out runs/{out.stem}",
        "# Cost      not measured",
        "# Score     not measured",
        f"name = {toml(out.stem)}",
        "# mpp = 0.25   the seed system has no resolution; with that of the images, others could be scaled to it",
        *(f"{name} = {toml(made[name])}" for name in ("planes", "leaves", "types", "data")),
    ]
    tables: dict[str, list[str]] = {"network": ['name = "flexible_unet"'], "encoding": ['name = "semantic"']}
    for name, value in made.items():
        table, _, key = name.partition(".")
        if key:
            tables.setdefault(table, []).append(f"{key} = {toml(value)}")
    for table, entries in tables.items():
        lines += ["", f"[{table}]", *entries]
    return "\n".join(lines) + "\n"
