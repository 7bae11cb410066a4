"""A plain table as Parquet, for programs that read no CSV well."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from nuclens.core.files import replacing


def write_parquet(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """Write columns of equal length; None and NaN become null, a column of nothing else is one of text.

    Raises:
        OutputError: The file cannot be written.
    """
    arrays = {}
    for name, values in columns.items():
        plain = [None if isinstance(value, float) and not math.isfinite(value) else value for value in values]
        known = [value for value in plain if value is not None]
        kind = pa.string() if not known else pa.float64() if any(isinstance(value, float) for value in known) else None
        arrays[name] = pa.array(plain, kind)
    with replacing(path) as temporary:
        pq.write_table(pa.table(arrays), temporary, compression="zstd")
