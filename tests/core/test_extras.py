from __future__ import annotations

from types import SimpleNamespace

import pytest

from nuclens.core.errors import MissingExtraError
from nuclens.core.extras import need_extra, optional


def test_what_is_there_is_imported() -> None:
    assert optional("math", "none").tau > 6


def test_what_is_not_there_names_the_extra() -> None:
    with pytest.raises(MissingExtraError) as caught:
        optional("no_such_package.part", "one")
    assert str(caught.value) == (
        "no_such_package.part: needs 'no_such_package', which is not installed; `pip install 'nuclens[one]'` brings it"
    )


def test_a_fault_of_ours_is_not_called_missing() -> None:
    with pytest.raises(ModuleNotFoundError) as caught:
        optional("nuclens.no_such_module", "none")
    assert not isinstance(caught.value, MissingExtraError)


def test_what_a_plugin_needs_is_looked_for_before_it_is_used() -> None:
    need_extra("plain", object())
    need_extra("there", SimpleNamespace(needs="json", extra="one"))
    with pytest.raises(MissingExtraError, match=r"absent: needs 'no_such_package'.*nuclens\[one\]"):
        need_extra("absent", SimpleNamespace(needs="no_such_package", extra="one"))
