"""Nuclens finds every cell nucleus in a microscopy image: outline, type, confidence, measurements."""

from __future__ import annotations

import importlib
import logging
from typing import Any

__version__ = "0.1.0"

# Where each public name lives; importing nuclens itself loads none of them.
_HOMES = {
    "Area": "nuclens.jobs.pictures",
    "BatchOptions": "nuclens.jobs.batch",
    "ClassSchema": "nuclens.core.schema",
    "EvaluateOptions": "nuclens.jobs.source",
    "Frame": "nuclens.core.types",
    "InstanceMap": "nuclens.core.types",
    "Instances": "nuclens.core.types",
    "evaluate": "nuclens.jobs.evaluate",
    "load_model": "nuclens.jobs.segment",
    "open_image": "nuclens.core.slides",
    "overlay": "nuclens.report.overlay",
    "read_instances": "nuclens.core.types",
    "segment": "nuclens.jobs.segment",
    "segment_files": "nuclens.jobs.batch",
}
_MODULES = {"errors": "nuclens.core.errors"}
__all__ = sorted([*_HOMES, *_MODULES, "__version__"])  # the stub beside this file lists them

logging.getLogger(__name__).addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'nuclens' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
