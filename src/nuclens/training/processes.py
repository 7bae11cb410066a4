"""Devices, precision, and several processes that share every batch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Any, Literal

import torch
from lightning.fabric import Fabric
from lightning.fabric.plugins.precision.amp import MixedPrecision
from torch.multiprocessing.spawn import ProcessRaisedException

from nuclens.core.errors import InputError, NuclensError
from nuclens.core.machine import cores
from nuclens.core.types import Progress
from nuclens.training.job import Hooks, Job
from nuclens.training.settings import ResolvedRecipe


def precision() -> Literal["bf16-mixed", "32-true"]:
    """Mixed precision where the device has bfloat16 instructions, else single precision."""
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.get_device_capability() >= (8, 0) else "32-true"
    # Older versions of torch cannot tell.
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return "bf16-mixed" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "32-true"


def fabric_of(recipe: ResolvedRecipe, devices: int) -> Fabric:
    """Fabric for a recipe's precision.

    Raises:
        InputError: Half precision without a graphics processor, or more devices than there are.
    """
    wanted = recipe.run.precision
    strategy = "auto" if devices == 1 else "ddp_spawn"
    cuda = torch.cuda.is_available()
    if cuda and devices > torch.cuda.device_count():
        raise InputError(f"--devices {devices}: there are {torch.cuda.device_count()}")
    if wanted == "fp16":
        if not cuda:
            raise InputError("run.precision fp16 needs a graphics processor; take bf16, f32 or auto")
        plugin = MixedPrecision("16-mixed", device="cuda", scaler=torch.amp.GradScaler("cuda"))
        return Fabric(accelerator="auto", devices=devices, strategy=strategy, plugins=[plugin])
    kind = {"auto": precision(), "f32": "32-true", "bf16": "bf16-mixed"}[wanted]
    return Fabric(accelerator="auto", devices=devices, strategy=strategy, precision=kind)


def need_parts(recipe: ResolvedRecipe, devices: int) -> None:
    """Check that a batch can be shared evenly.

    Raises:
        InputError: It cannot.
    """
    parts = devices * recipe.run.accumulate
    if devices < 1 or recipe.train.batch % parts:
        raise InputError(
            f"a batch of {recipe.train.batch} crops cannot be shared by {devices} devices in {recipe.run.accumulate} "
            f"parts each; wanted train.batch as a multiple of {max(1, parts)}"
        )


def launched(work: Callable[..., Any], job: Job, hooks: Hooks) -> None:
    """Do a job in as many processes as it asks for; what the first one reports is heard here.

    Raises:
        NuclensError: What one of them raised.
    """
    context = torch.multiprocessing.get_context("spawn")
    queue = context.SimpleQueue()
    errors: list[NuclensError] = []

    def listen() -> None:
        while (heard := queue.get()) is not None:
            if isinstance(heard, NuclensError):
                errors.append(heard)
            else:
                hooks.report(heard)

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        fabric = fabric_of(job.recipe, job.course.devices)
        fabric.launch(partial(_apart, work=work, job=job, ends=(hooks.watch, queue)))
    except ProcessRaisedException:
        if not errors:
            raise
    finally:
        queue.put(None)
        listener.join()
    if errors:
        raise errors[0]


def _apart(fabric: Fabric, work: Callable[..., Any], job: Job, ends: tuple[Callable[..., None], Any]) -> None:
    """In a process of its own: share the processor, and report over the queue."""
    watch, queue = ends
    if fabric.device.type == "cpu":
        torch.set_num_threads(max(1, cores() // fabric.world_size))

    def report(progress: Progress) -> None:
        if fabric.global_rank == 0:
            with suppress(OSError):
                queue.put(progress)

    try:
        work(fabric, job, Hooks(report, watch))
    except NuclensError as error:
        queue.put(error)  # what crosses over by itself is a traceback alone
        raise
