from __future__ import annotations

from nuclens.testing.metrics import MetricContract


class TestPanoptic(MetricContract):
    name = "panoptic"


class TestAji(MetricContract):
    name = "aji"


class TestDice(MetricContract):
    name = "dice"


class TestDetection(MetricContract):
    name = "detection"
