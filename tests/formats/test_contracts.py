from __future__ import annotations

from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import pytest

from nuclens.core.suffixes import FORMATS, is_folder
from nuclens.core.types import Instances
from nuclens.testing import formats, nuclei
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


class TestAnnData(FormatContract):
    name = "anndata"

    @pytest.fixture(autouse=True)
    def _installed(self) -> None:
        pytest.importorskip("anndata", reason="anndata is not installed: nuclens[anndata] brings it")


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")  # of values in damaged files
class TestDicomAnn(FormatContract):
    """Results that say which DICOM slide they are of; without nuclei there is nothing to write."""

    name = "dicom_ann"

    @pytest.fixture(autouse=True)
    def _installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("highdicom", reason="highdicom is not installed: nuclens[dicom] brings it")
        slide = {f"dicom.{name}InstanceUID": f"1.2.3.{place}" for place, name in enumerate(("Study", "Series", "SOP"))}
        slide["dicom.SOPClassUID"] = "1.2.840.10008.5.1.4.1.1.77.1.6"
        monkeypatch.setattr(formats, "made", lambda *count, **how: of_slide(nuclei.made(*count, **how), slide))
        cases = {name: partial(lambda make: of_slide(make(), slide), make) for name, make in nuclei.CASES.items()}
        monkeypatch.setattr(formats, "CASES", cases)

    @pytest.mark.parametrize("case", ["one", "many", "foreign", "pixels only", "untyped", "unknown"])
    def test_reads_what_it_wrote(self, case: str, tmp_path: Path) -> None:
        super().test_reads_what_it_wrote(case, tmp_path)


def of_slide(instances: Instances, slide: dict[str, str]) -> Instances:
    return replace(instances, metadata=instances.metadata | slide)


class TestAnnotationStore(FormatContract):
    name = "annotation_store"


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


class TestDensity(WriterContract):
    name = "density"


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
