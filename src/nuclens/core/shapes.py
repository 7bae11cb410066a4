"""Shapes of parsed JSON: what a file of ours must look like before anything in it is used."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

Shape: TypeAlias = "type | tuple[Shape, ...] | list[Shape] | dict[Any, Shape] | None"
_MOST = 2**53  # up to it a float holds every integer, as do the readers of others


def fits(value: Any, shape: Shape) -> bool:
    """Whether a value has a shape.

    Args:
        value: As JSON gives it.
        shape: A type stands for its values: texts that UTF-8 can hold, integers up to 2**53, finite floats and
            such integers, `object` for anything. None stands for itself, a tuple for any one of its shapes. A list
            of one shape takes any number of them, one of several just these. A dictionary takes these keys and any
            others; one that ends in "?" may be absent, and the key `str` stands for all.

    Example:
        >>> fits({"nuclei": 3, "more": []}, {"nuclei": int, "mpp?": (float, None)}), fits([1, "2"], [int])
        (True, False)
    """
    if isinstance(shape, tuple):
        return any(fits(value, one) for one in shape)
    if isinstance(shape, list):
        shapes = shape * len(value) if isinstance(value, list) and len(shape) == 1 else shape
        return isinstance(value, list) and len(value) == len(shapes) and all(map(fits, value, shapes))
    if isinstance(shape, dict):
        return isinstance(value, dict) and all(_has(value, key, one) for key, one in shape.items())
    if shape is None or shape is object:
        return shape is object or value is None
    if shape is str:
        return isinstance(value, str) and not any("\ud800" <= sign <= "\udfff" for sign in value)
    if isinstance(value, bool) or shape is bool:
        return isinstance(value, bool) and shape is bool
    if isinstance(value, int):
        return shape in (int, float) and abs(value) <= _MOST
    return shape is float and isinstance(value, float) and math.isfinite(value)


def _has(value: dict[str, Any], key: Any, shape: Shape) -> bool:
    """Whether what a dictionary has under a key fits."""
    if key is str:
        return all(fits(name, str) and fits(one, shape) for name, one in value.items())
    name = key.removesuffix("?")
    return fits(value[name], shape) if name in value else name != key
