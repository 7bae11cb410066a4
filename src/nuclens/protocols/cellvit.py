"""CellViT's rules on PanNuke: PQ over tissues and over images, detection by centroid, pixel Dice, tissue accuracy."""

from __future__ import annotations

from nuclens.core.protocol import Measure, Protocol

TYPES = ("neoplastic", "inflammatory", "connective", "dead", "epithelial")


def _measures(rule: str, published: bool) -> tuple[Measure, ...]:
    panoptic = (("types", len(TYPES)), ("rule", rule))
    detection = (("types", len(TYPES)), ("radius_px", 12.0), ("published", published))
    over_images = (("mpq", "mPQ images"), ("pq", "bPQ images"), ("mdq", "mDQ images"), ("msq", "mSQ images"))
    found = (("precision", "P"), ("recall", "R"), ("f_detection", "F"), ("precision_type", "P"), ("recall_type", "R"),
             ("f_type", "F"), ("confusion", "nuclei"))  # fmt: skip
    return (
        Measure("panoptic", (("mpq", "mPQ"), ("pq", "bPQ")), "tissues", panoptic),
        Measure("panoptic", (*over_images, ("pq_type", "PQ")), "images", panoptic),
        Measure("detection", found, "pooled", detection),
        Measure("dice", (("dice", "Dice"), ("iou", "Jaccard")), "images"),
        Measure("image_label", (("tissue_accuracy", "tissue accuracy"),), "pooled"),
    )


PLUGIN = Protocol(
    name="cellvit",
    version="1",
    source="Hörst et al., CellViT, Medical Image Analysis 94, 2024, and its inference script",
    dataset="pannuke",
    measures=_measures("cellvit", True),
    types=TYPES,
    folds=(("fold1", "fold2", "fold3"), ("fold2", "fold1", "fold3"), ("fold3", "fold2", "fold1")),
    repaired=_measures("annotated", False),
)
