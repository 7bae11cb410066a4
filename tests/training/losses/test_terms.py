"""Terms: names of heads and losses, the targets of every encoding, and what of a batch they learn from."""

from __future__ import annotations

from math import exp, log
from typing import Any

import numpy as np
import pytest

pytest.importorskip("nuclens.training", exc_type=ImportError)

import torch

from nuclens.core.errors import RecipeError
from nuclens.core.heads import UNKNOWN, Head, tissue_heads
from nuclens.training.losses import pixels, regions, terms, vectors
from nuclens.training.losses.terms import LOSSES, Heads, Targets, build_terms, faults, fitting, split

LEAVES = 4
HEADS = {
    "nucleus": Head("nucleus", 1, "sigmoid", 255),
    "offset": Head("offset", 2, "linear", 16),
    "type": Head("type", LEAVES, "softmax", 255),
    "class": Head("class", LEAVES + 1, "softmax", 255),
    "hover": Head("hover", 2, "linear", 127),
    "object": Head("object", 1, "sigmoid", 255),
    "rays": Head("rays", 8, "linear", 32),
}
ALL = [f"{name}_{loss}" for name, head in HEADS.items() for loss in fitting(head)]


def batch(seed: int) -> tuple[Heads, Targets]:
    """Raw heads and targets of two crops of 12 x 13 pixels, of which some are unknown and some not outlined."""
    rng = np.random.default_rng(seed)
    shape = (2, 12, 13)
    raw = {name: torch.tensor(rng.normal(0, 2, (2, head.channels, *shape[1:]))).float() for name, head in HEADS.items()}
    nucleus = rng.random(shape) < 0.5
    leaves = rng.integers(1, 2**LEAVES, shape) * nucleus * (rng.random(shape) < 0.6)
    single = (leaves > 0) & (leaves & (leaves - 1) == 0)
    number = np.where(nucleus, np.where(single, np.log2(leaves.clip(1)) + 1, 255), 0)
    known = rng.random(shape) < 0.8
    bytes_ = {
        "nucleus": nucleus,
        "border": rng.random(shape) < 0.3,
        "type": leaves,
        "class": number,
        "rays": np.where(rng.random((2, 8, *shape[1:])) < 0.2, 255, rng.integers(0, 60, (2, 8, *shape[1:]))),
        "known": known,
        "outlined": known & (rng.random(shape) < 0.8),
    }
    floats = {
        "offset": rng.normal(0, 1, (2, 2, *shape[1:])),
        "hover": rng.uniform(-1, 1, (2, 2, *shape[1:])),
        "object": rng.random(shape) * nucleus,
    }
    targets = {name: torch.tensor(value.astype(np.uint8)) for name, value in bytes_.items()}
    return raw, targets | {name: torch.tensor(value.astype(np.float32)) for name, value in floats.items()}


def value(name: str, heads: Heads, targets: Targets, **options: Any) -> torch.Tensor:
    return build_terms([name], {name: options}, [*HEADS.values()])[name](heads, targets)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("nucleus_bce", ("nucleus", "bce")),
        ("nucleus_border_bce", ("nucleus", "border_bce")),
        ("class_focal_tversky", ("class", "focal_tversky")),
        ("cell_type_focal_tversky", ("cell_type", "focal_tversky")),
        ("offset_smooth_l1", ("offset", "smooth_l1")),
        ("nucleus_foo", ("nucleus", "foo")),
        ("nucleus", ("nucleus", "")),
    ],
)
def test_a_name_is_a_head_and_a_loss(name: str, parts: tuple[str, str]) -> None:
    assert split(name) == parts


def test_any_loss_fits_any_head_of_its_kind() -> None:
    chances = set(LOSSES) - {"smooth_l1", "l1", "mse", "msge"}
    assert set(fitting(HEADS["class"])) == set(fitting(HEADS["type"])) == chances
    assert set(fitting(HEADS["nucleus"])) == set(fitting(HEADS["object"])) == chances - {"ce", "coarse"}
    assert set(fitting(HEADS["offset"])) == set(fitting(HEADS["hover"])) == {"smooth_l1", "l1", "mse", "msge"}
    assert set(fitting(HEADS["rays"])) == {"smooth_l1", "l1", "mse"}
    assert fitting(Head("multi", 3, "sigmoid", 255)) == ()


@pytest.mark.parametrize("name", ALL)
def test_gradient_flows_to_the_term_s_own_head_and_only_there(name: str) -> None:
    heads, targets = batch(1)
    for head in heads.values():
        head.requires_grad_()
    value(name, heads, targets).backward()  # type: ignore[no-untyped-call]
    own = split(name)[0]
    assert [head for head, raw in heads.items() if raw.grad is not None] == [own]
    gradient = heads[own].grad
    assert gradient is not None
    assert torch.isfinite(gradient).all()
    assert (gradient != 0).any()


