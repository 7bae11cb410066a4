from __future__ import annotations

import uuid
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nuclens.core.contours import rasterise
from nuclens.core.errors import DataError, InputError
from nuclens.core.records import (
    VERSION,
    closed_rings,
    from_labels,
    from_outlines,
    header_of,
    id_bytes,
    id_texts,
    named_schema,
    need_free_names,
    need_known_types,
    need_outlines,
    parse_header,
)
from nuclens.core.schema import UNTYPED, ClassSchema, NucleusType
from nuclens.core.types import Frame, Instances

PATH = Path("file")
SCHEMA = ClassSchema(("a", "b"), (NucleusType("both", (1, 2, 255), (0, 1)),))


def squares(count: int) -> Instances:
    corners = np.array([[0, 0], [0, 4], [4, 4], [4, 0]], np.float32)
    vertices = np.concatenate([corners + 5 * k for k in range(count)] or [np.zeros((0, 2), np.float32)])
    return from_outlines(SCHEMA, vertices, np.arange(count + 1, dtype=np.int64) * 4)


def header() -> dict[str, Any]:
    nuclei = replace(squares(2), frame=Frame(7, 9, 0.1), metadata={"plan": "x"})
    return header_of(replace(nuclei, measurements={"Area": np.ones(2, np.float32)}))


def test_header_comes_back() -> None:
    parsed = parse_header(PATH, header())
    assert parsed.frame == Frame(7, 9, 0.1)
    assert parsed.schema == SCHEMA
    assert parsed.measurements == ("Area",)
    assert parsed.metadata == {"plan": "x"}


def test_pixels_only_header_comes_back() -> None:
    assert parse_header(PATH, header_of(squares(1))).frame.mpp is None


@pytest.mark.parametrize(
    "damage",
    [
        {"version": "x"},
        {"frame": {"height": 3}},
        {"frame": {"height": 3, "width": -1, "mpp": None}},
        {"frame": {"height": 3, "width": 1, "mpp": 0}},
        {"frame": {"height": 3, "width": 1, "mpp": float("nan")}},
        {"types": [{"name": "a"}]},
        {"types": [{"name": "a", "color": [1, 2, 300], "leaves": [0]}]},
        {"types": [{"name": "a", "color": [1, 2], "leaves": [0]}]},
        {"types": [{"name": "a", "color": [1, 2, 3], "leaves": [7]}]},
        {"leaves": 3},
        {"measurements": None},
        {"metadata": []},
    ],
)
def test_damaged_header_is_told(damage: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"^file: the nuclens header is damaged"):
        parse_header(PATH, header() | damage)


@pytest.mark.parametrize("fields", [None, [], "x", {}, 3])
def test_no_header_at_all_is_told(fields: Any) -> None:
    with pytest.raises(DataError, match="damaged"):
        parse_header(PATH, fields)


def test_later_version_is_told() -> None:
    with pytest.raises(DataError, match="upgrade"):
        parse_header(PATH, header() | {"version": VERSION + 1})


def test_named_schema_has_a_leaf_each_while_they_fit() -> None:
    schema = named_schema(PATH, ["a", "b"], {"b": (9, 9, 9)})
    assert schema.leaves == ("a", "b")
    assert schema.types[1] == NucleusType("b", (9, 9, 9), (1,))
    many = named_schema(PATH, [f"type {k}" for k in range(255)])
    assert many.leaves == ("nucleus",)
    assert len(many.types) == 255
    with pytest.raises(DataError, match="256 types"):
        named_schema(PATH, [f"type {k}" for k in range(256)])


@given(st.lists(st.uuids(), unique=True))
def test_ids_are_written_as_uuids(ids: list[uuid.UUID]) -> None:
    packed = np.frombuffer(b"".join(name.bytes for name in ids), np.uint8).reshape(-1, 16)
    assert id_texts(packed) == [str(name) for name in ids]
    back = id_bytes([str(name).upper() for name in ids])
    assert back is not None
    np.testing.assert_array_equal(back, packed)


@pytest.mark.parametrize("texts", [["x"], [""], [None], [3], ["0" * 36], [str(uuid.UUID(int=1))] * 2])
def test_what_is_no_uuid_is_refused(texts: list[Any]) -> None:
    assert id_bytes(texts) is None


def test_made_ids_differ_and_stay() -> None:
    first, again, other = squares(300), squares(300), squares(299)
    np.testing.assert_array_equal(first.ids, again.ids)
    texts = {uuid.UUID(text) for nuclei in (first, other) for text in id_texts(nuclei.ids)}
    assert len(texts) == 599
    assert {text.version for text in texts} == {8}
    assert {text.variant for text in texts} == {uuid.RFC_4122}


def test_from_outlines_fills_in() -> None:
    nuclei = squares(2)
    assert nuclei.frame == Frame(9, 9, None)
    np.testing.assert_allclose(nuclei.centroids, [[2, 2], [7, 7]])
    np.testing.assert_array_equal(nuclei.anchors, [[2, 2], [7, 7]])
    assert nuclei.probabilities.shape == (2, 1)
    assert nuclei.scores.tolist() == [1, 1]
    empty = squares(0)
    assert (len(empty), empty.frame) == (0, Frame(0, 0, None))


@given(st.lists(st.integers(3, 9), max_size=6))
def test_closed_rings_are_what_a_loop_makes(lengths: list[int]) -> None:
    rng = np.random.default_rng(len(lengths))
    rings = [rng.random((length, 2)).astype(np.float32) for length in lengths]
    offsets = np.cumsum([0, *lengths])
    points, begins = closed_rings(np.concatenate([np.zeros((0, 2), np.float32), *rings]), offsets)
    wanted = [np.vstack([ring, ring[:1]])[:, ::-1] for ring in rings]
    assert begins.tolist() == np.cumsum([0, *(len(ring) for ring in wanted)]).tolist()
    np.testing.assert_array_equal(points, np.concatenate([np.zeros((0, 2), np.float32), *wanted]))


def test_needs_are_told() -> None:
    nuclei = squares(2)
    need_outlines(PATH, nuclei)
    with pytest.raises(InputError, match="1 of 2 nuclei have no outline"):
        need_outlines(PATH, replace(nuclei, offsets=np.array([0, 2, 8])))
    with pytest.raises(InputError, match="no finite number"):
        need_outlines(PATH, replace(nuclei, vertices=np.full((8, 2), np.inf, np.float32)))
    named = replace(nuclei, measurements={"score": np.ones(2, np.float32)})
    need_free_names(PATH, named, ["id"])
    with pytest.raises(InputError, match="'score' is called like a column"):
        need_free_names(PATH, named, ["id", "score"])
    need_known_types(PATH, np.array([0, 1], np.uint8), SCHEMA)
    with pytest.raises(DataError, match="type id 1"):
        need_known_types(PATH, np.array([0, 1], np.uint8), UNTYPED)


def test_nuclei_of_a_label_map() -> None:
    schema = named_schema(Path("x"), ["a", "b"])
    labels = np.array([[1, 1, 0], [0, 0, 2]], np.int32)
    nuclei = from_labels(labels, np.array([0, 2, 1], np.uint8), schema, mpp=0.5)
    assert (nuclei.frame, nuclei.types.tolist(), nuclei.schema) == (Frame(2, 3, 0.5), [2, 1], schema)
    np.testing.assert_array_equal(rasterise(nuclei.vertices, nuclei.offsets, (2, 3)), labels)
    assert len(from_labels(np.zeros((2, 2), np.int32), np.zeros(1, np.uint8), schema)) == 0
