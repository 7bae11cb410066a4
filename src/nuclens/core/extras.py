"""Packages that only an extra brings: imported where they are used, so that everything else works without them."""

from __future__ import annotations

import importlib
import importlib.util
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


def need_extra(name: str, plugin: Any) -> None:
    """Check, before work begins, that what a plug-in `needs` is installed.

    Raises:
        MissingExtraError: It is not; the text names the `extra`.
    """
    if importlib.util.find_spec(getattr(plugin, "needs", "nuclens")) is None:
        raise MissingExtraError(
            f"{name}: needs {plugin.needs!r}, which is not installed; `pip install 'nuclens[{plugin.extra}]'` brings it"
        )
