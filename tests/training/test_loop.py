from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from nuclens.core.card import Preprocessing
from nuclens.core.errors import CheckpointError, InputError, RecipeError
from nuclens.core.types import Progress

pytest.importorskip("nuclens.training", exc_type=ImportError)

import torch

from nuclens.training import log as log_module
from nuclens.training import processes, start
from nuclens.training.__main__ import main
from nuclens.training.budget import Budget
from nuclens.training.export import read_run
from nuclens.training.inputs import normalised
from nuclens.training.log import Board
from nuclens.training.loop import blank, fit
from nuclens.training.processes import precision
from nuclens.training.settings import RECIPE, ResolvedRecipe, recipe_of
from nuclens.training.start import Course, build
from nuclens.training.state import CHECKPOINT, PREVIOUS, State, part, read_tensors

# What a machine that only trains need not have.
ABSENT = "cyclopts imagecodecs nncf openslide openvino orjson pyarrow pydantic shapely skimage tifffile"
BARE = f"""
import runpy, sys
class Wall:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT.split()}:
            raise ModuleNotFoundError(f"{{name}} behind the wall", name=name)
sys.meta_path.insert(0, Wall())
runpy.run_module("nuclens.training", run_name="__main__", alter_sys=True)
"""
NATIVE = precision()
KILLS = 3
CLOCKS = ("seconds", "waited", "crops_s")
LEFT = {RECIPE, "environment.json", CHECKPOINT, PREVIOUS, "log.csv", "validation.csv", "best.safetensors", "best.json"}
Train = Callable[..., Path]


