from __future__ import annotations

import pytest

from nuclens.core.errors import MissingExtraError
from nuclens.core.extras import optional


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
