from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nuclens.core.errors import CheckpointError, OutputError

pytest.importorskip("nuclens.training", exc_type=ImportError)

import torch
from torch import nn

from nuclens.training import state as module
from nuclens.training.state import State, fill, part, read_tensors


def fresh(seed: int = 0, width: int = 6) -> State:
    """A small network with batch norms, laid out in memory as networks are trained."""
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, 2, 3)]
    network = nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return State(network, torch.optim.AdamW(network.parameters(), 1e-2))


def work(state: State, steps: int) -> None:
    """Steps whose batches depend on the step alone."""
    for _ in range(steps):
        torch.manual_seed(100 + state.step)
        x = torch.randn(2, 3, 9, 9).to(memory_format=torch.channels_last)
        state.optimizer.zero_grad()
        state.network(x).square().mean().backward()
        state.optimizer.step()
        state.advance(0.9)


def everything(state: State) -> dict[str, torch.Tensor]:
    entries = state.optimizer.state_dict()["state"]
    moments = {f"{index}.{name}": value for index, entry in entries.items() for name, value in entry.items()}
    return {**state.network.state_dict(), **{f"average {k}": v for k, v in state.average.items()}, **moments}


def assert_equal(one: State, other: State) -> None:
    first, second = everything(one), everything(other)
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []
    assert (one.step, one.cooling) == (other.step, other.cooling)


def test_a_state_that_was_saved_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    state = fresh()
    work(state, 3)
    state.cooling = (3, 7)
    state.save(tmp_path / "x", "digest")
    again = fresh(seed=1)
    again.load(tmp_path / "x", "digest")
    assert_equal(again, state)
    work(state, 3)
    work(again, 3)
    assert_equal(again, state)


def test_everything_keeps_its_place_in_memory(tmp_path: Path) -> None:
    state = fresh()
    work(state, 1)
    state.save(tmp_path / "x", "digest")
    again = fresh(seed=1)
    again.load(tmp_path / "x")
    wanted = {name: value.stride() for name, value in everything(state).items()}
    assert {name: value.stride() for name, value in everything(again).items()} == wanted
    assert wanted["0.exp_avg"] == (27, 1, 9, 3)


def test_a_state_without_steps_can_be_saved(tmp_path: Path) -> None:
    state = fresh()
    state.save(tmp_path / "x", "digest")
    again = fresh(seed=1)
    again.load(tmp_path / "x")
    assert_equal(again, state)


def test_the_average_follows_the_weights() -> None:
    state = fresh()
    name, decay = "0.weight", 0.3
    average = state.average[name].clone()
    for step in range(1, 6):
        work_on = state.network.state_dict()[name]
        work_on.add_(torch.randn_like(work_on))
        state.network.state_dict()["1.num_batches_tracked"].fill_(step)
        state.advance(decay)
        kept = min(decay, (1 + step) / (10 + step))
        average = kept * average + (1 - kept) * work_on
        assert torch.allclose(state.average[name], average, atol=1e-6)
        assert state.average["1.num_batches_tracked"] == state.step == step


def test_the_average_is_a_copy_with_buffers() -> None:
    state = fresh()
    before = state.average["0.weight"].clone()
    work(state, 1)
    assert state.average.keys() == state.network.state_dict().keys()
    assert "1.running_var" in state.average
    assert not torch.equal(state.average["0.weight"], before)
    assert not any(value.requires_grad for value in state.average.values())


def test_another_recipe_is_refused(tmp_path: Path) -> None:
    fresh().save(tmp_path / "x", "one")
    with pytest.raises(CheckpointError, match=r"another recipe.*--out"):
        fresh().load(tmp_path / "x", "other")


def test_another_network_is_refused_and_named(tmp_path: Path) -> None:
    fresh(width=4).save(tmp_path / "x", "digest")
    with pytest.raises(CheckpointError, match=r"0\.bias is \(4,\), wanted \(6,\)") as raised:
        fresh().load(tmp_path / "x", "digest")
    assert "\n" not in str(raised.value)


def test_weights_alone_are_no_checkpoint(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({name: value.contiguous() for name, value in fresh().network.state_dict().items()}, tmp_path / "x")
    with pytest.raises(CheckpointError, match="absent"):
        fresh().load(tmp_path / "x")


@pytest.mark.parametrize("damage", ["absent", "empty", "text", "cut"])
def test_a_broken_file_is_told(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "x"
    if damage != "absent":
        fresh().save(path, "digest")
        path.write_bytes({"empty": b"", "text": b"no tensors", "cut": path.read_bytes()[:-9]}[damage])
    with pytest.raises(CheckpointError, match="cannot be read as safetensors") as raised:
        fresh().load(path, "digest")
    assert str(path) in str(raised.value)


def test_a_failure_to_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = fresh()
    state.save(tmp_path / "x", "digest")
    before = (tmp_path / "x").read_bytes()

    def half(tensors: Any, path: Path, notes: Any) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "save_file", half)
    work(state, 1)
    with pytest.raises(OutputError, match="disk is full"):
        state.save(tmp_path / "x", "digest")
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert (tmp_path / "x").read_bytes() == before


def test_filling_keeps_precision_and_asks_for_the_same_names() -> None:
    target = {"a": torch.zeros(2), "n": torch.zeros((), dtype=torch.long)}
    fill(target, {"a": torch.tensor([1.5, 2.5]).half(), "n": torch.tensor(3)}, Path("x"))
    assert target["a"].tolist() == [1.5, 2.5]
    assert (target["a"].dtype, int(target["n"])) == (torch.float32, 3)
    with pytest.raises(CheckpointError, match=r"b is \(1,\), wanted no such tensor"):
        fill(target, {**target, "b": torch.zeros(1)}, Path("x"))


def test_parts_are_picked_by_prefix() -> None:
    tensors = {"a.x": torch.zeros(1), "a.b.y": torch.ones(1), "b.x": torch.zeros(1)}
    assert part(tensors, "a.").keys() == {"x", "b.y"}


def test_metadata_may_be_absent(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.ones(2)}, tmp_path / "x")
    tensors, notes = read_tensors(tmp_path / "x")
    assert tensors["a"].tolist() == [1, 1]
    assert notes == {}
