"""Bounds of settings, which recipes are checked by; settings themselves stay plain numbers."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

Number = TypeVar("Number", int, float)
NOTHING_ELSE = {"extra": "forbid"}  # read where recipes are checked: a misspelt setting is a fault


class Range:
    """Bounds of a number, under pydantic's names: `gt`, `ge`, `lt`, `le`; read where recipes are checked."""

    def __init__(self, **bounds: float) -> None:
        self.bounds = bounds

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> dict[str, Any]:
        """The number's own schema with the bounds added; pydantic asks for it by this name."""
        return {**handler(source), **self.bounds}


Positive = Annotated[Number, Range(gt=0)]
NotNegative = Annotated[Number, Range(ge=0)]
Share = Annotated[float, Range(ge=0, le=1)]
Grey = Annotated[int, Range(ge=0, le=255)]
