"""What every engine must do: subclass `EngineContract` in the engine's test."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from jaxtyping import UInt8

from nuclens.core.errors import CheckpointError
from nuclens.core.heads import Head, RawHeads, to_integers
from nuclens.core.kinds import Kind
from nuclens.core.models import Model, open_model

_ENGINES: Kind[Any] = Kind("nuclens.engines")


class EngineContract:
    """The promises of an engine.

    An engine offers `options`, a dataclass that has `threads`, `version` and
    `load(model, options)`, whose result has `run(rgb)`. The tests ask for a
    fixture `tiny_model`, the folder of any exported model, best a small one.

    Attributes:
        name: Of the plug-in under test.
        files: Files of a model's folder that the engine reads, beside the card.
    """

    name: ClassVar[str]
    files: ClassVar[tuple[str, ...]]

    @pytest.fixture
    def model(self, tiny_model: Path) -> Model:
        """The model to be run."""
        return open_model(tiny_model)

    def loaded(self, model: Model, threads: int = 1) -> Any:
        """The model ready to run."""
        engine = _ENGINES.get(self.name)
        return engine.load(model, engine.options(threads=threads))

    def test_version_names_the_engine(self) -> None:
        """Plans tell results of one engine, or one version of it, from those of another."""
        name, _, version = _ENGINES.get(self.name).version.partition(" ")
        assert name == self.name
        assert version[:1].isdigit()

    @pytest.mark.parametrize("size", [(1, 1), (1, 3), (5, 2), (6, 6)])
    def test_heads_are_those_of_the_card(self, model: Model, size: tuple[int, int]) -> None:
        """Any multiple of the stride goes; every head has its name, channels and integers."""
        height, width = (model.card.stride * side for side in size)
        raw = self.loaded(model).run(_pixels(height, width))
        assert list(raw) == [head.name for head in model.card.heads]
        for head in model.card.heads:
            assert raw[head.name].dtype == (np.int8 if head.signed else np.uint8)
            assert raw[head.name].shape == (head.channels, *((1, 1) if head.whole else (height, width)))

    def test_threads_do_not_matter(self, model: Model) -> None:
        """One thread and two give the same bits."""
        rgb = _pixels(model.card.stride * 6, model.card.stride * 4)
        _same(self.loaded(model, threads=1).run(rgb), self.loaded(model, threads=2).run(rgb))

    def test_the_same_again(self, model: Model) -> None:
        """A tile gives the same bits whatever was run before, and a result stays when the next is made."""
        runner, stride = self.loaded(model), model.card.stride
        rgb = _pixels(stride * 4, stride * 6)
        first = runner.run(rgb)
        kept = {name: value.copy() for name, value in first.items()}
        runner.run(255 - rgb)
        runner.run(_pixels(stride, stride * 2))
        _same(runner.run(rgb), kept)
        _same(first, kept)

    def test_equals_the_reference(self, model: Model) -> None:
        """Integers are those of PyTorch in single precision, or their neighbours."""
        rgb = _pixels(model.card.stride * 6, model.card.stride * 5)
        raw, values = self.loaded(model).run(rgb), _reference(model, rgb)
        for head in model.card.heads:
            wanted = to_integers(head, values[head.name]).astype(int)
            assert np.ptp(wanted) > 2, f"the model says the same of every pixel: {head.name} tells nothing"
            assert np.abs(raw[head.name] - wanted).max() <= 1, head.name

    def test_a_broken_file_is_told_by_its_path(self, model: Model, tmp_path: Path) -> None:
        """A file that is absent, empty or cut short is refused by name, before anything is run."""
        for file in self.files:
            for damage in ("absent", "empty", "half"):
                folder = shutil.copytree(model.folder, tmp_path / f"{file} {damage}")
                path, data = folder / file, (folder / file).read_bytes()
                path.write_bytes(data[: len(data) // 2] if damage == "half" else b"")
                if damage == "absent":
                    path.unlink()
                with pytest.raises(CheckpointError) as caught:
                    self.loaded(replace(model, folder=folder))
                assert str(caught.value).startswith(str(folder))
                assert "\n" not in str(caught.value)

    def test_a_card_of_another_model_is_refused(self, model: Model) -> None:
        """Heads that the files do not have are missed on loading, not on the first tile."""
        heads = (*model.card.heads, Head("absent", 1, "sigmoid", 255))
        with pytest.raises(CheckpointError):
            self.loaded(replace(model, card=replace(model.card, heads=heads)))


def _reference(model: Model, rgb: UInt8[np.ndarray, "h w 3"]) -> dict[str, np.ndarray]:
    torch = _ENGINES.get("torch")
    values: dict[str, np.ndarray] = torch.load(model, torch.options()).values(rgb)
    return values


def _pixels(height: int, width: int) -> UInt8[np.ndarray, "height width 3"]:
    """Read-only noise."""
    rgb = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    rgb.flags.writeable = False
    return rgb


def _same(first: RawHeads, second: RawHeads) -> None:
    for name, value in second.items():
        np.testing.assert_array_equal(first[name], value, err_msg=name)
