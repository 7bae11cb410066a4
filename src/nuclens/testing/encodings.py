"""What every encoding must do: subclass `EncodingContract` in the encoding's test."""

from __future__ import annotations

from functools import cache
from typing import Any, ClassVar

import cv2
import numpy as np
import pytest
from jaxtyping import Int32, Int64

from nuclens.core.comparison import compare
from nuclens.core.errors import ShapeError
from nuclens.core.heads import RawHeads
from nuclens.core.kinds import Kind
from nuclens.core.labels import areas, boundaries, compact
from nuclens.core.schema import UNTYPED, ClassSchema, NucleusType
from nuclens.core.tiling import inside, tile_plan
from nuclens.core.types import InstanceMap, Truth, truth_of

_ENCODINGS: Kind[Any] = Kind("nuclens.encodings")
_METRICS: Kind[Any] = Kind("nuclens.metrics")

# Two leaves make one type, so that what is taken over from the leaves has to be gathered.
_SCHEMA = ClassSchema(
    ("round", "long", "bent"),
    (NucleusType("round", (230, 60, 60), (0,)), NucleusType("other", (50, 110, 240), (1, 2))),
)
_TYPE_OF_LEAF = np.array([1, 2, 2], np.uint8)
_SHAPES = ((1, 1), (1, 7), (33, 5), (97, 128), (160, 201))
_PITCH = 20  # px between nuclei of 10 to 26 px: most of them touch
_HALO = 40  # px, beyond the largest nucleus and any smoothing


