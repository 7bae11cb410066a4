from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nuclens.core.json_files import save_json, save_json_pieces


@pytest.mark.parametrize("entry", [
    [[1, 2], [], [3]], [[]], [[], [4], []],
    [{"a": 1}, {}, {"b": [2]}], [{}],
])  # fmt: skip
@pytest.mark.parametrize("head", [{}, {"x": None, "y": "ä"}])
@pytest.mark.parametrize("tail", [{}, {"z": [1.5]}])
def test_pieces_give_the_bytes_of_the_whole(
    entry: list[Any], head: dict[str, Any], tail: dict[str, Any], tmp_path: Path
) -> None:
    whole: Any = type(entry[0])()
    for piece in entry:
        whole = whole + piece if isinstance(piece, list) else whole | piece
    save_json_pieces(tmp_path / "a.json", head, "the entry", iter(entry), lambda: tail)
    save_json(tmp_path / "b.json", head | {"the entry": whole} | tail)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    save_json_pieces(tmp_path / "a.json", {}, "", iter(entry))
    assert json.loads((tmp_path / "a.json").read_bytes()) == whole
