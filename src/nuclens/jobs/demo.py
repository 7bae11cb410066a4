"""Demo: the shipped model on a shipped image, or on the user's own."""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from nuclens.core.errors import InputError
from nuclens.jobs.batch import BatchOptions, segment_files
from nuclens.jobs.inputs import find_inputs

IMAGE = "tnbc_09_1.jpg"
IMAGE_MPP = 0.25
CREDIT = "TNBC data set, patient 09, doi:10.5281/zenodo.1175282, CC BY 4.0"


@dataclass(frozen=True, slots=True)
class Shown:
    """What a demo found.

    Attributes:
        folder: Where the results are.
        record: What `run.json` says.
        seconds: Of wall time, model loading included.
        credit: Where the shipped image is from; empty for the user's own.
    """

    folder: Path
    record: dict[str, Any]
    seconds: float
    credit: str


def demo(image: Path | None, mpp: float | None, out: Path) -> Shown:
    """Segment one image and write every result there is.

    Raises:
        InputError: `mpp` without an image, or several images.
        NuclensError: Whatever keeps the image from being segmented.
    """
    if image is None and mpp is not None:
        raise InputError(f"demo: --mpp goes with an image of your own; the shipped one has {IMAGE_MPP}")
    own = image is not None
    path, *more = find_inputs([image if image is not None else example_image()])
    if more:
        raise InputError(f"{image}: {len(more) + 1} images; the demo takes one, `nuclens segment` any number")
    began = time.monotonic()
    options = BatchOptions(mpp=mpp if own else IMAGE_MPP, overwrite=True)
    [outcome] = segment_files([path], out, options)
    if outcome.error is not None:
        raise outcome.error
    return Shown(out / path.stem, outcome.record, time.monotonic() - began, "" if own else CREDIT)


def example_image() -> Path:
    """Path of the shipped image: 512 x 512 pixels of breast tissue at 0.25 µm per pixel."""
    return Path(str(resources.files("nuclens"))) / "examples" / IMAGE
