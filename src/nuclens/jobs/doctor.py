"""Doctor: what this installation and this machine can do, and how to get what is missing."""

from __future__ import annotations

import platform
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

from nuclens import __version__
from nuclens.core.errors import NuclensError
from nuclens.core.machine import cores
from nuclens.core.models import open_model, shipped
from nuclens.core.plan import instruction_class

LIGHT = (
    *(
        "cyclopts",
        "imagecodecs",
        "jaxtyping",
        "lap",
        "numpy",
        "opencv-python-headless",
        "openslide-bin",
        "openslide-python",
        "openvino",
        "orjson",
        "pyarrow",
    ),
    *("pydantic", "rich", "shapely", "tifffile"),
)
EXTRAS = {
    "train": ("lightning", "safetensors", "torch"),
    "export": ("nncf",),
    "tensorboard": ("tensorboard",),
    "anndata": ("anndata",),
    "distributed": ("cryptography", "distributed"),
    "remote": ("aiohttp", "fsspec", "s3fs"),
    "dicom": ("highdicom", "wsidicom"),
    "cucim": ("cucim-cu13",),
    "spatialdata": ("anndata", "geopandas", "setuptools", "spatialdata"),
}
_FOR = {
    "train": "only for training",
    "export": "only for models of 8 bit",
    "tensorboard": "only for logs it can show",
    "anndata": "only for results as .h5ad",
    "distributed": "only for --scheduler",
    "remote": "only for URLs",
    "dicom": "only for results as DICOM annotations, and for slides, of which OpenSlide reads most",
    "cucim": "only for reading TIFF by that name, on Linux",
    "spatialdata": "only for results as SpatialData",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report.

    Attributes:
        topic: What was looked at.
        text: What was found.
        ok: False where something does not work as it could.
        remedy: What to do then.
    """

    topic: str
    text: str
    ok: bool = True
    remedy: str = ""


def doctor() -> list[Finding]:
    """Look at the machine, the installation and the shipped models."""
    return [*_machine(), *_packages(), *_extras(), *_models()]


def _machine() -> list[Finding]:
    instructions = instruction_class()
    fast = not instructions.startswith("sse")
    return [
        Finding("nuclens", f"{__version__} on Python {platform.python_version()}, {platform.platform(terse=True)}"),
        Finding(
            "processor",
            f"{cores()} cores, {instructions}",
            fast,
            "" if fast else "works, slowly: one with AVX2 or newer runs the network many times faster",
        ),
    ]


def _packages() -> list[Finding]:
    return [
        Finding(name, found) if found else Finding(name, "missing", False, "pip install nuclens")
        for name, found in _versions(LIGHT).items()
    ]


def _extras() -> list[Finding]:
    findings = []
    for extra, names in EXTRAS.items():
        found = _versions(names)
        missing = [name for name, number in found.items() if not number]
        text = f"without {', '.join(missing)}" if missing else ", ".join(f"{name} {found[name]}" for name in names)
        remedy = f"{_FOR[extra]}: pip install 'nuclens[{extra}]'" if missing else ""
        findings.append(Finding(f"extra {extra}", text, not missing, remedy))
    return findings


def _versions(names: tuple[str, ...]) -> dict[str, str]:
    """Version of each distribution, empty where it is not installed."""
    found = dict.fromkeys(names, "")
    for name in names:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def _models() -> list[Finding]:
    findings = []
    for name in shipped():
        try:
            model = open_model(name)
        except NuclensError as error:
            findings.append(Finding(f"model {name}", str(error), False, "install nuclens again"))
            continue
        card = model.card
        text = (
            f"version {card.version}, {card.precision}, {card.resolution}, weights {card.license}, {model.digest[:12]}"
        )
        findings.append(Finding(f"model {name}", text))
    return findings or [Finding("models", "none shipped", False, "install nuclens again")]
