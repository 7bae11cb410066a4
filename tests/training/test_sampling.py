from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import cv2
import numpy as np
import pytest

from nuclens.core.datasets import DATASETS, Entry, Samples
from nuclens.core.errors import CorruptDatasetError, InputError, RecipeError
from nuclens.core.heads import TISSUE, UNKNOWN
from nuclens.core.types import Sample
from nuclens.encodings.offset import PLUGIN as OFFSET

pytest.importorskip("nuclens.training", exc_type=ImportError)

from nuclens.training import sampling
from nuclens.training.augment_settings import AugmentSettings
from nuclens.training.sampling import (
    Sampler,
    Source,
    Use,
    calibration_crops,
    check_groups,
    indices,
    load_sources,
    open_samples,
)
from nuclens.training.settings import DataSettings, ResolvedRecipe

ROUND, LONG = 0b01, 0b10


@pytest.fixture(scope="module")
def sampler(tiny_recipe: ResolvedRecipe, tiny_data: Path) -> Sampler:
    return Sampler(tiny_recipe, OFFSET, load_sources(tiny_recipe, tiny_data))


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> bool:
    return one.keys() == other.keys() and all(np.array_equal(one[name], other[name]) for name in one)


def with_data(recipe: ResolvedRecipe, **changes: Any) -> ResolvedRecipe:
    return replace(recipe, data=(replace(recipe.data[0], **changes),))


def test_a_batch_depends_on_seed_and_step_alone(sampler: Sampler, tiny_recipe: ResolvedRecipe, tiny_data: Path) -> None:
    again = Sampler(tiny_recipe, OFFSET, load_sources(tiny_recipe, tiny_data))
    sampler.batch(2)
    assert same(sampler.batch(7), again.batch(7))
    assert not same(sampler.batch(7), sampler.batch(8))
    other = replace(sampler, recipe=replace(tiny_recipe, train=replace(tiny_recipe.train, seed=1)))
    assert not same(sampler.batch(7), other.batch(7))


