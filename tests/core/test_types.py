from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jaxtyping import Int32

from nuclens.core.errors import InputError, ShapeError
from nuclens.core.schema import ClassSchema, NucleusType
from nuclens.core.types import (
    AREA,
    Frame,
    InstanceMap,
    Instances,
    Sample,
    concatenate,
    no_instances,
    read_instances,
    truth_of,
)

FRAME = Frame(40, 60, 0.25)
SCHEMA = ClassSchema(("a", "b"), (NucleusType("a", (1, 2, 3), (0,)), NucleusType("b", (4, 5, 6), (1,))))
COLUMNS = ("ids", "anchors", "types", "scores", "probabilities", "centroids")


def nuclei(lengths: list[int], seed: int = 0) -> Instances:
    """Rows of random numbers whose outlines have these many corners."""
    rng, count = np.random.default_rng(seed), len(lengths)
    return Instances(
        frame=FRAME,
        schema=SCHEMA,
        vertices=rng.uniform(0, 40, (sum(lengths), 2)).astype(np.float32),
        offsets=np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64),
        ids=rng.integers(0, 256, (count, 16), dtype=np.uint8),
        anchors=rng.integers(0, 40, (count, 2), dtype=np.int32),
        types=rng.integers(0, 3, count, dtype=np.uint8),
        scores=rng.random(count, dtype=np.float32),
        probabilities=rng.random((count, 2), dtype=np.float32),
        centroids=rng.uniform(0, 40, (count, 2)),
        measurements={AREA: rng.random(count, dtype=np.float32)},
        metadata={"plan": "p"},
    )


def same(first: Instances, second: Instances) -> None:
    assert (first.frame, first.schema, first.metadata) == (second.frame, second.schema, second.metadata)
    for name in ("vertices", "offsets", *COLUMNS):
        one, other = getattr(first, name), getattr(second, name)
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other, err_msg=name)
    assert list(first.measurements) == list(second.measurements)
    for name, column in first.measurements.items():
        np.testing.assert_array_equal(column, second.measurements[name])


@settings(max_examples=40)
@given(st.lists(st.integers(0, 6), max_size=6), st.data())
def test_picked_rows_are_those_of_a_loop(lengths: list[int], data: st.DataObject) -> None:
    rows, count = nuclei(lengths), len(lengths)
    index = data.draw(st.lists(st.integers(-count, count - 1), max_size=8)) if count else []
    picked = rows[np.array(index, np.int64)]
    assert len(picked) == len(index)
    for place, row in enumerate(index):
        np.testing.assert_array_equal(picked.outline(place), rows.outline(row % count))
        assert picked.measurements[AREA][place] == rows.measurements[AREA][row]
        for name in COLUMNS:
            np.testing.assert_array_equal(getattr(picked, name)[place], getattr(rows, name)[row])


@pytest.mark.parametrize(("choice", "index"), [
    (np.array([True, False, True]), [0, 2]),
    (slice(None, None, -1), [2, 1, 0]),
    (slice(1, 1), []),
    (-1, [2]),
    ([1, 1], [1, 1]),
])  # fmt: skip
def test_rows_are_picked_as_from_an_array(choice: Any, index: list[int]) -> None:
    rows = nuclei([3, 0, 5])
    same(rows[choice], rows[np.array(index, np.int64)])


@settings(max_examples=40)
@given(st.lists(st.lists(st.integers(0, 5), max_size=4), min_size=1, max_size=4))
def test_what_is_cut_apart_is_put_together(parts: list[list[int]]) -> None:
    rows = nuclei([length for lengths in parts for length in lengths])
    ends = np.cumsum([0, *map(len, parts)])
    same(concatenate([rows[first:last] for first, last in pairwise(ends)]), rows)


def test_a_frame_of_numpy_numbers_is_written_as_any_other(tmp_path: Path) -> None:
    frame = Frame(cast("int", np.int64(40)), cast("int", np.int64(60)), cast("float", np.float32(0.25)))
    assert repr(frame) == repr(FRAME)
    for name in ("a.geojson", "a.arrow", "a.coco.json", "a.ome.tif"):
        no_instances(frame).save(tmp_path / name)
        assert read_instances(tmp_path / name).frame == FRAME


