"""Settings of the augmentation, and the presets that recipes begin with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from nuclens.training.ranges import NOTHING_ELSE, NotNegative, Positive, Range, Share

MIN_SIGMA, MAX_QUALITY = 0.3, 95


@dataclass(frozen=True, slots=True)
class AugmentSettings:
    """Ranges of the augmentation; 0 switches a part off.

    Attributes:
        turn: Share of crops turned by any angle and scaled; the others only by right angles, which keeps them sharp.
        scale: Largest relative enlargement or shrinking.
        stain: Relative jitter of each stain's optical density.
        stain_shift: Absolute jitter of each stain's optical density.
        brightness: Relative jitter of all pixel values.
        blur: Share of crops blurred.
        blur_sigma: Largest blur, pixels; the smallest is `MIN_SIGMA`.
        noise: Largest standard deviation of noise, grey levels.
        jpeg: Share of crops sent through JPEG.
        jpeg_quality: Lowest quality; the highest is `MAX_QUALITY`.
        symmetry: Right angles and flips that every crop may get: "all" eight, the four "flips", or "none".
        angle: Largest angle of those turned by any, degrees.
        shear: Largest shear of those turned, as a slope.
        elastic: Share of crops with elastic distortion.
        elastic_px: Standard deviation of its ways, pixels.
        elastic_spacing: Distance of its nodes, pixels.
        grid: Share of crops with grid distortion.
        grid_cells: Cells along a side.
        grid_limit: Largest way of a node, in cells.
        lens: Largest barrel or pincushion distortion, in half crops at a side's middle.
        gamma: Relative jitter of the exponent of pixel values.
        contrast: Relative jitter of the distance to the mean grey.
        saturation: Relative jitter of the distance to grey.
        hue: Largest turn of colours, in whole turns.
        sharpen: Share of crops sharpened.
        restain: Share of crops given the look of another training image.
        restain_by: Whether its "macenko" stains or its "reinhard" tones.
        dab: Share of crops made to look like hematoxylin and DAB.
    """

    turn: Share = 0.5
    scale: Share = 0.25
    stain: Share = 0.3
    stain_shift: Share = 0.05
    brightness: Share = 0.1
    blur: Share = 0.2
    blur_sigma: Annotated[float, Range(ge=MIN_SIGMA)] = 1.5
    noise: NotNegative[float] = 6.0
    jpeg: Share = 0.2
    jpeg_quality: Annotated[int, Range(ge=1, le=MAX_QUALITY)] = 40
    symmetry: Literal["all", "flips", "none"] = "all"
    angle: Annotated[float, Range(ge=0, le=180)] = 180.0
    shear: Share = 0.0
    elastic: Share = 0.0
    elastic_px: NotNegative[float] = 4.0
    elastic_spacing: Annotated[float, Range(ge=4)] = 32.0
    grid: Share = 0.0
    grid_cells: Positive[int] = 5
    grid_limit: Annotated[float, Range(ge=0, le=0.5)] = 0.2
    lens: Annotated[float, Range(ge=0, le=0.5)] = 0.0
    gamma: Share = 0.0
    contrast: Share = 0.0
    saturation: Share = 0.0
    hue: Annotated[float, Range(ge=0, le=0.5)] = 0.0
    sharpen: Share = 0.0
    restain: Share = 0.0
    restain_by: Literal["macenko", "reinhard"] = "macenko"
    dab: Share = 0.0

    __pydantic_config__ = NOTHING_ELSE


# Settings that a recipe's `augment.preset` stands for; others in the same table are put over them.
_OFF = {"turn": 0.0, "scale": 0.0, "stain": 0.0, "stain_shift": 0.0, "brightness": 0.0}
_OFF |= {"blur": 0.0, "noise": 0.0, "jpeg": 0.0}
_PLACES = {"turn": 0.5, "scale": 0.3, "shear": 0.1, "elastic": 0.3, "grid": 0.2}
_TONES = {"brightness": 0.15, "gamma": 0.2, "contrast": 0.2, "saturation": 0.2, "hue": 0.03, "restain": 0.2}
PRESETS: dict[str, dict[str, Any]] = {
    "default": {},
    "none": {**_OFF, "symmetry": "none"},
    "flips": {**_OFF, "symmetry": "flips"},
    "strong": {**_PLACES, **_TONES, "stain": 0.35, "stain_shift": 0.06, "blur": 0.2, "sharpen": 0.1, "noise": 8.0},
}