@pytest.fixture(scope="module", autouse=True)
def one_thread_in_single_precision() -> Iterator[None]:
    """Small networks gain nothing from more threads, and a busy machine makes them wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(processes, "precision", lambda: "32-true")
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def train(tiny_recipe: ResolvedRecipe, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Train:
    """Trains in a new folder, or in the one given, and returns it."""

    def run(steps: int = 20, course: Course | None = None, out: Path | None = None, stop: int = 0) -> Path:
        folder = out or tmp_path_factory.mktemp("run")
        recipe = replace(tiny_recipe, train=replace(tiny_recipe.train, steps=steps))

        def report(progress: Progress) -> None:
            if progress.done == stop:
                raise KeyboardInterrupt

        if stop:
            with pytest.raises(KeyboardInterrupt):
                fit(recipe, tiny_data, folder, course or Course(), report)
        else:
            fit(recipe, tiny_data, folder, course or Course(), report)
        return folder

    return run


@pytest.fixture(scope="module")
def whole(train: Train) -> Path:
    """A run of 20 steps that nothing interrupted."""
    return train()


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "log.csv").open(newline="", encoding="utf-8") as file:
        return [{name: row[name] for name in row if name not in CLOCKS} for row in csv.DictReader(file)]


def log_rows(run: Path) -> list[dict[str, str]]:
    with (run / "log.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def rates(run: Path) -> list[float]:
    return [float(row["rate"]) for row in rows(run)]


def step_of(run: Path) -> int:
    return int(read_tensors(run / CHECKPOINT)[1]["step"])


def done_in(run: Path) -> int:
    """Steps of a checkpoint that another process may be putting in place."""
    return step_of(run) if (run / CHECKPOINT).exists() else 0


def assert_same_run(one: Path, other: Path) -> None:
    """Weights, averages and optimiser of two runs are equal to the bit, and so are their logs."""
    (first, notes), (second, others) = (read_tensors(run / CHECKPOINT) for run in (one, other))
    assert first.keys() == second.keys()
    assert [name for name in first if first[name].numpy().tobytes() != second[name].numpy().tobytes()] == []
    assert notes == others
    assert rows(one) == rows(other)


def test_a_run_leaves_its_recipe_its_checkpoint_and_a_row_for_each_step(
    whole: Path, tiny_recipe: ResolvedRecipe
) -> None:
    assert {path.name for path in whole.iterdir()} == LEFT | {"film"}
    assert recipe_of(whole) == tiny_recipe
    assert [int(row["step"]) for row in rows(whole)] == list(range(1, 21))
    assert list(rows(whole)[0]) == ["step", "rate", *tiny_recipe.losses]
    assert rates(whole)[:6] == pytest.approx([3e-3 * share for share in (0.2, 0.4, 0.6, 0.8, 1, 1)])
    assert step_of(whole) == 20


@pytest.mark.slow
def test_the_loss_falls(tiny_recipe: ResolvedRecipe, tiny_data: Path, tmp_path: Path) -> None:
    recipe = replace(tiny_recipe, train=replace(tiny_recipe.train, steps=100, save_every=100))
    state = fit(recipe, tiny_data, tmp_path, Course())
    for name in recipe.losses:
        values = [float(row[name]) for row in rows(tmp_path)]
        assert np.mean(values[-10:]) < 0.75 * np.mean(values[:10]), name
    assert all(torch.isfinite(value).all() for value in state.average.values())


def test_an_interrupted_run_ends_with_the_same_bits(train: Train, whole: Path) -> None:
    out = train(stop=13)
    assert step_of(out) == 12  # the end of an epoch
    assert len(rows(out)) == 13  # the log is written whatever happens
    assert_same_run(train(out=out), whole)


def test_a_run_can_be_prolonged(train: Train, whole: Path) -> None:
    out = train(steps=7)
    assert step_of(out) == 7
    assert_same_run(train(steps=20, out=out), whole)
    assert recipe_of(out).train.steps == 20


def test_a_finished_run_stays_as_it_is(train: Train, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "finished"
    shutil.copytree(whole, out)
    before = (out / CHECKPOINT).stat().st_mtime_ns
    train(out=out)
    train(steps=5, out=out)
    assert (out / CHECKPOINT).stat().st_mtime_ns == before
    assert len(rows(out)) == 20


def test_a_cool_down_goes_on_from_another_run_and_survives_interruption(train: Train, whole: Path) -> None:
    bits = (whole / CHECKPOINT).read_bytes()
    straight = train(course=Course(whole, cool_steps=10))
    assert rates(straight) == pytest.approx([3e-3 * (1 - done / 10) for done in range(10)], rel=1e-4)
    assert [int(row["step"]) for row in rows(straight)] == list(range(21, 31))
    stopped = train(course=Course(whole, cool_steps=10), stop=28)
    assert step_of(stopped) == 25
    assert_same_run(train(course=Course(whole, cool_steps=10), out=stopped), straight)
    again = train(course=Course(whole, cool_steps=10), stop=28)
    assert_same_run(train(out=again), straight)  # a run that cools down does so to the end, told again or not
    assert (whole / CHECKPOINT).read_bytes() == bits


@pytest.mark.slow
def test_a_cool_down_without_a_start_follows_the_last_step(train: Train, whole: Path) -> None:
    once = train(course=Course(cool_steps=10))
    assert rates(once)[19:] == pytest.approx([3e-3 * (1 - max(0, done) / 10) for done in range(-1, 10)], rel=1e-4)
    later = train(stop=12)
    assert_same_run(train(course=Course(cool_steps=10), out=later), once)


def test_a_cool_down_cannot_be_changed(train: Train, whole: Path) -> None:
    out = train(course=Course(whole, cool_steps=10), stop=26)
    with pytest.raises(CheckpointError, match="over 10 steps already, not 5"):
        train(course=Course(whole, cool_steps=5), out=out)


def test_a_constant_run_starts_from_a_cooled_one(train: Train, whole: Path) -> None:
    cooled = train(course=Course(whole, cool_steps=5))
    out = train(steps=27, course=Course(cooled))
    assert rates(out) == pytest.approx([3e-3, 3e-3])


def test_the_run_of_another_recipe_is_refused_and_left_alone(
    whole: Path, tiny_recipe: ResolvedRecipe, tiny_data: Path
) -> None:
    other = replace(tiny_recipe, train=replace(tiny_recipe.train, seed=5))
    with pytest.raises(CheckpointError, match="another recipe"):
        fit(other, tiny_data, whole, Course())
    assert recipe_of(whole) == tiny_recipe


def test_nothing_left_to_do_is_told(train: Train, whole: Path) -> None:
    with pytest.raises(InputError, match="has done 20 steps, the recipe ends at 20"):
        train(course=Course(whole))


@pytest.mark.parametrize("start", ["nowhere", "empty"])
def test_a_start_that_is_none_is_told(train: Train, tmp_path: Path, start: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=start):
        train(course=Course(tmp_path / start))


def test_a_run_starts_from_the_weights_of_a_model(
    tiny_recipe: ResolvedRecipe, tiny_model: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start, "shipped", lambda: {"tiny": tiny_model})
    network = build(replace(tiny_recipe, train=replace(tiny_recipe.train, seed=99)))
    state = State(network, torch.optim.AdamW(network.parameters()))
    start.begin(state, tiny_recipe, tmp_path / "run", Course(Path("tiny")))
    weights, _ = read_tensors(tiny_model / "weights.safetensors")
    assert state.step == 0
    for name, value in weights.items():
        assert torch.equal(value.to(state.average[name].dtype), state.average[name])
        assert torch.equal(state.average[name], network.state_dict()[name])
    out = tmp_path / "fitted"
    assert fit(tiny_recipe, tiny_data, out, Course(tiny_model, cool_steps=2)).step == 2
    assert rates(out) == pytest.approx([3e-3 / 5, 3e-3 * 2 / 5 / 2])


def test_a_tuned_run_keeps_a_share_of_what_it_began_with(
    tiny_recipe: ResolvedRecipe, tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    """What is exported and validated lies between the model it was tuned from and its own average."""
    tuned = replace(tiny_recipe, run=replace(tiny_recipe.run, keep=0.25, validate_every=0))
    course = Course(tiny_model, weights_only=True)
    state = fit(tuned, tiny_data, tmp_path / "run", course)
    weights, _ = read_tensors(tiny_model / "weights.safetensors")
    _, network, _ = read_run(tmp_path / "run")
    moved = 0
    for name, value in network.state_dict().items():
        if value.is_floating_point():
            wanted = 0.75 * state.average[name] + 0.25 * weights[name].to(value.dtype)
            assert torch.allclose(value, wanted, atol=1e-6), name
            moved += not torch.equal(value, state.average[name])
    assert moved
    # Interrupted, it still knows what it began with.
    longer = replace(tuned, train=replace(tuned.train, steps=tuned.train.steps + 1))
    again = fit(longer, tiny_data, tmp_path / "run", course)
    assert all(torch.equal(again.start[name], state.start[name]) for name in state.start)
    assert fit(tiny_recipe, tiny_data, tmp_path / "plain", course).start == {}


def test_with_new_classes_nothing_is_kept(
    tiny_recipe: ResolvedRecipe, tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    """Weights of the old classes would not fit those learned beside the new ones."""
    types = tuple(replace(kind, name=f"new {kind.name}", leaves=(f"new {kind.name}",)) for kind in tiny_recipe.types)
    leaves = tuple(kind.name for kind in types)
    data = tuple(replace(one, leaves={}) for one in tiny_recipe.data)
    renamed = replace(tiny_recipe, leaves=leaves, types=types, data=data, run=replace(tiny_recipe.run, keep=0.25))
    assert fit(renamed, tiny_data, tmp_path / "run", Course(tiny_model, weights_only=True)).start == {}


def test_a_model_of_another_network_is_refused(
    tiny_recipe: ResolvedRecipe, tiny_model: Path, tiny_data: Path, tmp_path: Path
) -> None:
    wide = replace(tiny_recipe, network_options={**tiny_recipe.network_options, "widths": (8, 8, 16, 32)})
    with pytest.raises(CheckpointError, match="another network"):
        fit(wide, tiny_data, tmp_path, Course(tiny_model))


def test_faulty_data_leave_nothing_behind(tiny_recipe: ResolvedRecipe, tiny_data: Path, tmp_path: Path) -> None:
    everyone = replace(tiny_recipe, data=(replace(tiny_recipe.data[0], exclude=("a", "b", "c", "d")),))
    with pytest.raises(RecipeError):
        fit(everyone, tiny_data, tmp_path, Course())
    assert list(tmp_path.iterdir()) == []


def test_building_depends_on_the_seed_alone(tiny_recipe: ResolvedRecipe) -> None:
    def weight(recipe: ResolvedRecipe) -> torch.Tensor:
        return next(build(recipe).parameters())

    first = weight(tiny_recipe)
    torch.rand(3)
    assert torch.equal(first, weight(tiny_recipe))
    assert not torch.equal(first, weight(replace(tiny_recipe, train=replace(tiny_recipe.train, seed=1))))


def test_all_of_a_run_is_where_its_network_is(tiny_recipe: ResolvedRecipe) -> None:
    """The average too: left on the processor, it could not follow weights on a graphics card."""
    state = blank(tiny_recipe, torch.device("meta"))
    assert {value.device.type for value in state.average.values()} == {"meta"}
    state.advance(0.9)
    assert state.step == 1


def test_pixels_reach_the_network_as_the_card_says() -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    pixels = normalised(torch.from_numpy(rgb), Preprocessing())
    assert np.allclose(pixels.permute(0, 2, 3, 1).numpy(), Preprocessing()(rgb), atol=1e-6)
    assert pixels.is_contiguous(memory_format=torch.channels_last)


def test_minutes_end_a_run_that_cools_down_in_time_over_interruptions(
    tiny_recipe: ResolvedRecipe, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a clock that goes on by 50 ms whenever it is looked at."""
    ticks = iter(range(10**6))
    monkeypatch.setattr(log_module, "time", SimpleNamespace(monotonic=lambda: next(ticks) / 20))
    recipe = Budget(minutes=0.1).over(replace(tiny_recipe, run=replace(tiny_recipe.run, cool=0.5)))
    totals: list[int] = []

    def stop(progress: Progress) -> None:
        totals.append(progress.total)
        if progress.done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(recipe, tiny_data, tmp_path, Course(), stop)
    assert all(progress < 200 for progress in totals[1:])
    at_checkpoint = float(log_rows(tmp_path)[5]["seconds"])
    next(islice(ticks, 1000, None))  # what passes between the two does not count
    state = fit(recipe, tiny_data, tmp_path, Course())
    seconds = [float(row["seconds"]) for row in log_rows(tmp_path)]
    assert state.cooling is not None
    first, length = state.cooling
    assert state.step == first + length == len(seconds)
    assert length == first
    assert seconds[first - 1] == pytest.approx(3, abs=0.3)
    assert seconds[-1] == pytest.approx(6, abs=1)  # the clock is looked at less often on the way down
    assert at_checkpoint < seconds[6] < at_checkpoint + 1
    assert 0 < rates(tmp_path)[-1] < 3e-3 / (length - 1)
    assert fit(recipe, tiny_data, tmp_path, Course()).step == state.step


