from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from nuclens.core.errors import InputError, RecipeError

pytest.importorskip("nuclens.training", exc_type=ImportError)

from nuclens.recipes import load_recipe
from nuclens.training.augment_settings import PRESETS, AugmentSettings
from nuclens.training.budget import Budget
from nuclens.training.cost import sized
from nuclens.training.schedule import NO_END, schedule_of
from nuclens.training.settings import ResolvedRecipe, from_plain
from nuclens.training.start import heads_of

RECIPES = sorted((Path(__file__).parent.parent / "recipes").glob("*.toml"))
PAGE = Path(__file__).parent.parent / "docs" / "recipes.md"
GOOD = """
name = "cells"
mpp = 0.25
leaves = ["round", "long"]

[[types]]
name = "any"
color = [1, 2, 3]
leaves = ["round", "long"]

[network]
name = "nuclens"
widths = [8, 8, 16, 16]

[encoding]
name = "offset"
peak = 0.5

[losses]
nucleus_bce = 1
type_coarse = 0.5

[[data]]
path = "cells"
leaves.1 = ["round"]

[train]
steps = 10
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "recipe.toml"


def load(path: Path, text: str = GOOD, *changes: str) -> ResolvedRecipe:
    path.write_text(text, encoding="utf-8")
    return load_recipe(path, changes)


def faults(path: Path, text: str, *changes: str) -> list[str]:
    with pytest.raises(RecipeError) as raised:
        load(path, text, *changes)
    heading, *lines = str(raised.value).splitlines()
    assert heading == f"{path}: {len(lines)} fault{'s' if len(lines) > 1 else ''}"
    return [line.strip() for line in lines]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.stem)
def test_shipped_recipes_have_no_faults_and_are_headed_by_their_command(recipe: Path) -> None:
    assert load_recipe(recipe).name == recipe.stem
    head = recipe.read_text(encoding="utf-8")[:1000]
    assert f"nuclens train recipes/{recipe.name}" in head
    assert "# Cost" in head
    assert "# Score" in head


SYSTEMS = (
    "flexible_unet",
    "unet",
    "inception_unet",
    "refinenet",
    "deeplabv3",
    "resunet",
    "vgg11_unet",
    "vgg16_unet",
    "tsfdnet",
)
SOURCED = [recipe for recipe in RECIPES if any(f"_{network}_" in recipe.stem for network in SYSTEMS)]


@pytest.mark.parametrize("recipe", SOURCED, ids=lambda path: path.stem)
def test_recipes_of_published_systems_say_what_they_cost_and_what_was_repaired(recipe: Path) -> None:
    settings, head = load_recipe(recipe), recipe.read_text(encoding="utf-8")
    size, flop = sized(settings.network, settings.network_options, heads_of(settings), settings.train.crop)
    assert f"# Cost      {size:,} parameters" in head
    assert f" {3 * settings.train.batch * flop / 1e12:.3g} TFLOP a step of {settings.train.batch} " in head
    assert "# Repaired" in head
    (row,) = (line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith(f"| `{recipe.stem}` |"))
    assert f"| {size:,} | " in row
    assert settings.about.description
    assert settings.about.limits
    assert settings.about.datasets


# Confirmed by their authors, or counted from their programs; docs/networks.md has the same table.
@pytest.mark.parametrize(("stem", "size"), [
    ("pannuke_unet_semantic", 31_043_846),
    ("pannuke_inception_unet_semantic", 3_686_471),
    ("pannuke_refinenet_semantic", 118_017_862),
    ("pannuke_deeplabv3_semantic", 60_988_492),
    ("pannuke_flexible_unet_semantic", 124_996_934),
    ("dsb2018_flexible_unet_semantic", 124_440_433),
    ("pannuke_tsfdnet_boundary", 21_959_455),
    ("bccd_unet_semantic", 23_381_121),
    ("bccd_unet_semantic_grey", 23_379_969),
    ("bccd_resunet_semantic", 67_383_111),
    ("bccd_resunet_semantic_grey", 67_380_803),
    ("bccd_attention_unet_semantic_grey", 24_394_113),
    ("bccd_vgg11_unet_semantic_grey", 22_926_241),
    ("bccd_vgg16_unet_semantic_grey", 29_305_313),
])  # fmt: skip
def test_networks_are_as_large_as_published(stem: str, size: int) -> None:
    recipe = load_recipe(stem)
    assert sized(recipe.network, recipe.network_options, heads_of(recipe), 64)[0] == size


def test_pannuke_is_learned_from_fold_1_chosen_by_fold_2_and_scored_on_fold_3() -> None:
    official = [recipe for recipe in RECIPES if not recipe.stem.endswith("_random_split")]
    recipes = [load_recipe(recipe) for recipe in official if recipe.stem.startswith("pannuke")]
    assert len(recipes) >= 9
    for recipe in recipes:
        (data,) = recipe.data
        assert (data.dataset, data.split, data.validate_split, data.test_split) == (
            "pannuke",
            "fold1",
            "fold2",
            "fold3",
        )
        assert recipe.train.crop == 256


def test_there_is_a_default_recipe_that_keeps_the_test_patients_out() -> None:
    default = load_recipe(next(recipe for recipe in RECIPES if recipe.stem == "default"))
    tnbc = next(data for data in default.data if data.path == "tnbc")
    assert {"09", "10", "11"} <= set(tnbc.exclude)
    assert not any("test" in data.path for data in default.data)


def test_a_recipe_is_what_its_file_says_and_defaults_elsewhere(path: Path) -> None:
    recipe = load(path)
    assert (recipe.network, recipe.network_options) == ("nuclens", {"widths": (8, 8, 16, 16)})
    assert (recipe.encoding, recipe.encoding_options) == ("offset", {"peak": 0.5})
    assert recipe.losses == {"nucleus_bce": 1.0, "type_coarse": 0.5}
    assert recipe.data[0].leaves == {"1": ("round",)}
    assert recipe.types[0].color == (1, 2, 3)
    assert recipe.train.steps == 10
    assert recipe.augment == AugmentSettings()


@pytest.mark.parametrize("source", [*RECIPES, None])
def test_a_recipe_is_what_a_run_folder_reads_back(path: Path, source: Path | None) -> None:
    recipe = load_recipe(source) if source else load(path)
    assert from_plain(ResolvedRecipe, json.loads(recipe.to_json())) == recipe


def test_all_faults_are_told_at_once_with_their_places(path: Path) -> None:
    bad = """
