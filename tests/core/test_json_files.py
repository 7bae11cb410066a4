from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nuclens.core.json_files import decode_json, save_json, save_json_pieces


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


@pytest.mark.parametrize("text", ["", "{", b"\xff", "[" * 100_000 + "]" * 100_000, '["\\ud800"]', '{"\ud800": 1}'])
def test_what_is_no_json_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_json(text)


def test_a_surrogate_pair_is_a_letter() -> None:
    assert decode_json(r'["\ud83d\udd2c"]') == decode_json('["\U0001f52c"]') == ["\U0001f52c"]