def test_any_data_set_is_trained_on(tiny_recipe: ResolvedRecipe, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    DATASETS.get("folder").write_example(tmp_path / "mine")
    settings = {"path": "mine", "dataset": "folder", "exclude": ("b",), "validate": ()}
    sources = load_sources(with_data(tiny_recipe, **settings), tmp_path)
    assert [source.labels.shape for source in sources] == [(48, 64), (64, 64)]
    assert [set(source.truth.leaves.tolist()) for source in sources] == [{0, ROUND, LONG}] * 2


def test_images_of_another_resolution_are_scaled_to_the_recipe_s(tiny_recipe: ResolvedRecipe, tiny_data: Path) -> None:
    """With their labels, for training, validation and the ranges of 8-bit arithmetic alike."""
    recipe = with_data(tiny_recipe, mpp=0.125)
    for use in ("train", "validate"):
        plain, scaled = (load_sources(one, tiny_data, use) for one in (tiny_recipe, recipe))
        for whole, half in zip(plain, scaled, strict=True):
            assert whole.labels.shape == (96, 96)
            assert half.labels.shape == half.rgb.shape[:2] == (48, 48)
            assert np.allclose(half.truth.centres, (whole.truth.centres - 0.5) / 2, atol=0.5)
    small = replace(recipe, train=replace(recipe.train, crop=48))
    assert calibration_crops(small, tiny_data, count=2).shape == (2, 48, 48, 3)
    assert recipe.digest != tiny_recipe.digest


def test_a_data_set_may_be_there_for_tests_alone(tiny_recipe: ResolvedRecipe, tiny_data: Path) -> None:
    own, tested = tiny_recipe.data[0], replace(tiny_recipe.data[0], exclude=("a", "b", "d"), validate=(), test=("c",))
    found = load_sources(replace(tiny_recipe, data=(replace(own, exclude=("c", "d"), validate=()), tested)), tiny_data)
    assert [source.id for source in found] == ["cells/a_1", "cells/b_1"]
    with pytest.raises(RecipeError, match="no image left to train on in any of them"):
        load_sources(replace(tiny_recipe, data=(tested,)), tiny_data)
    with pytest.raises(RecipeError, match="data cells: no image left to train on; exclude or validate fewer groups"):
        load_sources(with_data(tiny_recipe, exclude=("a", "b", "d")), tiny_data)


@pytest.fixture(scope="module")
def pannuke(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data root of PanNuke's example: in each of three folds an image of breast and one of bile duct."""
    root = tmp_path_factory.mktemp("data")
    (root / "pannuke").mkdir()
    DATASETS.get("pannuke").write_example(root / "pannuke")
    return root


def _unread(entry: Entry) -> Sample:
    raise AssertionError("a split is drawn by names alone")


def of_pannuke(recipe: ResolvedRecipe, **changes: Any) -> ResolvedRecipe:
    return replace(recipe, data=(DataSettings("pannuke", dataset="pannuke", **changes),))


def test_crops_say_of_what_tissue_their_image_is(tiny_recipe: ResolvedRecipe, pannuke: Path) -> None:
    recipe = replace(of_pannuke(tiny_recipe), tissues=("Colon", "Bile-duct"))
    sources = load_sources(recipe, pannuke)
    assert [source.tissue for source in sources] == [UNKNOWN, 1] * 3, "of breast there is nothing to learn"
    made = Sampler(recipe, OFFSET, sources)
    for step in range(4):
        batch, names = made.batch(step), made.names(step)
        assert batch[TISSUE].dtype == np.int64
        assert batch[TISSUE].tolist() == [1 if name.endswith("1") else UNKNOWN for name in names]
    told = sampling.doubts(recipe, sources)
    assert "no training image is of Colon: those tissues are not taught" in told
    plain = Sampler(of_pannuke(tiny_recipe), OFFSET, load_sources(of_pannuke(tiny_recipe), pannuke))
    assert TISSUE not in plain.batch(0)
    assert same({**plain.batch(0), TISSUE: made.batch(0)[TISSUE]}, made.batch(0)), "nothing else changes"


def test_a_random_split_takes_its_shares_of_every_tissue_and_says_so(tiny_recipe: ResolvedRecipe) -> None:
    entries = tuple(
        Entry(f"fold{k % 3 + 1}_{k:04d}", Path(), Path(), group=f"fold{k % 3 + 1}", split=f"fold{k % 3 + 1}",
              tissue="Breast" if k < 200 else "Colon")
        for k in range(300)
    )  # fmt: skip
    samples = Samples(entries, _unread)
    data = DataSettings("pannuke", dataset="pannuke", random_test=0.25, random_validate=0.05)
    parts = {use: indices(data, samples, use) for use in get_args(Use)}
    assert {use: sum(k < 200 for k in part) for use, part in parts.items()} == {
        "train": 140,
        "validate": 10,
        "test": 50,
    }
    assert {use: sum(k >= 200 for k in part) for use, part in parts.items()} == {"train": 70, "validate": 5, "test": 25}
    assert sorted(k for part in parts.values() for k in part) == [*range(300)]
    for part in parts.values():
        assert {entries[k].split for k in part} == {"fold1", "fold2", "fold3"}, "it goes across the official folds"
        assert part != [*range(part[0], part[0] + len(part))]
    # Names alone decide: in another order the same images are drawn.
    turned = replace(samples, entries=entries[::-1])
    assert {turned.ids[k] for k in indices(data, turned, "test")} == {samples.ids[k] for k in parts["test"]}
    # What is set aside otherwise stays where it is.
    official = replace(data, test_split="fold3", exclude=("fold2",))
    assert {entries[k].split for k in indices(official, samples, "train")} == {"fold1"}
    assert {entries[k].split for k in indices(official, samples, "test")} == {"fold1", "fold3"}
    [told] = sampling.doubts(replace(tiny_recipe, leaves=(), data=(data,)), [])
    assert told.startswith("data pannuke: images are set aside by chance")
    assert not sampling.doubts(replace(tiny_recipe, leaves=()), [])


def test_crops_of_a_batch_differ(sampler: Sampler) -> None:
    first, second = sampler.batch(0)["pixels"]
    assert not np.array_equal(first, second)


@pytest.mark.parametrize("processors", [1, 16])
@pytest.mark.parametrize(("first", "last"), [(0, 5), (3, 4), (4, 4), (5, 4)])
def test_batches_ahead_are_those_of_their_steps(
    sampler: Sampler, first: int, last: int, processors: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampling, "cores", lambda: processors)
    batches = list(sampler.batches(first, last))
    assert len(batches) == max(0, last - first)
    assert all(same(batch, sampler.batch(step)) for step, batch in enumerate(batches, start=first))


def test_a_failure_while_a_batch_is_made_reaches_the_caller(sampler: Sampler) -> None:
    with pytest.raises(ValueError, match="positive integer"):
        list(replace(sampler, sources=[]).batches(0, 3))


def test_batches_have_the_shapes_and_types_the_loop_takes(sampler: Sampler) -> None:
    batch = sampler.batch(0)
    assert {name: (value.shape, value.dtype.name) for name, value in batch.items()} == {
        "pixels": ((2, 64, 64, 3), "uint8"),
        "known": ((2, 64, 64), "uint8"),
        "outlined": ((2, 64, 64), "uint8"),
        "nucleus": ((2, 64, 64), "uint8"),
        "offset": ((2, 2, 64, 64), "float32"),
        "type": ((2, 64, 64), "uint8"),
        "border": ((2, 64, 64), "uint8"),
    }
    assert set(np.unique(batch["type"])) <= {0, ROUND, LONG}
    assert ((batch["type"] > 0) == (batch["nucleus"] > 0)).all()


def test_targets_lie_where_the_pixels_are(sampler: Sampler, tiny_recipe: ResolvedRecipe) -> None:
    plain = replace(tiny_recipe, augment=AugmentSettings(0, 0, 0, 0, 0, 0, 1, 0, 0, 40))
    for step in range(4):
        batch = replace(sampler, recipe=plain).batch(step)
        known = batch["known"] > 0
        assert np.array_equal(batch["nucleus"][known] > 0, batch["pixels"][known][:, 0] < 200)
        assert (batch["pixels"][..., 2][batch["type"] == LONG] > 160).all()
        assert (batch["pixels"][..., 2][batch["type"] == ROUND] < 160).all()


def test_cut_nuclei_point_at_the_centre_of_the_whole(sampler: Sampler, tiny_recipe: ResolvedRecipe) -> None:
    still = replace(sampler, recipe=replace(tiny_recipe, augment=AugmentSettings(turn=0)))
    beyond = 0
    for step in range(20):
        batch = still.batch(step)
        for nucleus, offset in zip(batch["nucleus"], batch["offset"], strict=True):
            pixels = np.argwhere(nucleus)
            aims = pixels + 16 * offset[:, pixels[:, 0], pixels[:, 1]].T
            assert len(np.unique(aims.round(1), axis=0)) <= 9
            beyond += int(((aims < 0) | (aims > 63)).any())
    assert beyond > 10


def test_excluded_and_validation_groups_are_never_read(
    tiny_recipe: ResolvedRecipe, tiny_data: Path, tmp_path: Path
) -> None:
    root = tmp_path / "copy"
    shutil.copytree(tiny_data, root)
    for name in ("c_1", "d_1"):
        (root / "cells" / "images" / f"{name}.png").write_bytes(b"unreadable")
    assert [sample.group for sample in open_samples(tiny_recipe.data[0], root)] == ["a", "b"]
    assert len(load_sources(tiny_recipe, root)) == 2
    with pytest.raises(CorruptDatasetError, match="c_1"):
        load_sources(with_data(tiny_recipe, validate=()), root)


def test_groups_that_do_not_exist_are_told(tiny_recipe: ResolvedRecipe, tiny_data: Path) -> None:
    check_groups(tiny_recipe, tiny_data)
    with pytest.raises(RecipeError, match="no group e, f to set aside"):
        check_groups(with_data(tiny_recipe, exclude=("d", "f"), validate=("e",)), tiny_data)
    with pytest.raises(CorruptDatasetError, match="nowhere"):
        check_groups(with_data(tiny_recipe, path="nowhere"), tiny_data)


def test_nothing_left_to_train_on_is_told(tiny_recipe: ResolvedRecipe, tiny_data: Path) -> None:
    with pytest.raises(RecipeError, match="no image left"):
        load_sources(with_data(tiny_recipe, exclude=("a", "b", "c", "d")), tiny_data)


def test_shares_and_areas_decide_how_often_an_image_is_drawn(tiny_recipe: ResolvedRecipe, tmp_path: Path) -> None:
    sides = {"one/a": 40, "one/b": 80, "two/c": 40}
    for number, (name, side) in enumerate(sides.items(), start=1):
        write_plain(tmp_path, name, side, level=50 * number)
    data = (DataSettings("one", share=3.0), DataSettings("two", share=1.0))
    recipe = replace(
        tiny_recipe,
        data=data,
        augment=AugmentSettings(0, 0, 0, 0, 0, 0, 1, 0, 0, 40),
        train=replace(tiny_recipe.train, batch=100, crop=4),
    )
    sources = load_sources(recipe, tmp_path)
    assert [source.share for source in sources] == pytest.approx([0.6, 2.4, 1.0])
    sampler = Sampler(recipe, OFFSET, sources)
    drawn = Counter(int(level) for step in range(20) for level in sampler.batch(step)["pixels"][:, 0, 0, 0])
    shares = [drawn[level] / 2000 for level in (50, 100, 150)]
    assert shares == pytest.approx([0.15, 0.6, 0.25], abs=0.04)


def write_plain(root: Path, name: str, side: int, level: int) -> None:
    """One picture of one grey level without nuclei."""
    pack, _, stem = name.partition("/")
    for folder in ("images", "labels"):
        (root / pack / folder).mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(root / pack / "images" / f"{stem}.png"), np.full((side, side, 3), level, np.uint8))
    np.savez(root / pack / "labels" / f"{stem}.npz", instances=np.zeros((side, side), np.int32))


def test_ignored_pixels_and_pixels_beyond_the_image_are_unknown(sampler: Sampler) -> None:
    ignored = [source for source in sampler.sources if (source.labels < 0).any()]
    assert len(ignored) == 1
    assert (ignored[0].labels[:30, :40] == -1).all()
    assert (ignored[0].labels[30:] >= 0).all()
    batches = [replace(sampler, sources=ignored).batch(step) for step in range(5)]
    for batch in batches:
        unknown = batch["known"] == 0
        assert (batch["outlined"][unknown] == 0).all()
        assert (batch["nucleus"][unknown] == 0).all()
        assert (batch["type"][unknown] == 0).all()
    assert any((batch["known"] == 0).any() for batch in batches)


@pytest.mark.parametrize("whole_set", [True, False])
def test_images_that_are_not_outlined_teach_types_only(
    sampler: Sampler, tiny_recipe: ResolvedRecipe, tiny_data: Path, *, whole_set: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = with_data(tiny_recipe, outlined=not whole_set)
    if not whole_set:
        plain = sampling.open_samples
        monkeypatch.setattr(
            sampling, "open_samples", lambda *given: (replace(sample, outlined=False) for sample in plain(*given))
        )
    batch = replace(sampler, sources=load_sources(recipe, tiny_data)).batch(0)
    usual = sampler.batch(0)
    assert (batch["outlined"] == 0).all()
    assert (usual["outlined"] == usual["known"]).all()
    assert all(np.array_equal(batch[name], usual[name]) for name in usual if name != "outlined")


def test_type_ids_outside_the_table_are_unlabelled(tiny_recipe: ResolvedRecipe, tiny_data: Path) -> None:
    recipe = with_data(tiny_recipe, leaves={"2": ("round", "long")})
    masks = [set(source.truth.leaves.tolist()) for source in load_sources(recipe, tiny_data)]
    assert masks == [{0, ROUND | LONG}] * 2
    masks = [set(source.truth.leaves.tolist()) for source in load_sources(with_data(tiny_recipe, leaves={}), tiny_data)]
    assert masks == [{0}] * 2


def test_an_image_smaller_than_a_crop_is_mirrored_and_known_only_where_it_is(sampler: Sampler) -> None:
    small = sampler.sources[0]
    source = Source(small.rgb[:20, :30], small.labels[:20, :30].copy(), small.truth, small.outlined, share=1.0)
    for step in range(5):
        batch = replace(sampler, sources=[source]).batch(step)
        assert 0 < batch["known"].mean() < 30 * 20 * 1.25**2 / 64**2 * 1.1


def test_calibration_crops_are_plain_and_spread_over_the_training_images(
    tiny_recipe: ResolvedRecipe, tiny_data: Path
) -> None:
    crops = calibration_crops(tiny_recipe, tiny_data, count=6)
    assert crops.shape == (6, 64, 64, 3)
    assert crops.dtype == np.uint8
    assert np.array_equal(crops, calibration_crops(tiny_recipe, tiny_data, count=6))
    pictures = [source.rgb for source in load_sources(tiny_recipe, tiny_data)]
    homes = [[has(picture, crop) for picture in pictures].index(True) for crop in crops]
    assert homes == [0, 0, 0, 1, 1, 1]


def has(picture: np.ndarray, crop: np.ndarray) -> bool:
    windows = np.lib.stride_tricks.sliding_window_view(picture, crop.shape)
    return bool((windows == crop).all(axis=(-3, -2, -1)).any())


def test_calibration_without_an_image_as_large_as_a_crop_is_told(tiny_recipe: ResolvedRecipe, tiny_data: Path) -> None:
    large = replace(tiny_recipe, train=replace(tiny_recipe.train, crop=97))
    with pytest.raises(InputError, match="97 pixels"):
        calibration_crops(large, tiny_data)
    with pytest.raises(InputError, match="no outlined"):
        calibration_crops(with_data(tiny_recipe, outlined=False), tiny_data)


def test_groups_and_official_parts_are_put_to_one_use_each(tiny_recipe: ResolvedRecipe, tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    DATASETS.get("consep").write_example(tmp_path / "made")
    samples = DATASETS.get("consep").open(tmp_path / "made")
    assert set(samples.splits) == {"train", "test"}
    data = DataSettings("made", dataset="consep", test_split="test")
    uses = {use: indices(data, samples, use) for use in get_args(Use)}
    assert [samples.splits[index] for index in uses["train"]] == ["train"]
    assert [samples.splits[index] for index in uses["test"]] == ["test"]
    assert uses["validate"] == []
    both = replace(data, test_split="", validate_split="test", split="train")
    assert indices(both, samples, "validate") == uses["test"]
    assert indices(both, samples) == uses["train"]
    group = samples.groups[uses["train"][0]]
    assert indices(replace(data, test=(group,)), samples) == []
    assert indices(replace(data, exclude=(group,), test=(group,)), samples, "test") == uses["test"]
    assert indices(replace(both, validate_split="", split="test"), samples) == uses["test"]
    with pytest.raises(RecipeError, match="no official part valid; there are test, train"):
        check_groups(replace(tiny_recipe, data=(replace(data, validate_split="valid"),)), tmp_path)
    with pytest.raises(RecipeError, match="no group nobody to set aside"):
        check_groups(replace(tiny_recipe, data=(replace(data, test=("nobody",)),)), tmp_path)


def test_a_share_of_the_training_groups_is_drawn_by_their_names_alone(tmp_path: Path) -> None:
    for copy in ("one", "other"):
        folder = tmp_path / copy / "labels"
        folder.mkdir(parents=True)
        for number in range(20):
            np.savez(folder / f"{number}.npz", instances=np.zeros((4, 4), np.uint16))
    rows = [f"{number},{'test' if number > 15 else 'train'},p{number // 2}\n" for number in range(20)]
    (tmp_path / "one" / "index.csv").write_text("name,split,patient\n" + "".join(rows), encoding="utf-8")
    (tmp_path / "other" / "index.csv").write_text("name,split,patient\n" + "".join(rows[::-1]), encoding="utf-8")
    samples, again = (DATASETS.get("pack").open(tmp_path / copy) for copy in ("one", "other"))
    data = DataSettings("cells", split="train", test_split="test", validate_share=0.25)
    uses: tuple[Use, ...] = ("train", "validate", "test")
    found = {use: {samples.groups[index] for index in indices(data, samples, use)} for use in uses}
    assert [len(groups) for groups in found.values()] == [6, 2, 2]
    assert not found["train"] & found["validate"]
    assert {again.groups[index] for index in indices(data, again, "validate")} == found["validate"]
    assert sorted(found["validate"]) != ["p0", "p1"]  # not simply the first
    # However small the share, there is something to validate on.
    assert len(indices(replace(data, validate_share=0.01), samples, "validate")) == 2


def test_processes_share_the_crops_of_a_batch(sampler: Sampler) -> None:
    whole = sampler.batch(3)
    halves = [replace(sampler, part=(place, 2)).batch(3) for place in range(2)]
    assert same(whole, {name: np.concatenate([half[name] for half in halves]) for name in whole})
    names = [replace(sampler, part=(place, 2)).names(3) for place in range(2)]
    assert names[0] + names[1] == sampler.names(3)
    assert set(sampler.names(3)) <= {"cells/a_1", "cells/b_1"}
