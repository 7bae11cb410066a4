"""Plug-ins by name: a module of a kind's folder that holds a `PLUGIN` is a plug-in of that name.

A module whose name begins with an underscore is what several plug-ins share, and none itself.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Generic, TypeVar

from nuclens.core.errors import MissingExtraError, PluginClashError, UnknownPluginError

P = TypeVar("P")


@dataclass(frozen=True)
class Kind(Generic[P]):
    """A kind of plug-in; listing its names imports none of them, and looks for them once.

    Attributes:
        package: Dotted name of the folder, and of the entry-point group for other packages.
    """

    package: str

    def names(self) -> tuple[str, ...]:
        """All names, sorted.

        Raises:
            PluginClashError: Another package offers a name that is taken.
        """
        return tuple(sorted(self._sources))

    def get(self, name: str) -> P:
        """The plug-in of that name.

        Raises:
            UnknownPluginError: There is none; near names are listed.
            MissingExtraError: It needs a package that is not installed.
        """
        if name not in self._sources:
            near = difflib.get_close_matches(name, self._sources, n=3) or sorted(self._sources)
            kind = self.package.rpartition(".")[2]
            raise UnknownPluginError(f"{kind}: no {name!r}; did you mean {', '.join(near)}?")
        source = self._sources[name]
        try:
            module: Any = importlib.import_module(source) if isinstance(source, str) else source.load()
        except ModuleNotFoundError as error:
            if error.name is None or error.name.startswith("nuclens"):
                raise
            raise MissingExtraError(
                f"{self.package}.{name} needs {error.name!r}, which is not installed; "
                f"`pip install 'nuclens[train]'` brings everything that trains, `nuclens doctor` lists the rest"
            ) from error
        plugin: P = module.PLUGIN
        return plugin

    @cached_property
    def _sources(self) -> dict[str, str | EntryPoint]:
        # Reading what every installed package offers takes milliseconds, and pictures ask again and again.
        folder = importlib.import_module(self.package)
        found: dict[str, str | EntryPoint] = {
            info.name: f"{self.package}.{info.name}"
            for info in pkgutil.iter_modules(folder.__path__)
            if not info.name.startswith("_")
        }
        for point in entry_points(group=self.package):
            if point.name in found:
                raise PluginClashError(
                    f"{self.package}: {point.value} offers {point.name!r}, which {found[point.name]} already is; "
                    f"uninstall one of the two"
                )
            found[point.name] = point
        return found