class EncodingContract:
    """The promises of an encoding.

    An encoding offers `options`, a dataclass of settings with defaults,
    `heads(schema)`, `encode(truth)`, `ideal(truth, schema)`, `decode(heads,
    schema, options)` and `floor`, the panoptic quality that decoding ideal
    heads reaches at least. `heads`, `encode` and `ideal` take `options` too,
    which they may do without. All arrays it is given are read-only.

    Attributes:
        name: Of the plug-in under test.
        changes: Settings that are tested instead of their defaults.
        merges: Whether nuclei that touch may come out as one: only of encodings whose heads do not part them.
    """

    name: ClassVar[str]
    changes: ClassVar[dict[str, Any]] = {}
    merges: ClassVar[bool] = False

    @property
    def plugin(self) -> Any:
        """The encoding itself."""
        return _ENCODINGS.get(self.name)

    @property
    def options(self) -> Any:
        """Its settings under test."""
        return self.plugin.options(**self.changes)

    def decoded(self, raw: RawHeads, schema: ClassSchema = _SCHEMA) -> InstanceMap:
        """The nuclei of heads, looked over: whatever the heads are, the map keeps its promises."""
        found: InstanceMap = self.plugin.decode(_frozen(raw), schema, self.options)
        shape = next(iter(raw.values())).shape[1:]
        types = len(schema.types)
        assert found.labels.dtype == np.int32
        assert found.labels.shape == shape
        assert areas(found.labels, len(found)).all(), "labels have gaps"
        assert found.labels.max(initial=0) == len(found)
        for array, kind, columns in (
            (found.types, np.uint8, ()),
            (found.scores, np.float32, ()),
            (found.anchors, np.int32, (2,)),
            (found.probabilities, np.float32, (types,)),
        ):
            assert array.dtype == kind
            assert array.shape == (len(found), *columns)
        assert ((found.anchors >= 0) & (found.anchors < shape)).all(), "an anchor is outside the tile"
        assert ((found.scores >= 0) & (found.scores <= 1)).all()
        assert (found.probabilities >= 0).all()
        assert (found.probabilities.sum(axis=1) <= 1 + 1e-5).all()
        np.testing.assert_array_equal(found.types, schema.decide(found.probabilities))
        return found

    def ideal(self, truth: Truth, schema: ClassSchema = _SCHEMA) -> RawHeads:
        """Heads of a perfect network."""
        raw: RawHeads = self.plugin.ideal(truth, schema, self.options)
        return raw

    def truth(self, shape: tuple[int, int], seed: int) -> Truth:
        """Nuclei whose touching this encoding can bear."""
        return _apart(_truth(shape, seed)) if self.merges else _truth(shape, seed)

    def test_ideal_heads_decode_to_the_stated_floor(self) -> None:
        """Nothing but what the encoding admits is lost between labels and labels."""
        panoptic = _METRICS.get("panoptic")
        truths = [_truth((160, 201), seed) for seed in range(3)]
        images = [compare(truth.labels, self.decoded(self.ideal(truth)).labels) for truth in truths]
        assert panoptic.scores(sum(panoptic.parts(image) for image in images))["pq"] >= self.plugin.floor

    @pytest.mark.parametrize("shape", _SHAPES)
    def test_any_size(self, shape: tuple[int, int]) -> None:
        """Odd, narrow and one-pixel tiles are tiles, full of nuclei or empty."""
        self.decoded(self.ideal(_truth(shape, 3)))
        assert len(self.decoded(self.ideal(_plain(np.zeros(shape, np.int32))))) == 0

    def test_any_heads(self) -> None:
        """What a bad network says, and cut views of arrays, decode to a sound map."""
        raw = self.ideal(_truth((97, 128), 4))
        rng = np.random.default_rng(5)
        for share in (0.1, 1.0):
            noisy = {name: _with_noise(head, share, rng)[:, 3:, :-5] for name, head in raw.items()}
            self.decoded(noisy)

    def test_one_nucleus(self) -> None:
        """A single nucleus is found where it is."""
        truth = _plain(_disc((45, 61), (20, 33)))
        found = self.decoded(self.ideal(truth))
        assert len(found) == 1
        assert truth.labels[*found.anchors[0]] == 1

    def test_touching_nuclei_stay_apart(self) -> None:
        """Two nuclei that share an edge are two."""
        labels = np.zeros((50, 60), np.int32)
        labels[10:40, 8:30], labels[10:40, 30:52] = 1, 2
        found = self.decoded(self.ideal(_plain(labels)))
        if not self.merges:
            np.testing.assert_array_equal(np.sort(_owners(found, labels)), [1, 2])

    @pytest.mark.parametrize("corner", [(0, 8), (6, 0), (8, 13)])
    def test_nuclei_cut_by_the_border(self, corner: tuple[int, int]) -> None:
        """A nucleus whose centre is in the tile is found, though the tile cuts it."""
        whole = truth_of(_disc((40, 50), (12, 17)), np.ones(2, np.uint8))
        row, column = corner
        cut = Truth(whole.labels[row:, column:], whole.leaves, whole.centres - np.array(corner, np.float32))
        assert len(self.decoded(self.ideal(cut))) == 1

    def test_a_centre_outside_is_no_fault(self) -> None:
        """A rest of a nucleus that another tile owns does no harm."""
        whole = truth_of(_disc((40, 50), (12, 17)), np.ones(2, np.uint8))
        rest = Truth(whole.labels[16:], whole.leaves, whole.centres - np.array((16, 0), np.float32))
        assert len(self.decoded(self.ideal(rest))) <= 1

    def test_tiles_agree_on_nuclei(self) -> None:
        """Away from its border a tile finds the very nuclei, and anchors, of another tile."""
        raw = self.ideal(self.truth((220, 260), 6))
        part = {name: head[:, 13:187, 29:240] for name, head in raw.items()}
        origin = np.array((13, 29))
        wholes, parts = self.decoded(raw), self.decoded(part)
        low, high = origin + _HALO, np.array((187, 240)) - _HALO
        assert len(_within(wholes, 0, low, high)) > 10
        np.testing.assert_array_equal(_within(wholes, 0, low, high), _within(parts, origin, low, high))

    @pytest.mark.parametrize(("core", "offset"), [(64, (0, 0)), (96, (16, 80)), (304, (0, 0))])
    def test_every_tiling_owns_the_same_nuclei(self, core: int, offset: tuple[int, int]) -> None:
        """Cut into tiles of any size, a picture has the nuclei it has in one piece: none is lost or found twice."""
        shape = (250, 330)
        raw = self.ideal(self.truth(shape, 13))
        rows = []
        for tile in tile_plan(shape, core, _HALO, 16, margin_px=0, offset=offset):
            top, left, bottom, right = inside(tile.box, shape)
            found = self.decoded({name: head[:, top:bottom, left:right] for name, head in raw.items()})
            rows.append(_within(found, (top, left), tile.core[:2], tile.core[2:]))
        tiled = np.concatenate(rows)
        whole = _within(self.decoded(raw), 0, (0, 0), shape)
        np.testing.assert_array_equal(tiled[np.lexsort((tiled[:, 1], tiled[:, 0]))], whole)

    def test_a_thousand_nuclei(self) -> None:
        """A crowd decodes as well as a few do."""
        block = _truth((200, 201), 14).labels
        rim = np.concatenate([block[0], block[-1], block[:, 0], block[:, -1]])
        block, _ = compact(np.where(np.isin(block, rim), 0, block))
        firsts = np.arange(30).reshape(5, 6) * int(block.max())
        blocks = [[block + (block > 0) * first for first in row] for row in firsts.astype(np.int32)]
        truth = _plain(np.block(blocks))
        assert truth.labels.max() > 1000
        image = compare(truth.labels, self.decoded(self.ideal(truth)).labels)
        panoptic = _METRICS.get("panoptic")
        assert panoptic.scores(panoptic.parts(image))["pq"] >= self.plugin.floor

    def test_the_common_targets(self) -> None:
        """Every encoding says where nuclei are, what leaves their pixels may be, and where borders are near."""
        truth = _truth((60, 71), 15)
        targets = self.plugin.encode(truth, self.options)
        np.testing.assert_array_equal(targets["nucleus"], truth.labels > 0)
        np.testing.assert_array_equal(targets["type"], truth.leaves[truth.labels])
        at_borders = boundaries(truth.labels)
        assert targets["border"][at_borders].all()
        far = cv2.distanceTransform((~at_borders).astype(np.uint8), cv2.DIST_C, 3) > 2
        assert not targets["border"][far].any()

    def test_options_have_defaults(self) -> None:
        """Nobody has to name settings to teach or to measure an encoding."""
        truth, encoding = _truth((40, 50), 16), self.plugin
        default = encoding.options()
        assert encoding.heads(_SCHEMA) == encoding.heads(_SCHEMA, default)
        _same(encoding.encode(truth), encoding.encode(truth, default))
        _same(encoding.ideal(truth, _SCHEMA), encoding.ideal(truth, _SCHEMA, default))

    def test_coarse_and_missing_labels(self) -> None:
        """A label that stands for several leaves, or for none, is as good a nucleus as any."""
        truth = self.truth((97, 128), 17)
        leaves = truth.leaves.copy()
        leaves[1::3], leaves[2::3] = 0, 0b110
        coarse = _frozen_truth(Truth(truth.labels, leaves, truth.centres))
        found = self.decoded(self.ideal(coarse))
        if not self.merges:
            np.testing.assert_array_equal(found.labels, self.decoded(self.ideal(truth)).labels)
        other = leaves[_owners(found, truth.labels)] == 0b110
        assert np.mean(found.types[other] == 2) > 0.97

    def test_types_come_from_the_leaves(self) -> None:
        """A nucleus all of whose pixels are one leaf has the type that gathers it, surely."""
        truth = self.truth((160, 201), 7)
        found = self.decoded(self.ideal(truth))
        leaf = np.log2(truth.leaves[_owners(found, truth.labels)]).astype(int)
        # A stray pixel may join a neighbour of another type.
        assert np.mean(found.types == _TYPE_OF_LEAF[leaf]) > 0.97
        assert np.median(found.probabilities.max(axis=1)) == 1

    def test_without_types(self) -> None:
        """A schema without types gives nuclei without types."""
        found = self.decoded(self.ideal(_truth((97, 128), 8), UNTYPED), UNTYPED)
        assert len(found) > 0
        assert not found.types.any()

    def test_the_same_again(self) -> None:
        """Encoding and decoding have no memory and no chance in them."""
        truth = _truth((97, 128), 9)
        for first, second in (
            (self.plugin.encode(truth, self.options), self.plugin.encode(truth, self.options)),
            (self.ideal(truth), self.ideal(truth)),
        ):
            _same(first, second)
        raw = self.ideal(truth)
        one, other = self.decoded(raw), self.decoded(raw)
        for field in ("labels", "types", "scores", "anchors", "probabilities"):
            np.testing.assert_array_equal(getattr(one, field), getattr(other, field))

    @pytest.mark.parametrize("shape", _SHAPES)
    def test_targets_lie_on_the_crop(self, shape: tuple[int, int]) -> None:
        """Targets are bytes or single precision, finite, one value per pixel or per channel and pixel."""
        targets = self.plugin.encode(_truth(shape, 10), self.options)
        assert targets
        for name, target in targets.items():
            assert target.dtype in (np.uint8, np.float32), name
            assert target.shape[-2:] == shape, name
            assert np.isfinite(target).all(), name

    @pytest.mark.parametrize("schema", [UNTYPED, _SCHEMA])
    def test_ideal_heads_are_those_it_asks_for(self, schema: ClassSchema) -> None:
        """Names, channels and integers of ideal heads are what `heads` promises a network's to be."""
        raw, heads = self.ideal(_truth((33, 50), 11), schema), self.plugin.heads(schema, self.options)
        assert list(raw) == [head.name for head in heads]
        for head in heads:
            assert raw[head.name].dtype == (np.int8 if head.signed else np.uint8)
            assert raw[head.name].shape == (head.channels, 33, 50)

    def test_wrong_heads_are_refused(self) -> None:
        """A head that is absent, has other channels or another size is named."""
        raw = self.ideal(_truth((33, 50), 12))
        for head in self.plugin.heads(_SCHEMA, self.options):
            others = {name: value for name, value in raw.items() if name != head.name}
            broken = [raw[head.name][:-1], np.repeat(raw[head.name], 2, axis=0), raw[head.name][0]]
            if others:
                broken.append(raw[head.name][:, 1:])
            for wrong in (others, *({**raw, head.name: value} for value in broken)):
                with pytest.raises(ShapeError, match="head '"):
                    self.plugin.decode(wrong, _SCHEMA, self.options)