mpp = -0.25
leaves = ["round"]
name = "x"
[[types]]
name = "any"
color = [1, 2, 300]
leaves = ["square"]
[network]
name = "nuclans"
[encoding]
name = "offset"
peek = 3
peak = "high"
[losses]
nucleus_bce = 1.0
nucleus_foo = 1.0
[[data]]
path = "cells"
dataset = "pak"
share = 0
leaves.lymphocyte = ["round"]
leaves.2 = ["long"]
[train]
stpes = 3
rate = "1e-3"
seed = true
"""
    told = faults(path, bad, "augment.turn=1.5", "train.ema=1.0")
    beginnings = [
        "mpp: should be greater than 0, got -0.25",
        "types.0.color.2: should be less than or equal to 255, got 300",
        "types.0.leaves: no leaf square",
        "networks: no 'nuclans'; did you mean nuclens?",
        "encoding.peek: no such setting; there are threshold",
        "encoding.peak: should be a valid number, got 'high'",
        "losses.nucleus_foo: no such loss; ",
        "datasets: no 'pak'; did you mean pack",
        "data.0.share: should be greater than 0, got 0",
        "data.0.leaves: lymphocyte, 2; wanted the data set's type ids",
        "data.0.leaves.2: no leaf long; there are round",
        "train.stpes: no such setting",
        "train.rate: should be a valid number, got '1e-3'",
        "train.seed: should be a valid integer, got True",
        "augment.turn: should be less than or equal to 1, got 1.5",
        "train.ema: should be less than 1, got 1.0",
    ]
    missing = [beginning for beginning in beginnings if not any(fault.startswith(beginning) for fault in told)]
    assert missing == []
    assert len(told) == len(beginnings)


@pytest.mark.parametrize("number", ["steps", "batch", "crop", "rate", "clip", "save_every"])
@pytest.mark.parametrize("value", [0, -1])
def test_numbers_that_must_be_positive(path: Path, number: str, value: int) -> None:
    assert faults(path, GOOD, f"train.{number}={value}") == [f"train.{number}: should be greater than 0, got {value}"]


@pytest.mark.parametrize(
    "change",
    [
        "train.seed=-1",
        "train.warm_up=-1",
        "train.decay=-0.1",
        "train.ema=-0.1",
        "train.steps=1.5",
        "train.rate=nan",
        "augment.blur_sigma=0.1",
        "augment.jpeg_quality=96",
        "augment.brightness=2",
        "losses.nucleus_bce=-1",
        "network.widths=[8, 8.5]",
        "types=3",
        "data=[]",
        "data=[3, 4, {path='cells'}]",
        "data=[{path='cells', leaves={1='round'}}]",
        "about.datasets=[{name='x'}]",
    ],
)
def test_values_out_of_range_or_of_another_kind(path: Path, change: str) -> None:
    place = change.partition("=")[0]
    assert faults(path, GOOD, change)[0].startswith(place)


def test_what_must_be_there(path: Path) -> None:
    required = {"name", "leaves", "types", "network", "encoding", "losses", "data"}
    assert set(faults(path, "")) == {f"{part}: missing" for part in required}
    assert faults(path, GOOD.replace('name = "nuclens"\n', "")) == ["network: missing"]


def test_a_plug_in_without_options_may_be_just_a_name(path: Path) -> None:
    short = GOOD.replace('[encoding]\nname = "offset"\npeak = 0.5\n', "")
    recipe = load(path, f'encoding = "offset"\n{short}')
    assert (recipe.encoding, recipe.encoding_options) == ("offset", {})


def test_types_that_gather_nothing_or_share_a_name_are_faults(path: Path) -> None:
    kind = 'name = "any"\ncolor = [1, 2, 3]\nleaves = ["round", "long"]\n'
    assert "gathers leaves ()" in faults(path, GOOD.replace(kind, kind.replace('"round", "long"', "")))[0]
    assert "same name" in faults(path, GOOD.replace(kind, f"{kind}[[types]]\n{kind}"))[0]


def test_a_loss_without_its_head_is_a_fault(path: Path) -> None:
    untyped = GOOD.replace('leaves = ["round", "long"]\n\n[[types]]', "leaves = []\ntypes = []\n\n[[unused]]")
    told = faults(path, untyped.replace('leaves.1 = ["round"]', ""))
    assert "losses.type_coarse: teaches 'type', but the heads are nucleus, offset" in told


def test_a_loss_is_a_weight_or_a_table_of_weight_and_options(path: Path) -> None:
    table = GOOD.replace(
        "nucleus_bce = 1", 'nucleus_tversky = { weight = 2.0, alpha = 0.5 }\nnucleus_iou.over = "image"'
    )
    recipe = load(path, table)
    assert recipe.losses == {"nucleus_tversky": 2.0, "nucleus_iou": 1.0, "type_coarse": 0.5}
    assert recipe.loss_options == {"nucleus_tversky": {"alpha": 0.5}, "nucleus_iou": {"over": "image"}}
    assert load(path, table, "losses.nucleus_tversky.weight=3.0").losses["nucleus_tversky"] == 3.0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("losses.nucleus_dise=1", "losses.nucleus_dise: no such loss; did you mean nucleus_dice"),
        ("losses.offset_dice=1", "losses.offset_dice: does not fit 'offset'"),
        ("losses.nucleus_tversky={alpha=-1}", "losses.nucleus_tversky.alpha: should be greater than or equal to 0"),
        ("losses.nucleus_tversky={delta=1}", "losses.nucleus_tversky.delta: no such setting; there are weight, alpha"),
        ("losses.nucleus_dice={over='all'}", "losses.nucleus_dice.over: should be 'batch', 'class'"),
        ("losses.nucleus_hybrid={weights=[1, 2]}", "losses.nucleus_hybrid.weights."),
        ("losses.nucleus_dice={weight='much'}", "losses.nucleus_dice: should be a valid number"),
        ("losses=3", "losses: "),
    ],
)
def test_faults_of_losses_are_told(path: Path, change: str, told: str) -> None:
    assert faults(path, GOOD, change)[0].startswith(told)


TISSUES = """
name = "tissues"
mpp = 0.25
leaves = []
types = []
tissues = ["Breast", "Colon"]
network = "tsfdnet"
encoding = "offset"

