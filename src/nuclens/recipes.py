"""Recipes: TOML files, checked with all faults told at once, and resolved into the plain settings training reads."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from functools import reduce
from importlib import resources
from operator import getitem
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from nuclens.core.datasets import DATASETS
from nuclens.core.errors import InputError, RecipeError, UnknownPluginError
from nuclens.core.heads import TISSUE, Head, tissue_heads
from nuclens.core.json_texts import decode_json
from nuclens.core.kinds import Kind
from nuclens.core.planes import COUNTS
from nuclens.training.augment_settings import PRESETS
from nuclens.training.losses import terms
from nuclens.training.optimisers import OPTIMISERS
from nuclens.training.schedule import NO_END, SCHEDULES
from nuclens.training.settings import ResolvedRecipe, from_plain

NETWORKS: Kind[Any] = Kind("nuclens.networks")
ENCODINGS: Kind[Any] = Kind("nuclens.encodings")
_CHECK = TypeAdapter(ResolvedRecipe)
# What a table is short for where it is no table, but a name or a preset alone.
_SHORT = {"network": "name", "encoding": "name", "schedule": "name", "optimiser": "name", "augment": "preset"}
_BOUNDS = ("greater_than", "greater_than_equal", "less_than", "less_than_equal")


def shipped_recipes() -> dict[str, Path]:
    """Files of the recipes that come with the package, by name."""
    package = Path(str(resources.files("nuclens")))
    # Beside the sources as long as they are not packed.
    folders = (package / "shipped", package.parents[1] / "recipes")
    found = next((folder for folder in folders if folder.is_dir()), folders[0])
    return {path.stem: path for path in sorted(found.glob("*.toml"))}


def load_recipe(path: str | Path, changes: Sequence[str] = ()) -> ResolvedRecipe:
    """Read a recipe file.

    Args:
        path: Name of a shipped recipe, or a TOML file; its `extends` names another one, from its folder on, that fills
            what it leaves out, and may itself extend a third. The recipe.json of a run will do too.
        changes: Settings that replace the file's, as `train.rate=1e-3`.

    Raises:
        RecipeError: The file is missing or has faults; all of them are in the text.
    """
    path = shipped_recipes().get(str(path), Path(path))
    plain = _extended(path)
    for change in changes:
        plain = _merged(plain, _parsed(change))
    recipe, faults = _checked(_shown(_flat(_ended(plain))))
    faults += _unfit(recipe) if recipe else []
    if recipe is None or faults:
        heading = f"{path}: {len(faults)} fault{'s' if len(faults) > 1 else ''}"
        raise RecipeError("\n  ".join([heading, *faults]))
    return recipe


def _extended(path: Path, *before: Path) -> dict[str, Any]:
    """A file over all that it extends; `before` are those that led to it."""
    if path.resolve() in before:
        chain = " extends ".join(place.name for place in (*before, path))
        raise RecipeError(f"{path}: extends itself ({chain}); wanted a chain of files that ends")
    plain = _read(path)
    base = plain.pop("extends", None)
    return plain if base is None else _merged(_extended(path.parent / str(base), *before, path.resolve()), plain)


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        return _spelt_out(_nested(decode_json(text)) if path.suffix == ".json" else tomllib.loads(text))
    except OSError as error:
        near = difflib.get_close_matches(str(path), shipped_recipes())
        hint = f"; did you mean {', '.join(near)}?" if near else ""
        raise RecipeError(f"{path}: cannot be read ({error.strerror}); wanted a recipe in TOML{hint}") from error
    except ValueError as error:
        raise RecipeError(f"{path}: not TOML: {error}") from error


def _nested(saved: dict[str, Any]) -> dict[str, Any]:
    """A saved recipe as its file would have it: names and options of plug-ins and losses in one table each."""
    plain = dict(saved)
    for kind in ("network", "encoding", "schedule", "optimiser"):
        plain[kind] = {"name": plain[kind], **plain.pop(f"{kind}_options", {})}
    for loss, options in plain.pop("loss_options", {}).items():
        plain["losses"][loss] = {"weight": plain["losses"][loss], **options}
    return plain


def _parsed(change: str) -> dict[str, Any]:
    try:
        return _spelt_out(tomllib.loads(change))
    except ValueError as error:
        raise RecipeError(f"--set {change}: not a setting ({error}); wanted name=value, text in quotes") from error


def _spelt_out(plain: dict[str, Any]) -> dict[str, Any]:
    """Names, presets and weights that stand alone as the tables they are short for."""
    full = dict(plain)
    for table, key in _SHORT.items():
        if not isinstance(full.get(table, {}), dict):
            full[table] = {key: full[table]}
    if isinstance(losses := full.get("losses"), dict):
        tables = {name: value if isinstance(value, dict) else {"weight": value} for name, value in losses.items()}
        full["losses"] = tables
    return full


def _merged(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """`base` with what `top` says put over it, table by table; lists are replaced whole.

    So are tables that name something else, whose options are of no use for it.
    """
    merged = dict(base)
    for name, value in top.items():
        both = isinstance(value, dict) and isinstance(base.get(name), dict)
        another = both and any(key in value and value[key] != base[name].get(key) for key in _SHORT.values())
        merged[name] = _merged(base[name], value) if both and not another else value
    return merged


def _ended(plain: dict[str, Any]) -> dict[str, Any]:
    """Without the usual number of steps where a recipe tells another end alone: they would cut it short."""
    run, train = plain.get("run", {}), plain.get("train", {})
    if not isinstance(run, dict) or not isinstance(train, dict) or "steps" in train:
        return plain
    ends = any(run.get(name) for name in ("epochs", "minutes", "tflop"))
    return plain | {"train": {**train, "steps": NO_END}} if ends else plain


def _flat(plain: dict[str, Any]) -> dict[str, Any]:
    """Tables such as `[network]` told apart into a name and its options, likewise losses; presets put in."""
    flat = dict(plain)
    for table, key in _SHORT.items():
        options = dict(flat.pop(table, {}))
        if table == "augment":
            known = options.get(key) in [*PRESETS]
            flat[table] = PRESETS[options.pop(key)] | options if known else options
            continue
        if key in options:
            flat[table] = options.pop(key)
        flat[f"{table}_options"] = options
    if isinstance(losses := flat.get("losses"), dict):
        tables = {name: dict(table) for name, table in losses.items()}
        flat["losses"] = {name: table.pop("weight", 1.0) for name, table in tables.items()}
        flat["loss_options"] = {name: table for name, table in tables.items() if table}
    return flat


def _shown(plain: dict[str, Any]) -> dict[str, Any]:
    """A network that is not told its channels takes as many as there are planes."""
    count, options = COUNTS.get(plain.get("planes", "rgb"), 3), plain["network_options"]
    # Three is what every network takes by itself, and was never written into recipes.
    return plain if count == 3 else plain | {"network_options": {"channels": count, **options}}


def _checked(plain: dict[str, Any]) -> tuple[ResolvedRecipe | None, list[str]]:
    """The recipe and its faults of form; it is None where they leave too little of it to look at the rest."""
    text = json.dumps(plain, default=str)
    faults, sound = [], json.loads(text)
    try:
        # Strictly by JSON's rules: no number from text, but tuples from lists.
        _CHECK.validate_json(text, strict=True)
    except ValidationError as error:
        faults = _told(error)
        sound = _without(sound, [fault["loc"] for fault in error.errors() if fault["type"] not in _BOUNDS])
    with suppress(TypeError):
        return from_plain(ResolvedRecipe, sound), faults
    return None, faults


def _told(error: ValidationError, *within: str) -> list[str]:
    words = {"missing": "missing"}
    return [
        f"augment.preset: no {fault['input']!r}; there are {', '.join(PRESETS)}"
        if fault["loc"] == ("augment", "preset")
        else f"{'.'.join(map(str, (*within, *fault['loc'])))}: "
        + (
            _no_such(*fault["loc"])
            if fault["type"] == "unexpected_keyword_argument"
            else words.get(fault["type"], f"{fault['msg'].removeprefix('Input ')}, got {fault['input']!r}")
        )
        for fault in error.errors()
    ]


def _no_such(*place: int | str) -> str:
    """That a recipe has no such setting, and which of its names are near: in the same table, or in another."""
    known = list(_settings(ResolvedRecipe))
    wanted = ".".join(part for part in place if isinstance(part, str))
    table, _, last = wanted.rpartition(".")
    beside = [name for name in known if name.rpartition(".")[0] == table]
    near = difflib.get_close_matches(wanted, beside, n=3, cutoff=0.7)
    near += [name for name in known if name.rpartition(".")[2] == last and name not in near]
    return f"no such setting; did you mean {', '.join(near)}?" if near else "no such setting"


def _settings(kind: type[Any]) -> Iterator[str]:
    """Dotted names of all settings of a recipe, tables and lists opened."""
    hints = get_type_hints(kind)
    for field in fields(kind):
        hint = hints[field.name]
        inner = next((part for part in (hint, *getattr(hint, "__args__", ())) if is_dataclass(part)), None)
        yield field.name
        if isinstance(inner, type):
            yield from (f"{field.name}.{name}" for name in _settings(inner))


def _without(plain: Any, places: Sequence[tuple[int | str, ...]]) -> Any:
    """What is left when the things at these places are taken out."""
    # Backwards, so that places in lists stay where they are.
    for *path, last in reversed(places):
        with suppress(LookupError, TypeError):
            del reduce(getitem, path, plain)[last]
    return plain


def _unfit(recipe: ResolvedRecipe) -> list[str]:
    """What types and ranges alone do not show: names of plug-ins and leaves, and what does not go together."""
    faults = list(_leaf_faults(recipe))
    heads: tuple[Head, ...] | None = None
    if network := _plugin(NETWORKS, recipe.network, faults):
        faults += [*_option_faults("network", network.options, recipe.network_options), *_plane_faults(recipe)]
    if encoding := _plugin(ENCODINGS, recipe.encoding, faults):
        misfits = [*_option_faults("encoding", encoding.options, recipe.encoding_options)]
        faults += misfits
        # Where leaves or options are at fault there is nothing to ask by.
        with suppress(ValueError):
            if not misfits:
                own = encoding.heads(recipe.schema, encoding.options(**recipe.encoding_options))
                heads = (*own, *tissue_heads(recipe.tissues))
    for kind, chosen, known in (("schedule", recipe.schedule, SCHEDULES), ("optimiser", recipe.optimiser, OPTIMISERS)):
        if chosen in known:
            faults += _option_faults(kind, known[chosen], getattr(recipe, f"{kind}_options"))
        else:
            near = difflib.get_close_matches(chosen, known, n=1) or known
            faults.append(f"{kind}: no {chosen!r}; did you mean {', '.join(near)}?")
    faults += _schedule_faults(recipe)
    faults += _tissue_faults(recipe, network)
    for name in sorted({data.dataset for data in recipe.data}):
        _plugin(DATASETS, name, faults)
    return [*faults, *_loss_faults(recipe, heads)]


def _plane_faults(recipe: ResolvedRecipe) -> Iterator[str]:
    channels, count = recipe.network_options.get("channels", 3), COUNTS[recipe.planes]
    if isinstance(channels, int) and channels != count:
        there = ", ".join(f"{name} ({planes})" for name, planes in COUNTS.items())
        yield f"network.channels: {channels}, planes {recipe.planes!r} are {count}; leave it out, or choose of {there}"


def _schedule_faults(recipe: ResolvedRecipe) -> Iterator[str]:
    warm_up, given = recipe.train.warm_up, recipe.schedule_options
    whole = {"cosine": "length", "restarts": "first"}.get(recipe.schedule)
    steps = given.get(whole) if whole else None
    if recipe.falls_to_the_end and not (recipe.run.epochs or recipe.run.tflop or recipe.run.minutes):
        steps = recipe.train.steps
    if isinstance(steps, int) and steps <= warm_up:
        yield f"schedule.{whole}: {steps} steps with {warm_up} of warm-up in them; wanted more"


def _tissue_faults(recipe: ResolvedRecipe, network: Any) -> Iterator[str]:
    tissues = recipe.tissues
    if not tissues:
        return
    if twice := sorted({name for name in tissues if tissues.count(name) > 1}):
        yield f"tissues: {', '.join(twice)} more than once"
    if len(tissues) == 1:
        yield f"tissues: only {tissues[0]}; wanted at least two to tell apart, or none"
    yield from _unknown_tissues(recipe)
    if network and not getattr(network, "tells_tissue", False):
        yield f"tissues: network {recipe.network!r} tells none; leave them out, or take one that does: docs/networks.md"
    if not any(weight for name, weight in recipe.losses.items() if terms.split(name)[0] == TISSUE):
        yield f"tissues: no loss teaches them; wanted a weight above 0 for {TISSUE}_focal or {TISSUE}_ce"


def _unknown_tissues(recipe: ResolvedRecipe) -> Iterator[str]:
    """Tissues that none of the data sets has, where all of them say which they have."""
    names = sorted({data.dataset for data in recipe.data} & set(DATASETS.names()))
    cards = [DATASETS.get(name).card for name in names]
    known = [tissue for card in cards for tissue in card.tissues]
    for tissue in recipe.tissues if cards and all(card.tissues for card in cards) else ():
        if tissue not in known:
            near = ", ".join(difflib.get_close_matches(tissue, known, n=2))
            hint = f"; did you mean {near}?" if near else f"; there are {', '.join(known)}"
            yield f"tissues: no {tissue} in {', '.join(names)}{hint}"


def _plugin(kind: Kind[Any], name: str, faults: list[str]) -> Any | None:
    try:
        return kind.get(name)
    except UnknownPluginError as error:
        faults.append(str(error))
        return None


def _option_faults(kind: str, options: type[Any], given: dict[str, Any]) -> Iterator[str]:
    known = [field.name for field in fields(options)]
    for name in given:
        if name not in known:
            yield f"{kind}.{name}: no such setting; there are {', '.join(known)}"
    try:
        TypeAdapter(options).validate_json(json.dumps(given), strict=True)
    except ValidationError as error:
        yield from _told(error, kind)


def _loss_faults(recipe: ResolvedRecipe, heads: Sequence[Head] | None) -> Iterator[str]:
    if not any(recipe.losses.values()):
        yield f"losses: wanted one weight above 0; names are a head, an underscore and one of {', '.join(terms.LOSSES)}"
    yield from terms.faults([*recipe.losses], heads)
    for name, given in recipe.loss_options.items():
        loss = terms.split(name)[1]
        known = terms.options(loss) if loss in terms.LOSSES else {}
        for option, value in given.items():
            if option in known:
                yield from _value_faults(known[option][0], value, "losses", name, option)
            elif loss in terms.LOSSES:
                yield f"losses.{name}.{option}: no such setting; there are {', '.join(['weight', *known])}"


def _value_faults(kind: Any, value: Any, *within: str) -> Iterator[str]:
    try:
        TypeAdapter(kind).validate_json(json.dumps(value), strict=True)
    except ValidationError as error:
        yield from _told(error, *within)


def _leaf_faults(recipe: ResolvedRecipe) -> Iterator[str]:
    used = [(f"types.{index}.leaves", kind.leaves) for index, kind in enumerate(recipe.types)]
    for index, data in enumerate(recipe.data):
        used += [(f"data.{index}.leaves.{key}", leaves) for key, leaves in data.leaves.items()]
        if not all(key.isdecimal() and 0 < int(key) < 256 for key in data.leaves):
            yield f"data.{index}.leaves: {', '.join(data.leaves)}; wanted the data set's type ids, 1 to 255"
    for place, leaves in used:
        if missing := sorted(set(leaves) - set(recipe.leaves)):
            yield f"{place}: no leaf {', '.join(missing)}; there are {', '.join(recipe.leaves) or 'none'}"
    try:
        recipe.schema  # noqa: B018
    except InputError as error:
        yield str(error)
    except ValueError:
        pass  # a leaf that is missing, told above
    if not recipe.data:
        yield "data: wanted at least one [[data]]"
