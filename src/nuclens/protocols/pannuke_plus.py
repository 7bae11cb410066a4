"""PanNuke with counts pooled over the whole set before anything is divided: mPQ+, free of images with few nuclei."""

from __future__ import annotations

from nuclens.core.protocol import Measure, Protocol

TYPES = ("neoplastic", "inflammatory", "connective", "dead", "epithelial")
_OPTIONS = (("types", len(TYPES)),)
_PQ = (("mpq", "mPQ+"), ("mdq", "mDQ+"), ("msq", "mSQ+"), ("pq", "bPQ+"), ("dq", "bDQ+"), ("sq", "bSQ+"))
_PQ_OF_TYPES = (("pq_type", "PQ+"), ("dq_type", "DQ+"), ("sq_type", "SQ+"))
_COUNTS = (("mcount_r2", "R2"), ("mcount_mae", "MAE"), ("count_r2_type", "R2"), ("count_mae_type", "MAE"))

PLUGIN = Protocol(
    name="pannuke_plus",
    version="1",
    source="Graham et al., CoNIC challenge, 2021: mPQ+, here without its 1e-6",
    dataset="pannuke",
    measures=(
        Measure("panoptic", _PQ + _PQ_OF_TYPES, "pooled", _OPTIONS),
        Measure("counts", _COUNTS, "pooled", _OPTIONS),
        Measure("calibration", (("calibration_error", "ECE"),), "pooled", (("radius_px", 12.0),)),
    ),
    types=TYPES,
    folds=(("fold1", "fold2", "fold3"), ("fold2", "fold1", "fold3"), ("fold3", "fold2", "fold1")),
)
