"""Published numbers to stand beside one's own, with where each is from."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any


@dataclass(frozen=True, slots=True)
class Row:
    """What is published of one system.

    Attributes:
        system: Its name.
        values: In the order of the table's names, NaN where none is published.
        mark: How it is known: a key of `marks()`.
        remark: What else to know.
    """

    system: str
    values: tuple[float, ...]
    mark: str
    remark: str


@dataclass(frozen=True, slots=True)
class Published:
    """The published table of a protocol.

    Attributes:
        dataset: That its numbers are about.
        about: Images and averaging of all rows.
        names: Of the values, as the protocol calls them.
        rows: Systems, the best of the first value last.
    """

    dataset: str
    about: str
    names: tuple[str, ...]
    rows: tuple[Row, ...]


def published(protocol: str) -> Published | None:
    """The table of a protocol, None where there is none.

    Example:
        >>> published("monuseg").names
        ('AJI', 'PQ', 'Dice')
    """
    found = _file().get(protocol)
    if found is None or protocol == "marks":
        return None
    count = len(found["names"])
    rows = (Row(row[0], tuple(map(float, row[1 : count + 1])), row[-2], row[-1]) for row in found["rows"])
    return Published(found["dataset"], found["about"], tuple(found["names"]), tuple(rows))


def marks() -> dict[str, str]:
    """What each mark says of how a number is known."""
    return dict(_file()["marks"])


@cache
def _file() -> dict[str, Any]:
    return tomllib.loads(resources.files("nuclens.report").joinpath("published.toml").read_text(encoding="utf-8"))
