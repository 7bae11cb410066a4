from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import pytest
import tifffile
from jaxtyping import Int32

from nuclens.core.errors import CorruptDatasetError
from nuclens.core.labelfiles import pieces, read_labels, read_mask

IDS = np.array([[0, 5, 70], [80, 400, 400], [0, 0, 65535]], np.int32)


def save(path: Path, array: np.ndarray, **options: Any) -> Path:
    if path.suffix == ".npy":
        np.save(path, array, **options)
    elif path.suffix == ".npz":
        arrays: dict[str, Any] = {options.get("key", "labels"): array}
        np.savez(path, **arrays)
    elif path.suffix == ".png":
        assert cv2.imwrite(str(path), array)
    else:
        tifffile.imwrite(path, array, **options)
    return path


@pytest.mark.parametrize("name", ["a.npy", "a.npz", "a.png", "a.tif", "a.TIFF"])
def test_ids_come_back_as_they_stand_in_the_file(tmp_path: Path, name: str) -> None:
    path = save(tmp_path / name, IDS.astype(np.uint16))
    np.testing.assert_array_equal(read_labels(path), IDS)
    assert read_labels(path).dtype == np.int32


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32, np.float64, ">u2"])
def test_any_type_of_number(tmp_path: Path, dtype: Any) -> None:
    ids = np.array([[0, 1]], dtype)
    assert read_labels(save(tmp_path / "a.npy", ids)).tolist() == [[0, 1]]


@pytest.mark.parametrize("key", ["instances", "inst_map", "labels", "label", "mask", "arr_0", "whatever"])
def test_an_archive_names_its_labels_as_it_likes(tmp_path: Path, key: str) -> None:
    assert read_labels(save(tmp_path / "a.npz", IDS, key=key)).tolist() == IDS.tolist()


def test_of_several_arrays_one_must_be_known(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", labels=IDS, image=IDS)
    assert read_labels(tmp_path / "a.npz").tolist() == IDS.tolist()
    np.savez(tmp_path / "a.npz", one=IDS, two=IDS)
    with pytest.raises(CorruptDatasetError, match=r"a\.npz: arrays one, two; wanted one of instances"):
        read_labels(tmp_path / "a.npz")


@pytest.mark.parametrize("channels", [3, 4])
def test_grey_saved_as_colour_is_grey(tmp_path: Path, channels: int) -> None:
    grey = np.stack([IDS.astype(np.uint16)] * channels, axis=2)
    assert read_labels(save(tmp_path / "a.png", grey)).tolist() == IDS.tolist()


def test_colours_are_no_ids(tmp_path: Path) -> None:
    with pytest.raises(CorruptDatasetError, match=r"a\.png: a coloured picture; wanted one channel of ids"):
        read_labels(save(tmp_path / "a.png", np.arange(12, dtype=np.uint8).reshape(2, 2, 3)))


@pytest.mark.parametrize(("array", "reason"), [
    (np.array([[0.0, 0.5]]), "ids with fractions, or not finite"),
    (np.array([[0.0, np.nan]]), "ids with fractions, or not finite"),
    (np.array([[0.0, np.inf]]), "ids with fractions, or not finite"),
    (np.array([[0, -1]]), "ids from -1 to 0; wanted"),
    (np.array([[0, 2**31]]), "ids from 0 to 2.14748e.09; wanted"),
    (np.array([[0, 1j]]), "complex128 of shape"),
    (np.array([["a"]]), "<U1 of shape"),
    (np.zeros((2, 2, 2, 2)), r"shape \(2, 2, 2, 2\); wanted \(h, w\)"),
    (np.zeros(4), r"shape \(4,\); wanted \(h, w\)"),
])  # fmt: skip
@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_what_is_no_label_map_is_told(tmp_path: Path, suffix: str, array: np.ndarray, reason: str) -> None:
    path = save(tmp_path / f"a{suffix}", array)
    with pytest.raises(CorruptDatasetError, match=reason) as caught:
        read_labels(path)
    assert str(caught.value).startswith(f"{path}: ")


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_pickles_are_never_opened(tmp_path: Path, suffix: str) -> None:
    path = save(tmp_path / f"a{suffix}", np.array([[{}]]), **({"allow_pickle": True} if suffix == ".npy" else {}))
    with pytest.raises(CorruptDatasetError, match=r"Python objects|allow_pickle=False"):
        read_labels(path)


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".png", ".tif"])
@pytest.mark.parametrize("keep", [0, 1, 7, 40, 0.5, 0.9])
def test_cut_files_are_told(tmp_path: Path, suffix: str, keep: float) -> None:
    noise = np.random.default_rng(0).integers(0, 60000, (40, 50)).astype(np.uint16)
    path = save(tmp_path / f"a{suffix}", noise)
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if 0 < keep < 1 else int(keep)])
    with pytest.raises(CorruptDatasetError) as caught:
        read_labels(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_headers_with_an_open_bracket_are_told(tmp_path: Path) -> None:
    path = save(tmp_path / "a.npy", IDS)
    path.write_bytes(path.read_bytes().replace(b"(3, 3)", b"(3, 3 "))
    with pytest.raises(CorruptDatasetError, match=r"a\.npy: no array that can be read"):
        read_labels(path)


def test_no_file_and_no_such_kind(tmp_path: Path) -> None:
    with pytest.raises(CorruptDatasetError, match=r"a\.npy: no such file"):
        read_labels(tmp_path / "a.npy")
    with pytest.raises(CorruptDatasetError, match=r"a\.jpg: no label map by its name; wanted one of \.npy"):
        read_labels(tmp_path / "a.jpg")


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_photographs_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    if suffix == ".png":
        path.write_bytes(imagecodecs.jpeg8_encode(grey))
    else:
        tifffile.imwrite(path, grey, compression="jpeg")
    with pytest.raises(CorruptDatasetError, match="change"):
        read_labels(path)


def test_pages_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CorruptDatasetError, match=r"a\.tif: 2 pages; wanted one"):
        read_labels(save(tmp_path / "a.tif", np.zeros((2, 5, 5), np.uint8), photometric="minisblack"))


def test_a_header_that_claims_too_much_takes_no_memory(tmp_path: Path) -> None:
    np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.uint8, (1 << 20, 1 << 15))  # a hole of 32 GB
    with pytest.raises(CorruptDatasetError, match="at most 100 megapixels"):
        read_labels(tmp_path / "a.npy")


@pytest.mark.parametrize(("values", "bright"), [
    ([[0, 255]], [[0, 1]]),
    ([[0, 1]], [[0, 1]]),
    ([[0, 100, 127, 128, 255]], [[0, 0, 0, 1, 1]]),
    ([[0, 0]], [[0, 0]]),
])  # fmt: skip
def test_masks_are_cut_at_half(tmp_path: Path, values: list[list[int]], bright: list[list[int]]) -> None:
    assert read_mask(save(tmp_path / "a.png", np.array(values, np.uint8))).astype(int).tolist() == bright


def test_a_mask_may_be_a_photograph(tmp_path: Path) -> None:
    mask = np.zeros((32, 32), np.uint8)
    mask[8:24, 8:24] = 255
    cv2.imwrite(str(tmp_path / "a.jpg"), mask)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.jpg"), mask > 0)


def test_pieces_that_meet_at_a_corner_are_two() -> None:
    mask: Int32[np.ndarray, "h w"] = np.array([[1, 0, 1], [0, 1, 1], [0, 0, 0]], np.int32)
    assert pieces(mask > 0).tolist() == [[1, 0, 2], [0, 2, 2], [0, 0, 0]]
