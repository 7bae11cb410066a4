"""The table of a cohort: what every slide and every group has, from the records alone; no slide is read again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nuclens.core.census import NO_TYPE, QUANTILES
from nuclens.core.errors import InputError
from nuclens.core.files import replacing
from nuclens.core.groups import ALL, Estimate, Unit, densities, fractions, median_areas, units_of
from nuclens.core.types import AREA
from nuclens.jobs.cohort_file import GROUP, PATIENT, Entry
from nuclens.jobs.names import GROUPS, PAGE, TABLE, TABLES
from nuclens.jobs.standing import NOT_YET, entries_of, standing
from nuclens.report.cohort import CohortPage, Left, cohort_page
from nuclens.report.parquet import write_parquet
from nuclens.report.tables import write_rows

_NONE = "(none)"
_ALIKE = 1.1  # ratio of two resolutions of the same magnification
# What programs write where a cell of theirs is empty; read by us, one patient of that name.
_ABSENT = ("na", "n/a", "#n/a", "nan", "null")


@dataclass(frozen=True, slots=True, eq=False)
class Slide:
    """A slide of a cohort and what became of it.

    Attributes:
        entry: As its row says.
        record: What its `run.json` says; empty where it is not done.
        reason: Why it is not in the numbers; empty where it is.
        state: "done", "left out", "failed" or "waiting".
    """

    entry: Entry
    record: dict[str, Any]
    reason: str = ""
    state: str = "done"

    def told(self, column: str) -> str:
        """What the cohort's file says in a column; nothing where it says that nobody knows."""
        cell = self.entry.facts.get(column, "")
        return "" if cell.lower() in _ABSENT else cell


@dataclass(frozen=True, slots=True, eq=False)
class Cohort:
    """What was written.

    Attributes:
        slides: All, in their order.
        files: Names of the files.
        groups: Names of the groups.
    """

    slides: tuple[Slide, ...]
    files: tuple[str, ...]
    groups: tuple[str, ...]


def write_cohort(out: Path, by: str = GROUP) -> Cohort:
    """Write the tables and the page of all slides of a folder of results.

    `cohort.csv` and `cohort.parquet` have a row for each slide,
    `cohort_groups.csv` and `.parquet` one for each group and quantity,
    `cohort.html` shows both.

    Args:
        out: The folder.
        by: Column of the cohort's file whose values are the groups; of slides without it all are one group.

    Raises:
        InputError: There are no results, or no slide has such a column.
        OutputError: A file cannot be written.
    """
    slides = _slides(out)
    if not slides:
        raise InputError(f"{out}: no results of `nuclens segment`; wanted its --out")
    columns = list(dict.fromkeys(column for slide in slides for column in slide.entry.facts))
    if by not in columns and by != GROUP:
        raise InputError(f"{out}: no slide has a column {by!r}; there are {', '.join(columns) or 'none'}")
    done = [slide for slide in slides if not slide.reason]
    types = _types(done)
    rows = [_row(slide, columns, types) for slide in slides]
    grouped = [(slide, slide.told(by) or (_NONE if by in columns else ALL)) for slide in done]
    units = units_of(
        [(slide.entry.name, group, slide.told(PATIENT), slide.record["counts"]) for slide, group in grouped], types
    )
    groups = list(dict.fromkeys(sorted(unit.group for unit in units)))
    estimates = [one for group in groups for one in _quantities([unit for unit in units if unit.group == group], types)]
    _write_table(out / TABLE, list(rows[0]), rows)
    _write_table(out / GROUPS, _GROUP_COLUMNS, [_estimate_row(*one) for one in estimates])
    page = CohortPage(
        name=_title(out, slides),
        by=by if by in columns else "",
        types=types,
        colors=_colors(done),
        units=units,
        estimates=estimates,
        slides={slide.entry.name: (group, slide.told(PATIENT), slide.record) for slide, group in grouped},
        left=[Left(slide.entry.name, slide.state, slide.reason) for slide in slides if slide.reason],
        unlike=_unlike(done),
    )
    with replacing(out / PAGE) as path:
        path.write_text(cohort_page(page), encoding="utf-8", errors="backslashreplace")
    return Cohort(tuple(slides), (PAGE, *TABLES), tuple(groups))


def _slides(out: Path) -> list[Slide]:
    """Every slide with its record, or why it has none; of several models only the commonest counts."""
    found = []
    for entry in entries_of(out):
        stands = standing(out / entry.name, entry)
        slide = Slide(entry, stands.record, stands.reason)
        if stands.reason:
            state = "failed" if stands.failed else "waiting" if stands.reason == NOT_YET else "left out"
            slide = replace(slide, state=state)
        elif "counts" not in stands.record:
            old = "made by an older nuclens, which kept no counts; give --overwrite"
            slide = replace(slide, reason=old, state="left out")
        found.append(slide)
    models = Counter(slide.record["request"]["model"] for slide in found if not slide.reason)
    if len(models) < 2:
        return found
    [(commonest, _)] = models.most_common(1)
    other = "made with another model than most; types of different models do not add up"
    return [
        replace(slide, reason=other, state="left out")
        if not slide.reason and slide.record["request"]["model"] != commonest
        else slide
        for slide in found
    ]


