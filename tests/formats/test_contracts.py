from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest

from nuclens.core.suffixes import FORMATS, is_folder
from nuclens.testing.formats import FolderContract, FormatContract, WriterContract

# What libraries say of damaged folders before they give up.
QUIET = (
    "ignore:Object at:UserWarning",
    "ignore:.* names are not unique:UserWarning",
    "ignore:Element .* was written without:PendingDeprecationWarning",
)


class TestGeoParquet(FormatContract):
    name = "geoparquet"


class TestGeoJson(FormatContract):
    name = "geojson"


class TestArrow(FormatContract):
    name = "arrow"


class TestCsv(FormatContract):
    name = "csv"


class TestLabels(FormatContract):
    name = "labels"


class TestOmeTiff(FormatContract):
    name = "ome_tiff"


class TestOmeZarr(FolderContract):
    name = "ome_zarr"


class TestOmeZarr05(FolderContract):
    name = "ome_zarr_05"


@pytest.mark.filterwarnings(*QUIET)
class TestSpatialData(FolderContract):
    name = "spatialdata"

    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        if find_spec("spatialdata") is None:
            pytest.skip("spatialdata is not installed: nuclens[spatialdata] brings it")


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


class TestCocoResults(FormatContract):
    name = "coco_results"


class TestConic(FormatContract):
    name = "conic"


class TestPanNuke(FormatContract):
    name = "pannuke"


class TestMask(WriterContract):
    name = "mask"


class TestColour(WriterContract):
    name = "colour"


class TestProbability(WriterContract):
    name = "probability"


def test_every_format_is_under_contract() -> None:
    suites = [suite for suite in globals().values() if isinstance(suite, type) and issubclass(suite, WriterContract)]
    assert {getattr(suite, "name", None) for suite in suites} == {None, *FORMATS.names()}
    for suite in suites:
        if hasattr(suite, "name"):
            assert issubclass(suite, FormatContract) == hasattr(FORMATS.get(suite.name), "read")
            assert issubclass(suite, FolderContract) == is_folder(FORMATS.get(suite.name))


def test_the_page_lists_every_format_and_what_it_loses() -> None:
    page = Path(__file__).parents[2] / "docs" / "formats.md"
    rows = [
        line.strip("| ").split(" | ") for line in page.read_text(encoding="utf-8").splitlines() if line[:3] == "| `"
    ]
    told = {row[0].strip("`"): (row[1].removesuffix(", a folder").strip("`"), row[-1]) for row in rows}
    plugins = {name: FORMATS.get(name) for name in FORMATS.names()}
    lost = {name: ", ".join(one.lost) if hasattr(one, "read") else "all, is not read" for name, one in plugins.items()}
    assert told == {name: (one.suffix, lost[name] or "nothing") for name, one in plugins.items()}
