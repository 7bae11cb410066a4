"""PanNuke's official rules: PQ of each type and of all nuclei, mean over tissues, over three runs."""

from __future__ import annotations

from dataclasses import replace

from nuclens.core.protocol import Measure, Protocol

TYPES = ("neoplastic", "inflammatory", "connective", "dead", "epithelial")
TISSUES = (
    *("Adrenal_gland", "Bile-duct", "Bladder", "Breast", "Cervix", "Colon", "Esophagus", "HeadNeck", "Kidney"),
    *("Liver", "Lung", "Ovarian", "Pancreatic", "Prostate", "Skin", "Stomach", "Testis", "Thyroid", "Uterus"),
)
_OFFICIAL = (("types", len(TYPES)), ("rule", "pannuke"))
_MEASURES = (
    Measure("panoptic", (("mpq", "mPQ"), ("pq", "bPQ")), "tissues", _OFFICIAL),
    Measure("panoptic", (("mpq", "mPQ images"), ("pq", "bPQ images"), ("pq_type", "PQ")), "images", _OFFICIAL),
    Measure("panoptic", (("dq", "bDQ"), ("sq", "bSQ"), ("mdq", "mDQ"), ("msq", "mSQ")), "tissues", _OFFICIAL),
)
_REPAIRED = (("types", len(TYPES)), ("rule", "annotated"))
_PLUS = (("mpq", "mPQ+"), ("pq", "bPQ+"), ("pq_type", "PQ+"))

# Repaired: overlapping nuclei are told apart, maps without background count, and SQ has no 1e-6. Nuclei predicted where
# a type has no true ones stay free in the means over images, whose values they would only replace by 0; they cost in
# the pooled counts beside them.
PLUGIN = Protocol(
    name="pannuke",
    version="1",
    source="Gamper et al., PanNuke dataset extension, insights and baselines, 2020, and its evaluation script",
    dataset="pannuke",
    measures=_MEASURES,
    types=TYPES,
    tissues=TISSUES,
    folds=(("fold1", "fold2", "fold3"), ("fold2", "fold1", "fold3"), ("fold3", "fold2", "fold1")),
    repaired=(
        *(replace(measure, options=_REPAIRED) for measure in _MEASURES),
        Measure("panoptic", _PLUS, "pooled", (("types", len(TYPES)),)),
    ),
    notes=("the script's class_stats.csv repeats the connective PQ as inflammatory; here is what it prints",),
)
