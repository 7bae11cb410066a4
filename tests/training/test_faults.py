"""What goes wrong on the way: numbers, memory, disk, files, and data that lack something."""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from nuclens.core.errors import CheckpointError, DivergedError, InputError, MemoryFault, OutputError
from nuclens.core.types import Progress

pytest.importorskip("nuclens.training", exc_type=ImportError)

import torch

from nuclens.training import loop, processes
from nuclens.training import state as state_module
from nuclens.training.environment import noted
from nuclens.training.faults import in_memory
from nuclens.training.loop import fit
from nuclens.training.processes import fabric_of, need_parts
from nuclens.training.settings import ResolvedRecipe
from nuclens.training.start import Course
from nuclens.training.state import BROKEN, CHECKPOINT, PREVIOUS, read_notes


@pytest.fixture(scope="module", autouse=True)
def one_thread_in_single_precision() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "precision", lambda: "32-true")
        yield
    torch.set_num_threads(threads)


def step_of(run: Path) -> int:
    return int(read_notes(run / CHECKPOINT)["step"])


def broken_at(steps: set[int], value: float) -> Any:
    """A loss that is `value` on the batches of some steps, counted from 1."""
    calls = iter(range(1, 1000))
    whole = loop.Step._terms

    def terms(self: Any, heads: Any, targets: Any) -> torch.Tensor:
        found = whole(self, heads, targets)
        if torch.is_grad_enabled() and next(calls) in steps:
            found = found * torch.tensor([1.0, value, 1.0, 1.0])
        return found

    return terms


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_checkpoint(
    tiny_recipe: ResolvedRecipe, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: float
) -> None:
    monkeypatch.setattr(loop.Step, "_terms", broken_at({8}, value))
    with pytest.raises(DivergedError, match=r"step 8: nucleus_dice is (nan|inf), on crops of cells/[ab]_1.*run\.skip"):
        fit(tiny_recipe, tiny_data, tmp_path, Course())
    assert step_of(tmp_path) == 6
    assert len((tmp_path / "log.csv").read_text(encoding="utf-8").splitlines()) == 8


