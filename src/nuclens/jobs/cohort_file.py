"""The CSV of a cohort: one slide per row, with what is known of it; all faults of the file are told at once."""

from __future__ import annotations

import csv
import difflib
import io
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from nuclens.core.errors import InputError
from nuclens.core.plan import MPP_RANGE
from nuclens.core.urls import shown, url_of
from nuclens.jobs.names import NAME_BYTES, folder_name, is_ours, written
from nuclens.jobs.pictures import REGION

SUFFIXES = (".csv", ".tsv")
PATIENT, GROUP = "patient", "group"
MAX_BYTES = 1 << 26
_KNOWN = ("path", "mpp", PATIENT, GROUP, "name", "tissue", "region")
_OURS = ("path", "mpp", "name", "tissue", "region")  # what a row says to us; the rest is carried through
_DELIMITERS = ",;\t"
_LISTED = 50  # faults that are told one by one
_NAME = re.compile(r"[^./\\\x00-\x1f][^/\\\x00-\x1f]*")


@dataclass(frozen=True, slots=True)
class Entry:
    """One input of a call.

    Attributes:
        path: A file, or a URL with what it takes to open it.
        name: Of the folder of its results.
        mpp: Micrometres per pixel, None for what the call or the file says.
        tissue: As of `Area`, empty for what the call says.
        region: As of `Area`, empty for what the call says.
        facts: What a cohort's file says of it, by column: patient, group and all that is not ours.
        cohort: That file, empty where there is none.
    """

    path: str | Path
    name: str
    mpp: float | None = None
    tissue: str = ""
    region: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    cohort: str = ""


@dataclass(slots=True)
class _Faults:
    """What is wrong with a file, by line and column."""

    path: Path
    found: list[tuple[int, str]] = field(default_factory=list)

    def add(self, line: int, column: str, said: str) -> None:
        self.found.append((line, f"line {line}{f', {column}' if column else ''}: {said}"))

    def tell(self) -> None:
        """Raise, if there are any."""
        if self.found:
            more = len(self.found) - _LISTED
            told = [said for _, said in sorted(self.found, key=lambda fault: fault[0])]
            lines = [*told[:_LISTED], *([f"and {more} more"] if more > 0 else [])]
            raise InputError("\n  ".join([f"{self.path}: no table of slides that can be used:", *lines]))


def stem_of(path: str | Path) -> str:
    """Name of the folder of an input's results where nobody gives another."""
    return folder_name(shown(path))


def read_cohort(path: Path) -> list[Entry]:
    """The slides of a cohort; paths count from the file's folder.

    Comma, semicolon or tab part the columns, as spreadsheets write them; a
    decimal comma is taken where the comma does not part columns.

    Raises:
        InputError: The file cannot be read, or has faults; the text has all of them, a line each.
    """
    faults = _Faults(path)
    text = _text(path, faults)
    faults.tell()
    delimiter = _delimiter(text)
    (line, header), *rows = _without_spare(list(_rows(text, delimiter, faults)) or [(1, [])])
    columns = [_plain(name) for name in header]
    if not _is_header(columns, line, faults):
        faults.tell()
    entries: list[tuple[int, Entry]] = []
    for line, cells in rows:
        if any(cells[len(columns) :]):
            faults.add(
                line, "", f"got {len(cells)} fields, wanted {len(columns)}; quote a field that holds {delimiter!r}"
            )
            continue
        row = dict(zip(columns, [*cells, *[""] * len(columns)], strict=False))
        if entry := _entry(row, line, path, faults, decimal_comma=delimiter != ","):
            entries.append((line, entry))
    if not entries and not faults.found:
        faults.add(1, "", "got no slide; wanted one in each line below the heading")
    _check_unique(entries, faults)
    faults.tell()
    return [entry for _, entry in entries]