def test_a_share_of_the_steps_is_cooled_down_over(tiny_recipe: ResolvedRecipe, tiny_data: Path, tmp_path: Path) -> None:
    recipe = replace(tiny_recipe, run=replace(tiny_recipe.run, cool=0.5))
    fit(recipe, tiny_data, tmp_path, Course())
    assert rates(tmp_path)[9:] == pytest.approx([3e-3 * (1 - max(0, done) / 10) for done in range(-1, 10)], rel=1e-4)
    assert fit(recipe, tiny_data, tmp_path, Course()).cooling == (10, 10)


@pytest.mark.parametrize(("budget", "steps"), [(Budget(epochs=2), 6), (Budget(tflop=1e-9), 1)])
def test_epochs_and_operations_end_a_run(
    tiny_recipe: ResolvedRecipe, tiny_data: Path, tmp_path: Path, budget: Budget, steps: int
) -> None:
    assert fit(budget.over(tiny_recipe), tiny_data, tmp_path, Course()).step == steps


def test_a_run_says_what_it_was_made_with_and_that_its_images_changed(
    whole: Path, tiny_recipe: ResolvedRecipe, tiny_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told = json.loads((whole / "environment.json").read_text(encoding="utf-8"))
    assert told["packages"]["torch"].startswith(torch.__version__.partition("+")[0])
    assert told["processor"]["threads"] == 1
    assert told["data"]["cells"]["images"] == 2
    assert len(told["data"]["cells"]["sha256"]) == 64
    out = tmp_path / "run"
    shutil.copytree(whole, out)
    other = replace(tiny_recipe, data=(replace(tiny_recipe.data[0], exclude=("d",), validate=("c",)),))
    told["data"]["cells"]["sha256"] = "0" * 64
    (out / "environment.json").write_text(json.dumps(told), encoding="utf-8")
    with caplog.at_level("WARNING", "nuclens.training"):
        fit(other, tiny_data, out, Course())
    assert "not those the run began with" in caplog.text


def test_tensorboard_hears_what_the_log_does_where_it_is_installed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[tuple[object, ...]] = []

    class Writer:
        def __init__(self, folder: str, purge_step: int) -> None:
            heard.append((folder, purge_step))

        def add_scalar(self, *told: object) -> None:
            heard.append(told)

        def close(self) -> None:
            heard.append(())

    monkeypatch.setattr(log_module, "find_spec", lambda name: None)
    Board(tmp_path, 3).close()
    assert heard == []
    monkeypatch.setattr(log_module, "find_spec", lambda name: name)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", SimpleNamespace(SummaryWriter=Writer))
    board = Board(tmp_path, 3)
    board.add(4, {"rate": 0.5})
    board.close()
    assert heard == [(str(tmp_path), 4), ("rate", 0.5, 4), ()]


@pytest.mark.parametrize(
    ("capabilities", "wanted"),
    [({"avx2": True}, "32-true"), ({"avx512_bf16": True}, "bf16-mixed"), ({"amx_bf16": True}, "bf16-mixed")],
)
def test_mixed_precision_only_where_the_processor_has_it(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], wanted: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert precision() == wanted
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert precision() == "32-true"


@pytest.mark.parametrize(
    ("generation", "wanted"), [((7, 5), "32-true"), ((8, 0), "bf16-mixed"), ((9, 0), "bf16-mixed")]
)
def test_mixed_precision_only_where_the_graphics_processor_has_it(
    monkeypatch: pytest.MonkeyPatch, generation: tuple[int, int], wanted: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: generation)
    assert precision() == wanted


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no graphics processor")
def test_training_on_a_graphics_processor_goes_on_where_it_stopped(train: Train, tmp_path: Path) -> None:
    out = train(stop=13)
    assert step_of(train(out=out)) == 20
    values = part(read_tensors(out / CHECKPOINT)[0], "average.").values()
    assert all(torch.isfinite(value).all() for value in values)


@pytest.mark.slow
def test_a_killed_run_on_a_bare_machine_ends_with_the_same_bits(
    tiny_recipe: ResolvedRecipe, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "precision", lambda: NATIVE)
    killed, straight = tmp_path / "killed", tmp_path / "straight"
    for folder in (killed, straight):
        folder.mkdir()
        (folder / RECIPE).write_text(tiny_recipe.to_json(), encoding="utf-8")
    command = [sys.executable, "-W", "ignore", "-c", BARE, str(killed), "--data", str(tiny_data), "--steps", "1000000"]
    # Sums depend on the number of threads, so both have one.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    pauses = np.random.default_rng(0).uniform(0, 0.5, KILLS)
    done = 0
    for pause in pauses.tolist():
        process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment)
        while done_in(killed) <= done and process.poll() is None:
            time.sleep(0.01)
        time.sleep(pause)  # the kill comes at any point of a step, a checkpoint or a validation
        process.kill()
        told = process.communicate()[1].decode()
        assert process.returncode == -signal.SIGKILL, told
        assert step_of(killed) > done
        done = step_of(killed)
    for folder in (killed, straight):
        main([str(folder), "--data", str(tiny_data), "--steps", str(done + 6)])
    assert_same_run(killed, straight)
    assert [int(row["step"]) for row in rows(killed)] == list(range(1, done + 7))


def test_the_bare_command_logs_every_hundred_steps_and_takes_the_options_of_train(
    tiny_recipe: ResolvedRecipe, whole: Path, tiny_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / RECIPE).write_text(tiny_recipe.to_json(), encoding="utf-8")
    with caplog.at_level("INFO", "nuclens.training"):
        main([str(tmp_path), "--data", str(tiny_data), "--from", str(whole), "--cooldown", "3"])
    assert [record.message for record in caplog.records if record.name == "nuclens.training"] == ["step 23 of 23"]
    assert len(rows(tmp_path)) == 3


def test_the_bare_command_wants_a_recipe(tiny_data: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"recipe\.json"):
        main([str(tmp_path), "--data", str(tiny_data)])
