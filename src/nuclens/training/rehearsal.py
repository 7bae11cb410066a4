"""A rehearsal: three steps of a run, to tell what all of it will take; nothing is written."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

from nuclens.core.machine import peak_memory
from nuclens.training.budget import ending_of
from nuclens.training.cost import forward_flop, measures, parameters
from nuclens.training.environment import digests
from nuclens.training.faults import in_memory
from nuclens.training.loop import Step, blank, terms_of
from nuclens.training.processes import fabric_of
from nuclens.training.sampling import Sampler, doubts, load_sources
from nuclens.training.schedule import NO_END
from nuclens.training.settings import ResolvedRecipe
from nuclens.training.start import ENCODINGS, Course

STEPS = 3
SIDE = 256  # of the picture that a network's cost is told for


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """What a run would take.

    Attributes:
        images: Training images of each data set.
        aside: Images set aside for validation.
        megapixels: Of all training images.
        nuclei: Training nuclei.
        parameters: Weights that are learned.
        gflop: 10^9 operations on a picture of 256 x 256.
        tflop_step: 10^12 operations of a step, there and back, estimated.
        epoch: Steps of an epoch.
        steps: Of the run; None where time alone ends it.
        seconds: Of a step: the median of three after a first.
        waited: Share of them in which the network waited for crops.
        memory: Most bytes held at once: of the graphics processor, or of the process.
        device: Where it ran, and in which precision.
        notes: What one should know.
    """

    images: dict[str, int]
    aside: int
    megapixels: float
    nuclei: int
    parameters: int
    gflop: float
    tflop_step: float
    epoch: int
    steps: int | None
    seconds: float
    waited: float
    memory: int | None
    device: str
    notes: tuple[str, ...] = ()


def rehearse(recipe: ResolvedRecipe, data: Path, course: Course) -> Rehearsal:
    """Read the data, do a first step and three more, and tell.

    Raises:
        CorruptDatasetError: Data are missing.
        MemoryFault: A batch does not fit into memory.
    """
    with in_memory(recipe):
        fabric = fabric_of(recipe, 1)
        state = blank(recipe)
        module, optimizer = fabric.setup(state.network, state.optimizer)
        sources = load_sources(recipe, data)
        sampler = Sampler(recipe, ENCODINGS.get(recipe.encoding), sources, workers=course.workers)
        step = Step(fabric, module, optimizer, recipe, terms_of(recipe))
        took = list(_steps(step, sampler))[1:]
    pixels = sum(source.labels.size for source in sources)
    size = measures(recipe, state.network, pixels)
    last = ending_of(recipe, size, 0).last
    cuda = fabric.device.type == "cuda"
    found = digests(sources)
    return Rehearsal(
        images={name: entry["images"] for name, entry in found.items()},
        aside=len(load_sources(recipe, data, "validate")),
        megapixels=pixels / 1e6,
        nuclei=sum(len(source.truth.leaves) - 1 for source in sources),
        parameters=parameters(state.network),
        gflop=forward_flop(state.network, (1, recipe.preprocessing.channels, SIDE, SIDE)) / 1e9,
        tflop_step=size.step_flop / 1e12,
        epoch=size.epoch,
        steps=None if last == NO_END else last,
        seconds=median(seconds for seconds, _ in took),
        waited=sum(waited for _, waited in took) / sum(seconds for seconds, _ in took),
        memory=torch.cuda.max_memory_allocated() if cuda else peak_memory(),
        notes=doubts(recipe, sources),
        device=f"{torch.cuda.get_device_name() if cuda else 'processor'}, {fabric._precision.precision}",
    )


def _steps(step: Step, sampler: Sampler) -> Iterator[tuple[float, float]]:
    """Seconds of each step, and those of them that crops were waited for."""
    batches = sampler.batches(0, STEPS + 1)
    for _ in range(STEPS + 1):
        began = time.monotonic()
        batch = next(batches)
        waited = time.monotonic() - began
        step(batch, step.recipe.train.rate / 1000, 0.0)
        yield time.monotonic() - began, waited
