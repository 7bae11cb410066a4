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
