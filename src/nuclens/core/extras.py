"""Packages that only an extra brings: imported where they are used, so that everything else works without them."""

from __future__ import annotations

import importlib
from typing import Any

from nuclens.core.errors import MissingExtraError


def optional(module: str, extra: str) -> Any:
    """An imported module of a package that the light installation lacks.

    Raises:
        MissingExtraError: It is not installed.

    Example:
        >>> optional("json", "none").dumps([1])
        '[1]'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("nuclens"):
            raise
        raise MissingExtraError(
            f"{module}: needs {error.name!r}, which is not installed; `pip install 'nuclens[{extra}]'` brings it"
        ) from error
