from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator
from dataclasses import asdict

import numpy as np
import pytest

from nuclens.core.comparison import Comparison, Nuclei, compare
from nuclens.core.errors import InputError, ResolutionError, ShapeError
from nuclens.core.protocol import Average, Measure, Protocol, ScoreTable, spread
from nuclens.jobs.score import PROTOCOLS, score, table
from nuclens.jobs.tally import tally

ALL = [PROTOCOLS.get(name) for name in PROTOCOLS.names()]
TISSUES = ("Breast", "Colon", "Liver")


def image(seed: int, tissue: str | None = None, shape: tuple[int, int] = (60, 80)) -> Comparison:
    """Squares of random types on a grid, some shifted, missing or of another type."""
    rng = np.random.default_rng(seed)
    truth, pred, types = np.zeros(shape, np.int32), np.zeros(shape, np.int32), [[0], [0]]
    for label, (row, column) in enumerate(np.argwhere(np.ones((shape[0] // 20, shape[1] // 20))) * 20 + 3, start=1):
        kind = int(rng.integers(1, 6))
        types[0].append(kind)
        types[1].append(kind if rng.random() < 0.8 else int(rng.integers(1, 6)))
        truth[row : row + 10, column : column + 10] = label
        shift = int(rng.integers(0, 4))
        if rng.random() < 0.9:
            pred[row + shift : row + 10 + shift, column : column + 10] = label
    sides = [Nuclei(labels, np.array(of, np.uint8)) for labels, of in zip((truth, pred), types, strict=True)]
    where = TISSUES[seed % 3] if tissue is None else tissue
    named = Nuclei(sides[0].labels, sides[0].types, tissue=where)
    return Comparison(named, sides[1], id=f"image {seed}", group=f"patient {seed // 2}")


def images(count: int) -> Iterator[Comparison]:
    return map(image, range(count))


@pytest.mark.parametrize("protocol", ALL, ids=[protocol.name for protocol in ALL])
def test_a_table_is_plain_and_says_what_entered(protocol: Protocol) -> None:
    found = score(images(6), protocol)
    assert (found.protocol, found.images, found.truth_nuclei) == (protocol.name, 6, 72)
    assert found.averaging.keys() >= found.headline.keys()
    assert json.loads(json.dumps(asdict(found)))["headline"].keys() == found.headline.keys()
    assert {len(column) for column in found.per_image.values()} == {6}
    assert found.per_image["id"][:2] == ["image 0", "image 1"]
    assert found.per_tissue["Colon"]["images"] == 2
    assert all(isinstance(value, float) for value in found.headline.values())


def test_averages() -> None:
    """Pooled, over images and over tissues are three numbers, each as its name says."""
    averages: tuple[Average, ...] = ("pooled", "images", "tissues")
    measures = tuple(Measure("panoptic", (("pq", average),), average) for average in averages)
    protocol = Protocol("p", "1", "here", "", measures)
    found = score((image(seed, TISSUES[seed // 3]) for seed in range(5)), protocol)
    alone = [score([image(seed, "Colon")], protocol).headline["pooled"] for seed in range(5)]
    assert found.headline["images"] == pytest.approx(np.mean(alone))
    assert found.headline["tissues"] == pytest.approx((np.mean(alone[:3]) + np.mean(alone[3:])) / 2)
    assert found.per_tissue["Colon"]["tissues"] == pytest.approx(np.mean(alone[3:]))
    assert found.headline["pooled"] not in (found.headline["images"], found.headline["tissues"])


def test_protocols_share_what_they_can_and_give_the_same_tables() -> None:
    counted = tally(images(4), ALL)
    assert len(counted.parts) < sum(len(protocol.measures) for protocol in ALL)
    for protocol in ALL:
        assert repr(table(counted, protocol)) == repr(score(images(4), protocol))


def test_repaired_says_so() -> None:
    protocol = PROTOCOLS.get("pannuke")
    found = score(images(3), protocol, repaired=True)
    assert found.protocol == "pannuke repaired"
    assert found.headline["mPQ+"] > 0
    assert found.headline["bPQ"] == pytest.approx(score(images(3), protocol).headline["bPQ"], abs=1e-5)
    assert score(images(3), PROTOCOLS.get("monuseg"), repaired=True).protocol == "monuseg"


def test_resolution_and_types_can_be_others() -> None:
    protocol = PROTOCOLS.get("hovernet").with_types(("any",)).at(2.0)
    [measure] = [one for one in protocol.measures if one.metric == "detection"]
    assert dict(measure.options) == {"types": 1, "radius_px": 1.5, "published": True}
    with pytest.raises(ResolutionError, match="micrometres"):
        protocol.at(0.0)
    with pytest.raises(InputError, match="id 5 occurs"):
        score(images(3), protocol)


@pytest.mark.parametrize("tissue", ["", "Bone"])
def test_tissues_that_a_protocol_does_not_know(tissue: str) -> None:
    with pytest.raises(InputError, match=r"image 0.*wants.*Adrenal_gland.*give the file"):
        score([image(0, tissue)], PROTOCOLS.get("pannuke"))
    assert score([image(0, tissue)], PROTOCOLS.get("monuseg")).images == 1


def test_malformed_images_are_named() -> None:
    good, bad = np.zeros((4, 4), np.int32), np.zeros((4, 5), np.int32)
    broken = Comparison(Nuclei(good), Nuclei(bad), id="case 7")
    with pytest.raises(ShapeError, match="image case 7: label maps"):
        score([broken], PROTOCOLS.get("monuseg"))
    with pytest.raises(InputError, match="no images"):
        score([], PROTOCOLS.get("monuseg"))
    with pytest.raises(InputError, match="'image 1' occurs twice"):
        score([image(1), image(1)], PROTOCOLS.get("monuseg"))
    with pytest.raises(InputError, match="need a sequence"):
        score(images(2), PROTOCOLS.get("monuseg"), workers=2)
    with pytest.raises(InputError, match="not counted"):
        table(tally(images(1), [PROTOCOLS.get("monuseg")]), PROTOCOLS.get("stardist"))
    halves = [
        tally([image(seed)], [PROTOCOLS.get(name)]) for seed, name in ((0, "monuseg"), (0, "monuseg"), (1, "stardist"))
    ]
    with pytest.raises(InputError, match="occur twice"):
        _ = halves[0] + halves[1]
    with pytest.raises(InputError, match="different protocols"):
        _ = halves[0] + halves[2]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("protocol", ALL, ids=[protocol.name for protocol in ALL])
def test_odd_images_are_scored(protocol: Protocol) -> None:
    """No background, nothing but background, one pixel, no pixel: each with itself and with the opposite."""
    shapes = {"full": np.full((5, 7), 3, np.int32), "empty": np.zeros((5, 7), np.int32)}
    pixels = {"pixel": np.ones((1, 1), np.int32), "none": np.zeros((1, 1), np.int32)}
    several = []
    for maps in (shapes, pixels, {"no pixel": np.zeros((0, 4), np.int32)}):
        for one, truth in maps.items():
            for other, pred in maps.items():
                sides = Nuclei(truth, np.full(4, 2, np.uint8), tissue="Colon"), Nuclei(pred, np.full(4, 2, np.uint8))
                several.append(Comparison(*sides, id=f"{one} and {other}"))
    for chosen in (protocol, protocol.repair()):
        found = score(several, chosen)
        rows = dict(zip(found.per_image["id"], range(len(several)), strict=True))
        for name in ("bPQ", "AJI", "Dice", "F", "accuracy@0.5", "bPQ+"):
            if name in found.per_image:
                column = found.per_image[name]
                assert column[rows["empty and empty"]] in (0, 1) or np.isnan(column[rows["empty and empty"]])
                if name != "bPQ" or chosen.name != "pannuke":
                    assert column[rows["full and full"]] == pytest.approx(1, abs=3e-6)
                    assert column[rows["pixel and pixel"]] == pytest.approx(1, abs=3e-6)


@pytest.mark.slow
def test_seventy_thousand_nuclei() -> None:
    """More than 16 bits hold, in a grid of squares, compared with themselves moved by one pixel."""
    ids = np.arange(1, 70_001, dtype=np.int32).reshape(250, 280)
    labels = np.kron(ids, np.pad(np.ones((4, 4), np.int32), 1))
    moved = np.roll(labels, 1, axis=1)
    types = np.ones(70_001, np.uint8)
    big = Comparison(Nuclei(labels, types, tissue="Colon"), Nuclei(moved, types))
    found = {protocol.name: score([big], protocol.repair()).headline for protocol in ALL if protocol.name != "hovernet"}
    assert found["pannuke"]["bPQ"] == pytest.approx(12 / 20)
    assert found["monuseg"]["AJI"] == pytest.approx(12 / 20)
    assert found["stardist"]["accuracy@0.6"] == 1
    assert found["stardist"]["accuracy@0.65"] == 0
    assert found["cellvit"]["F"] == 1
    with pytest.raises(InputError, match=r"70000 x 70000 distances.*repaired=True"):
        score([big], PROTOCOLS.get("hovernet"))


def test_memory_does_not_grow_with_the_images() -> None:
    def peak(count: int) -> int:
        tracemalloc.start()
        tally((image(seed, shape=(200, 200)) for seed in range(count)), ALL)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    first = peak(5)
    # 20 images more leave their rows of numbers, 6 kB each, and no pixels.
    assert peak(25) - first < 20 * 12_000


def test_the_three_runs_of_pannuke() -> None:
    tables = [score(images(count), PROTOCOLS.get("pannuke")) for count in (4, 5, 6)]
    found = spread(tables).headline["mPQ"]
    values = [one.headline["mPQ"] for one in tables]
    assert found.mean == pytest.approx(np.mean(values))
    assert found.deviation == pytest.approx(np.std(values, ddof=1))
    assert (found.low, found.high) == (min(values), max(values))
    with pytest.raises(InputError, match="several protocols"):
        spread([tables[0], score(images(2), PROTOCOLS.get("stardist"))])
    undefined = ScoreTable("p", "1", "", {}, 0, 0, 0, {"x": float("nan")})
    assert np.isnan(spread([undefined]).headline["x"].mean)
    assert [one[2] for one in PROTOCOLS.get("pannuke").folds] == ["fold3", "fold3", "fold1"]
    assert isinstance(compare(np.zeros((1, 1), np.int32), np.zeros((1, 1), np.int32)), Comparison)
