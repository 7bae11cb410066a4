"""Packages that only an extra brings: imported where they are used, so that everything else works without them."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from nuclens.core.errors import MissingExtraError


@contextmanager
def brought_by(extra: str, wanted_by: object) -> Iterator[None]:
    """A block of imports that an extra makes possible.

    Args:
        extra: Its name.
        wanted_by: A file, an option or a module, with which the error begins.

    Raises:
        MissingExtraError: One of the packages is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("nuclens"):
            raise
        raise MissingExtraError(f"{wanted_by}: {_remedy(error.name, extra)}") from error


def optional(module: str, extra: str) -> Any:
    """An imported module of a package that the light installation lacks.

    Raises:
        MissingExtraError: It is not installed.

    Example:
        >>> optional("json", "none").dumps([1])
        '[1]'
    """
    with brought_by(extra, module):
        return importlib.import_module(module)


def need_extra(name: str, plugin: Any) -> None:
    """Check, before work begins, that what a plug-in `needs` is installed.

    Raises:
        MissingExtraError: It is not; the text names the `extra`.
    """
    if importlib.util.find_spec(getattr(plugin, "needs", "nuclens")) is None:
        raise MissingExtraError(f"{name}: {_remedy(plugin.needs, plugin.extra)}")


def _remedy(package: str, extra: str) -> str:
    return f"needs {package!r}, which is not installed; `pip install 'nuclens[{extra}]'` brings it"