@cache
def _truth(shape: tuple[int, int], seed: int) -> Truth:
    """A crop full of touching ellipses, each of one leaf."""
    labels = _ellipses(shape, seed)
    leaves = 1 << np.random.default_rng(seed).integers(0, len(_SCHEMA.leaves), int(labels.max()) + 1)
    leaves[0] = 0
    return _frozen_truth(truth_of(labels, leaves.astype(np.uint8)))


def _apart(truth: Truth) -> Truth:
    """The same nuclei, with a gap of two pixels where they touch."""
    labels = np.where(boundaries(truth.labels), 0, truth.labels)
    labels, kept = compact(labels)
    return _frozen_truth(truth_of(labels, np.append(np.uint8(0), truth.leaves[kept])))


def _plain(labels: Int32[np.ndarray, "h w"]) -> Truth:
    return _frozen_truth(truth_of(labels, np.r_[0, np.ones(labels.max(initial=0))].astype(np.uint8)))


def _ellipses(shape: tuple[int, int], seed: int) -> Int32[np.ndarray, "h w"]:
    """Ellipses on a jittered grid; where they meet, a pixel is of the one it lies deeper in."""
    rng = np.random.default_rng(seed)
    places = np.argwhere(np.ones([side // _PITCH + 2 for side in shape])) * _PITCH
    places = places[rng.random(len(places)) < 0.8]
    rows, columns = (places + rng.uniform(-5, 5, places.shape)).T[..., None, None]
    long, short = rng.uniform(5, 13, (2, len(places), 1, 1))
    turn = rng.uniform(0, np.pi, (len(places), 1, 1))
    down, right = np.arange(shape[0])[:, None] - rows, np.arange(shape[1]) - columns
    along, across = right * np.cos(turn) + down * np.sin(turn), down * np.cos(turn) - right * np.sin(turn)
    distance = (along / long) ** 2 + (across / short) ** 2  # 0 in the middle, 1 on the rim
    labels, _ = compact(np.where(distance.min(axis=0) < 1, distance.argmin(axis=0) + 1, 0))
    return labels


def _disc(shape: tuple[int, int], centre: tuple[int, int]) -> Int32[np.ndarray, "h w"]:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    disc: Int32[np.ndarray, "h w"] = (np.hypot(rows - centre[0], columns - centre[1]) < 11).astype(np.int32)
    return disc


def _owners(found: InstanceMap, truth: Int32[np.ndarray, "h w"]) -> Int64[np.ndarray, "n"]:
    """The true nucleus that each found one shares most pixels with."""
    true = int(truth.max()) + 1
    shared = np.bincount((found.labels * true + truth).ravel(), minlength=(len(found) + 1) * true)
    owners: Int64[np.ndarray, "n"] = shared.reshape(-1, true)[1:, 1:].argmax(axis=1) + 1
    return owners


def _within(found: InstanceMap, origin: Any, low: Any, high: Any) -> Int64[np.ndarray, "k 4"]:
    """Anchor, type and area of the nuclei with anchors in a box, in reading order; positions are moved by `origin`."""
    anchors = found.anchors + origin
    rows = np.column_stack([anchors, found.types, areas(found.labels, len(found))]).astype(np.int64)
    rows = rows[((anchors >= low) & (anchors < high)).all(axis=1)]
    in_order: Int64[np.ndarray, "k 4"] = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
    return in_order


def _with_noise(head: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    limits = np.iinfo(head.dtype)
    noise = rng.integers(limits.min, limits.max, head.shape, head.dtype, endpoint=True)
    return np.where(rng.random(head.shape) < share, noise, head)


def _frozen(raw: RawHeads) -> RawHeads:
    views = {name: head.view() for name, head in raw.items()}
    for view in views.values():
        view.flags.writeable = False
    return views


def _frozen_truth(truth: Truth) -> Truth:
    for array in (truth.labels, truth.leaves, truth.centres):
        array.flags.writeable = False
    return truth


def _same(first: dict[str, np.ndarray], second: dict[str, np.ndarray]) -> None:
    assert list(first) == list(second)
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name])
