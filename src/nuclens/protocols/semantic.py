"""Types of pixels, as TSFD-Net and the U-Nets score them: accuracy, Dice, IoU and the confusion matrix."""

from __future__ import annotations

from nuclens.core.protocol import Measure, Protocol

TYPES = ("neoplastic", "inflammatory", "connective", "dead", "epithelial")

PLUGIN = Protocol(
    name="semantic",
    version="1",
    source="pixel scores of TSFD-Net (Ilyas et al., Neural Networks 151, 2022) and of U-Nets, counts pooled",
    dataset="pannuke",
    measures=(
        Measure(
            "semantic",
            (
                *(("pixel_accuracy", "accuracy"), ("mdice", "mDice"), ("miou", "mIoU")),
                *(("dice_type", "Dice"), ("iou_type", "IoU"), ("pixel_confusion", "pixels")),
            ),
            "pooled",
            (("types", len(TYPES)),),
        ),
        Measure("dice", (("dice", "Dice"), ("iou", "IoU")), "pooled"),
    ),
    types=TYPES,
)
