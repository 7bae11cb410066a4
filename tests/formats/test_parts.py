from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nuclens.core.errors import InputError
from nuclens.core.types import Instances
from nuclens.formats import (
    annotation_store,
    arrow,
    cellvit,
    coco,
    csv,
    geojson,
    geoparquet,
    hovernet_json,
    tiatoolbox,
)
from nuclens.testing.nuclei import made, moved

STREAMED = {arrow: "ROWS", geoparquet: "ROWS", geojson: "_ROWS", csv: "_ROWS", annotation_store: "_ROWS"}
STREAMED |= dict.fromkeys((cellvit, coco, hovernet_json, tiatoolbox), "_ROWS")
MIXED = moved(made(54), 1 / 0.9137, 1000)


def broken(whole: Instances) -> Instances:
    """Every seventh outline crosses itself, every eleventh has no area."""
    vertices = whole.vertices.copy()
    for row in range(0, len(whole), 7):
        begin = whole.offsets[row]
        vertices[[begin, begin + 2]] = vertices[[begin + 2, begin]]
    for row in range(0, len(whole), 11):
        vertices[whole.offsets[row] : whole.offsets[row + 1]] = 5
    return replace(whole, vertices=vertices)


@pytest.fixture(params=STREAMED, ids=lambda module: str(module.__name__).rpartition(".")[2])
def module(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A format whose pieces have seven nuclei."""
    monkeypatch.setattr(request.param, STREAMED[request.param], 7)
    return request.param


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(0, 54), max_size=9))
def test_the_bytes_depend_on_the_nuclei_alone(module: Any, tmp_path: Path, cuts: list[int]) -> None:
    whole, path = broken(MIXED), tmp_path / f"a{module.PLUGIN.suffix}"
    module.PLUGIN.write(path, whole)
    wanted = path.read_bytes()
    parts = (whole[begin:end] for begin, end in pairwise([0, *sorted(cuts), 54]))
    module.PLUGIN.write_parts(path, parts)
    assert path.read_bytes() == wanted


def test_a_failing_part_leaves_what_was_there(module: Any, tmp_path: Path) -> None:
    def parts() -> Iterator[Instances]:
        yield MIXED[:20]
        yield replace(MIXED[20:], measurements={})

    path = tmp_path / f"a{module.PLUGIN.suffix}"
    path.write_bytes(b"old")
    with pytest.raises(InputError, match="parts of a result differ"):
        module.PLUGIN.write_parts(path, parts())
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_parts_are_let_go(module: Any, tmp_path: Path) -> None:
    """Whatever the number of parts, a few are in memory at a time."""
    alive: list[weakref.ref[Any]] = []

    def parts() -> Iterator[Instances]:
        for number in range(12):
            gc.collect()
            assert sum(reference() is not None for reference in alive) <= 3
            part = replace(MIXED, vertices=MIXED.vertices.copy(), ids=MIXED.ids ^ np.uint8(number))
            alive.append(weakref.ref(part.vertices))
            yield part
            del part

    module.PLUGIN.write_parts(tmp_path / f"a{module.PLUGIN.suffix}", parts())
    assert len(alive) == 12


def test_repaired_outlines_are_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    whole = broken(MIXED)
    with caplog.at_level(logging.WARNING):
        geojson.PLUGIN.write_parts(tmp_path / "a.geojson", (whole[k : k + 1] for k in range(54)))
    (message,) = caplog.messages
    assert message.endswith("12 outlines were invalid: 7 repaired, 5 left out")
    assert len(geojson.PLUGIN.read(tmp_path / "a.geojson")) == 49


def test_numbers_of_a_nucleus_do_not_depend_on_its_neighbours(tmp_path: Path) -> None:
    whole = made(3)
    shifted = replace(whole, vertices=whole.vertices + np.repeat([[0.0], [0.25], [0]], np.diff(whole.offsets), axis=0))
    geojson.PLUGIN.write(tmp_path / "a.geojson", replace(shifted, vertices=shifted.vertices.astype(np.float32)))
    first, second, third = (tmp_path / "a.geojson").read_text(encoding="utf-8").splitlines()[1:4]
    geojson.PLUGIN.write(tmp_path / "a.geojson", whole)
    assert [first, third] == (tmp_path / "a.geojson").read_text(encoding="utf-8").splitlines()[1:4:2]
    assert ".25" in second
