from __future__ import annotations

import pytest

from nuclens.core.vocabulary import Vocabulary, vocabulary
from nuclens.datasets.consep import CARD as CONSEP

PANNUKE = ("neoplastic", "inflammatory", "connective", "dead", "epithelial")
GENERIC = tuple(f"type {k}" for k in range(1, 6))


def test_spelling_does_not_matter_and_numbers_count() -> None:
    words = Vocabulary(("Healthy epithelial", "other"))
    assert words.ids(["OTHER", "healthy_epithelial", "stroma", "2", "3", "0"]).tolist() == [0, 2, 1, 0, 2, 0, 0]


def test_a_name_that_is_a_number_is_that_name() -> None:
    assert Vocabulary(("2", "1")).ids(["1", "2"]).tolist() == [0, 2, 1]


@pytest.mark.parametrize(
    ("predicted", "published", "names"),
    [
        (("neoplastic", "inflammatory", "connective", "epithelial"), PANNUKE, PANNUKE),
        (("neoplastic", "inflammatory", "connective", "epithelial"), GENERIC,
         ("inflammatory", "epithelial", "neoplastic", "connective")),
        (("epithelial", "spindle-shaped", "inflammatory", "miscellaneous"), GENERIC,
         ("miscellaneous", "inflammatory", "epithelial", "spindle-shaped")),
        ((), GENERIC, ("miscellaneous", "inflammatory", "epithelial", "spindle-shaped")),
        ((), PANNUKE, PANNUKE),
    ],
)  # fmt: skip
def test_consep_is_named_in_the_words_of_the_prediction(
    predicted: tuple[str, ...], published: tuple[str, ...], names: tuple[str, ...]
) -> None:
    found = vocabulary(CONSEP.schema.names, CONSEP.merged, predicted, published)
    assert found.names == names
    assert found.ids(CONSEP.schema.names)[0] == 0
    if "neoplastic" in names:
        assert found.means("malignant epithelial") == "neoplastic"
        assert found.means("other") is None


def test_every_merged_name_of_a_card_is_of_one_of_its_types() -> None:
    for way in CONSEP.merged.values():
        assert set(way) <= set(CONSEP.schema.names)


def test_own_names_stay_where_nothing_is_merged() -> None:
    found = vocabulary(("a", "b"), {}, ("B", "c"), PANNUKE)
    assert (found.names, found.means("b"), found.means("c")) == (("a", "b"), "b", None)
