from __future__ import annotations

from nuclens.testing.datasets import DatasetContract


class TestFolder(DatasetContract):
    name = "folder"