@pytest.mark.parametrize("name", ALL)
def test_unknown_pixels_count_for_nothing(name: str) -> None:
    heads, targets = batch(2)
    own = split(name)[0]
    silent = (targets["known"] == 0)[:, None]
    changed = {**heads, own: torch.where(silent, heads[own].flip(1) + 5, heads[own])}
    same = float(value(name, heads, targets))
    assert float(value(name, changed, targets)) == pytest.approx(same, rel=1e-5)


@pytest.mark.parametrize("name", [name for name in ALL if split(name)[0] not in ("type", "class")])
def test_where_outlines_are_not_to_be_trusted_only_types_are_learned(name: str) -> None:
    heads, targets = batch(2)
    own = split(name)[0]
    silent = (targets["outlined"] == 0)[:, None]
    changed = {**heads, own: torch.where(silent, heads[own].flip(1) + 5, heads[own])}
    same = float(value(name, heads, targets))
    assert float(value(name, changed, targets)) == pytest.approx(same, rel=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_a_batch_of_images_that_are_to_be_ignored_costs_nothing(name: str) -> None:
    heads, targets = batch(3)
    nothing = {name: torch.zeros_like(targets[name]) for name in ("known", "outlined")}
    assert float(value(name, heads, targets | nothing)) == pytest.approx(0, abs=1e-6)


def test_types_are_learned_by_their_bits() -> None:
    heads, targets = batch(4)
    chance = torch.softmax(heads["type"], dim=1).numpy()
    losses = []
    for n, r, c in np.ndindex(2, 12, 13):
        leaves = int(targets["type"][n, r, c])
        if leaves and targets["known"][n, r, c]:
            losses.append(-log(sum(chance[n, k, r, c] for k in range(LEAVES) if leaves >> k & 1)))
    assert float(value("type_coarse", heads, targets)) == pytest.approx(np.mean(losses), rel=1e-5)


def test_classes_are_learned_by_their_number_and_unsure_ones_by_their_bits() -> None:
    heads, targets = batch(5)
    chance = torch.softmax(heads["class"], dim=1).numpy()
    sure, coarse = [], []
    for n, r, c in np.ndindex(2, 12, 13):
        number, leaves = int(targets["class"][n, r, c]), int(targets["type"][n, r, c])
        if not targets["known" if leaves else "outlined"][n, r, c]:
            continue
        likely = chance[n, :, r, c]
        if number < 255:
            sure.append(-log(likely[number]))
        allowed = [number] if number < 255 else [k + 1 for k in range(LEAVES) if leaves >> k & 1 or not leaves]
        coarse.append(-log(sum(likely[k] for k in allowed)))
    assert float(value("class_ce", heads, targets)) == pytest.approx(np.mean(sure), rel=1e-5)
    assert float(value("class_coarse", heads, targets)) == pytest.approx(np.mean(coarse), rel=1e-5)


def test_region_losses_of_classes_see_one_plane_for_each_class() -> None:
    heads, targets = batch(6)
    number, leaves = targets["class"].long(), targets["type"] > 0
    planes = torch.stack([number == k for k in range(LEAVES + 1)], dim=1).float()
    weight = torch.where(leaves, targets["known"], targets["outlined"]) * (number < 255)
    wanted = regions.dice(heads["class"], planes, weight.float(), over="image_class", background=False)
    found = value("class_dice", heads, targets, over="image_class", background=False)
    assert float(found) == pytest.approx(float(wanted), rel=1e-6)


def test_rays_are_told_in_half_pixels_and_those_that_leave_the_crop_are_not_learned() -> None:
    heads, targets = batch(7)
    sure = targets["rays"] < 255
    weight = targets["outlined"].float()[:, None] * sure
    wanted = vectors.l1(heads["rays"], targets["rays"] / 32, weight, targets["object"], background=0.5)
    assert float(value("rays_l1", heads, targets, background=0.5)) == pytest.approx(float(wanted), rel=1e-6)
    for name in ("rays_l1", "rays_smooth_l1", "rays_mse"):
        changed = {**heads, "rays": torch.where(sure, heads["rays"], heads["rays"] + 9)}
        assert float(value(name, changed, targets)) == pytest.approx(float(value(name, heads, targets)), rel=1e-6)


def test_maps_and_offsets_are_learned_inside_nuclei() -> None:
    heads, targets = batch(8)
    del targets["object"]
    weight, inside = targets["outlined"].float(), targets["nucleus"].float()
    for head, loss in (("hover", vectors.msge), ("offset", vectors.smooth_l1)):
        wanted = loss(heads[head], targets[head], weight, inside)
        assert float(value(f"{head}_{loss.__name__}", heads, targets)) == pytest.approx(float(wanted))


WHOLE = tissue_heads(("Breast", "Colon", "Liver"))


@pytest.mark.parametrize(("loss", "options"), [("ce", {}), ("bce", {}), ("focal", {"alpha": 0.3, "gamma": 5.0})])
def test_tissues_are_learned_from_images_whose_tissue_is_known(loss: str, options: dict[str, Any]) -> None:
    rng = np.random.default_rng(10)
    raw = torch.tensor(rng.normal(0, 1, (5, 3, 1, 1))).float()
    tissues = torch.tensor([2, UNKNOWN, 0, 1, UNKNOWN])
    chance = torch.softmax(raw, dim=1)[..., 0, 0].double().numpy()
    costs = []
    for image, tissue in enumerate(tissues.tolist()):
        if tissue == UNKNOWN:
            continue
        terms_of = []
        for place, p in enumerate(chance[image]):
            is_it = place == tissue
            if loss == "ce":
                terms_of.append(-log(p) * 3 if is_it else 0.0)
            elif loss == "bce":
                terms_of.append(-log(p if is_it else 1 - p))
            else:
                terms_of.append(-0.3 * (1 - p) ** 5 * log(p) if is_it else -0.7 * p**5 * log(1 - p))
        costs.append(np.mean(terms_of))
    name = f"tissue_{loss}"
    [term] = build_terms([name], {name: options}, WHOLE).values()
    assert float(term({"tissue": raw}, {"tissue": tissues})) == pytest.approx(np.mean(costs), rel=1e-5)
    nobody = {"tissue": torch.full((5,), UNKNOWN)}
    assert float(term({"tissue": raw}, nobody)) == 0


def test_losses_of_regions_do_not_fit_a_whole_image() -> None:
    assert fitting(WHOLE[0]) == ("bce", "ce", "focal")
    [told] = faults(["tissue_dice"], WHOLE)
    assert told.startswith("losses.tissue_dice: does not fit 'tissue'")


def test_the_probability_of_an_object_may_be_any() -> None:
    heads, targets = batch(9)
    wanted = pixels.bce(heads["object"], targets["object"][:, None], targets["outlined"].float())
    assert float(value("object_bce", heads, targets)) == pytest.approx(float(wanted))
    scored = [-(t * log(p) + (1 - t) * log(1 - p)) for p, t in [(1 / (1 + exp(-0.3)), 0.7)]]
    one = {name: torch.tensor([[[0.7]]]) if name == "object" else torch.ones(1, 1, 1) for name in targets}
    assert float(value("object_bce", {"object": torch.full((1, 1, 1, 1), 0.3)}, one)) == pytest.approx(scored[0])


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("nucleus_dise", "losses.nucleus_dise: no such loss; did you mean nucleus_dice"),
        ("nucleus_xyzzy", "losses.nucleus_xyzzy: no such loss; there are bce, border_bce"),
        ("nucleos_dice", "losses.nucleos_dice: teaches 'nucleos', but the heads are nucleus, offset"),
        ("offset_dice", "losses.offset_dice: does not fit 'offset', which is linear; what fits is smooth_l1, l1, mse"),
        ("nucleus_ce", "losses.nucleus_ce: does not fit 'nucleus', which is sigmoid; what fits is bce"),
        ("rays_msge", "losses.rays_msge: does not fit 'rays'"),
    ],
)
def test_a_name_that_joins_nothing_is_told_with_near_ones(name: str, told: str) -> None:
    [fault] = faults([name], [*HEADS.values()])
    assert fault.startswith(told)
    with pytest.raises(RecipeError, match=f"losses.{name}"):
        build_terms(["nucleus_bce", name], {}, [*HEADS.values()])


def test_a_head_nearly_meant_is_offered() -> None:
    assert next(faults(["nucleos_dice"], [*HEADS.values()])).endswith("did you mean nucleus_dice?")
    assert [*faults(["anything_dice"], None)] == []


def test_options_have_types_and_defaults() -> None:
    found = {name: terms.options(name) for name in LOSSES}
    assert {option: default for option, (_, default) in found["tversky"].items()} == {
        "alpha": 0.3,
        "beta": 0.7,
        "over": "batch",
    }
    assert found["ce"] == {}


def test_a_second_opinion_of_a_head_is_added_with_less_weight() -> None:
    heads, targets = batch(10)
    second = {"nucleus": heads["nucleus"].flip(0)}
    alone, other = (float(value("nucleus_dice", one, targets)) for one in (heads, second))
    both = float(value("nucleus_dice", {**heads, "aux.nucleus": second["nucleus"]}, targets))
    assert both == pytest.approx(alone + 0.4 * other)
