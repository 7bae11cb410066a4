from __future__ import annotations

from nuclens.testing.formats import FormatContract


class TestGeoParquet(FormatContract):
    name = "geoparquet"


class TestGeoJson(FormatContract):
    name = "geojson"


class TestCsv(FormatContract):
    name = "csv"


class TestLabels(FormatContract):
    name = "labels"


class TestPng16(FormatContract):
    name = "png16"


class TestNpy(FormatContract):
    name = "npy"


class TestNpz(FormatContract):
    name = "npz"


class TestHoverNetMat(FormatContract):
    name = "hovernet_mat"


class TestHoverNetJson(FormatContract):
    name = "hovernet_json"


class TestCellVit(FormatContract):
    name = "cellvit"


class TestTiaToolbox(FormatContract):
    name = "tiatoolbox"


class TestCoco(FormatContract):
    name = "coco"


class TestPanNuke(FormatContract):
    name = "pannuke"
