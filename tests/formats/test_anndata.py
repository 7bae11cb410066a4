"""AnnData itself reads what we write and writes what we read; files of strangers stay within themselves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nuclens.core.errors import DataError, MissingExtraError
from nuclens.core.records import id_texts
from nuclens.core.suffixes import FORMATS
from nuclens.core.types import read_instances
from nuclens.formats.anndata import PLUGIN
from nuclens.testing.nuclei import made

anndata = pytest.importorskip("anndata", reason="anndata is not installed: nuclens[anndata] brings it")
h5py = pytest.importorskip("h5py")
pandas = pytest.importorskip("pandas")


def test_anndata_reads_it(tmp_path: Path) -> None:
    nuclei = made(54)
    PLUGIN.write(tmp_path / "a.h5ad", nuclei)
    table = anndata.read_h5ad(tmp_path / "a.h5ad")
    assert list(table.obs_names) == id_texts(nuclei.ids)
    np.testing.assert_array_equal(table.obsm["spatial"], nuclei.centroids[:, ::-1])
    np.testing.assert_array_equal(table.obsm["class_prob"], nuclei.probabilities)
    assert list(table.obs["class"].cat.categories) == ["neoplastic", "other"]
    assert table.obs["class"].isna().tolist() == (nuclei.types == 0).tolist()
    assert list(table.uns["class_prob_names"]) == ["neoplastic", "other"]
    assert list(table.uns["class_colors"]) == ["#c8001e", "#0078ff"]
    assert dict(table.var["unit"]) == {"Area µm^2": "µm^2", "Circularity": "", 'A, quoted "name"': ""}
    assert table.X.dtype == np.float32
    for column, name in enumerate(table.var_names):
        np.testing.assert_array_equal(table.X[:, column], nuclei.measurements[name])
    assert table.uns["nuclens"]["mpp"] == nuclei.frame.mpp


def test_a_part_of_a_table_keeps_its_own_outlines(tmp_path: Path) -> None:
    nuclei = made(30)
    PLUGIN.write(tmp_path / "a.h5ad", nuclei)
    table = anndata.read_h5ad(tmp_path / "a.h5ad")
    chosen = np.flatnonzero(nuclei.types == 2)[::-1]
    table[chosen].copy().write_h5ad(tmp_path / "b.h5ad")
    back = read_instances(tmp_path / "b.h5ad")
    np.testing.assert_array_equal(back.ids, nuclei.ids[chosen])
    assert back.types.tolist() == [2] * len(chosen)  # though AnnData has dropped the category that is not used
    for place, row in enumerate(chosen):
        np.testing.assert_array_equal(back.outline(place), nuclei.outline(row))
        assert back.measurements["Circularity"][place] == nuclei.measurements["Circularity"][row]


def test_a_table_of_fewer_columns_is_read_and_one_of_other_classes_told(tmp_path: Path) -> None:
    nuclei = made(30)
    PLUGIN.write(tmp_path / "a.h5ad", nuclei)
    table = anndata.read_h5ad(tmp_path / "a.h5ad")
    table[:, ["Circularity"]].copy().write_h5ad(tmp_path / "b.h5ad")
    back = read_instances(tmp_path / "b.h5ad")
    assert list(back.measurements) == ["Circularity"]
    np.testing.assert_array_equal(back.measurements["Circularity"], nuclei.measurements["Circularity"])
    table.obs["class"] = table.obs["class"].cat.rename_categories({"other": "rest"})
    table.write_h5ad(tmp_path / "c.h5ad")
    with pytest.raises(DataError, match=r"c\.h5ad: class 'rest' is none of neoplastic, other, the types of this table"):
        read_instances(tmp_path / "c.h5ad")


@pytest.mark.parametrize("column", ["class", "type", "cell_type"])
def test_a_table_from_elsewhere_has_centroids_and_types(column: str, tmp_path: Path) -> None:
    kinds = pandas.Categorical(["b", "a", None])
    table = anndata.AnnData(obs=pandas.DataFrame({column: kinds, "area": [1, 2, 3]}, index=["x", "y", "z"]))
    table.obsm["spatial"] = np.array([[10.5, 3], [7, 8], [20, 30.25]])
    table.write_h5ad(tmp_path / "a.h5ad")
    found = read_instances(tmp_path / "a.h5ad")
    assert found.schema.names == ("a", "b")
    assert found.types.tolist() == [2, 1, 0]
    assert found.centroids.tolist() == [[3, 10.5], [8, 7], [30.25, 20]]
    assert (found.frame.height, found.frame.width) == (31, 20)
    assert len(found.vertices) == 0


def sound(path: Path) -> Path:
    PLUGIN.write(path, made(5))
    return path


def changed(change: Callable[[Any], None]) -> Callable[[Path], Path]:
    def make(path: Path) -> Path:
        with h5py.File(sound(path), "a") as file:
            change(file)
        return path

    return make


def replaced(name: str, **new: Any) -> Callable[[Path], Path]:
    def change(file: Any) -> None:
        attributes = dict(file[name].attrs)
        del file[name]
        file.create_dataset(name, **new).attrs.update(attributes)

    return changed(change)


def linked(name: str, link: Any) -> Callable[[Path], Path]:
    def change(file: Any) -> None:
        del file[name]
        file[name] = link

    return changed(change)


def numbered(file: Any) -> None:
    """Make it a table from elsewhere whose rows are called by numbers."""
    attributes = dict(file["obs/_index"].attrs)
    del file["uns/nuclens"], file["obs/_index"]
    file.create_dataset("obs/_index", data=np.arange(5)).attrs.update(attributes | {"encoding-type": "array"})


HOSTILE: dict[str, Callable[[Path], Path]] = {
    "a link out": linked("obsm/spatial", h5py.ExternalLink("/etc/hostname", "/x")),
    "a soft link": linked("obsm/spatial", h5py.SoftLink("/obsm/class_prob")),
    "data outside": replaced("obs/score", shape=(5,), dtype="f4", external=[("/etc/hostname", 0, 20)]),
    "a size nobody has": replaced("obs/score", shape=(1 << 40,), dtype="f4", chunks=(1 << 20,)),
    "references": replaced("obs/score", shape=(5,), dtype=h5py.ref_dtype),
    "a record": replaced("obs/score", shape=(5,), dtype=[("a", "i4"), ("b", "f8")]),
    "too few scores": replaced("obs/score", data=np.zeros(4, np.float32)),
    "far corners": replaced("uns/outlines/vertices", data=np.full((1000, 2), 1e30)),
    "offsets that jump": replaced("uns/outlines/offsets", data=np.array([0, 9, 3, 900, 2, 5])),
    "no spatial": changed(lambda file: file["obsm"].pop("spatial")),
    "more than the file can hold": replaced("obs/class", shape=(1 << 26,), dtype="u1", chunks=(1 << 20,)),
    "an index of numbers": changed(numbered),
    "one array as categories": changed(lambda file: file["obs/score"].attrs.update({"encoding-type": "categorical"})),
    "a group as one array": changed(lambda file: file["obs/class"].attrs.update({"encoding-type": "array"})),
    "sparse": changed(lambda file: file["obsm/spatial"].attrs.update({"encoding-type": "csr_matrix"})),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_strangers_files_are_refused_in_one_line(what: str, tmp_path: Path) -> None:
    path = HOSTILE[what](tmp_path / "a.h5ad")
    with pytest.raises(DataError) as caught:
        PLUGIN.read(path)
    assert str(caught.value).startswith(f"{path}: no AnnData file that can be read (")
    assert "\n" not in str(caught.value)


def test_without_the_extra_listing_works_and_use_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    sound(tmp_path / "a.h5ad")
    monkeypatch.setattr("importlib.import_module", missing)
    assert "anndata" in FORMATS.names()
    for call in (lambda: PLUGIN.write(tmp_path / "b.h5ad", made(2)), lambda: PLUGIN.read(tmp_path / "a.h5ad")):
        with pytest.raises(MissingExtraError, match=r"pip install 'nuclens\[anndata\]'"):
            call()
    assert not (tmp_path / "b.h5ad").exists()
