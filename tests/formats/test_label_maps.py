"""Label maps as other programs write them: PNG, NPY, NPZ, and HoVer-Net's MAT-file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from nuclens.core.contours import outlines
from nuclens.core.errors import DataError, InputError
from nuclens.core.mat5 import read_mat, write_mat
from nuclens.core.predictions import Prediction
from nuclens.core.records import from_outlines
from nuclens.core.schema import UNTYPED
from nuclens.core.suffixes import FORMATS
from nuclens.core.types import Frame, Instances, read_instances

# A ring with a hole, touching a nucleus of one pixel; ids with gaps.
PIXELS = np.array([[0, 7, 7, 7], [0, 7, 0, 7], [0, 7, 7, 7], [3, 0, 0, 0]], np.int32)
LABELS = np.select([PIXELS == 3, PIXELS == 7], [1, 2])


def save(path: Path, pixels: np.ndarray, **columns: Any) -> Path:
    if path.suffix == ".png":
        cv2.imwrite(str(path), pixels.astype(np.uint16))
    elif path.suffix == ".npy":
        np.save(path, pixels)
    elif path.suffix == ".npz":
        np.savez(path, inst_map=pixels, **columns)
    else:
        write_mat(path, {"inst_map": pixels, **{name: np.asarray(column) for name, column in columns.items()}})
    return path


def predict(path: Path) -> Prediction:
    name = {".png": "png16", ".mat": "hovernet_mat"}.get(path.suffix, path.suffix[1:])
    prediction: Prediction = FORMATS.get(name).predict(path)
    return prediction


@pytest.mark.parametrize("suffix", [".png", ".npy", ".npz", ".mat"])
def test_pixels_stay_as_they_are(suffix: str, tmp_path: Path) -> None:
    path = save(tmp_path / f"a{suffix}", PIXELS)
    prediction = predict(path)
    np.testing.assert_array_equal(prediction.labels, LABELS)
    assert (prediction.types.tolist(), prediction.names, prediction.hidden) == ([0, 0, 0], (), 0)
    rows = read_instances(path)
    assert rows.frame == Frame(4, 4, None)
    assert rows.centroids.tolist() == [[3.5, 0.5], [1.5, 2.5]]


@pytest.mark.parametrize("suffix", [".png", ".npy", ".npz", ".mat"])
def test_no_nuclei(suffix: str, tmp_path: Path) -> None:
    path = save(tmp_path / f"a{suffix}", np.zeros((3, 5), np.int32))
    assert predict(path).labels.shape == (3, 5)
    assert len(read_instances(path)) == 0


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".mat"])
def test_ids_that_are_none_are_told(suffix: str, tmp_path: Path) -> None:
    for spoiled, reason in ((PIXELS - 1, "ids from -1 to 6"), (PIXELS / 2, "fractions"), (PIXELS[None], "one channel")):
        with pytest.raises(DataError, match=rf"a\{suffix}: .*{reason}"):
            predict(save(tmp_path / f"a{suffix}", spoiled))


def nuclei(count: int) -> Instances:
    labels = np.arange(1, count + 1, dtype=np.int32).reshape(1, -1)
    return replace(from_outlines(UNTYPED, *outlines(labels, count)), frame=Frame(1, count, None))


def test_png_holds_65535_nuclei(tmp_path: Path) -> None:
    FORMATS.get("png16").write(tmp_path / "label.png", nuclei(65_535))
    assert predict(tmp_path / "label.png").labels[0].tolist() == list(range(1, 65_536))
    with pytest.raises(InputError, match=r"65,536 nuclei; this format numbers at most 65,535: write label\.tif"):
        FORMATS.get("png16").write(tmp_path / "label.png", nuclei(65_536))


def test_pictures_are_no_label_maps(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(DataError, match="one channel of whole numbers"):
        read_instances(tmp_path / "a.png")
    cv2.imwrite(str(tmp_path / "a.jpg"), np.zeros((4, 4), np.uint8))
    (tmp_path / "a.jpg").rename(tmp_path / "b.png")
    with pytest.raises(DataError, match="a JPEG picture; wanted a PNG"):
        read_instances(tmp_path / "b.png")


@pytest.mark.parametrize("types", [[0, 0, 0, 2, 0, 0, 0, 1], [2, 1]], ids=["at the id", "in the order of ids"])
def test_archives_hold_types(types: list[int], tmp_path: Path) -> None:
    prediction = predict(save(tmp_path / "a.npz", PIXELS, types=np.array(types)))
    assert (prediction.types.tolist(), prediction.names) == ([0, 2, 1], ("1", "2"))
    path = save(tmp_path / "b.npz", PIXELS, types=np.array(types), type_names=np.array(["tumour", "x", "y"]))
    assert predict(path).names == ("tumour", "x", "y")
    assert read_instances(path).is_type("tumour").tolist() == [False, True]


def test_archives_without_labels_are_told(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", pixels=PIXELS)
    with pytest.raises(DataError, match="no array called instances, inst_map"):
        read_instances(tmp_path / "a.npz")
    np.savez(tmp_path / "a.npz", PIXELS)
    assert len(read_instances(tmp_path / "a.npz")) == 2
    with pytest.raises(DataError, match="two types of nuclei have the same name"):
        read_instances(save(tmp_path / "a.npz", PIXELS, type_names=np.array(["x", "x"])))


@pytest.mark.parametrize(
    "columns",
    [
        {"inst_type": [[2], [1]]},
        {"inst_type": [[2, 1]]},
        {"inst_type": [[1], [2]], "inst_uid": [[7], [3]]},
        {"inst_type": [[7, 1], [3, 2]]},
        {"inst_type": [[2.0], [1.0]]},
    ],
    ids=["column", "row", "with ids", "pairs", "float"],
)
def test_hovernet_types_in_every_spelling(columns: dict[str, Any], tmp_path: Path) -> None:
    prediction = predict(save(tmp_path / "a.mat", PIXELS, **columns))
    assert (prediction.types.tolist(), prediction.names) == ([0, 2, 1], ("1", "2"))


def test_hovernet_nuclei_may_lack_a_type(tmp_path: Path) -> None:
    # Those of fewer than three corners are in the map, but not among the rows.
    assert predict(save(tmp_path / "a.mat", PIXELS, inst_type=[[4]], inst_uid=[[7]])).types.tolist() == [0, 0, 4]


def test_hovernet_files_without_types(tmp_path: Path) -> None:
    nothing = np.empty((2, 2), object)
    nothing[:] = [[np.array([[3]]), np.zeros((0, 0))], [np.array([[7]]), np.zeros((0, 0))]]
    assert predict(save(tmp_path / "a.mat", PIXELS, inst_type=nothing)).types.tolist() == [0, 0, 0]


def test_hovernet_files_that_contradict_themselves(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="3 types for 2 nuclei"):
        predict(save(tmp_path / "a.mat", PIXELS, inst_type=[[1], [1], [1]]))
    write_mat(tmp_path / "a.mat", {"type_map": PIXELS})
    with pytest.raises(DataError, match="holds type_map; wanted a label map called inst_map"):
        predict(tmp_path / "a.mat")


def test_hovernet_reads_what_is_written(tmp_path: Path) -> None:
    """Its scoring script takes these variables, (n, 1), and pairs centroids, (x, y), in pixel centres."""
    result = replace(read_instances(save(tmp_path / "a.npz", PIXELS, types=np.array([2, 1]))))
    result.save(tmp_path / "b.mat")
    variables = read_mat(tmp_path / "b.mat")
    assert list(variables) == ["inst_map", "inst_uid", "inst_type", "inst_centroid", "type_names"]
    assert variables["inst_uid"].tolist() == [[1], [2]]
    assert variables["inst_type"].tolist() == [[2], [1]]
    assert variables["inst_centroid"].tolist() == [[0, 3], [2, 1]]
    assert variables["inst_map"][1, 2] == 2  # the hole is filled


@pytest.mark.data
def test_real_labels_are_read(data_root: Path) -> None:
    truth = np.load(data_root / "consep" / "test" / "labels" / "test_7.npz")
    prediction = predict(data_root / "consep" / "test" / "labels" / "test_7.npz")
    np.testing.assert_array_equal(prediction.types, truth["type_ids"])
    np.testing.assert_array_equal(prediction.labels, truth["instances"])
    mat = predict(data_root / "consep" / "official_layout" / "CoNSeP" / "Test" / "Labels" / "test_7.mat")
    np.testing.assert_array_equal(mat.labels, truth["instances"])
    np.testing.assert_array_equal(mat.types, truth["type_ids"])