def test_so_many_batches_may_be_skipped_and_no_more(
    tiny_recipe: ResolvedRecipe, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    lenient = replace(tiny_recipe, run=replace(tiny_recipe.run, skip=2))
    monkeypatch.setattr(loop.Step, "_terms", broken_at({3, 8}, float("nan")))
    with caplog.at_level(logging.WARNING, "nuclens.training"):
        state = fit(lenient, tiny_data, tmp_path / "two", Course())
    assert (state.step, state.skipped) == (20, 2)
    assert "skipped, 2 of 2" in caplog.text
    assert all(torch.isfinite(value).all() for value in state.average.values())
    assert read_notes(tmp_path / "two" / CHECKPOINT)["skipped"] == "2"
    monkeypatch.setattr(loop.Step, "_terms", broken_at({3, 8, 9}, float("nan")))
    with pytest.raises(DivergedError, match="step 9"):
        fit(lenient, tiny_data, tmp_path / "three", Course())


def test_a_gradient_that_is_not_finite_is_not_learned_from(
    tiny_recipe: ResolvedRecipe, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop.Step, "_clip", lambda self: torch.tensor(float("inf")))
    with pytest.raises(DivergedError, match="step 1: gradient is inf"):
        fit(tiny_recipe, tiny_data, tmp_path, Course())


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_too_little_memory_says_what_to_lower_and_keeps_the_checkpoint(
    tiny_recipe: ResolvedRecipe, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    whole = loop.Step.__call__

    def full(self: Any, batch: Any, rate: float, seconds: float) -> Any:
        if (tmp_path / CHECKPOINT).exists():
            raise error
        return whole(self, batch, rate, seconds)

    monkeypatch.setattr(loop.Step, "__call__", full)
    with pytest.raises(MemoryFault, match=r"2 crops of 64 px in 1 part; raise run\.accumulate.*train\.batch"):
        fit(tiny_recipe, tiny_data, tmp_path, Course())
    assert step_of(tmp_path) == 5


def test_other_errors_are_no_matter_of_memory(tiny_recipe: ResolvedRecipe) -> None:
    def other() -> NoReturn:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"), in_memory(tiny_recipe):
        other()


def test_a_full_disk_keeps_the_last_checkpoint_and_the_run_goes_on_from_it(
    tiny_recipe: ResolvedRecipe, tiny_data: Path, tmp_path: Path
) -> None:
    save = vars(state_module)["save_file"]
    with pytest.MonkeyPatch.context() as patch:

        def full(tensors: Any, path: Path, notes: Any) -> None:
            if int(notes["step"]) > 10:
                path.write_bytes(b"half of it")
                raise OSError(errno.ENOSPC, "No space left on device")
            save(tensors, path, notes)

        patch.setattr(state_module, "save_file", full)
        with pytest.raises(OutputError, match="disk is full"):
            fit(tiny_recipe, tiny_data, tmp_path, Course())
    assert step_of(tmp_path) == 10
    assert not list(tmp_path.glob(".*"))
    assert fit(tiny_recipe, tiny_data, tmp_path, Course()).step == 20


@pytest.mark.parametrize("damage", ["empty", "cut"])
def test_a_broken_checkpoint_is_put_aside_for_the_one_before(
    tiny_recipe: ResolvedRecipe, tiny_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    straight, out = tmp_path / "straight", tmp_path / "run"
    whole = fit(tiny_recipe, tiny_data, straight, Course())

    def stop(progress: Progress) -> None:
        if progress.done == 13:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(tiny_recipe, tiny_data, out, Course(), stop)
    data = (out / CHECKPOINT).read_bytes()
    bad = {"empty": b"", "cut": data[:-100]}[damage]
    (out / CHECKPOINT).unlink()
    (out / CHECKPOINT).write_bytes(bad)
    assert int(read_notes(out / PREVIOUS)["step"]) == 10
    with caplog.at_level(logging.WARNING, "nuclens.training"):
        state = fit(tiny_recipe, tiny_data, out, Course())
    assert f"kept as {BROKEN}" in caplog.text
    assert (out / BROKEN).read_bytes() == bad
    assert all(value.equal(whole.average[name]) for name, value in state.average.items())


def test_a_broken_checkpoint_without_one_before_is_told_and_kept(
    tiny_recipe: ResolvedRecipe, tiny_data: Path, tmp_path: Path
) -> None:
    (tmp_path / CHECKPOINT).write_bytes(b"no tensors")
    with pytest.raises(CheckpointError, match="no older one beside it"):
        fit(tiny_recipe, tiny_data, tmp_path, Course())
    assert (tmp_path / CHECKPOINT).read_bytes() == b"no tensors"


def test_a_class_that_no_training_image_has_is_told_and_trained_without(
    tiny_recipe: ResolvedRecipe, tiny_data: Path, tmp_path: Path
) -> None:
    lacking = replace(tiny_recipe, data=(replace(tiny_recipe.data[0], leaves={"1": ("round",)}),))
    state = fit(replace(lacking, train=replace(lacking.train, steps=3)), tiny_data, tmp_path, Course())
    assert noted(tmp_path) == ("class long: no nucleus of the training images has it, so it is not taught",)
    assert all(torch.isfinite(value).all() for value in state.average.values())


def test_images_without_nuclei_are_trained_and_validated_on(tiny_recipe: ResolvedRecipe, tmp_path: Path) -> None:
    for folder in ("images", "labels"):
        (tmp_path / "empty" / folder).mkdir(parents=True)
    import cv2

    for name in "ab":
        cv2.imwrite(str(tmp_path / "empty" / "images" / f"{name}.png"), np.full((70, 50, 3), 220, np.uint8))
        np.savez(tmp_path / "empty" / "labels" / f"{name}.npz", instances=np.zeros((70, 50), np.int32))
    data = replace(tiny_recipe.data[0], path="empty", exclude=(), validate=("b",))
    recipe = replace(tiny_recipe, data=(data,), train=replace(tiny_recipe.train, steps=6))
    state = fit(recipe, tmp_path, tmp_path / "run", Course())
    assert all(torch.isfinite(value).all() for value in state.average.values())
    assert len((tmp_path / "run" / "validation.csv").read_text(encoding="utf-8").splitlines()) == 3


def test_batches_that_cannot_be_shared_are_refused(tiny_recipe: ResolvedRecipe) -> None:
    need_parts(replace(tiny_recipe, run=replace(tiny_recipe.run, accumulate=2)), 1)
    with pytest.raises(InputError, match="a multiple of 3"):
        need_parts(tiny_recipe, 3)
    with pytest.raises(InputError, match="a multiple of 4"):
        need_parts(replace(tiny_recipe, run=replace(tiny_recipe.run, accumulate=2)), 2)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a graphics processor")
def test_half_precision_wants_a_graphics_processor(tiny_recipe: ResolvedRecipe) -> None:
    half = replace(tiny_recipe, run=replace(tiny_recipe.run, precision="fp16"))
    with pytest.raises(InputError, match="needs a graphics processor; take bf16"):
        fabric_of(half, 1)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no graphics processor")
def test_half_precision_scales_its_losses_and_goes_on_with_that_scale(
    tiny_recipe: ResolvedRecipe, tiny_data: Path, tmp_path: Path
) -> None:
    half = replace(tiny_recipe, run=replace(tiny_recipe.run, precision="fp16"))
    assert fit(half, tiny_data, tmp_path, Course()).step == 20
    assert "scaler" in read_notes(tmp_path / CHECKPOINT)


@pytest.mark.parametrize("kind", ["f32", "bf16"])
def test_a_precision_can_be_asked_for(tiny_recipe: ResolvedRecipe, kind: Any) -> None:
    recipe = replace(tiny_recipe, run=replace(tiny_recipe.run, precision=kind))
    assert fabric_of(recipe, 1)._precision.precision == {"f32": "32-true", "bf16": "bf16-mixed"}[kind]
    assert recipe.digest != tiny_recipe.digest


def test_parts_of_a_batch_one_after_another_learn_the_same_but_for_batch_statistics(
    tiny_recipe: ResolvedRecipe, tiny_data: Path, tmp_path: Path
) -> None:
    parted = replace(tiny_recipe, run=replace(tiny_recipe.run, accumulate=2))
    curves: list[np.ndarray] = []
    for name, recipe in (("whole", tiny_recipe), ("parted", parted)):
        fit(replace(recipe, train=replace(recipe.train, steps=10)), tiny_data, tmp_path / name, Course())
        rows = np.loadtxt(tmp_path / name / "log.csv", delimiter=",", skiprows=1, usecols=(2, 3, 4))
        curves.append(rows)
    assert np.allclose(curves[0], curves[1], rtol=0.15)
