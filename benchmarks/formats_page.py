"""Writes the table of formats in docs/formats.md from the formats themselves.

python benchmarks/formats_page.py

What a format says of itself is taken from it; what it also reads and whose it is stays as the page has it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from nuclens.core.suffixes import FORMATS

PAGE = Path(__file__).parent.parent / "docs" / "formats.md"
HEAD = ("name", "suffix", "extra", "piece by piece", "also read", "whose", "lost on reading back")


def main() -> None:
    PAGE.write_text(rewritten(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def rewritten(page: str) -> str:
    """The page with a new table in the place of the old one; formats it lacks come last, without words on whose."""
    lines = page.splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith("| name | suffix |"))
    end = begin + next(number for number, line in enumerate(lines[begin:]) if not line.startswith("|"))
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[begin:end]]
    titles = cells[0]
    words = {row[0].strip("`"): dict(zip(titles, row, strict=True)) for row in cells[2:]}
    names = [name for name in words if name in FORMATS.names()]
    names += [name for name in FORMATS.names() if name not in words]
    table = [HEAD, ("---",) * len(HEAD), *(row(name, words.get(name, {})) for name in names)]
    lines[begin:end] = [f"| {' | '.join(one)} |".replace("|  |", "| |").replace("|  |", "| |") for one in table]
    return "\n".join(lines) + "\n"


def row(name: str, words: dict[str, str]) -> tuple[str, ...]:
    """What stands in the line of a format."""
    plugin: Any = FORMATS.get(name)
    extra = getattr(plugin, "extra", "")
    pieces = [done for done, how in (("written", "write_parts"), ("read", "parts")) if hasattr(plugin, how)]
    lost = ", ".join(plugin.lost) or "nothing"
    return (
        f"`{name}`",
        f"`{plugin.suffix}`",
        f"`{extra}`" if extra else "",
        ", ".join(pieces),
        words.get("also read", ""),
        words.get("whose", ""),
        lost if hasattr(plugin, "read") else "all, is not read",
    )


if __name__ == "__main__":
    main()
