"""Models on disk: a folder with a card, a graph the engines run, and the weights it was made from."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from nuclens.core.card import Card, card_from_json
from nuclens.core.errors import CheckpointError, InputError

GRAPH = "model.xml"
CONSTANTS = "model.bin"
WEIGHTS = "weights.safetensors"
CARD = "card.json"


@dataclass(frozen=True, slots=True)
class Model:
    """A trained model that can be run.

    Attributes:
        folder: Where its files are.
        card: What it is.
        digest: SHA-256 over the card, the graph and its constants: equal digests give equal results.
    """

    folder: Path
    card: Card
    digest: str


def shipped() -> dict[str, Path]:
    """Folders of the models inside the package, by name."""
    root = Path(str(resources.files("nuclens"))) / "weights"
    return {path.parent.name: path.parent for path in sorted(root.glob(f"*/{CARD}"))}


def open_model(name: str | Path) -> Model:
    """Open a model by the name of a shipped one, or by its folder.

    Raises:
        InputError: No such name or folder.
        CheckpointError: The folder lacks a file, or its card cannot be read.
    """
    known = shipped()
    folder = known.get(str(name), Path(name))
    if not folder.is_dir():
        raise InputError(f"model {name}: no such folder and no such name; shipped are {', '.join(known) or 'none'}")
    parts = [folder / part for part in (CARD, GRAPH, CONSTANTS)]
    missing = [part.name for part in parts if not part.is_file()]
    if missing:
        raise CheckpointError(
            f"{folder}: not an exported model, {', '.join(missing)} missing; `nuclens export RUN --out DIR` makes one"
        )
    digest = hashlib.sha256()
    for part in parts:
        digest.update(hashlib.sha256(part.read_bytes()).digest())
    card = card_from_json(parts[0].read_bytes(), str(parts[0]))
    return Model(folder, card, digest.hexdigest())
