"""HoVer-Net's rules: Dice, AJI, PQ and AJI+ of each image, types by centroid with counts pooled."""

from __future__ import annotations

from nuclens.core.protocol import Measure, Protocol

TYPES = ("type 1", "type 2", "type 3", "type 4", "type 5")
_PQ = (("dq", "DQ"), ("sq", "SQ"), ("pq", "PQ"))


def _measures(published: bool) -> tuple[Measure, ...]:
    rule = (("rule", "hovernet" if published else "exact"),)
    detection = (("types", len(TYPES)), ("radius_px", 12.0), ("published", published))
    found = (("f_detection", "F_d"), ("type_accuracy", "type accuracy"), ("f_type", "F"), ("confusion", "nuclei"))
    dummies = (("f_untyped", "F untyped"),) if published else ()
    # The published statistics end with an error on an image that lacks nuclei on a side.
    return (
        Measure("dice", (("dice", "Dice"),), "images", both_sides=published),
        Measure("aji", (("aji", "AJI"),), "images", both_sides=published),
        Measure("panoptic", _PQ, "images", rule, both_sides=published),
        Measure("aji_plus", (("aji_plus", "AJI+"),), "images", both_sides=published),
        Measure("ensemble_dice", (("dice2", "DICE2"),), "images", both_sides=published),
        Measure("detection", (*found, *dummies), "pooled", detection),
    )


PLUGIN = Protocol(
    name="hovernet",
    version="1",
    source="Graham et al., HoVer-Net, Medical Image Analysis 58, 2019, and its statistics script",
    dataset="consep",
    measures=_measures(published=True),
    types=TYPES,
    repaired=_measures(published=False),
)
