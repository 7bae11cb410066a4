"""Every loss against a slow twin that loops over pixels."""

from __future__ import annotations

from math import exp, log, log1p

import numpy as np
import pytest

pytest.importorskip("nuclens.training", exc_type=ImportError)

import torch

from nuclens.training.losses import BETA, BORDER_WEIGHT, LOSSES, Heads, Targets

LEAVES = 4
Case = tuple[Heads, Targets]


def case(seed: int, *, spread: float = 2.0) -> Case:
    """Random heads and targets of two crops of 7 x 5 pixels, of which some are unknown and some not outlined."""
    rng = np.random.default_rng(seed)
    shape = (2, 7, 5)
    heads = {"nucleus": (2, 1, 7, 5), "offset": (2, 2, 7, 5), "type": (2, LEAVES, 7, 5)}
    raw = {name: torch.tensor(rng.normal(0, spread, size), dtype=torch.float32) for name, size in heads.items()}
    known = rng.random(shape) < 0.8
    targets = {
        "nucleus": rng.random(shape) < 0.4,
        "border": rng.random(shape) < 0.3,
        "offset": rng.normal(0, 1, (2, 2, 7, 5)),
        "known": known,
        "outlined": known & (rng.random(shape) < 0.8),
    }
    tensors = {name: torch.tensor(value, dtype=torch.float32) for name, value in targets.items()}
    leaves = rng.integers(1, 2**LEAVES, shape) * (rng.random(shape) < 0.5)
    return raw, {**tensors, "type": torch.tensor(leaves, dtype=torch.uint8)}


def pixels(targets: Targets) -> list[tuple[int, int, int]]:
    return list(np.ndindex(*targets["known"].shape))


def sigmoid(x: float) -> float:
    return 1 / (1 + exp(-x))


def twin_bce(heads: Heads, targets: Targets) -> float:
    total = weights = 0.0
    for n, r, c in pixels(targets):
        weight = float(targets["outlined"][n, r, c]) * (BORDER_WEIGHT if targets["border"][n, r, c] else 1.0)
        x = float(heads["nucleus"][n, 0, r, c])
        total += weight * (log1p(exp(-x)) if targets["nucleus"][n, r, c] else log1p(exp(x)))
        weights += weight
    return total / weights


def twin_dice(heads: Heads, targets: Targets) -> float:
    both = found = there = 0.0
    for n, r, c in pixels(targets):
        if targets["outlined"][n, r, c]:
            probability, truth = sigmoid(float(heads["nucleus"][n, 0, r, c])), float(targets["nucleus"][n, r, c])
            both, found, there = both + probability * truth, found + probability, there + truth
    return 1 - (2 * both + 1) / (found + there + 1)


def twin_offset(heads: Heads, targets: Targets) -> float:
    total = count = 0.0
    for n, r, c in pixels(targets):
        if targets["outlined"][n, r, c] and targets["nucleus"][n, r, c]:
            for axis in (0, 1):
                off = abs(float(heads["offset"][n, axis, r, c] - targets["offset"][n, axis, r, c]))
                total += off * off / (2 * BETA) if off < BETA else off - BETA / 2
            count += 1
    return total / count


def twin_type(heads: Heads, targets: Targets) -> float:
    total = count = 0.0
    for n, r, c in pixels(targets):
        leaves = int(targets["type"][n, r, c])
        if leaves and targets["known"][n, r, c]:
            powers = [exp(float(x)) for x in heads["type"][n, :, r, c]]
            total -= log(sum(power for leaf, power in enumerate(powers) if leaves >> leaf & 1) / sum(powers))
            count += 1
    return total / count


TWINS = {
    "nucleus_bce": twin_bce,
    "nucleus_dice": twin_dice,
    "offset_smooth_l1": twin_offset,
    "type_coarse": twin_type,
}


def test_every_loss_has_a_twin_and_is_named_by_a_head() -> None:
    assert TWINS.keys() == LOSSES.keys()
    assert {name.partition("_")[0] for name in LOSSES} == case(0)[0].keys()


