from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nuclens.core.types import Truth
from nuclens.encodings.offset import PLUGIN as OFFSET

pytest.importorskip("nuclens.training", exc_type=ImportError)

from nuclens.training import sampling
from nuclens.training.balance import draw_of, evened
from nuclens.training.sampling import Sampler, Source, load_sources
from nuclens.training.settings import ResolvedRecipe


def source(leaves: list[int], side: int = 20, share: float = 1.0) -> Source:
    truth = Truth(
        np.zeros((side, side), np.int32),
        np.array([0, *leaves], np.uint8),
        np.arange(2 * len(leaves) + 2, dtype=np.float32).reshape(-1, 2),
    )
    return Source(np.zeros((side, side, 3), np.uint8), np.zeros((side, side), np.float32), truth, True, share)


def test_every_kind_of_label_is_drawn_alike_and_within_it_every_nucleus() -> None:
    sources = [source([1] * 8), source([1, 1, 2, 0]), source([0, 0])]
    draw = draw_of(sources, "type")
    rng = np.random.default_rng(0)
    found: Counter[tuple[int, int]] = Counter()
    for _ in range(4000):
        index, focus = draw(rng)
        assert focus is not None
        nucleus = int(np.argwhere((sources[index].truth.centres == focus).all(axis=1))[0, 0])
        found[index, int(sources[index].truth.leaves[nucleus])] += 1
    shares = {place: count / 4000 for place, count in found.items()}
    assert shares == pytest.approx({(0, 1): 0.4, (1, 1): 0.1, (1, 2): 0.5}, abs=0.03)


def test_nuclei_in_ignored_regions_are_not_looked_for() -> None:
    one = source([1, 2])
    one.labels[2:4] = -1  # where the first nucleus has its centre
    draw = draw_of([one], "type")
    assert draw.kinds.tolist() == [2]


def test_draws_depend_on_the_generator_alone() -> None:
    sources = [source([1, 2]), source([2])]
    for balance in ("area", "type"):
        draws = [[draw_of(sources, balance)(np.random.default_rng(k)) for k in range(50)] for _ in range(2)]
        assert draws[0] == draws[1]
        assert len(set(draws[0])) > 1


def test_without_labels_images_are_drawn_by_their_shares() -> None:
    sources = [source([0], share=3.0), source([], share=1.0)]
    rng = np.random.default_rng(0)
    draws = [draw_of(sources, "type")(rng) for _ in range(1000)]
    assert {focus for _, focus in draws} == {None}
    assert np.mean([index for index, _ in draws]) == pytest.approx(0.25, abs=0.05)


def test_tissues_get_the_same_share_and_the_whole_keeps_its_own() -> None:
    assert evened([3.0, 1.0, 2.0, 2.0], ["a", "a", "b", "c"]) == pytest.approx([2, 2 / 3, 8 / 3, 8 / 3])
    assert evened([1.0], [""]) == [1.0]
    assert evened([], []) == []


def test_images_of_rare_tissues_are_drawn_more_often(
    tiny_recipe: ResolvedRecipe, tiny_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(tiny_recipe, data=(replace(tiny_recipe.data[0], exclude=(), validate=()),))
    plain = sampling.open_samples

    def told(*given: object) -> object:
        return (replace(sample, tissue="colon" if sample.group == "a" else "") for sample in plain(*given))  # type: ignore[arg-type]

    monkeypatch.setattr(sampling, "open_samples", told)
    by_area, by_tissue = (
        [one.share for one in load_sources(replace(recipe, train=replace(recipe.train, balance=how)), tiny_data)]
        for how in ("area", "tissue")
    )
    assert by_area == pytest.approx([0.25] * 4)
    assert by_tissue == pytest.approx([0.5, *[1 / 6] * 3])


def test_a_balanced_crop_shows_the_nucleus_it_was_drawn_for(tiny_recipe: ResolvedRecipe, tiny_data: Path) -> None:
    train = replace(tiny_recipe.train, balance="type", crop=32, batch=8)
    recipe = replace(tiny_recipe, train=train)
    sampler = Sampler(recipe, OFFSET, load_sources(recipe, tiny_data))
    kinds: Counter[int] = Counter()
    for step in range(20):
        batch = sampler.batch(step)
        for types in batch["type"]:
            kinds.update(set(np.unique(types[types > 0]).tolist()))
        assert all((types > 0).any() for types in batch["type"])
    assert min(kinds[1], kinds[2]) > 60
    again = Sampler(recipe, OFFSET, load_sources(recipe, tiny_data)).batch(3)
    assert all(np.array_equal(again[name], value) for name, value in sampler.batch(3).items())
