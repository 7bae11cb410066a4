from __future__ import annotations

import pytest

from nuclens.core.json_texts import decode_json


@pytest.mark.parametrize("text", ["", "{", b"\xff", "[" * 100_000 + "]" * 100_000, '["\\ud800"]', '{"\ud800": 1}'])
def test_what_is_no_json_is_a_value_error(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        decode_json(text)


def test_a_surrogate_pair_is_a_letter() -> None:
    assert decode_json(r'["\ud83d\udd2c"]') == decode_json('["\U0001f52c"]') == ["\U0001f52c"]
