"""StarDist's rules: nuclei matched at several IoU thresholds, counts pooled, and the same by image."""

from __future__ import annotations

from nuclens.core.protocol import Measure, Protocol

_THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9)
_OPTIONS = (("thresholds", _THRESHOLDS), ("zero_if_empty", True))
_NAMES = ("accuracy", "precision", "recall", "f1", "mean_true_score", "mean_matched_score", "panoptic_quality")
_AT = tuple(f"{name}@{threshold:g}" for name in _NAMES for threshold in _THRESHOLDS)
_VALUES = (("accuracy", "mean AP"), *((name, name) for name in _AT))
_BY_IMAGE = tuple((name, f"{shown} by image") for name, shown in _VALUES)

PLUGIN = Protocol(
    name="stardist",
    version="1",
    source="Schmidt et al., Cell detection with star-convex polygons, MICCAI 2018, and StarDist's matching.py",
    dataset="dsb2018",
    measures=(
        Measure("detection_accuracy", _VALUES, "pooled", _OPTIONS),
        Measure("detection_accuracy", _BY_IMAGE, "images", _OPTIONS),
    ),
)
