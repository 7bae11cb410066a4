"""Models, networks and recipes as commands tell of them: what they cost, how far they see, where they are from."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

from nuclens.core.card import Card
from nuclens.core.errors import InputError, MissingExtraError, NuclensError
from nuclens.core.heads import Head
from nuclens.core.kinds import Kind
from nuclens.core.models import CARD, open_model, shipped

NETWORKS: Kind[Any] = Kind("nuclens.networks")
SIDE = 256  # of the picture that costs are told for
_ONE_HEAD = (Head("nucleus", 1, "sigmoid", 255),)  # that costs of networks without a model are told with
_NO_TORCH = "not counted: needs `pip install 'nuclens[train]'`"


def listed() -> dict[str, list[dict[str, Any]]]:
    """Shipped models, networks at their usual size and shipped recipes, each with its name and a line of text."""
    return {"models": list(_models()), "networks": list(_networks()), "recipes": list(_recipes())}


def described(name: str) -> dict[str, Any]:
    """What is known of a model, a run, a network or a recipe, by topic.

    Raises:
        InputError: There is nothing of that name.
        CheckpointError: A folder is incomplete.
    """
    folder = shipped().get(name, Path(name))
    if (folder / CARD).is_file():
        return _model(name)
    if name in NETWORKS.names():
        return _network(name)
    recipes = _recipe_files()
    if name in recipes or Path(name).suffix in (".toml", ".json") or (folder / "recipe.json").is_file():
        return _recipe(recipes.get(name, folder / "recipe.json" if folder.is_dir() else folder))
    known = ", ".join([*shipped(), *NETWORKS.names(), *recipes])
    raise InputError(f"models: nothing is called {name!r}; there are {known}, and folders of models and runs")


def _models() -> Iterator[dict[str, Any]]:
    for name in shipped():
        card = open_model(name).card
        cost = _cost(card.network, card.network_options, card.heads)
        size = f"{cost['parameters']:,} parameters, {cost['gflop_256']:.2f} GFLOP, " if "parameters" in cost else ""
        text = f"{size}reach {card.reach} px, {card.resolution}, {card.license}"
        yield {"name": name, "version": card.version, "license": card.license, "reach_px": card.reach, **cost,
               "text": text}  # fmt: skip


def _networks() -> Iterator[dict[str, Any]]:
    for name in NETWORKS.names():
        try:
            cost = _cost(name, {}, _ONE_HEAD)
            text = f"{cost['parameters']:,} parameters, {cost['gflop_256']:.2f} GFLOP" if "parameters" in cost else ""
        except NuclensError as error:
            cost, text = {}, str(error)
        yield {"name": name, **cost, "text": text}


def _recipes() -> Iterator[dict[str, Any]]:
    for name, path in _recipe_files().items():
        first = path.read_text(encoding="utf-8").partition("\n")[0]
        yield {"name": name, "text": first.lstrip("# ")}


def _recipe_files() -> dict[str, Path]:
    try:
        from nuclens.recipes import shipped_recipes
    except MissingExtraError:
        return {}
    return shipped_recipes()


def _model(name: str) -> dict[str, Any]:
    model = open_model(name)
    card = model.card
    known: dict[str, Any] = {"kind": "model", "name": card.name, "version": card.version}
    known |= {"about": card.description, "license": card.license, "source": _sources(card)}
    known |= _cost(card.network, card.network_options, card.heads)
    known |= {
        "reach_px": card.reach,
        "stride_px": card.stride,
        "planes": card.preprocessing.planes,
        **_resolution(card.mpp),
        "types": ", ".join(card.schema.names) or "none",
        "tissues": ", ".join(card.tissues),
        "network": card.network,
        "encoding": card.encoding,
        "precision": card.precision,
        "limits": list(card.limits),
        "digest": model.digest,
    }
    return _told(known)


def _network(name: str) -> dict[str, Any]:
    plugin = NETWORKS.get(name)
    module = inspect.getmodule(type(plugin))
    paragraphs = (module.__doc__ or "").strip().split("\n\n") if module else [""]
    source = next((text for text in paragraphs if text.startswith("Source: ")), "Source: this project")
    options = plugin.options()
    known: dict[str, Any] = {"kind": "network", "name": name, "about": " ".join(paragraphs[0].split())}
    known |= {"license": "Apache-2.0", "source": " ".join(source.removeprefix("Source: ").split())}
    known |= _cost(name, {}, _ONE_HEAD)
    known["receptive_field_px"] = _receptive_field(name)
    known["settings"] = [f"{field.name} = {getattr(options, field.name)}" for field in fields(options)]
    return _told(known)


def _recipe(path: Path) -> dict[str, Any]:
    from nuclens.recipes import load_recipe
    from nuclens.training.start import heads_of

    recipe = load_recipe(path)
    known: dict[str, Any] = {"kind": "recipe", "name": recipe.name, "about": recipe.about.description}
    known |= {"license": recipe.about.license, "source": [note.source for note in recipe.about.datasets]}
    known |= _cost(recipe.network, recipe.network_options, heads_of(recipe))
    known |= {
        **_resolution(recipe.mpp),
        "planes": recipe.planes,
        "types": ", ".join(recipe.schema.names) or "none",
        "tissues": ", ".join(recipe.tissues),
        "network": recipe.network,
        "encoding": recipe.encoding,
        "data": [data.path for data in recipe.data],
        "losses": ", ".join(recipe.losses),
        "digest": recipe.digest,
    }
    return _told(known)


def _resolution(mpp: float | None) -> dict[str, Any]:
    return {"um_per_px": mpp} if mpp else {"resolution": "any: images are taken as they are, in pixels"}


def _sources(card: Card) -> list[str]:
    return [f"{note.name}, {note.source}, {note.license}: {note.used_for}" for note in card.datasets]


def _cost(network: str, options: dict[str, Any], heads: tuple[Head, ...]) -> dict[str, Any]:
    """Parameters and operations, where torch is there to count them."""
    try:
        from nuclens.training.cost import sized
    except MissingExtraError:
        return {"cost": _NO_TORCH}
    parameters, flop = sized(network, options, heads, SIDE)
    return {"parameters": parameters, "gflop_256": round(flop / 1e9, 3)}


def _receptive_field(network: str) -> str | int:
    try:
        from nuclens.training.cost import built
        from nuclens.training.facts import receptive_field
    except MissingExtraError:
        return _NO_TORCH
    found = receptive_field(built(network, {}, _ONE_HEAD))
    return "the whole tile" if found is None else found


def _told(known: dict[str, Any]) -> dict[str, Any]:
    """What there is something to say about."""
    return {topic: value for topic, value in known.items() if value not in ("", None, [])}
