from __future__ import annotations

from pathlib import Path

import pytest

from nuclens.core import models
from nuclens.core.card import Card, Preprocessing
from nuclens.core.errors import CheckpointError, InputError
from nuclens.core.models import CARD, CONSTANTS, GRAPH, open_model, shipped
from nuclens.core.schema import UNTYPED

MADE = Card("m", "1", "", "CC0-1.0", None, UNTYPED, "n", {}, "e", {}, (), Preprocessing(), "f32", 16, 0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that looks like a model."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / CARD).write_text(MADE.to_json(), encoding="utf-8")
    (folder / GRAPH).write_bytes(b"graph")
    (folder / CONSTANTS).write_bytes(b"constants")
    return folder


def test_a_folder_is_a_model(folder: Path) -> None:
    model = open_model(folder)
    assert (model.folder, model.card) == (folder, MADE)
    assert open_model(str(folder)) == model


def test_the_digest_tells_every_part_apart(folder: Path) -> None:
    digests = {open_model(folder).digest}
    for part in (GRAPH, CONSTANTS, CARD):
        with (folder / part).open("ab") as file:
            file.write(b"\n")
        digests.add(open_model(folder).digest)
    # A byte that moves from one file to the next is a change.
    (folder / GRAPH).write_bytes(b"grap")
    (folder / CONSTANTS).write_bytes(b"hconstants\n")
    digests.add(open_model(folder).digest)
    assert len(digests) == 5
    assert all(len(digest) == 64 for digest in digests)


def test_other_files_do_not_change_the_model(folder: Path) -> None:
    before = open_model(folder)
    (folder / "weights.safetensors").write_bytes(b"weights")
    assert open_model(folder) == before


@pytest.mark.parametrize("part", [GRAPH, CONSTANTS, CARD])
def test_a_missing_part_is_told(folder: Path, part: str) -> None:
    (folder / part).unlink()
    with pytest.raises(CheckpointError, match=f"model: not an exported model, {part} missing; `nuclens export"):
        open_model(folder)


def test_a_broken_card_is_told_by_its_path(folder: Path) -> None:
    (folder / CARD).write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CheckpointError) as caught:
        open_model(folder)
    assert str(caught.value).startswith(str(folder / CARD))


def test_shipped_models_are_opened_by_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "shipped", lambda: {"small": folder})
    assert open_model("small").folder == folder
    with pytest.raises(InputError, match="model smal: no such folder and no such name; shipped are small"):
        open_model("smal")
    monkeypatch.setattr(models, "shipped", dict)
    with pytest.raises(InputError, match="shipped are none"):
        open_model("small")


def test_every_shipped_model_is_whole() -> None:
    for name, folder in shipped().items():
        assert open_model(name).folder == folder
