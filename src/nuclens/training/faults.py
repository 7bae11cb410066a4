"""What goes wrong in training, told so that one knows what to do."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch

from nuclens.core.errors import DivergedError, MemoryFault
from nuclens.training.sampling import Sampler
from nuclens.training.settings import ResolvedRecipe
from nuclens.training.state import State

log = logging.getLogger(__name__)
_CPU = ("DefaultCPUAllocator", "can't allocate memory", "not enough memory")  # words of torch's plain RuntimeError


@contextmanager
def in_memory(recipe: ResolvedRecipe) -> Iterator[None]:
    """Tell that something did not fit into memory, and what to lower.

    Raises:
        MemoryFault: It did not.
    """
    try:
        yield
    except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
        full = isinstance(error, torch.OutOfMemoryError | MemoryError) or any(word in str(error) for word in _CPU)
        if not full or isinstance(error, MemoryFault):
            raise
        train, run = recipe.train, recipe.run
        raise MemoryFault(
            f"out of memory with {train.batch} crops of {train.crop} px in {run.accumulate} "
            f"part{'' if run.accumulate == 1 else 's'}; raise run.accumulate, which changes nothing else, or lower "
            f"train.batch, train.crop or the network's width; the last checkpoint is kept"
        ) from error


def need_finite(terms: Mapping[str, float], state: State, recipe: ResolvedRecipe, sampler: Sampler) -> None:
    """Check the numbers of a step that was not learned from if they are not finite.

    Raises:
        DivergedError: They are not, and no more steps may be skipped.
    """
    bad = [name for name, value in terms.items() if not math.isfinite(value)]
    if not bad:
        return
    told = f"step {state.step + 1}: {', '.join(f'{name} is {terms[name]}' for name in bad)}"
    crops = ", ".join(dict.fromkeys(sampler.names(state.step)))
    state.skipped += 1
    if state.skipped > recipe.run.skip:
        raise DivergedError(
            f"{told}, on crops of {crops}; the last checkpoint is kept. Lower train.rate or train.clip and give "
            f"another --out, look at these images, or let run.skip batches pass"
        )
    log.warning("%s, on crops of %s; skipped, %d of %d", told, crops, state.skipped, recipe.run.skip)