[losses]
nucleus_bce = 1
tissue_focal = { weight = 0.5, alpha = 0.3, gamma = 5.0 }

[[data]]
path = "pannuke"
dataset = "pannuke"
"""


def test_a_recipe_may_name_tissues_where_its_network_tells_them(path: Path) -> None:
    recipe = load(path, TISSUES)
    assert recipe.tissues == ("Breast", "Colon")
    assert recipe.loss_options == {"tissue_focal": {"alpha": 0.3, "gamma": 5.0}}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("network='unet'", "tissues: network 'unet' tells none; leave them out, or take one that does"),
        ("tissues=['Breast', 'Colon', 'Breast']", "tissues: Breast more than once"),
        ("tissues=['Breast']", "tissues: only Breast; wanted at least two to tell apart, or none"),
        ("tissues=['Breast', 'Kolon']", "tissues: no Kolon in pannuke; did you mean Colon?"),
        ("tissues=[]", "losses.tissue_focal: teaches 'tissue', but the heads are nucleus, offset"),
        ("losses={nucleus_bce=1, tissue_focal=0}", "tissues: no loss teaches them"),
        ("losses={nucleus_bce=1, tissue_dice=1}", "losses.tissue_dice: does not fit 'tissue'"),
    ],
)
def test_faults_of_tissues_are_told(path: Path, change: str, told: str) -> None:
    assert any(fault.startswith(told) for fault in faults(path, TISSUES, change))


def test_schedule_and_optimiser_are_tables_of_a_name_and_options(path: Path) -> None:
    recipe = load(path)
    assert (recipe.schedule, recipe.schedule_options, recipe.optimiser, recipe.optimiser_options) == (
        *("constant", {}),
        *("adamw", {}),
    )
    text = GOOD + '[schedule]\nname = "restarts"\nfirst = 200\n[optimiser]\nname = "sgd"\nnesterov = true\n'
    recipe = load(path, text, "schedule.factor=2.0")
    assert (recipe.schedule, recipe.schedule_options) == ("restarts", {"first": 200, "factor": 2.0})
    assert (recipe.optimiser, recipe.optimiser_options) == ("sgd", {"nesterov": True})


def test_a_schedule_without_length_is_as_long_as_the_run_was_told_to_be(path: Path) -> None:
    cosine = load(path, GOOD, "schedule='cosine'", "train.warm_up=3")
    assert schedule_of(cosine, None).at(10) == pytest.approx(schedule_of(cosine, None, last=10).at(10)) == 0
    longer = load(path, GOOD, "schedule='cosine'", "train.warm_up=3", "train.steps=20")
    assert longer.digest != cosine.digest, "other rates, other weights"
    assert load(path, GOOD, "train.steps=20").digest == load(path).digest
    assert schedule_of(longer, None).at(10) > 0
    told = load(path, GOOD, "schedule={name='polynomial', length=7}")
    assert schedule_of(told, None, last=20).at(7) == 0
    assert load(path, GOOD, "schedule={name='polynomial', length=7}", "train.steps=20").digest == told.digest


def test_a_schedule_over_a_run_that_only_time_ends_is_refused(path: Path) -> None:
    with pytest.raises(InputError, match=r"give schedule\.length"):
        schedule_of(Budget(minutes=5).over(load(path, GOOD, "schedule='cosine'", "train.warm_up=3")), None)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("schedule='cosin'", "schedule: no 'cosin'; did you mean cosine?"),
        ("schedule='xyz'", "schedule: no 'xyz'; did you mean constant, step, polynomial"),
        ("schedule={name='plateau', patients=4}", "schedule.patients: no such setting; there are patience, factor"),
        ("schedule={name='plateau', factor=1.0}", "schedule.factor: should be less than 1"),
        ("schedule={name='restarts', first=100}", "schedule.first: 100 steps with 100 of warm-up in them"),
        ("schedule='cosine'", "schedule.length: 10 steps with 100 of warm-up in them"),
        ("schedule.first=100", "schedule.first: no such setting"),
        ("schedule=3", "schedule: should be a valid string"),
        ("optimiser='adm'", "optimiser: no 'adm'; did you mean adam?"),
        ("optimiser={name='sgd', momentum=1.0}", "optimiser.momentum: should be less than 1"),
        ("train.clip_by='both'", "train.clip_by: should be 'norm', 'value' or 'nothing'"),
    ],
)
def test_faults_of_schedule_and_optimiser_are_told(path: Path, change: str, told: str) -> None:
    assert any(fault.startswith(told) for fault in faults(path, GOOD, change)), faults(path, GOOD, change)


def test_an_augmentation_may_begin_with_a_preset(path: Path) -> None:
    strong = AugmentSettings(**PRESETS["strong"])
    assert load(path, GOOD, "augment='strong'").augment == strong
    assert load(path, GOOD, "augment.preset='strong'", "augment.noise=1.0").augment == replace(strong, noise=1.0)
    assert load(path, GOOD, "augment.preset='none'").augment.symmetry == "none"


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("augment='strng'", "augment.preset: no 'strng'; there are default, none, flips, strong"),
        ("augment.elastik=0.1", "augment.elastik: no such setting"),
        ("augment.symmetry='six'", "augment.symmetry: should be 'all', 'flips' or 'none'"),
        ("augment=3", "augment.preset: no 3; there are"),
        ("augment.preset=['strong']", "augment.preset: no ['strong']"),
        ("train.balance='organ'", "train.balance: should be 'area', 'tissue' or 'type'"),
    ],
)
def test_faults_of_the_augmentation_are_told(path: Path, change: str, told: str) -> None:
    assert faults(path, GOOD, change)[0].startswith(told)


@pytest.mark.parametrize("losses", ["losses={}", "losses={nucleus_bce=0.0}"])
def test_nothing_to_learn_is_a_fault(path: Path, losses: str) -> None:
    table = GOOD.replace("[losses]\nnucleus_bce = 1\ntype_coarse = 0.5\n", "")
    told = faults(path, f"{losses}\n{table}")
    assert len(told) == 1
    assert told[0].startswith("losses: wanted one weight above 0; names are a head")


def test_changes_replace_what_the_file_says(path: Path) -> None:
    recipe = load(path, GOOD, "train.rate=1e-4", "train.steps=20", 'name="other"', "network.blocks=[1, 1, 1, 1]")
    assert (recipe.train.rate, recipe.train.steps, recipe.name) == (1e-4, 20, "other")
    assert recipe.network_options == {"widths": (8, 8, 16, 16), "blocks": (1, 1, 1, 1)}


def test_the_last_change_wins(path: Path) -> None:
    assert load(path, GOOD, "train.steps=20", "train.steps=30").train.steps == 30


@pytest.mark.parametrize("change", ["train.rate", "train.rate=", "name=cells", "=3"])
def test_a_change_that_is_none_is_told(path: Path, change: str) -> None:
    with pytest.raises(RecipeError, match="not a setting") as raised:
        load(path, GOOD, change)
    assert f"--set {change}:" in str(raised.value)


def test_a_recipe_may_extend_another(path: Path) -> None:
    (path.parent / "base.toml").write_text(GOOD, encoding="utf-8")
    recipe = load(path, 'extends = "base.toml"\nname = "mine"\n[train]\nrate = 1e-4\n[[data]]\npath = "mine"\n')
    assert (recipe.name, recipe.train.rate, recipe.train.steps) == ("mine", 1e-4, 10)
    assert [data.path for data in recipe.data] == ["mine"]
    assert recipe.network_options == {"widths": (8, 8, 16, 16)}


@pytest.mark.parametrize("told", ['[schedule]\nname = "cosine"\nlow = 1e-6\n', 'schedule = "cosine"\n'])
def test_options_stay_with_the_name_they_belong_to(path: Path, told: str) -> None:
    base = 'augment = "strong"\n' + GOOD + '[schedule]\nname = "restarts"\nfirst = 500\n'
    (path.parent / "base.toml").write_text(base, encoding="utf-8")
    beginning = 'extends = "base.toml"\n'
    assert load(path, beginning, "schedule.factor=2.0").schedule_options == {"first": 500, "factor": 2.0}
    other = load(path, beginning + told, "train.warm_up=2")
    assert other.schedule == "cosine"
    assert "first" not in other.schedule_options
    strong = AugmentSettings(**PRESETS["strong"])
    assert load(path, beginning, "augment.noise=1.0").augment == replace(strong, noise=1.0)
    assert load(path, beginning, "augment='flips'").augment == AugmentSettings(**PRESETS["flips"])


def test_an_option_of_a_loss_keeps_its_weight(path: Path) -> None:
    recipe = load(path, GOOD, "losses.type_coarse=0.25", "losses.type_dice={weight=3}", "losses.type_dice.over='image'")
    assert recipe.losses == {"nucleus_bce": 1.0, "type_coarse": 0.25, "type_dice": 3.0}
    assert recipe.loss_options == {"type_dice": {"over": "image"}}


def test_a_base_may_extend_another_and_lie_elsewhere(path: Path) -> None:
    """Every file is found from the folder of the one that names it."""
    (path.parent / "bases").mkdir()
    (path.parent / "bases" / "first.toml").write_text(GOOD, encoding="utf-8")
    second = 'extends = "first.toml"\n[train]\nrate = 1e-4\nbatch = 4\n'
    (path.parent / "bases" / "second.toml").write_text(second, encoding="utf-8")
    recipe = load(path, 'extends = "bases/second.toml"\n[train]\nbatch = 2\n')
    assert (recipe.train.batch, recipe.train.rate, recipe.train.steps) == (2, 1e-4, 10)


@pytest.mark.parametrize("bases", [("recipe",), ("base", "third", "base")])
def test_a_circle_of_extensions_is_told(path: Path, bases: tuple[str, ...]) -> None:
    for file, extended in pairwise(("recipe", *bases)):
        (path.parent / f"{file}.toml").write_text(f'extends = "{extended}.toml"\n{GOOD}', encoding="utf-8")
    with pytest.raises(RecipeError, match=rf"extends itself \(.*{bases[-1]}\.toml\); wanted a chain"):
        load_recipe(path)


def test_a_recipe_that_ends_by_epochs_is_not_cut_short_by_steps_it_does_not_tell(path: Path) -> None:
    without = GOOD.replace("steps = 10\n", "")
    assert load(path, without).train.steps == 20000
    assert load(path, without, "run.epochs=100").train.steps == NO_END
    assert load(path, without, "run.epochs=100", "train.steps=7").train.steps == 7
    assert load(path, GOOD, "run.tflop=100").train.steps == 10


def test_a_missing_base_is_told_with_its_path(path: Path) -> None:
    with pytest.raises(RecipeError, match=r"base\.toml: cannot be read"):
        load(path, 'extends = "base.toml"')


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"nowhere\.toml: cannot be read \(No such file"):
        load_recipe(tmp_path / "nowhere.toml")


@pytest.mark.parametrize("text", ["name: cells", "a = 1\na = 2", "\x00", '{"name": "cells"}'])
def test_what_is_not_toml_is_told_with_its_path(path: Path, text: str) -> None:
    with pytest.raises(RecipeError, match="not TOML") as raised:
        load(path, text)
    assert str(raised.value).startswith(str(path))


def test_bytes_that_are_no_text_are_told(path: Path) -> None:
    path.write_bytes(b'name = "\xff"')
    with pytest.raises(RecipeError, match="not TOML"):
        load_recipe(path)


@pytest.mark.parametrize(("planes", "channels"), [("grey", 1), ("rgb_stains", 6)])
def test_a_network_takes_as_many_channels_as_there_are_planes(path: Path, planes: str, channels: int) -> None:
    recipe = load(path, GOOD, f"planes={planes!r}")
    assert recipe.network_options["channels"] == channels
    assert recipe.preprocessing.channels == channels
    saved = path.with_suffix(".json")
    saved.write_text(recipe.to_json(), encoding="utf-8")
    assert load_recipe(saved) == recipe
    assert load(path, GOOD, f"planes={planes!r}", f"network.channels={channels}") == recipe


def test_colours_are_three_channels_and_not_written_down(path: Path) -> None:
    assert load(path, GOOD, "planes='rgb'") == load(path, GOOD)
    assert "channels" not in load(path, GOOD).network_options


@pytest.mark.parametrize(("planes", "channels", "count"), [("rgb", 1, 3), ("grey", 3, 1), ("rgb_stains", 4, 6)])
def test_channels_that_contradict_the_planes_are_a_fault(path: Path, planes: str, channels: int, count: int) -> None:
    (told,) = faults(path, GOOD, f"planes='{planes}'", f"network.channels={channels}")
    assert told.startswith(
        f"network.channels: {channels}, planes '{planes}' are {count}; leave it out, or choose of rgb (3)"
    )


def test_planes_that_there_are_not_are_a_fault(path: Path) -> None:
    (told,) = faults(path, GOOD, "planes='purple'")
    assert told.startswith("planes: ")
    assert "'grey'" in told


def test_a_recipe_need_not_know_the_resolution(path: Path) -> None:
    assert load(path, GOOD.replace("mpp = 0.25\n", "")).mpp is None
    assert type(load(path, GOOD, "mpp=1").mpp) is float
