"""The tree of errors is the one its page shows."""

from __future__ import annotations

import re

import pytest

from nuclens.core import errors
from nuclens.core.errors import InputError, NuclensError

CLASSES = {
    name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, NuclensError)
}
LINE = re.compile(r"^([│├└─ ]*)(\w+)(?: \((\w+)\))?(?: +(\d))?", re.MULTILINE)


def drawn() -> dict[str, tuple[str, str | None, int]]:
    """Parent, built-in base and exit code of every class, as the module's docstring draws them."""
    tree: dict[str, tuple[str, str | None, int]] = {}
    path: list[tuple[str, int]] = [("Exception", 1)]
    for indent, name, base, code in LINE.findall((errors.__doc__ or "").partition("\n\n")[2]):
        if not name.startswith("Nuclens") and not indent:
            continue
        path = path[: len(indent) // 4 + 1]
        parent, inherited = path[-1]
        path.append((name, int(code or inherited)))
        tree[name] = (parent, base or None, path[-1][1])
    return tree


def test_the_drawing_has_every_class() -> None:
    assert set(drawn()) == set(CLASSES)


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_is_where_it_is_drawn(name: str) -> None:
    parent, base, code = drawn()[name]
    assert CLASSES[name].__bases__[0].__name__ == parent
    assert [kind.__name__ for kind in CLASSES[name].__bases__[1:]] == [base] * (base is not None)
    assert CLASSES[name].exit_code == code


def test_messages_are_shown_as_they_are() -> None:
    for kind in CLASSES.values():
        assert str(kind("a.png: got this; wanted that")) == "a.png: got this; wanted that"


def test_usual_habits_of_catching_stay_true() -> None:
    with pytest.raises(ValueError, match="wrong"):
        raise InputError("wrong")


@pytest.mark.parametrize("name", CLASSES)
def test_an_error_reaches_another_process(name: str) -> None:
    """Packed as Dask packs it, with the traceback."""
    dask_pickle = pytest.importorskip("distributed.protocol.pickle", reason="Dask is not installed")
    try:
        raise CLASSES[name]("got this, wanted that")
    except NuclensError as error:
        arrived = dask_pickle.loads(dask_pickle.dumps(error))
    assert (type(arrived), str(arrived)) == (CLASSES[name], "got this, wanted that")
