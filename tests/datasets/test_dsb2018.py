from __future__ import annotations

from nuclens.testing.datasets import DatasetContract


class TestDsb2018(DatasetContract):
    name = "dsb2018"
