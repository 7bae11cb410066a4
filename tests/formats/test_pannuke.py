from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nuclens.core.errors import DataError, InputError
from nuclens.core.records import from_outlines
from nuclens.core.schema import UNTYPED
from nuclens.core.types import Frame, no_instances, read_instances
from nuclens.formats.pannuke import PLUGIN, TYPES


def masks(count: int = 2) -> np.ndarray:
    """Two images as PanNuke keeps them: floats, ids with gaps, types that overlap."""
    array = np.zeros((count, 6, 8, 6), np.float64)
    array[1, 1:4, 1:5, 0] = 7
    array[1, 3:6, 3:7, 4] = 3  # hides a corner of the first
    array[1, 0, 7, 4] = 9
    array[..., 5] = ~array.any(axis=-1)
    return array


def test_images_are_called_by_their_places(tmp_path: Path) -> None:
    np.save(tmp_path / "masks.npy", masks())
    images = PLUGIN.images(tmp_path / "masks.npy")
    assert list(images) == ["0", "1"]
    assert len(images["0"]()) == 0
    prediction = images["1"]()
    assert prediction.names == TYPES
    assert prediction.types.tolist() == [0, 5, 1, 5]
    wanted = np.zeros((6, 8), int)
    wanted[1:4, 1:5] = 2
    wanted[3:6, 3:7] = 1
    wanted[0, 7] = 3
    np.testing.assert_array_equal(prediction.labels, wanted)
    assert prediction.layers is not None
    assert prediction.layers.shape == (6, 8, 5)
    np.testing.assert_array_equal(prediction.layers[..., 0] > 0, masks()[1, ..., 0] > 0)
    np.testing.assert_array_equal(prediction.layers.max(axis=(0, 1)), [2, 0, 0, 0, 3])
    assert prediction.hidden == 0


def test_hidden_nuclei_are_counted_and_read(tmp_path: Path) -> None:
    array = masks(2)[1:]
    array[0, 4, 4, 2] = 1
    np.save(tmp_path / "a.npy", array.astype(np.uint16))
    prediction = PLUGIN.images(tmp_path / "a.npy")["0"]()
    assert (len(prediction), prediction.hidden) == (4, 1)
    rows = read_instances(tmp_path / "a.npy")
    assert rows.types.tolist() == [3, 5, 1, 5]
    assert rows.outline(0).tolist() == [[4, 4], [4, 5], [5, 5], [5, 4]]
    assert rows.frame == Frame(6, 8, None)


def test_what_is_written_has_a_channel_per_type(tmp_path: Path) -> None:
    array = masks(2)[1:]
    np.save(tmp_path / "a.npy", array)
    read_instances(tmp_path / "a.npy").save(tmp_path / "b.pannuke.npy")
    written = np.load(tmp_path / "b.pannuke.npy")
    assert written.shape == array.shape
    np.testing.assert_array_equal(written[..., :5] > 0, array[..., :5] > 0)
    np.testing.assert_array_equal(written[..., 5], array[..., 5])
    empty = no_instances(Frame(3, 4, None))
    PLUGIN.write(tmp_path / "c.pannuke.npy", empty)
    assert np.load(tmp_path / "c.pannuke.npy").tolist() == [[[[0, 1]] * 4] * 3]


def test_other_arrays_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    for array in (np.zeros((2, 3)), np.zeros((1, 2, 3, 1)), np.zeros((1, 1, 1, 300))):
        np.save(path, array)
        with pytest.raises(DataError, match=r"wanted \(images, h, w, types \+ 1\)"):
            PLUGIN.images(path)
    np.save(path, masks())
    with pytest.raises(DataError, match="2 images; wanted one"):
        read_instances(path)
    for spoiled, reason in ((-1.0, "ids from -1 to 9"), (0.5, "fractions"), (np.nan, "not finite")):
        array = masks()
        array[1, 2, 2, 3] = spoiled
        np.save(path, array)
        assert len(PLUGIN.images(path)["0"]()) == 0
        with pytest.raises(DataError, match=reason):
            PLUGIN.images(path)["1"]()


def test_too_many_pixels_are_refused(tmp_path: Path) -> None:
    corners = np.array([[0, 0], [9000, 0], [9000, 9000]], np.float32)
    with pytest.raises(InputError, match="at most 100,000,000 in all"):
        PLUGIN.write(tmp_path / "a", from_outlines(UNTYPED, corners, np.array([0, 3])))


@pytest.mark.data
def test_golden_arrays_are_read(data_root: Path, tmp_path: Path) -> None:
    golden = np.load(data_root / "golden" / "pannuke_metrics" / "true.npz")["arr"]
    np.save(tmp_path / "masks.npy", golden)
    images = PLUGIN.images(tmp_path / "masks.npy")
    assert len(images) == len(golden)
    for k in (0, 5, 17, 36):
        prediction = images[str(k)]()
        channels = [np.unique(golden[k, ..., c])[1:].size for c in range(5)]
        assert np.bincount(prediction.types[1:], minlength=6)[1:].tolist() == channels
