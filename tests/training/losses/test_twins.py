"""Every loss against a slow twin that loops over pixels, and what all of them promise."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, log, log1p
from typing import Any

import numpy as np
import pytest

pytest.importorskip("nuclens.training", exc_type=ImportError)

import torch
from torch import Tensor

from nuclens.core.errors import ShapeError
from nuclens.training.losses import mixtures, pixels, regions, vectors
from nuclens.training.losses.terms import LOSSES

SIDES = (13, 12)
PIXELS = [*np.ndindex(2, *SIDES)]
Twin = Callable[..., float]


def case(loss: str, channels: int, seed: int, *, spread: float = 2.0) -> tuple[Tensor, ...]:
    """Raw head, target, weight and what else the loss takes, of two crops in which some pixels are silent."""
    rng = np.random.default_rng(seed)
    raw = rng.normal(0, spread, (2, channels, *SIDES))
    weight = (rng.random((2, *SIDES)) < 0.8).astype(float)
    inside = rng.random((2, *SIDES)) < 0.5
    number = rng.integers(0, channels, (2, *SIDES))
    classes = np.moveaxis(np.eye(channels)[number], -1, 1) if channels > 1 else inside[:, None]
    lengths = rng.normal(0, 1, (2, channels, *SIDES))
    extra: dict[str, list[np.ndarray]] = {
        "border_bce": [rng.random((2, *SIDES)) < 0.3],
        "l1": [rng.random((2, *SIDES)) * inside],
    }
    if loss == "coarse":
        classes = rng.random((2, channels, *SIDES)) < 0.4
    target, more = classes, extra.get(loss, [])
    if loss in ("smooth_l1", "l1", "mse", "msge"):
        target, more = lengths, extra.get(loss, [inside])
    if loss == "l1":
        weight = weight[:, None] * (rng.random((2, channels, *SIDES)) < 0.9)
    tensors = [torch.tensor(np.asarray(value), dtype=torch.float32) for value in (raw, target, weight, *more)]
    if loss == "coarse":
        tensors[1] = tensors[1] > 0
    return tuple(tensors)


def arrays(tensors: tuple[Tensor, ...]) -> list[np.ndarray]:
    return [tensor.double().numpy() for tensor in tensors]


def chances(raw: np.ndarray) -> np.ndarray:
    if raw.shape[1] == 1:
        return np.asarray(1 / (1 + np.exp(-raw)))
    return np.asarray(np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True))


def averaged(value: Callable[[int, int, int], float], weight: np.ndarray) -> float:
    total = sum(float(weight[place]) * value(*place) for place in PIXELS if weight[place])
    return float(total / weight.sum())


def twin_bce(raw: np.ndarray, target: np.ndarray, weight: np.ndarray) -> float:
    p = chances(raw)

    def at(n: int, r: int, c: int) -> float:
        one = [t * log(q) + (1 - t) * log1p(-q) for q, t in zip(p[n, :, r, c], target[n, :, r, c], strict=True)]
        return -float(np.mean(one))

    return averaged(at, weight)


def twin_border_bce(
    raw: np.ndarray, target: np.ndarray, weight: np.ndarray, near: np.ndarray, border: float = 2.0
) -> float:
    return twin_bce(raw, target, np.where(near > 0, border, 1) * weight)


def twin_ce(raw: np.ndarray, target: np.ndarray, weight: np.ndarray) -> float:
    p = chances(raw)
    return averaged(lambda n, r, c: -log(float(p[n, :, r, c] @ target[n, :, r, c])), weight)


def twin_coarse(raw: np.ndarray, allowed: np.ndarray, weight: np.ndarray) -> float:
    p, known = chances(raw), weight * allowed.any(axis=1)
    return averaged(lambda n, r, c: -log(float(p[n, :, r, c] @ allowed[n, :, r, c])), known)


def twin_focal(
    raw: np.ndarray, target: np.ndarray, weight: np.ndarray, alpha: float = 0.25, gamma: float = 2.0
) -> float:
    p = chances(raw)

    def at(n: int, r: int, c: int) -> float:
        losses = []
        for q, t in zip(p[n, :, r, c], target[n, :, r, c], strict=True):
            right = q if t else 1 - q
            losses.append(-(alpha if t else 1 - alpha) * (1 - right) ** gamma * log(right))
        return float(np.mean(losses))

    return averaged(at, weight)


def overlaps(given: tuple[np.ndarray, ...], over: str, *, background: bool) -> list[tuple[float, float, float]]:
    """Overlap, found and there of every region that is summed by itself."""
    raw, target, weight = given
    p, sums = chances(raw), dict[tuple[int, ...], tuple[float, float, float]]()
    for n, k, r, c in np.ndindex(p.shape):
        if weight[n, r, c] and (background or k or p.shape[1] == 1):
            key = {"batch": (), "class": (k,), "image": (n,), "image_class": (n, k)}[over]
            both, found, there = sums.get(key, (0.0, 0.0, 0.0))
            q, t = float(p[n, k, r, c]), float(target[n, k, r, c])
            sums[key] = (both + q * t, found + q, there + t)
    return [*sums.values()]


def twin_dice(*given: np.ndarray, over: str = "batch", smooth: float = 1.0, background: bool = True) -> float:
    parts = overlaps(given, over, background=background)
    return float(np.mean([1 - (2 * both + smooth) / (found + there + smooth) for both, found, there in parts]))


def twin_iou(*given: np.ndarray, over: str = "batch", smooth: float = 1e-7, background: bool = True) -> float:
    parts = overlaps(given, over, background=background)
    return float(np.mean([1 - (both + smooth) / (found + there - both + smooth) for both, found, there in parts]))


def twin_tversky(*given: np.ndarray, alpha: float = 0.3, beta: float = 0.7, over: str = "batch") -> float:
    parts = overlaps(given, over, background=True)
    return float(np.mean([1 - both / (both + alpha * (f - both) + beta * (t - both)) for both, f, t in parts]))


def twin_focal_tversky(*given: np.ndarray, alpha: float = 0.3, beta: float = 0.7, gamma: float = 4 / 3) -> float:
    return float(twin_tversky(*given, alpha=alpha, beta=beta) ** gamma)


def twin_border_bce_dice(
    raw: np.ndarray, target: np.ndarray, weight: np.ndarray, border: float = 3.0, window: int = 11, smooth: float = 1.0
) -> float:
    p, heavy, reach = chances(raw), np.zeros(target.shape), window // 2
    for n, k, r, c in np.ndindex(target.shape):
        box = (n, slice(max(0, r - reach), r + reach + 1), slice(max(0, c - reach), c + reach + 1))
        known = weight[box]
        share = (target[:, k][box] * known).sum() / known.sum()
        heavy[n, k, r, c] = weight[n, r, c] * (border if 0.005 < share < 0.995 else 1)
    known = np.broadcast_to(weight[:, None], target.shape)
    heavy *= known.sum() / heavy.sum()
    entropy = -(heavy * (target * np.log(p) + (1 - target) * np.log1p(-p))).sum() / known.sum()
    both, squares = (heavy * p * target).sum(), (heavy * (p**2 + target**2)).sum()
    return float(entropy + 1 - (2 * both + smooth) / (squares + smooth))


def twin_ssim(raw: np.ndarray, target: np.ndarray, weight: np.ndarray) -> float:
    p = chances(raw)
    away = np.arange(11) - 5
    bell = np.exp(-(away[:, None] ** 2 + away**2) / (2 * 1.5**2))
    bell /= bell.sum()
    total = shares = 0.0
    for n, r, c in np.ndindex(2, SIDES[0] - 10, SIDES[1] - 10):
        box = (slice(r, r + 11), slice(c, c + 11))
        alike = []
        for k in range(p.shape[1]):
            x, y = p[n, k][box] * weight[n][box], target[n, k][box] * weight[n][box]
            mx, my = (bell * x).sum(), (bell * y).sum()
            vx, vy = (bell * (x - mx) ** 2).sum(), (bell * (y - my) ** 2).sum()
            vxy = (bell * (x - mx) * (y - my)).sum()
            alike.append((2 * mx * my + 1e-4) * (2 * vxy + 9e-4) / ((mx**2 + my**2 + 1e-4) * (vx + vy + 9e-4)))
        share = (bell * weight[n][box]).sum()
        total, shares = total + share * (1 - np.mean(alike)), shares + share
    return float(total / shares)


def twin_hybrid(*given: np.ndarray, preset: str = "code", weights: Any = (), over: str = "image_class") -> float:
    first, second, third = weights or {"code": (0.4, 0.2, 0.4), "text": (2, 2, 1)}[preset]
    parts = (twin_bce(*given), twin_dice(*given, over=over, smooth=2e-7), twin_iou(*given, over=over))
    return first * parts[0] + second * parts[1] + third * parts[2]


def twin_smooth_l1(
    raw: np.ndarray, target: np.ndarray, weight: np.ndarray, inside: np.ndarray, beta: float = 0.1
) -> float:
    def at(n: int, r: int, c: int) -> float:
        off = [abs(one) for one in raw[n, :, r, c] - target[n, :, r, c]]
        return float(sum(d * d / (2 * beta) if d < beta else d - beta / 2 for d in off))

    return averaged(at, weight * inside)


def twin_l1(
    raw: np.ndarray, target: np.ndarray, weight: np.ndarray, inside: np.ndarray, background: float = 1e-4
) -> float:
    apart = within = outside = 0.0
    for n, k, r, c in np.ndindex(raw.shape):
        share = weight[n, k, r, c] * inside[n, r, c]
        apart, within = apart + share * abs(raw[n, k, r, c] - target[n, k, r, c]), within + share
        outside += (weight[n, k, r, c] - share) * abs(raw[n, k, r, c])
    return float(apart / within + background * outside / weight.sum())


def twin_mse(
    raw: np.ndarray, target: np.ndarray, weight: np.ndarray, inside: np.ndarray, everywhere: bool = True
) -> float:
    apart = ((raw - target) ** 2).mean(axis=1)
    return averaged(lambda n, r, c: float(apart[n, r, c]), weight if everywhere else weight * inside)


def twin_msge(raw: np.ndarray, target: np.ndarray, weight: np.ndarray, inside: np.ndarray) -> float:
    apart = np.pad((raw - target) * weight[:, None], ((0, 0), (0, 0), (2, 2), (2, 2)))

    def at(n: int, r: int, c: int) -> float:
        across = down = 0.0
        for y, x in np.ndindex(5, 5):
            square = (y - 2) ** 2 + (x - 2) ** 2 or 1
            across += apart[n, 0, r + y, c + x] * (x - 2) / square
            down += apart[n, 1, r + y, c + x] * (y - 2) / square
        return (across**2 + down**2) / 2

    return averaged(at, weight * inside)


TWINS: dict[str, Twin] = {
    "bce": twin_bce,
    "border_bce": twin_border_bce,
    "ce": twin_ce,
    "coarse": twin_coarse,
    "focal": twin_focal,
    "dice": twin_dice,
    "iou": twin_iou,
    "ssim": twin_ssim,
    "tversky": twin_tversky,
    "focal_tversky": twin_focal_tversky,
    "border_bce_dice": twin_border_bce_dice,
    "bce_dice": lambda *given: (twin_bce(*given) + twin_dice(*given)) / 2,
    "bce_iou": lambda *given: (twin_bce(*given) + twin_iou(*given)) / 2,
    "basnet": lambda *given: (twin_bce(*given) + twin_ssim(*given) + twin_iou(*given)) / 3,
    "hybrid": twin_hybrid,
    "smooth_l1": twin_smooth_l1,
    "l1": twin_l1,
    "mse": twin_mse,
    "msge": twin_msge,
}
CHANNELS = dict.fromkeys(TWINS, (1, 3)) | {"ce": (3,), "coarse": (3,), "smooth_l1": (2,), "l1": (4,), "msge": (2,)}
EACH = [(name, channels) for name in TWINS for channels in CHANNELS[name]]
CHANGED: list[tuple[str, dict[str, Any]]] = [
    ("border_bce", {"border": 5.0}),
    ("focal", {"alpha": 0.3, "gamma": 5.0}),
    *(("dice", {"over": over, "smooth": 0.001}) for over in ("batch", "class", "image", "image_class")),
    *(("iou", {"over": over}) for over in ("class", "image", "image_class")),
    ("dice", {"background": False}),
    ("iou", {"background": False, "over": "image"}),
    ("tversky", {"alpha": 0.6, "beta": 0.2, "over": "image_class"}),
    ("focal_tversky", {"alpha": 0.5, "beta": 0.5, "gamma": 0.75}),
    ("border_bce_dice", {"border": 7.0, "window": 5, "smooth": 0.1}),
    *(("hybrid", {"preset": preset, "over": over}) for preset in ("code", "text") for over in ("batch", "class")),
    ("hybrid", {"weights": (1.0, 0.0, 3.0)}),
    ("smooth_l1", {"beta": 1.0}),
    ("l1", {"background": 0.3}),
    ("mse", {"everywhere": False}),
]


def test_every_loss_has_a_twin() -> None:
    assert TWINS.keys() == LOSSES.keys()


@pytest.mark.parametrize(("name", "channels"), EACH)
@pytest.mark.parametrize("seed", range(2))
def test_a_loss_is_its_twin(name: str, channels: int, seed: int) -> None:
    given = case(name, channels, seed)
    assert float(LOSSES[name](*given)) == pytest.approx(TWINS[name](*arrays(given)), rel=2e-5)


@pytest.mark.parametrize(("name", "options"), CHANGED)
def test_a_loss_with_options_is_its_twin(name: str, options: dict[str, Any]) -> None:
    given = case(name, max(CHANNELS[name]), seed=5)
    value = float(LOSSES[name](*given, **options))
    assert value == pytest.approx(TWINS[name](*arrays(given), **options), rel=2e-5)


@pytest.mark.parametrize(("name", "channels"), EACH)
def test_pixels_without_weight_count_for_nothing_and_get_no_gradient(name: str, channels: int) -> None:
    raw, target, weight, *more = case(name, channels, seed=2)
    silent = weight == 0 if weight.ndim == 4 else (weight == 0)[:, None].expand_as(raw)
    changed = torch.where(silent, raw.flip(1) + 5, raw).requires_grad_()
    loss = LOSSES[name](changed, target, weight, *more)
    loss.backward()  # type: ignore[no-untyped-call]
    assert float(loss.detach()) == pytest.approx(float(LOSSES[name](raw, target, weight, *more)), rel=1e-5)
    assert changed.grad is not None
    assert (changed.grad[silent] == 0).all()
    assert (changed.grad[~silent] != 0).any()


@pytest.mark.parametrize(("name", "channels"), EACH)
@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_losses_and_gradients_of_extreme_half_precision_heads_are_finite(
    name: str, channels: int, kind: torch.dtype
) -> None:
    raw, *given = case(name, channels, seed=3, spread=2e4 if LOSSES[name] not in vars(vectors).values() else 50)
    half = raw.clamp(-6e4, 6e4).to(kind).requires_grad_()
    loss = LOSSES[name](half, *given)
    loss.backward()  # type: ignore[no-untyped-call]
    assert half.grad is not None
    assert loss.dtype == torch.float32
    assert torch.isfinite(loss)
    assert torch.isfinite(half.grad).all()


@pytest.mark.parametrize(("name", "channels"), EACH)
@pytest.mark.parametrize("level", [0.0, 1.0])
@pytest.mark.parametrize("spread", [0.0, 2.0, 200.0])
def test_empty_and_full_targets_cost_something_finite(name: str, channels: int, level: float, spread: float) -> None:
    raw, target, weight, *more = case(name, channels, seed=4, spread=spread)
    flat = [torch.full_like(one, bool(level) if one.dtype == torch.bool else level) for one in (target, *more)]
    raw.requires_grad_()
    loss = LOSSES[name](raw, flat[0], weight, *flat[1:])
    loss.backward()  # type: ignore[no-untyped-call]
    assert raw.grad is not None
    assert torch.isfinite(loss)
    assert torch.isfinite(raw.grad).all()
    assert float(loss.detach()) >= -1e-6


@pytest.mark.parametrize(("name", "channels"), EACH)
def test_a_batch_without_anything_to_learn_costs_nothing(name: str, channels: int) -> None:
    raw, target, weight, *more = case(name, channels, seed=4)
    raw.requires_grad_()
    loss = LOSSES[name](raw, torch.zeros_like(target), torch.zeros_like(weight), *more)
    loss.backward()  # type: ignore[no-untyped-call]
    assert raw.grad is not None
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
    assert (raw.grad == 0).all()


@pytest.mark.parametrize("name", [name for name in TWINS if name not in ("coarse", "ce")])
def test_what_is_right_costs_next_to_nothing_and_what_is_wrong_more(name: str) -> None:
    channels = CHANNELS[name][0]
    _, target, weight, *more = case(name, channels, seed=6)
    sure = target if LOSSES[name] in vars(vectors).values() else 40 * (2 * target - 1)
    right, wrong = (float(LOSSES[name](one, target, weight, *more, **still(name))) for one in (sure, -sure))
    assert right == pytest.approx(0, abs=1e-3)
    assert wrong > right + 0.1


def still(name: str) -> dict[str, float]:
    return {"background": 0.0} if name == "l1" else {}


def test_empty_target_and_empty_head_have_an_iou_of_1() -> None:
    raw, target, weight = case("iou", 1, seed=0)
    for name in ("iou", "dice", "bce_iou", "tversky"):
        loss = LOSSES[name](torch.full_like(raw, -60.0), torch.zeros_like(target), weight)
        assert float(loss) == pytest.approx(0, abs=1e-6)


LOGITS = torch.tensor([[[[2.0, 0], [0, 1]], [[0, 2], [1, 0]], [[0, 0], [2, 0]]]])
TRUTH = torch.nn.functional.one_hot(torch.tensor([[[0, 1], [2, 0]]]), 3).movedim(-1, 1).float()
EVEN = torch.ones(1, 2, 2)


@pytest.mark.parametrize(
    ("over", "parts", "code", "text"),
    [
        ("batch", (0.2283330, 0.2961675, 0.4569896), 0.3333625, 1.5059905),
        ("image_class", (0.2283330, 0.3092904, 0.4697092), 0.3410750, 1.5449559),
    ],
)
def test_the_hybrid_loss_has_its_golden_values(
    over: regions.Over, parts: tuple[float, ...], code: float, text: float
) -> None:
    given = (LOGITS, TRUTH, EVEN)
    found = (
        pixels.bce(*given),
        regions.dice(*given, over=over, smooth=2e-7),
        regions.iou(*given, over=over),
    )
    assert [round(float(part), 7) for part in found] == pytest.approx(parts, abs=1.5e-7)
    assert float(mixtures.hybrid(*given, over=over)) == pytest.approx(code, abs=1.5e-7)
    assert float(mixtures.hybrid(*given, over=over, preset="text")) == pytest.approx(text, abs=6e-7)
    fifth = mixtures.hybrid(*given, over=over, weights=(0.4, 0.4, 0.2))
    assert float(fifth) == pytest.approx({"batch": 0.3011981, "image_class": 0.3089912}[over], abs=1.5e-7)


@pytest.mark.parametrize(("channel", "golden"), [*enumerate((0.2341345, 0.3302711, 0.3634656))])
def test_dice_of_each_class_has_its_golden_value(channel: int, golden: float) -> None:
    chance = torch.softmax(LOGITS, dim=1)[:, channel, None]
    logit = torch.log(chance / (1 - chance))
    assert float(regions.dice(logit, TRUTH[:, channel, None], EVEN, smooth=2e-7)) == pytest.approx(golden, abs=2e-7)


def test_dice_pooled_over_classes_is_the_accuracy_of_pixels_and_one_without_background_is_not() -> None:
    truth = torch.zeros(1, 3, 10, 10)
    truth[:, 0, 1:], truth[:, 1, 0] = 1, 1  # nine tenths are background
    blind = torch.zeros(1, 3, 10, 10)
    blind[:, 0] = 60.0
    weight = torch.ones(1, 10, 10)
    assert float(regions.dice(blind, truth, weight, over="image", smooth=1e-6)) == pytest.approx(0.1, abs=1e-5)
    assert float(regions.dice(blind, truth, weight, background=False, smooth=1e-6)) == pytest.approx(1, abs=1e-5)


def test_gradients_of_maps_are_taken_along_the_direction_they_measure() -> None:
    columns = torch.arange(9.0).expand(9, 9)
    level = torch.zeros(1, 2, 9, 9)
    middle = torch.zeros(1, 9, 9)
    middle[:, 2:-2, 2:-2] = 1
    everywhere = torch.ones(1, 9, 9)

    def loss(horizontal: Tensor, vertical: Tensor) -> float:
        return float(vectors.msge(torch.stack([horizontal, vertical])[None], level, everywhere, middle))

    assert loss(columns.T, columns) < 1e-9  # each is constant along its own direction
    assert loss(columns, columns.T) > 1


def test_a_window_of_structure_must_fit() -> None:
    given = (torch.zeros(1, 1, 10, 20), torch.zeros(1, 1, 10, 20), torch.ones(1, 10, 20))
    with pytest.raises(ShapeError, match="at least 11 by 11"):
        regions.ssim(*given)
    with pytest.raises(ShapeError, match="odd"):
        regions.border_bce_dice(*given, window=4)
    with pytest.raises(ShapeError, match="1 channels, wanted 2"):
        vectors.msge(*given, torch.ones(1, 10, 20))


def test_a_coarse_label_is_the_sum_of_its_classes() -> None:
    raw = torch.tensor([0.3, 0.3, 0.4]).log().reshape(1, 3, 1, 1)

    def loss(*allowed: int) -> float:
        return float(pixels.coarse(raw, torch.tensor(allowed).reshape(1, 3, 1, 1) > 0, torch.ones(1, 1, 1)))

    assert loss(1, 1, 0) == pytest.approx(-log(0.6), rel=1e-5)
    assert loss(0, 0, 1) == pytest.approx(-log(0.4), rel=1e-5)
    assert loss(1, 1, 1) == pytest.approx(0, abs=1e-6)


def test_borders_count_twice() -> None:
    raw, ones = torch.tensor([[[[2.0, -1.0]]]]), torch.ones(1, 1, 1, 2)
    plain = pixels.border_bce(raw, ones, ones[0], torch.zeros(1, 1, 2))
    rim = pixels.border_bce(raw, ones, ones[0], torch.tensor([[[1.0, 0.0]]]))
    easy, hard = log1p(exp(-2.0)), log1p(exp(1.0))
    assert float(plain) == float(pixels.bce(raw, ones, ones[0])) == pytest.approx((easy + hard) / 2)
    assert float(rim) == pytest.approx((2 * easy + hard) / 3)


@pytest.mark.parametrize("name", [name for name in TWINS if name != "coarse"])
def test_a_loss_stays_on_the_device_of_its_head(name: str) -> None:
    """A tensor made elsewhere would meet those of the meta device here, and those of a graphics processor there."""
    given = [one.to("meta") for one in case(name, max(CHANNELS[name]), seed=0)]
    assert LOSSES[name](*given).device.type == "meta"


def test_structural_similarity_is_that_of_scikit_image() -> None:
    metrics = pytest.importorskip("skimage.metrics", reason="scikit-image is not installed")
    rng = np.random.default_rng(0)
    raw, truth = torch.tensor(rng.normal(0, 2, (1, 1, 40, 33))), (rng.random((40, 33)) < 0.4).astype(float)
    found = 1 - float(regions.ssim(raw, torch.tensor(truth)[None, None].float(), torch.ones(1, 40, 33)))
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    wanted = metrics.structural_similarity(torch.sigmoid(raw)[0, 0].numpy(), truth, **settings)
    assert found == pytest.approx(wanted, abs=1e-5)
