from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nuclens.core.errors import DataError
from nuclens.core.suffixes import format_to_read
from nuclens.core.types import Frame, read_instances
from nuclens.formats.conic import PLUGIN, TYPES


def arrays(count: int = 2) -> np.ndarray:
    """Images as CoNIC keeps them: 16-bit ids with gaps, and the type of each nucleus at its pixels."""
    array = np.zeros((count, 6, 8, 2), np.uint16)
    array[-1, 1:3, 1:4] = 9, 2
    array[-1, 4:6, 5:8] = 4, 6
    return array


def test_images_are_called_by_their_places(tmp_path: Path) -> None:
    np.save(tmp_path / "labels.npy", arrays())
    assert format_to_read(tmp_path / "labels.npy") is PLUGIN
    images = PLUGIN.images(tmp_path / "labels.npy")
    assert list(images) == ["0", "1"]
    assert len(images["0"]()) == 0
    prediction = images["1"]()
    assert prediction.names == TYPES
    assert prediction.types.tolist() == [0, 6, 2]
    np.testing.assert_array_equal(prediction.labels, np.select([arrays()[1, ..., 0] == k for k in (4, 9)], [1, 2]))


def test_one_image_becomes_rows(tmp_path: Path) -> None:
    np.save(tmp_path / "labels.npy", arrays(1))
    rows = read_instances(tmp_path / "labels.npy")
    assert rows.frame == Frame(6, 8, None)
    assert rows.is_type("epithelial").tolist() == [False, True]
    np.save(tmp_path / "labels.npy", arrays())
    with pytest.raises(DataError, match="2 images; wanted one"):
        read_instances(tmp_path / "labels.npy")


def test_more_types_than_conic_has_are_numbers(tmp_path: Path) -> None:
    array = arrays()
    array[1, 1:3, 1:4, 1] = 8
    np.save(tmp_path / "a.npy", array)
    assert PLUGIN.images(tmp_path / "a.npy")["1"]().names == tuple("12345678")


def test_arrays_that_make_no_sense_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((2, 3, 4, 3)))
    with pytest.raises(DataError, match=r"wanted \(images, h, w, 2\), ids and types"):
        PLUGIN.images(path)
    spoiled = arrays()
    spoiled[1, 1, 1, 1] = 3
    np.save(path, spoiled)
    with pytest.raises(DataError, match=r"a.npy: image 1: nucleus 9 is of several types; wanted one each"):
        PLUGIN.images(path)["1"]()
    for channel, value in ((0, -1.0), (0, 0.5), (1, -1.0), (1, 256.0), (1, np.nan)):
        spoiled = arrays().astype(np.float64)
        spoiled[1, 1, 1, channel] = value
        np.save(path, spoiled)
        with pytest.raises(DataError, match=r"a\.npy: "):
            PLUGIN.images(path)["1"]()