@pytest.mark.parametrize("name", TWINS)
@pytest.mark.parametrize("seed", range(5))
def test_a_loss_is_its_twin(name: str, seed: int) -> None:
    heads, targets = case(seed)
    assert float(LOSSES[name](heads, targets)) == pytest.approx(TWINS[name](heads, targets), rel=1e-5)


@pytest.mark.parametrize("name", TWINS)
def test_gradient_flows_to_the_loss_own_head_and_only_there(name: str) -> None:
    heads, targets = case(1)
    for head in heads.values():
        head.requires_grad_()
    LOSSES[name](heads, targets).backward()  # type: ignore[no-untyped-call]
    own = name.partition("_")[0]
    assert [head for head, value in heads.items() if value.grad is not None] == [own]
    gradient = heads[own].grad
    assert gradient is not None
    assert torch.isfinite(gradient).all()
    assert (gradient != 0).any()


@pytest.mark.parametrize("name", TWINS)
def test_pixels_without_weight_count_for_nothing(name: str) -> None:
    heads, targets = case(2)
    silent = targets["known"] == 0 if name == "type_coarse" else targets["outlined"] == 0
    own = name.partition("_")[0]
    assert silent.any()
    changed = {**heads, own: torch.where(silent[:, None], heads[own] + 50, heads[own])}
    assert float(LOSSES[name](changed, targets)) == pytest.approx(float(LOSSES[name](heads, targets)), rel=1e-6)


@pytest.mark.parametrize("name", TWINS)
def test_losses_and_gradients_of_extreme_half_precision_heads_are_finite(name: str) -> None:
    heads, targets = case(3, spread=3e4)
    rounded = {head: value.bfloat16().float().requires_grad_() for head, value in heads.items()}
    loss = LOSSES[name](rounded, targets)
    loss.backward()  # type: ignore[no-untyped-call]
    gradient = rounded[name.partition("_")[0]].grad
    assert gradient is not None
    assert torch.isfinite(loss)
    assert torch.isfinite(gradient).all()


@pytest.mark.parametrize("name", TWINS)
def test_a_batch_without_anything_to_learn_costs_nothing(name: str) -> None:
    heads, targets = case(4)
    empty = {key: torch.zeros_like(value) for key, value in targets.items()}
    own = heads[name.partition("_")[0]].requires_grad_()
    loss = LOSSES[name](heads, empty)
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == 0
    assert own.grad is not None
    assert (own.grad == 0).all()


def test_a_coarse_label_is_the_sum_of_its_leaves() -> None:
    probabilities = torch.tensor([0.3, 0.3, 0.4])
    heads = {"type": probabilities.log().reshape(1, 3, 1, 1)}
    known = torch.ones(1, 1, 1)

    def loss(mask: int) -> float:
        leaves = torch.full((1, 1, 1), mask, dtype=torch.uint8)
        return float(LOSSES["type_coarse"](heads, {"type": leaves, "known": known}))

    assert loss(0b011) == pytest.approx(-log(0.6), rel=1e-5)
    assert loss(0b100) == pytest.approx(-log(0.4), rel=1e-5)
    assert loss(0b011) < loss(0b100)
    assert loss(0b111) == pytest.approx(0, abs=1e-6)


def test_unlabelled_pixels_add_nothing_to_the_type() -> None:
    heads, targets = case(5)
    unlabelled = (targets["type"] == 0)[:, None]
    changed = {"type": torch.where(unlabelled, heads["type"].flip(1) + 9, heads["type"])}
    assert float(LOSSES["type_coarse"](changed, targets)) == float(LOSSES["type_coarse"](heads, targets))


def test_borders_count_twice() -> None:
    heads = {"nucleus": torch.tensor([[[[2.0, -1.0]]]])}
    targets = {name: torch.ones(1, 1, 2) for name in ("nucleus", "outlined")}
    plain = LOSSES["nucleus_bce"](heads, {**targets, "border": torch.zeros(1, 1, 2)})
    rim = LOSSES["nucleus_bce"](heads, {**targets, "border": torch.tensor([[[1.0, 0.0]]])})
    easy, hard = log1p(exp(-2.0)), log1p(exp(1.0))
    assert float(plain) == pytest.approx((easy + hard) / 2)
    assert float(rim) == pytest.approx((2 * easy + hard) / 3)
