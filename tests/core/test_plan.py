from __future__ import annotations

import hashlib
import uuid
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nuclens.core import plan
from nuclens.core.card import Card, Preprocessing
from nuclens.core.errors import ResolutionError
from nuclens.core.plan import HALO_UM, Plan, halo_px, instruction_class, scale_of
from nuclens.core.schema import UNTYPED

PLAN = Plan("image", "model", "openvino 1", "f32", "avx2", 1792, 192, 0.25, 1.0)


def card(mpp: float | None = 0.25, stride: int = 16, reach: int = 0) -> Card:
    return Card("m", "1", "", "CC0-1.0", mpp, UNTYPED, "n", {}, "e", {}, (), Preprocessing(), "f32", stride, reach)


def test_the_digest_is_of_every_part() -> None:
    changes: list[dict[str, Any]] = [{field.name: "other"} for field in fields(Plan)]
    digests = {replace(PLAN, **change).digest for change in changes}
    assert len(digests | {PLAN.digest}) == len(fields(Plan)) + 1
    assert Plan(**asdict(PLAN)).digest == PLAN.digest


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(-64, 10**6), st.integers(-64, 10**6)), max_size=5))
def test_ids_are_uuids_of_the_anchor(anchors: list[tuple[int, int]]) -> None:
    space = uuid.UUID(bytes=hashlib.sha256(b"nuclens image model").digest()[:16])
    ids = PLAN.nucleus_ids(np.array(anchors, np.int32).reshape(-1, 2))
    assert ids.shape == (len(anchors), 16)
    expected = [uuid.uuid5(space, f"{row},{column}") for row, column in anchors]
    assert [uuid.UUID(bytes=identity.tobytes()) for identity in ids] == expected


def test_ids_depend_on_image_and_model_alone() -> None:
    anchors = np.array([[3, 4]], np.int32)
    ids = PLAN.nucleus_ids(anchors).tobytes()
    assert replace(PLAN, engine="torch 2", core_px=512, precision="int8").nucleus_ids(anchors).tobytes() == ids
    for other in (replace(PLAN, image="other"), replace(PLAN, model="other")):
        assert other.nucleus_ids(anchors).tobytes() != ids


@pytest.mark.parametrize(("made", "halo"), [
    (card(0.25, 16, 96), 176),
    (card(0.25, 16, 97), 192),
    (card(0.5, 1, 0), 40),
    (card(None, 16, 0), 80),
    (card(0.25, 32, 1), 96),
])  # fmt: skip
def test_halo_holds_a_nucleus_and_the_reach(made: Card, halo: int) -> None:
    assert halo_px(made) == halo
    assert halo % made.stride == 0
    assert halo >= HALO_UM / (made.mpp or 0.25) + made.reach


@pytest.mark.parametrize(("mpp", "scale"), [
    (0.25, 1.0),
    (0.5, 2.0),
    (0.2485, 1.0),
    (0.2549, 1.0),
    (0.2551, 0.2551 / 0.25),
    (0.05, 0.2),
    (4.0, 16.0),
])  # fmt: skip
def test_scale_is_that_of_the_resolutions(mpp: float, scale: float) -> None:
    assert scale_of(card(), mpp, "a.png") == pytest.approx(scale, rel=1e-12)


def test_a_model_of_pixels_asks_for_no_resolution() -> None:
    assert scale_of(card(mpp=None), None, "a.png") == 1
    assert scale_of(card(mpp=None), 99.0, "a.png") == 1


@pytest.mark.parametrize(("mpp", "told"), [
    (None, "does not say how many micrometres a pixel has; give --mpp"),
    (0.049, "0.049 µm per pixel is outside 0.05-4"),
    (4.1, "outside"),
    (0.0, "outside"),
    (-0.25, "outside"),
    (float("nan"), "outside"),
    (float("inf"), "outside"),
])  # fmt: skip
def test_an_unknown_or_impossible_resolution_is_refused(mpp: float | None, told: str) -> None:
    with pytest.raises(ResolutionError) as caught:
        scale_of(card(), mpp, "a.png")
    assert str(caught.value).startswith("a.png: ")
    assert told in str(caught.value)


@pytest.mark.parametrize(("power", "hint"), [
    (20.0, "objective 20x: try --mpp 0.5 "),
    (40.0, "objective 40x: try --mpp 0.25 "),
    (22.6, "objective 22.6x: try --mpp 0.44 "),
    (None, "give --mpp (mpp= in Python): 0.25 for a 40x scan"),
])  # fmt: skip
def test_the_objective_is_a_hint_and_no_resolution(power: float | None, hint: str) -> None:
    with pytest.raises(ResolutionError) as caught:
        scale_of(card(), None, "a.svs", power)
    assert hint in str(caught.value)


@pytest.mark.parametrize(("text", "found"), [
    ("flags\t\t: fpu sse4_2 avx2 avx512f avx512_vnni amx_int8\n", "amx_int8"),
    ("model\t: avx512f\nflags\t\t: fpu sse4_2 avx2\n", "avx2"),
    ("flags\t\t: avx_vnni avx2\nflags\t\t: avx512f\n", "avx_vnni"),
    ("Features\t: fp asimd\n", "generic"),
    (None, "generic"),
])  # fmt: skip
def test_the_widest_instructions_count(
    text: str | None, found: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source: Any = tmp_path / "cpuinfo"
    if text is not None:
        source.write_text(text, encoding="utf-8")
    monkeypatch.setattr(plan, "Path", lambda _: source)
    assert instruction_class().split()[0] == found


def test_instructions_of_this_machine_have_a_name() -> None:
    assert instruction_class() == instruction_class() != ""