def _text(path: Path, faults: _Faults) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise InputError(
                f"{path}: {path.stat().st_size:,} bytes; of a table of slides at most {MAX_BYTES:,} are read"
            )
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; wanted a CSV with a column called path") from error
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        got = "UTF-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else f"the byte {content[error.start]:#04x}"
        faults.add(line, "", f"got {got}, wanted UTF-8; in a spreadsheet save as 'CSV UTF-8'")
        return ""


def _delimiter(text: str) -> str:
    """What parts the columns: the first sign by which the heading has one called path, else the commonest."""
    lines = (line for line in text.splitlines() if line.strip())
    first = next(lines, "")
    if first.lower().startswith("sep=") and first[4:] in tuple(_DELIMITERS):  # a spreadsheet's own mark
        return first[4:]
    for delimiter in _DELIMITERS:
        with suppress(csv.Error):  # told with its line, when all are read
            if "path" in [_plain(cell) for cell in next(csv.reader([first], delimiter=delimiter), [])]:
                return delimiter
    return max(_DELIMITERS, key=first.count)


def _rows(text: str, delimiter: str, faults: _Faults) -> Iterator[tuple[int, list[str]]]:
    """Line and cells of every row that is not empty."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    began = 1
    while True:
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            faults.add(began, "", f"no CSV from here on ({error}); save the table again")
            return
        mark = began == 1 and [cell.lower() for cell in cells[:1]] in (["sep="], [f"sep={delimiter}"])
        if any(cell.strip() for cell in cells) and not mark:
            yield began, [cell.strip() for cell in cells]
        began = reader.line_num + 1


def _without_spare(rows: list[tuple[int, list[str]]]) -> list[tuple[int, list[str]]]:
    """Rows without the empty columns that spreadsheets write beside a table: they have neither a name nor a value."""
    used = {k for _, cells in rows for k, cell in enumerate(cells) if cell}
    return [(line, [cell for k, cell in enumerate(cells) if k in used]) for line, cells in rows]


def _plain(name: str) -> str:
    """A column's name; those we know in lower case."""
    return name.strip().lower() if name.strip().lower() in _KNOWN else name.strip()


def _is_header(columns: list[str], line: int, faults: _Faults) -> bool:
    """Whether rows can be read by it."""
    before = len(faults.found)
    if "path" not in columns:
        near = difflib.get_close_matches("path", [name.lower() for name in columns])
        hint = f"; is it {near[0]!r}?" if near else ""
        said = f"got the columns {', '.join(filter(None, columns)) or 'none'}, wanted one called path{hint}"
        faults.add(line, "", said)
    for name in dict.fromkeys(columns):
        if columns.count(name) > 1:
            what = f"{columns.count(name)} columns {name!r}" if name else "columns without a name"
            faults.add(line, name, f"got {what}, wanted each name once")
    return len(faults.found) == before


def _entry(row: dict[str, str], line: int, file: Path, faults: _Faults, *, decimal_comma: bool) -> Entry | None:
    before = len(faults.found)
    if not row["path"]:
        faults.add(line, "path", "got nothing, wanted a slide's file")
    for column in _OURS:
        if "\0" in row.get(column, ""):
            faults.add(line, column, "got a NUL character, wanted text; save the table again")
            return None
    mpp = _number(row.get("mpp", ""), line, faults, decimal_comma=decimal_comma)
    if (region := row.get("region", "")) and not REGION.fullmatch(region):
        faults.add(line, "region", f"got {region!r}, wanted x,y,width,height in quotes, as 0,0,500,500um")
    try:
        source = _placed(row["path"], file)
        name = row.get("name") or stem_of(source)
    except InputError as error:
        faults.add(line, "path", str(error))
        return None
    if len(name.encode()) > NAME_BYTES or (row["path"] and not _NAME.fullmatch(name)):
        wanted = f"a folder's name of at most {NAME_BYTES} bytes, without / and without a dot at its beginning"
        faults.add(line, "name", f"got {name:.40}, wanted {wanted}")
    elif is_ours(name):
        faults.add(line, "name", f"got {name}, which the run writes itself; wanted another in a column name")
    tissue = row.get("tissue", "")
    if len(faults.found) > before:
        return None
    return Entry(
        path=source,
        name=name,
        mpp=mpp,
        tissue=tissue if tissue in ("", "auto", "none") else str(_placed(tissue, file)),
        region=region,
        facts={column: cell for column, cell in row.items() if column and column not in _OURS},
        cohort=written(file.resolve()),
    )


def _placed(path: str, file: Path) -> str | Path:
    return url_of(path) or file.parent / path


def _number(text: str, line: int, faults: _Faults, *, decimal_comma: bool) -> float | None:
    if not text:
        return None
    least, most = MPP_RANGE
    try:
        value = float(text.replace(",", ".") if decimal_comma else text)
    except ValueError:
        value = math.nan
    if least <= value <= most:
        return value
    faults.add(
        line, "mpp", f"got {text!r}, wanted micrometres per pixel, {least:g} to {most:g}: 0.25 for 40x, 0.5 for 20x"
    )
    return None


def _check_unique(entries: list[tuple[int, Entry]], faults: _Faults) -> None:
    paths: dict[str, int] = {}
    names: dict[str, tuple[int, Entry]] = {}
    for line, entry in entries:
        place = str(entry.path)  # with the query of a URL, which may be all that tells two slides apart
        if place in paths:
            faults.add(line, "path", f"got {shown(place)}, which line {paths[place]} has too; wanted each slide once")
            continue
        paths[place] = line
        first, other = names.setdefault(entry.name, (line, entry))
        if other is not entry:
            whose = f"the name of {shown(other.path)} in line {first} too"
            said = f"got {entry.name!r}, {whose}; wanted another in a column name"
            faults.add(line, "name", said)
