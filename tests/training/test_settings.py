from __future__ import annotations

import json
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as effort
from hypothesis import strategies as st

from nuclens.core.card import DatasetNote
from nuclens.core.errors import CheckpointError, InputError
from nuclens.core.planes import COUNTS

pytest.importorskip("nuclens.training", exc_type=ImportError)

from nuclens.training import augment_settings, settings
from nuclens.training.augment_settings import AugmentSettings
from nuclens.training.settings import ResolvedRecipe, from_plain

texts = st.text('aµ"', max_size=3)
numbers = st.floats(0, 10, allow_nan=False)
names = st.lists(texts, max_size=3).map(tuple)
types = st.builds(settings.TypeSettings, texts, st.tuples(*[st.integers(0, 255)] * 3), names)
data = st.builds(
    settings.DataSettings,
    path=texts,
    share=numbers,
    leaves=st.dictionaries(texts, names, max_size=2),
    outlined=st.booleans(),
    exclude=names,
    validate=names,
)
recipes = st.builds(
    ResolvedRecipe,
    name=texts,
    mpp=st.none() | numbers,
    planes=st.sampled_from([*COUNTS]),
    network=texts,
    network_options=st.dictionaries(texts, names | st.integers() | st.booleans(), max_size=2),
    encoding=texts,
    encoding_options=st.dictionaries(texts, st.none() | texts, max_size=2),
    leaves=names,
    types=st.lists(types, max_size=2).map(tuple),
    data=st.lists(data, max_size=2).map(tuple),
    losses=st.dictionaries(texts, numbers, max_size=2),
    loss_options=st.dictionaries(texts, st.dictionaries(texts, st.booleans() | st.just((1.0, 2.0))), max_size=2),
    schedule_options=st.dictionaries(texts, st.integers() | st.just((3, 4)), max_size=2),
    optimiser_options=st.dictionaries(texts, st.booleans(), max_size=2),
    train=st.builds(settings.TrainSettings, steps=st.integers(1), rate=numbers),
    about=st.builds(
        settings.AboutSettings,
        description=texts,
        datasets=st.lists(st.builds(DatasetNote, texts, texts, texts, texts), max_size=2).map(tuple),
        metrics=st.dictionaries(texts, numbers, max_size=2),
    ),
)


@effort(max_examples=25)
@given(recipes)
def test_a_recipe_survives_json(recipe: ResolvedRecipe) -> None:
    again = from_plain(ResolvedRecipe, json.loads(recipe.to_json()))
    assert again == recipe
    assert again.digest == recipe.digest
    assert again.to_json() == recipe.to_json()


def test_a_saved_recipe_is_read_back(tiny_recipe: ResolvedRecipe, tmp_path: Path) -> None:
    (tmp_path / settings.RECIPE).write_text(tiny_recipe.to_json(), encoding="utf-8")
    assert settings.recipe_of(tmp_path) == tiny_recipe


def test_unknown_keys_are_left_out_and_absent_ones_have_defaults(tiny_recipe: ResolvedRecipe) -> None:
    plain = json.loads(tiny_recipe.to_json())
    plain["colour"] = plain["train"]["momentum"] = 3
    del plain["augment"], plain["train"]["decay"]
    assert from_plain(ResolvedRecipe, plain) == tiny_recipe


def test_whole_numbers_of_json_become_floats_where_floats_belong(tiny_recipe: ResolvedRecipe) -> None:
    plain = json.loads(tiny_recipe.to_json())
    plain["mpp"] = plain["train"]["rate"] = plain["losses"]["nucleus_dice"] = 1
    recipe = from_plain(ResolvedRecipe, plain)
    assert type(recipe.mpp) is type(recipe.train.rate) is type(recipe.losses["nucleus_dice"]) is float
    assert type(recipe.train.steps) is int


@pytest.mark.parametrize("text", ["", "[]", "3", '{"name": "x"}', '{"name"'])
def test_a_broken_recipe_is_told_with_its_path(text: str, tmp_path: Path) -> None:
    (tmp_path / settings.RECIPE).write_text(text, encoding="utf-8")
    with pytest.raises(CheckpointError, match=r"recipe\.json: no saved recipe") as raised:
        settings.recipe_of(tmp_path)
    assert str(tmp_path) in str(raised.value)


def test_a_folder_without_recipe_is_told() -> None:
    with pytest.raises(CheckpointError, match="nowhere"):
        settings.recipe_of(Path("nowhere"))


