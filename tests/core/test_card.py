from __future__ import annotations

import json
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from nuclens.core.card import CARD_VERSION, Card, DatasetNote, Preprocessing, card_from_json
from nuclens.core.errors import CheckpointError
from nuclens.core.heads import Head, tissue_heads
from nuclens.core.planes import COUNTS
from nuclens.core.schema import ClassSchema, NucleusType

CARD = Card(
    name="small",
    version="2",
    description="Finds nuclei, in µm.",
    license="CC-BY-4.0",
    mpp=0.25,
    schema=ClassSchema(("a", "b"), (NucleusType("any", (1, 2, 3), (0, 1)),)),
    network="nuclens",
    network_options={"widths": [8, 8]},
    encoding="offset",
    encoding_options={"threshold": 120},
    heads=(Head("nucleus", 1, "sigmoid", 255), Head("type", 2, "softmax", 255)),
    preprocessing=Preprocessing((1.0, 2.0, 3.0), (4.0, 5.0, 6.0)),
    precision="f32",
    stride=16,
    reach=96,
    datasets=(DatasetNote("TNBC", "doi:10.5281/zenodo.1175282", "CC-BY-4.0", "outlines"),),
    limits=("blind on brown nuclei",),
    metrics={"tnbc": {"pq": 0.6}},
    training={"seed": 7},
)


def plain(**changes: Any) -> str:
    return json.dumps({**json.loads(CARD.to_json()), **changes})


def test_a_card_comes_back() -> None:
    assert card_from_json(CARD.to_json(), "card.json") == CARD
    assert card_from_json(CARD.to_json().encode(), "card.json") == CARD
    assert "µm" in CARD.to_json()


def test_what_is_optional_may_be_missing_in_the_schema_and_mpp() -> None:
    bare = replace(CARD, mpp=None, schema=ClassSchema(), datasets=(), limits=(), metrics={}, training={})
    assert card_from_json(bare.to_json(), "card.json") == bare


def test_tissues_are_told_only_where_there_are_some() -> None:
    told = replace(CARD, heads=(*CARD.heads, *tissue_heads(("Breast", "Colon"))), tissues=("Breast", "Colon"))
    assert card_from_json(told.to_json(), "card.json") == told
    assert [head.whole for head in told.heads] == [False, False, True]
    assert "tissues" not in json.loads(CARD.to_json()), "cards from before keep their bytes"
    assert tissue_heads(()) == ()


def test_the_digest_is_of_everything() -> None:
    changes: dict[str, Any] = {
        field.name: "other" for field in fields(Card) if field.name not in ("schema", "heads", "preprocessing")
    }
    digests = {replace(CARD, **{name: value}).digest for name, value in changes.items()}
    assert len(digests | {CARD.digest}) == len(changes) + 1
    assert card_from_json(CARD.to_json(), "card.json").digest == CARD.digest


@pytest.mark.parametrize(("text", "told"), [
    ("", "not a model card"),
    (b"\xff\xfe\xfd", "not a model card"),
    ("[]", "not a model card"),
    ("{}", "not a model card ('card_version')"),
    ("[" * 100_000, "not a model card (nested too deeply)"),
    (plain(card_version=CARD_VERSION + 1), f"card version {CARD_VERSION + 1}, wanted {CARD_VERSION}; export"),
    (plain(colour="red"), "colour"),
    (plain(heads=[{"name": "nucleus"}]), "not a model card"),
    (plain(schema={"leaves": [], "types": [{"name": "x", "color": [0, 0, 0], "leaves": [0]}]}), "gathers leaves"),
    (plain(schema=None), "not a model card"),
    (plain(preprocessing={"middle": [1]}), "middle"),
    (plain(preprocessing={"planes": "purple"}), "no planes 'purple'; there are rgb, grey, rgb_stains"),
    (plain(preprocessing={"planes": ["rgb"]}), "not a model card"),
    (plain(preprocessing={"planes": "grey"}), "3 means and 3 deviations; wanted 1 for grey"),
    (plain(preprocessing={"mean": [1, 2]}), "2 means and 3 deviations; wanted 3 for rgb"),
    (plain(datasets=7), "not a model card"),
])  # fmt: skip
def test_what_is_no_card_is_told_with_its_path(text: str | bytes, told: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        card_from_json(text, "some/card.json")
    assert str(caught.value).startswith("some/card.json: ")
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["heads", "license", "stride", "limits"])
def test_a_card_without_a_part_is_no_card(name: str) -> None:
    parts = json.loads(CARD.to_json())
    del parts[name]
    with pytest.raises(CheckpointError, match=name):
        card_from_json(json.dumps(parts), "card.json")


def test_pixels_are_normalised_per_channel() -> None:
    rgb = np.array([[[0, 127, 255]]], np.uint8)
    normalised = Preprocessing((0.0, 127.0, 250.0), (1.0, 2.0, 5.0))(rgb)
    assert normalised.dtype == np.float32
    assert normalised.tolist() == [[[0, 0, 1]]]
    np.testing.assert_allclose(Preprocessing()(rgb).ravel(), [-2, -0.5 / 63.75, 2], rtol=1e-6)


def test_planes_are_told_only_where_they_are_not_the_colours() -> None:
    """Cards of before had no planes: they mean the colours, and keep their bytes."""
    assert "planes" not in CARD.to_json()
    assert card_from_json(CARD.to_json(), "card.json").preprocessing.planes == "rgb"
    for planes, count in COUNTS.items():
        card = replace(CARD, preprocessing=Preprocessing.usual(planes))
        assert card_from_json(card.to_json(), "card.json") == card
        assert card.preprocessing.channels == count
        assert card.preprocessing(np.zeros((2, 3, 3), np.uint8)).shape == (2, 3, count)


def test_a_card_says_at_which_resolution_it_works() -> None:
    assert (CARD.resolution, replace(CARD, mpp=None).resolution) == ("0.25 µm/px", "any resolution")