def _title(out: Path, slides: Sequence[Slide]) -> str:
    """What the cohort's file is called, where there is one; else the folder."""
    names = {Path(slide.entry.cohort).stem for slide in slides}
    return names.pop() if len(names) == 1 and names != {""} else out.resolve().name


def _unlike(slides: Sequence[Slide]) -> list[str]:
    """In what slides were not made alike, of what moves their numbers."""
    requests = [slide.record["request"] for slide in slides]
    # A region or a mask of its own is nothing that slides could share.
    seen: dict[str, set[Any]] = {"region": {bool(one.get("region")) for one in requests}}
    seen["tissue"] = {one.get("tissue") if one.get("tissue") in ("auto", "none") else "mask" for one in requests}
    seen |= {name: {str(one.get(name)) for one in requests} for name in ("tile_size", "engine", "precision")}
    found = [name for name, values in seen.items() if len(values) > 1]
    mpp = [slide.record["mpp"] for slide in slides if slide.record["mpp"]]
    return [*(["mpp"] if mpp and max(mpp) > _ALIKE * min(mpp) else []), *found]


def _types(slides: Sequence[Slide]) -> list[str]:
    """Names of all types, in the model's order; what has no type comes last."""
    names = dict.fromkeys(name for slide in slides for name in slide.record["counts"]["types"])
    return [*(name for name in names if name != NO_TYPE), *([NO_TYPE] if NO_TYPE in names else [])]


def _colors(slides: Sequence[Slide]) -> dict[str, tuple[int, ...]]:
    kinds = {name: kind for slide in slides for name, kind in slide.record["counts"]["types"].items()}
    return {name: tuple(kind["color"]) for name, kind in kinds.items()}


def _row(slide: Slide, columns: Sequence[str], types: Sequence[str]) -> dict[str, Any]:
    """A slide as a row; None stands for what is not known."""
    record, counted = slide.record, not slide.reason
    counts = record["counts"] if counted else {"types": {}, "measurements": {}}
    area = counts["measurements"].get(AREA, {})
    row: dict[str, Any] = {
        "name": slide.entry.name,
        "path": str(slide.entry.path),
        "status": slide.state,
        "nuclei": counts.get("nuclei"),
        "tissue_mm2": counts.get("tissue_mm2"),
        "per_mm2": counts.get("per_mm2"),
    }
    for name in types:
        kind = counts["types"].get(name, {})
        # A type that a record does not name is one of which it counted none.
        row[f"nuclei: {name}"] = kind.get("nuclei", 0 if counted else None)
        row[f"fraction: {name}"] = kind.get("fraction", 0.0 if counts.get("nuclei") else None)
        row[f"per_mm2: {name}"] = kind.get("per_mm2", None if counts.get("per_mm2") is None else 0.0)
    row |= {f"area_um2_{quantile}": area.get(quantile) for quantile in ("mean", *QUANTILES)}
    for name in types:
        row[f"area_um2_median: {name}"] = (
            counts["types"].get(name, {}).get("measurements", {}).get(AREA, {}).get("median")
        )
    row |= {
        "mpp": record.get("mpp"),
        "tissue": record.get("tissue"),
        "unreadable_tiles": len(record["unreadable"]) if record else None,
    }
    row["message"] = slide.reason or "; ".join(record["warnings"])
    # Columns of the cohort's file come after the status, under their own names unless ours have them.
    facts: dict[str, Any] = {}
    for column in columns:
        called = column
        while called in row or called in facts or (called != column and called in columns):
            called = f"given {called}"
        facts[called] = slide.entry.facts.get(column, "")
    first = ("name", "path", "status")
    return {name: row[name] for name in first} | facts | {name: row[name] for name in row if name not in first}


def _quantities(units: Sequence[Unit], types: Sequence[str]) -> Iterator[tuple[str, str, str, Estimate]]:
    """Group, quantity, type and estimate of all that is told of a group."""
    group = units[0].group
    yield group, "per_mm2", "", densities(units)
    if len(types) > 1:
        for kind, name in enumerate(types):
            yield group, "per_mm2", name, densities(units, kind)
        for kind, name in enumerate(types):
            yield group, "fraction", name, fractions(units, kind)
    yield group, "median_area_um2", "", median_areas(units)


_GROUP_COLUMNS = ("group", "quantity", "type", "units", "mean", "sd", "low_95", "high_95", "pooled")


def _estimate_row(group: str, quantity: str, kind: str, found: Estimate) -> dict[str, Any]:
    values = (found.units, found.mean, found.sd, found.low, found.high, found.pooled)
    return dict(zip(_GROUP_COLUMNS, (group, quantity, kind, *map(_rounded, values)), strict=True))


def _rounded(value: float) -> float:
    return value if isinstance(value, int) else float(f"{value:.6g}")


def _write_table(path: Path, header: Sequence[str], rows: Sequence[dict[str, Any]]) -> None:
    """The same table as CSV and as Parquet."""
    lines = (tuple("" if row[name] is None else row[name] for name in header) for row in rows)
    write_rows(path.with_name(f"{path.name}.csv"), header, lines)
    write_parquet(path.with_name(f"{path.name}.parquet"), {name: [row[name] for row in rows] for name in header})