def test_the_digest_covers_what_decides_the_weights_and_nothing_else(tiny_recipe: ResolvedRecipe) -> None:
    train = tiny_recipe.train
    free = [
        replace(tiny_recipe, train=replace(train, steps=999, save_every=7)),
        replace(tiny_recipe, about=settings.AboutSettings(description="another")),
        replace(tiny_recipe, encoding_options={"threshold": 100}),
    ]
    deciding = [
        replace(tiny_recipe, train=replace(train, seed=8)),
        replace(tiny_recipe, train=replace(train, rate=1e-4)),
        replace(tiny_recipe, train=replace(train, clip_by="value")),
        replace(tiny_recipe, train=replace(train, balance="type")),
        replace(tiny_recipe, losses={**tiny_recipe.losses, "type_coarse": 0.25}),
        replace(tiny_recipe, loss_options={"nucleus_dice": {"smooth": 0.1}}),
        replace(tiny_recipe, schedule="cosine", schedule_options={"length": 20}),
        replace(tiny_recipe, optimiser="sgd"),
        replace(tiny_recipe, optimiser_options={"epsilon": 1e-7}),
        replace(tiny_recipe, augment=AugmentSettings(noise=0.0)),
        replace(tiny_recipe, data=(replace(tiny_recipe.data[0], exclude=()),)),
        replace(tiny_recipe, network_options={}),
        replace(tiny_recipe, planes="grey"),
        replace(tiny_recipe, mpp=None),
        replace(tiny_recipe, tissues=("Nose", "Ear")),
        replace(tiny_recipe, tissues=("Ear", "Nose")),
        replace(tiny_recipe, data=(replace(tiny_recipe.data[0], random_test=0.2),)),
        replace(tiny_recipe, data=(replace(tiny_recipe.data[0], random_validate=0.2),)),
    ]
    assert {recipe.digest for recipe in free} == {tiny_recipe.digest}
    saved = json.loads(tiny_recipe.to_json())
    for name in ("random_validate", "random_test"):
        del saved["data"][0][name]
    del saved["tissues"]
    before = settings.from_plain(ResolvedRecipe, saved)
    assert before.digest == tiny_recipe.digest, "runs from before these settings go on"
    assert len({tiny_recipe.digest, *(recipe.digest for recipe in deciding)}) == len(deciding) + 1


def test_later_additions_do_not_change_the_digests_of_runs_before_them(tiny_recipe: ResolvedRecipe) -> None:
    """This one was computed before there were planes."""
    assert tiny_recipe.digest == "3e2722b613e328a5e8a94a56216ad29a29f45f0ab9d73ee55dabedeb387e326b"


def test_retelling_changes_decoder_and_card_only(tiny_recipe: ResolvedRecipe) -> None:
    about = settings.AboutSettings(version="2")
    other = replace(tiny_recipe, about=about, encoding_options={"peak": 1.0}, mpp=0.5, name="other")
    assert tiny_recipe.retold(other) == replace(tiny_recipe, about=about, encoding_options={"peak": 1.0})


def test_the_schema_has_the_leaves_and_types_of_the_recipe(tiny_recipe: ResolvedRecipe) -> None:
    schema = tiny_recipe.schema
    assert schema.leaves == ("round", "long")
    assert [(kind.name, kind.leaves) for kind in schema.types] == [("round", (0,)), ("long", (1,))]
    twice = replace(tiny_recipe, types=(tiny_recipe.types[0],) * 2)
    with pytest.raises(InputError, match="same name"):
        twice.schema  # noqa: B018


def test_settings_are_frozen_and_forbid_what_they_do_not_know() -> None:
    kinds = {**vars(settings), **vars(augment_settings)}.values()
    modules = (settings.__name__, augment_settings.__name__)
    own = [kind for kind in kinds if isinstance(kind, type) and is_dataclass(kind) and kind.__module__ in modules]
    assert len(own) == 7
    for kind in own:
        assert vars(kind)["__pydantic_config__"] == {"extra": "forbid"}
        assert vars(kind)["__dataclass_params__"].frozen
        assert "__slots__" in vars(kind)


def test_defaults_are_the_plain_types_they_are_annotated_with() -> None:
    for kind in (settings.TrainSettings, AugmentSettings):
        assert asdict(kind()) == {field.name: field.default for field in fields(kind)}
