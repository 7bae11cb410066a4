"""Counting nuclei: the same numbers in any order, medians as NumPy has them, memory that does not grow."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nuclens.core.census import MAX_CELLS, NO_TYPE, SCORE, STEPS, Census, cell_side
from nuclens.core.errors import InputError
from nuclens.core.schema import UNTYPED, ClassSchema, NucleusType
from nuclens.core.types import AREA, Frame, Instances, no_instances

SCHEMA = ClassSchema(
    ("a", "b"), (NucleusType("small", (230, 60, 60), (0,)), NucleusType("large", (50, 110, 240), (1,)))
)
FRAME = Frame(3000, 5000, 0.25)


def made(n: int, seed: int = 0, frame: Frame = FRAME, schema: ClassSchema = SCHEMA) -> Instances:
    rng = np.random.default_rng(seed)
    areas = rng.gamma(4, 10, n)
    name = AREA if frame.mpp else "Area px^2"
    return replace(
        no_instances(frame, schema),
        offsets=np.zeros(n + 1, np.int64),
        ids=np.zeros((n, 16), np.uint8),
        anchors=np.zeros((n, 2), np.int32),
        types=rng.integers(len(schema.types) + 1, size=n).astype(np.uint8),
        scores=rng.random(n).astype(np.float32),
        probabilities=np.zeros((n, len(schema.types)), np.float32),
        centroids=rng.random((n, 2)) * (frame.height, frame.width),
        measurements={name: areas.astype(np.float32), "Circularity": rng.random(n).astype(np.float32)},
    )


def census(*parts: Instances, frame: Frame = FRAME, schema: ClassSchema = SCHEMA) -> Census:
    counted = Census(frame, schema)
    for part in parts:
        counted.update(part)
    return counted


@settings(max_examples=30)
@given(st.integers(0, 200), st.lists(st.integers(0, 200), max_size=4), st.randoms())
def test_order_and_parts_do_not_matter(n: int, cuts: list[int], random: object) -> None:
    nuclei = made(n, seed=n)
    edges = [0, *sorted(min(cut, n) for cut in cuts), n]
    parts = [nuclei[low:high] for low, high in pairwise(edges)]
    random.shuffle(parts)  # type: ignore[attr-defined]
    merged = Census(FRAME, SCHEMA)
    for part in parts:
        merged.merge(census(part))
    for other in (census(*parts), merged, census(nuclei[np.random.default_rng(n).permutation(n)])):
        assert json.dumps(other.result(1.5)) == json.dumps(census(nuclei).result(1.5))
        assert np.array_equal(other.cells, census(nuclei).cells)


@given(st.integers(1, 60), st.integers(0, 1000))
def test_quantiles_and_means_are_numpys_to_half_a_step(n: int, seed: int) -> None:
    nuclei = made(n, seed)
    found = census(nuclei).result()
    for name, values in ((AREA, nuclei.area_um2), ("Circularity", nuclei.measurements["Circularity"]),
                         (SCORE, nuclei.scores)):  # fmt: skip
        step, summary = STEPS[name][0], found["measurements"][name]
        assert summary["nuclei"] == n
        for key, share in (("p05", 0.05), ("p25", 0.25), ("median", 0.5), ("p75", 0.75), ("p95", 0.95)):
            assert summary[key] == pytest.approx(np.quantile(values, share), abs=step * 0.51, rel=1e-5)
        assert summary["mean"] == pytest.approx(values.mean(), abs=step * 0.51, rel=1e-5)
    for kind, name in enumerate((NO_TYPE, *SCHEMA.names)):
        own = nuclei.area_um2[nuclei.types == kind]
        if len(own):
            assert found["types"][name]["measurements"][AREA]["median"] == pytest.approx(np.median(own), abs=0.0051)


def test_counts_fractions_and_densities() -> None:
    nuclei = made(1000)
    found = census(nuclei).result(tissue_mm2=0.5)
    counts = np.bincount(nuclei.types)
    assert found["nuclei"] == 1000
    assert found["per_mm2"] == 2000
    assert [kind["nuclei"] for kind in found["types"].values()] == counts.tolist()
    assert sum(kind["fraction"] for kind in found["types"].values()) == pytest.approx(1)
    assert found["types"]["large"] | {"measurements": 0} == {
        "nuclei": counts[2], "fraction": counts[2] / 1000, "per_mm2": counts[2] * 2, "color": [50, 110, 240],
        "measurements": 0,
    }  # fmt: skip
    assert sum(sum(bars) for bars in found["sizes"]["types"].values()) == 1000
    assert found["sizes"]["measurement"] == AREA
    below = (nuclei.area_um2[nuclei.types == 1] < 3.995).sum()
    assert found["sizes"]["types"]["small"][0] == below
    assert json.loads(json.dumps(found)) == found


def test_the_map_has_each_nucleus_where_it_is() -> None:
    nuclei = made(500)
    counted = census(nuclei)
    assert counted.cell_px == 400
    assert counted.cells.shape == (3, 8, 13)
    row, column = (nuclei.centroids[:, axis] // 400 for axis in (0, 1))
    assert counted.cells[1, 2, 3] == ((nuclei.types == 1) & (row == 2) & (column == 3)).sum()
    assert counted.cells.sum() == 500
    # A centroid on the far edge belongs to the last cell.
    edge = replace(nuclei[:1], centroids=np.array([[3000.0, 5000.0]]))
    assert census(edge).cells[:, -1, -1].sum() == 1


@pytest.mark.parametrize("frame", [Frame(200_000, 300_000, 0.25), Frame(1, 10**7, 0.25), Frame(10**6, 10**6, None)])
def test_the_map_is_bounded(frame: Frame) -> None:
    side = cell_side(frame)
    assert Census(frame, UNTYPED).cells.size <= MAX_CELLS
    assert np.log2(side * (frame.mpp or 0.25) / 100) % 1 == 0


def test_what_is_too_large_or_unknown_does_not_break_it() -> None:
    nuclei = made(3)
    odd = {AREA: np.array([5, np.nan, 1e7], np.float32), "Circularity": np.array([np.inf, np.nan, np.nan], np.float32)}
    found = census(replace(nuclei, measurements={**odd, "Somebody's": np.zeros(3, np.float32)})).result()
    assert found["measurements"][AREA]["nuclei"] == 2
    assert found["measurements"][AREA]["mean"] == pytest.approx((5 + 1e7) / 2)
    assert found["measurements"][AREA]["p95"] <= 1000
    assert "Circularity" not in found["measurements"]
    huge = census(replace(nuclei, measurements={AREA: np.array([5, 1e30, -1e30], np.float32)})).result()
    assert huge["measurements"][AREA]["median"] == 5
    assert "Somebody's" not in found["measurements"]


def test_nothing_at_all() -> None:
    found = census(made(0)).result(0.0)
    assert found["nuclei"] == 0
    assert found["per_mm2"] is None
    assert found["types"]["small"]["fraction"] is None
    assert found["measurements"] == {}
    assert Census(FRAME, SCHEMA).result()["sizes"] is None


def test_without_types_and_without_mpp() -> None:
    frame = Frame(300, 500, None)
    found = census(made(20, 0, frame, UNTYPED), frame=frame, schema=UNTYPED).result()
    assert list(found["types"]) == ["nucleus"]
    assert found["tissue_mm2"] is None
    assert found["sizes"]["measurement"] == "Area px^2"


def test_other_slides_do_not_mix() -> None:
    counted = Census(FRAME, SCHEMA)
    with pytest.raises(InputError, match="wanted nuclei of one slide"):
        counted.update(made(1, 0, Frame(3000, 5000, 0.5)))
    with pytest.raises(InputError, match="types small, large"):
        counted.merge(Census(FRAME, UNTYPED))
