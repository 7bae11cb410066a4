"""The MoNuSeg challenge's score: mean over images of the aggregated Jaccard index."""

from __future__ import annotations

from nuclens.core.protocol import Measure, Protocol

PLUGIN = Protocol(
    name="monuseg",
    version="1",
    source="Kumar et al., A multi-organ nucleus segmentation challenge, IEEE TMI 39, 2020; AJI as of 2018-07-17",
    dataset="monuseg",
    measures=(
        Measure("aji", (("aji", "AJI"),), "images"),
        Measure("panoptic", (("pq", "PQ"), ("dq", "DQ"), ("sq", "SQ")), "images"),
        Measure("dice", (("dice", "Dice"),), "images"),
    ),
)
