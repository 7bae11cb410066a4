from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from nuclens.core.datasets import (
    DATASETS,
    Entry,
    Samples,
    below,
    listed_ids,
    need_named_types,
    pairs,
    pictures,
    read_rgb,
    schema_of,
    untyped_sample,
    write_png,
)
from nuclens.core.errors import CorruptDatasetError, InputError
from nuclens.core.made import made_nuclei
from nuclens.core.schema import UNTYPED
from nuclens.core.types import Sample

HERE = Path("here")


def never(entry: Entry) -> Sample:
    raise AssertionError(f"{entry.id} was read")


def test_ids_must_differ() -> None:
    twice = (Entry("a", HERE / "x" / "a.png", HERE, "a"), Entry("a", HERE / "y" / "a.png", HERE, "a"))
    with pytest.raises(CorruptDatasetError, match=r"here/y/a\.png: same id 'a' as here/x/a\.png; rename one"):
        Samples(twice, never)


def test_what_is_known_is_known_without_reading() -> None:
    samples = Samples((Entry("a", HERE, HERE, "p", "train"), Entry("b", HERE, HERE, "q", "test")), never)
    assert (samples.ids, samples.groups, samples.splits) == (("a", "b"), ("p", "q"), ("train", "test"))
    assert samples.split("test").ids == ("b",)
    assert samples.pick(["b", "a"]).ids == ("b", "a")
    with pytest.raises(InputError, match="split 'val': no such samples; there are test, train"):
        samples.split("val")


@pytest.mark.parametrize(("text", "ids"), [
    ("a\nb\n", ["a", "b"]),
    ("dir/fold1_12_Breast.png\r\n\n  x.y.npy \nplain.name", ["fold1_12_Breast", "x.y", "plain.name"]),
])  # fmt: skip
def test_lists_of_names(tmp_path: Path, text: str, ids: list[str]) -> None:
    (tmp_path / "list.txt").write_text(text, encoding="utf-8")
    assert listed_ids(tmp_path / "list.txt") == ids


@pytest.mark.parametrize("data", [b"", b"\n \n", b"\xff\xfe\x00"])
def test_lists_without_names_are_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "list.txt").write_bytes(data)
    with pytest.raises(CorruptDatasetError, match=r"list\.txt: "):
        listed_ids(tmp_path / "list.txt")
    with pytest.raises(CorruptDatasetError, match=r"absent\.txt: "):
        listed_ids(tmp_path / "absent.txt")


def test_files_are_paired_by_name_whatever_their_order() -> None:
    images = [Path("i/b.png"), Path("i/a.png"), Path("i/c.png")]
    labels = [Path("l/c.npy"), Path("l/b.npy"), Path("l/d.npy")]
    found = list(pairs(images, labels, expected=Path("l/x.npy")))
    assert found == [
        ("a", Path("i/a.png"), Path("l/a.npy")),
        ("b", Path("i/b.png"), Path("l/b.npy")),
        ("c", Path("i/c.png"), Path("l/c.npy")),
        ("d", Path("l/d.png"), Path("l/d.npy")),
    ]
    with pytest.raises(CorruptDatasetError, match=r"a\.png: same name as i/a\.jpg; remove one"):
        list(pairs([Path("i/a.png"), Path("i/a.jpg")], [], expected=Path("l/x.npy")))


def test_hidden_files_are_left_out(tmp_path: Path) -> None:
    for name in ("__MACOSX/d/._a.xml", "d/a.xml", "d/.hidden.png", "d/b.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert below(tmp_path, "*.xml", depth=3) == [tmp_path / "d" / "a.xml"]
    assert below(tmp_path, "*.xml", depth=0) == []
    assert pictures((tmp_path / "d").iterdir()) == [tmp_path / "d" / "b.png"]


def test_pixels_come_back_with_their_colours(tmp_path: Path) -> None:
    rgb = np.array([[[255, 0, 0], [0, 0, 255]]], np.uint8)
    write_png(tmp_path / "new" / "a.png", rgb)
    np.testing.assert_array_equal(read_rgb(tmp_path / "new" / "a.png"), rgb)
    with pytest.raises(CorruptDatasetError, match=r"b\.png: no such file"):
        read_rgb(tmp_path / "b.png")


def test_sizes_that_differ_are_told_by_the_labels(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", np.zeros((4, 4, 3), np.uint8))
    entry = Entry("a", tmp_path / "a.png", tmp_path / "a.npy", "a")
    with pytest.raises(CorruptDatasetError, match=r"a\.npy: .*\(4, 4\).*\(4, 5\); wanted one size"):
        untyped_sample(entry, np.zeros((4, 5)))
    with pytest.raises(CorruptDatasetError, match=r"a\.npy: ids with fractions"):
        untyped_sample(entry, np.full((4, 4), 0.5))


def test_schemas_of_names_and_colours() -> None:
    schema = schema_of(red_one=(255, 0, 0), blue=(0, 0, 255))
    assert (schema.names, schema.leaves) == (("red one", "blue"), ("red one", "blue"))
    assert schema.color(2) == (0, 0, 255)


def test_types_without_names_cannot_be_written_by_name() -> None:
    sample = Sample("a", "a", np.zeros((1, 1, 3), np.uint8), np.ones((1, 1), np.int32), np.array([0, 3], np.uint8))
    with pytest.raises(InputError, match=r"a: type 3 has no name"):
        need_named_types(sample, UNTYPED)
    need_named_types(sample, schema_of(a=(0, 0, 0), b=(0, 0, 0), c=(0, 0, 0)))


def test_made_nuclei_are_the_same_again_and_without_gaps() -> None:
    rgb, labels, types = made_nuclei(48, 70, nuclei=8, types=3, seed=4)
    for first, second in zip((rgb, labels, types), made_nuclei(48, 70, nuclei=8, types=3, seed=4), strict=True):
        np.testing.assert_array_equal(first, second)
    assert np.unique(labels).tolist() == list(range(len(types)))
    assert set(types[1:].tolist()) == {1, 2, 3}
    assert ((labels[:, 1:] == 2) & (labels[:, :-1] == 1)).any(), "the first two touch"
    assert not made_nuclei(20, 20, nuclei=0)[1].any()


def test_every_published_set_has_a_doi_and_a_source() -> None:
    cards = {name: DATASETS.get(name).card for name in DATASETS.names()}
    for name in ("pannuke", "monuseg", "tnbc", "consep", "bccd", "dsb2018"):
        card = cards[name]
        assert card.doi.startswith("10."), name
        assert card.source.startswith("https://"), name
        assert sum(card.images.values()) > 0, name
    assert {"folder", "coco", "pack"} < set(cards)
