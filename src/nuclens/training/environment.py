"""What a run was made with: versions, processor and data, as JSON beside its weights."""

from __future__ import annotations

import hashlib
import json
import logging
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from nuclens.core.files import replacing
from nuclens.core.machine import cores
from nuclens.core.plan import instruction_class
from nuclens.training.sampling import Source

ENVIRONMENT = "environment.json"
PACKAGES = ("nuclens", "torch", "lightning", "numpy", "opencv-python-headless", "safetensors")
log = logging.getLogger(__name__)


def describe(out: Path, sources: list[Source], devices: int, notes: tuple[str, ...]) -> None:
    """Write what a run is made with; data that changed since it began are told.

    Raises:
        OutputError: The file cannot be written.
    """
    path = out / ENVIRONMENT
    found = {**environment(sources, devices), "notes": notes}
    for note in notes:
        log.warning("%s: %s", out, note)
    if path.exists():
        before = json.loads(path.read_text(encoding="utf-8")).get("data", {})
        if before != found["data"]:
            log.warning("%s: the training images are not those the run began with; it does not give the same weights "
                        "as one that was not interrupted", out)  # fmt: skip
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


def noted(out: Path) -> tuple[str, ...]:
    """What there was to say when a run was begun or gone on with last."""
    notes = json.loads((out / ENVIRONMENT).read_text(encoding="utf-8"))["notes"]
    return tuple(notes)


def environment(sources: list[Source], devices: int) -> dict[str, Any]:
    """Versions, processor, threads, and a digest of each data set's images and labels as they were read."""
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
        "packages": {name: _version(name) for name in PACKAGES},
        "processor": {"instructions": instruction_class(), "cores": cores(), "threads": torch.get_num_threads()},
        "graphics": cuda,
        "devices": devices,
        "data": digests(sources),
    }


def digests(sources: list[Source]) -> dict[str, dict[str, Any]]:
    """Number of images, and SHA-256 of pixels and labels, by data set."""
    found: dict[str, dict[str, Any]] = {}
    hashes: dict[str, Any] = {}
    for source in sources:
        name = source.id.rpartition("/")[0]
        entry = found.setdefault(name, {"images": 0, "pixels": 0})
        entry["images"] += 1
        entry["pixels"] += int(source.labels.size)
        state = hashes.setdefault(name, hashlib.sha256())
        for array in (source.rgb, source.labels, source.truth.leaves):
            state.update(np.ascontiguousarray(array).data)
    return {name: {**entry, "sha256": hashes[name].hexdigest()} for name, entry in found.items()}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
