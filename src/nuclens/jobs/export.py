"""Export: a run folder in, a model folder out."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from nuclens.core.card import Card
from nuclens.core.errors import InputError
from nuclens.recipes import load_recipe
from nuclens.training.export import export as write_model
from nuclens.training.export import read_run
from nuclens.training.sampling import calibration_crops


def export(
    run: Path,
    out: Path,
    *,
    precision: Literal["f32", "int8"] = "f32",
    data: Path | None = None,
    recipe: Path | None = None,
    weights: Literal["best", "last"] = "best",
) -> Card:
    """Write the model of a run.

    Args:
        run: What `train` made.
        out: Folder of the model.
        precision: "int8" halves the time per tile; it is calibrated on training crops.
        data: Where the training data are; needed for int8.
        recipe: A recipe whose decoder settings and `about` replace those of the run.
        weights: Those that validation found best, which are the last where nothing was set aside, or the last.

    Raises:
        CheckpointError: `run` is not a run.
        InputError: int8 without data.
        MissingExtraError: int8 without NNCF.
    """
    if precision == "int8" and data is None:
        raise InputError(f"{run}: int8 is calibrated on training crops; give --data, or --precision f32")
    resolved, network, metadata = read_run(run, best=weights == "best")
    if recipe is not None:
        resolved = resolved.retold(load_recipe(recipe))
    crops = None if precision == "f32" or data is None else calibration_crops(resolved, data)
    return write_model(resolved, network, out, steps=int(metadata["step"]), crops=crops)
