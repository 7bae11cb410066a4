from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from nuclens.core import kinds
from nuclens.core.errors import MissingExtraError, PluginClashError, UnknownPluginError
from nuclens.core.kinds import Kind

Offer = Callable[..., None]


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Kind[Any]]:
    """A kind of plug-in of which there are three: one works, one needs what is not there, one is broken.

    A fourth module is shared by plug-ins and none itself.
    """
    folder = tmp_path / "nuclens_test_room"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "_shared.py").touch()
    (folder / "plain.py").write_text("PLUGIN = 'it works'\n", encoding="utf-8")
    (folder / "greedy.py").write_text("import nothing_has_this_name\n", encoding="utf-8")
    (folder / "broken.py").write_text("import nuclens.nothing_has_this_name\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    yield Kind(folder.name)
    for name in [name for name in sys.modules if name.startswith(folder.name)]:
        del sys.modules[name]


@pytest.fixture
def offer(monkeypatch: pytest.MonkeyPatch) -> Offer:
    """Lets another package offer plug-ins."""

    def make(**values: str) -> None:
        points = [EntryPoint(name, value, "nuclens_test_room") for name, value in values.items()]
        monkeypatch.setattr(kinds, "entry_points", lambda group: [p for p in points if p.group == group])

    return make


def test_listing_imports_none(room: Kind[Any]) -> None:
    assert room.names() == ("broken", "greedy", "plain")
    assert not [name for name in sys.modules if name.startswith(f"{room.package}.")]


def test_a_plugin_is_found_by_its_file_name(room: Kind[Any]) -> None:
    assert room.get("plain") == "it works"


def test_unknown_names_list_near_ones(room: Kind[Any]) -> None:
    with pytest.raises(UnknownPluginError, match=r"nuclens_test_room: no 'plane'; did you mean plain\?"):
        room.get("plane")
    with pytest.raises(UnknownPluginError, match="did you mean broken, greedy, plain"):
        room.get("zzz")


def test_a_missing_package_is_told_with_its_remedy(room: Kind[Any]) -> None:
    with pytest.raises(
        MissingExtraError, match=r"greedy needs 'nothing_has_this_name'.*pip install 'nuclens\[train\]'"
    ):
        room.get("greedy")


def test_a_fault_of_our_own_is_no_missing_package(room: Kind[Any]) -> None:
    with pytest.raises(ModuleNotFoundError) as caught:
        room.get("broken")
    assert not isinstance(caught.value, MissingExtraError)


def test_other_packages_offer_plugins(room: Kind[Any], offer: Offer) -> None:
    offer(foreign="nuclens_test_room.plain")
    assert room.names() == ("broken", "foreign", "greedy", "plain")
    assert room.get("foreign") == "it works"


def test_installed_packages_are_asked_once(room: Kind[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def entry_points(group: str) -> list[EntryPoint]:
        asked.append(group)
        return []

    monkeypatch.setattr(kinds, "entry_points", entry_points)
    for _ in range(2):
        assert "plain" in room.names()
        assert room.get("plain") == "it works"
    assert asked == [room.package]


def test_a_taken_name_is_a_clash(room: Kind[Any], offer: Offer) -> None:
    offer(plain="elsewhere.plain")
    for ask in (room.names, lambda: room.get("greedy")):
        with pytest.raises(PluginClashError, match=r"elsewhere\.plain offers 'plain', which nuclens_test_room\.plain"):
            ask()


def test_our_own_rooms() -> None:
    encodings: Kind[Any] = Kind("nuclens.encodings")
    assert "offset" in encodings.names()
    assert encodings.get("offset") is encodings.get("offset")
