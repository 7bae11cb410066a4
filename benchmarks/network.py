"""Counts the network's work and holds its speed against this machine's matrix rate; writes docs/results/network.md.

    python benchmarks/network.py [--model DIR]

Tiles of one size follow each other, as in a slide: the engine compiles the graph once for them.
The matrix rate is that of a single-precision product of 2048 x 2048 matrices on all cores, measured in turn with
the network so that a busy neighbour slows both. A pause after each product lets its threads come to rest: for a tenth
of a second they wait at full speed for the next one, on cores that the network then does without.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from nuclens.core.models import Model, open_model
from nuclens.core.plan import halo_px
from nuclens.engines.openvino import PLUGIN as OPENVINO
from nuclens.engines.torch import PLUGIN as TORCH
from nuclens.jobs.segment import TILE_PX
from nuclens.training.export import save_graph

PAGE = Path(__file__).parent.parent / "docs" / "results" / "network.md"
SIDE, ROUNDS, MATRIX = 1024, 15, 2048
PAUSE_S = 0.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="default")
    model = open_model(parser.parse_args().model)
    card = model.card
    gflop = flops(model, SIDE) / 1e9
    halo = halo_px(card)
    mpp = card.mpp or 0.25
    per_mm2 = gflop * (1000 / mpp / SIDE) ** 2 / 1000
    with_halo = per_mm2 * ((TILE_PX + 2 * halo) / TILE_PX) ** 2
    lines = [
        "# Cost and speed of the default network",
        "",
        "Made by `python benchmarks/network.py`.",
        "",
        "| | |",
        "|---|---|",
        f"| parameters | {sum(p.numel() for p in network_of(model).parameters()):,} |",
        f"| GFLOP per {SIDE} x {SIDE} pixels, counted | {gflop:.2f} |",
        f"| measured reach, halo | {card.reach} px, {halo} px |",
        f"| TFLOP per mm², without halo | {per_mm2:.3f} |",
        f"| **TFLOP per mm², halo of the default tiling ({TILE_PX}) included** | **{with_halo:.3f}** |",
        "",
        "| precision | ms per 1024 x 1024 | GFLOP/s | matrix rate, GFLOP/s | share |",
        "|---|---|---|---|---|",
    ]
    pixels = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    for precision, runner in runners(model).items():
        seconds, rate = in_turn(partial(runner.run, pixels))
        speed = gflop / seconds
        lines.append(f"| {precision} | {1000 * seconds:.0f} | {speed:.0f} | {rate:.0f} | {100 * speed / rate:.0f} % |")
        print(lines[-1], flush=True)
    PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")


def network_of(model: Model) -> torch.nn.Module:
    network: torch.nn.Module = TORCH.load(model, TORCH.options()).network
    return network


def flops(model: Model, side: int) -> int:
    """Multiplications and additions, counted apart, of one pass."""
    network = network_of(model).to("meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.zeros(1, 3, side, side, device="meta"))
    return int(counter.get_total_flops())


def runners(model: Model) -> dict[str, Any]:
    """The shipped graph, and the same weights in single precision."""
    folder = Path(tempfile.mkdtemp())
    save_graph(network_of(model), model.card.heads, folder / "model.xml")
    plain = Model(folder, replace(model.card, precision="f32"), model.digest)
    loaded = {"f32": OPENVINO.load(plain, OPENVINO.options())}
    if model.card.precision != "f32":
        loaded[f"{model.card.precision} (shipped)"] = OPENVINO.load(model, OPENVINO.options())
    return loaded


def in_turn(network: Callable[[], Any]) -> tuple[float, float]:
    """Median seconds of the network, and GFLOP/s of the matrix product between its runs."""
    matrix = np.random.default_rng(0).standard_normal((MATRIX, MATRIX), dtype=np.float32)
    network()
    seconds, rates = [], []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        matrix @ matrix
        rates.append(2 * MATRIX**3 / (time.perf_counter() - began) / 1e9)
        time.sleep(PAUSE_S)
        began = time.perf_counter()
        network()
        seconds.append(time.perf_counter() - began)
    return statistics.median(seconds), statistics.median(rates)


if __name__ == "__main__":
    main()
