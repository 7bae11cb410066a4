"""Short JSON texts, as files carry them inside; without what parses large ones, which a bare machine may lack."""

from __future__ import annotations

import json
import re
from typing import Any

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]|\xed[\xa0-\xbf]")  # escaped, or as it is


def decode_json(text: str | bytes) -> Any:
    """What a short text says, bare NaN and Infinity included.

    Raises:
        ValueError: It is no JSON, is nested more deeply than Python follows, or has half of a surrogate pair, which no
            file takes.

    Example:
        >>> decode_json('{"a": [1, null]}')
        {'a': [1, None]}
    """
    try:
        found = json.loads(text)
        if _SURROGATE.search(text if isinstance(text, bytes) else text.encode(errors="surrogatepass")):
            json.dumps(found, ensure_ascii=False).encode()
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    except UnicodeEncodeError as error:
        raise ValueError("a text that is no Unicode") from error
    return found
