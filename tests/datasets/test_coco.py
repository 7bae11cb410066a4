from __future__ import annotations

from nuclens.testing.datasets import DatasetContract


class TestCoco(DatasetContract):
    name = "coco"
