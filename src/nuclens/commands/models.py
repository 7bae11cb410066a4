"""`nuclens models`: parse, call, print; no logic."""

from __future__ import annotations

import json
from typing import Annotated

from cyclopts import App, Parameter

JSON = Parameter(name="--json", negative=(), show_default=False)
models = App(name="models", help="List and describe models, networks and recipes.")


@models.command(name="list")
def models_list(*, as_json: Annotated[bool, JSON] = False) -> int:
    """List shipped models, networks at their usual size, and shipped recipes.

    Args:
        as_json: Write it as JSON.
    """
    from nuclens.jobs.models import listed

    found = listed()
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return 0
    for kind, entries in found.items():
        print(kind)
        for entry in entries:
            print(f"  {entry['name']:18} {entry['text']}".rstrip())
    return 0


@models.command(name="info")
def models_info(name: str, /, *, as_json: Annotated[bool, JSON] = False) -> int:
    """Say what is known of a model, a run, a network or a recipe.

    Args:
        name: A shipped model, a folder, a network or a recipe.
        as_json: Write it as JSON.
    """
    from nuclens.jobs.models import described

    found = described(name)
    if as_json:
        print(json.dumps(found, indent=2, ensure_ascii=False))
        return 0
    for topic, value in found.items():
        for number, line in enumerate(value if isinstance(value, list) else [value]):
            print(f"{topic.replace('_', ' ') if number == 0 else '':14} {line}")
    return 0
