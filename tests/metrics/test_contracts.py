from __future__ import annotations

from nuclens.testing.metrics import MetricContract


class TestPanoptic(MetricContract):
    name = "panoptic"


class TestAji(MetricContract):
    name = "aji"


class TestAjiPlus(MetricContract):
    name = "aji_plus"


class TestDice(MetricContract):
    name = "dice"


class TestEnsembleDice(MetricContract):
    name = "ensemble_dice"


class TestDetectionAccuracy(MetricContract):
    name = "detection_accuracy"


class TestDetection(MetricContract):
    name = "detection"


class TestSemantic(MetricContract):
    name = "semantic"


class TestCounts(MetricContract):
    name = "counts"


class TestCalibration(MetricContract):
    name = "calibration"


class TestImageLabel(MetricContract):
    name = "image_label"


class TestSizes(MetricContract):
    name = "sizes"
