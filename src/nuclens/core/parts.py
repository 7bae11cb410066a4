"""Results in parts: nuclei of a slide pass from tiles to files without ever being in memory together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from nuclens.core.errors import InputError
from nuclens.core.types import Instances, concatenate


class InParts:
    """What formats have in common whose files are written in parts."""

    __slots__ = ()

    def write(self, path: Path, instances: Instances) -> None:
        """Write a whole result; errors are those of `write_parts`."""
        self.write_parts(path, [instances])

    def write_parts(self, path: Path, parts: Iterable[Instances]) -> None:
        """Write a result that comes in parts."""
        raise NotImplementedError


def rechunked(parts: Iterable[Instances], rows: int) -> Iterator[Instances]:
    """The same nuclei in the same order, in pieces of `rows`, the last of which may have fewer.

    There is at least one piece, which is empty where there are no nuclei. In
    memory are one piece and the parts it is made of; pieces may share memory
    with these.

    Args:
        parts: One result, cut anywhere; the first part tells frame, types, measurements and metadata of all.
        rows: Nuclei per piece, at least 1.

    Raises:
        InputError: There are no parts, or they differ in frame, types or measurements.

    Example:
        >>> from nuclens.core.types import Frame, no_instances
        >>> [len(piece) for piece in rechunked([no_instances(Frame(5, 5, None))] * 3, 100)]
        [0]
    """
    first: Instances | None = None
    waiting: list[Instances] = []
    count, written = 0, False
    for part in parts:
        if first is None:
            first = part[:0]
        _need_alike(first, part)
        if len(part):
            waiting.append(part)
            count += len(part)
        if count >= rows:
            joined = replace(concatenate(waiting), metadata=first.metadata)
            for start in range(0, count - rows + 1, rows):
                yield joined[start : start + rows]
            count, written = count % rows, True
            waiting = [joined[len(joined) - count :]] if count else []
    if first is None:
        raise InputError("rechunked: got no parts; wanted at least one (it may be empty)")
    if waiting or not written:
        yield replace(concatenate(waiting or [first]), metadata=first.metadata)


def _need_alike(first: Instances, part: Instances) -> None:
    """Check that a part is of the same result as the first; an empty one need not have its measurements."""
    same = part.frame == first.frame and part.schema == first.schema
    if not same or (len(part) and list(part.measurements) != list(first.measurements)):
        raise InputError("parts of a result differ in frame, types or measurements; wanted those of the first in all")