def test_empty_parts_need_no_measurements() -> None:
    rows = nuclei([3, 4])
    same(concatenate([no_instances(FRAME, SCHEMA), rows]), rows)
    empty = no_instances(FRAME, SCHEMA)
    assert concatenate([empty, empty]) is empty


def test_parts_that_differ_are_refused() -> None:
    other = replace(nuclei([3]), measurements={"Circularity": np.ones(1, np.float32)})
    with pytest.raises(InputError, match="different measurements"):
        concatenate([nuclei([3]), other])
    with pytest.raises(InputError, match="no parts"):
        concatenate([])


@settings(max_examples=40)
@given(st.lists(st.integers(0, 5), max_size=5))
def test_boxes_hold_the_outlines(lengths: list[int]) -> None:
    rows = nuclei(lengths)
    outlines = [rows.outline(row) for row in range(len(rows))]
    expected = [[*o.min(axis=0), *o.max(axis=0)] if len(o) else [0] * 4 for o in outlines]
    assert rows.boxes.dtype == np.float32
    np.testing.assert_array_equal(rows.boxes, np.reshape(expected, (-1, 4)))


def test_areas_need_micrometres() -> None:
    rows = nuclei([3, 4])
    np.testing.assert_array_equal(rows.area_um2, rows.measurements[AREA])
    with pytest.raises(InputError, match="pass mpp="):
        _ = replace(rows, measurements={"Area px^2": rows.scores}).area_um2


def test_types_are_asked_for_by_name() -> None:
    rows = replace(nuclei([3, 3, 3]), types=np.array([0, 2, 1], np.uint8))
    assert rows.is_type("a").tolist() == [False, False, True]
    assert rows.is_type("b").tolist() == [False, True, False]
    with pytest.raises(InputError, match="no type 'c'; there are a, b"):
        rows.is_type("c")
    with pytest.raises(InputError, match="there are none"):
        no_instances(FRAME).is_type("a")


def test_an_unknown_suffix_is_told_with_the_known_ones(tmp_path: Path) -> None:
    for act in (nuclei([]).save, read_instances):
        with pytest.raises(InputError, match=r"nuclei\.xyz: no format has this suffix; there are .*\.geojson"):
            act(tmp_path / "nuclei.xyz")


def test_no_instances_has_every_column() -> None:
    empty = no_instances(FRAME, SCHEMA)
    assert len(empty) == 0
    assert empty.boxes.shape == (0, 4)
    same(empty[np.zeros(0, bool)], empty)
    same(empty, replace(nuclei([]), measurements={}, metadata={}))


def test_a_map_is_as_long_as_its_types() -> None:
    labels = np.array([[0, 1, 2]], np.int32)
    columns = np.zeros((2, 2), np.int32)
    assert len(InstanceMap(labels, np.zeros(2, np.uint8), np.ones(2, np.float32), columns, np.zeros((2, 0)))) == 2


def test_a_sample_is_of_one_size() -> None:
    labels, types = np.zeros((3, 2), np.int32), np.zeros(1, np.uint8)
    with pytest.raises(ShapeError, match=r"sample s7: image is \(2, 3\), labels are \(3, 2\)"):
        Sample("s7", "g", np.zeros((2, 3, 3), np.uint8), labels, types)


@settings(max_examples=40)
@given(
    hnp.arrays(np.int32, hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=6), elements=st.integers(0, 4))
)
def test_centres_are_means_of_places(labels: Int32[np.ndarray, "h w"]) -> None:
    truth = truth_of(labels, np.arange(5, dtype=np.uint8))
    assert truth.centres.dtype == np.float32
    assert truth.centres.shape == (5, 2)
    for label in range(1, 5):
        places = np.argwhere(labels == label)
        np.testing.assert_allclose(truth.centres[label], places.mean(axis=0) if len(places) else 0, rtol=1e-6)
    assert truth.labels is labels
