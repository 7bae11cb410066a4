"""Engine `openvino`: runs an exported graph on a CPU, 8-bit pixels in, 8-bit heads out."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import openvino as ov
from jaxtyping import UInt8
from openvino import opset13 as ops

from nuclens.core.card import Preprocessing
from nuclens.core.errors import CheckpointError, InputError
from nuclens.core.heads import Head, RawHeads
from nuclens.core.models import GRAPH, Model
from nuclens.core.plan import instruction_class

HELD_PX = 7_000_000  # graphs take 90 bytes for each pixel of their size: one of the default tile, or many small ones


@dataclass(frozen=True, slots=True)
class OpenVinoOptions:
    """How the graph is run.

    Attributes:
        threads: Of the engine; 0 means all cores. The result does not depend on it.
        precision: That of the model's card, or nothing, which is the same.
    """

    threads: int = 0
    precision: str = ""


@dataclass(frozen=True, slots=True)
class OpenVinoRunner:
    """A model compiled for every size of tile that comes.

    A graph that knows its size takes less memory and a little less time. Never
    is one of any size used beside it: in 8 bits the two may round differently,
    and a tile's bits would depend on its place in the queue. What it costs and
    gains is in docs/adr/0008-a-graph-for-every-size.md.

    Attributes:
        graph: Takes 8-bit planes and gives 8-bit heads.
        settings: The engine's.
        heads: Names and meaning of the outputs.
        preprocessing: Planes of the input; their means and deviations are in the graph.
        precision: Of the graph, as its card has it.
    """

    graph: Any
    settings: dict[str, Any]
    heads: tuple[Head, ...]
    preprocessing: Preprocessing
    precision: str
    _compiled: dict[tuple[int, int], Any] = field(default_factory=dict)

    @property
    def processor(self) -> str:
        """What rounds, as plans hold it: the instructions of the CPU."""
        return instruction_class()

    def run(self, rgb: UInt8[np.ndarray, "h w 3"]) -> RawHeads:
        """Heads of one tile as integers; its sides are multiples of the model's stride."""
        planes = self.preprocessing.split(rgb)
        results = self._request((rgb.shape[0], rgb.shape[1])).infer([planes[None]], share_inputs=True)
        return {head.name: np.array(result[0]) for head, result in zip(self.heads, results.values(), strict=True)}

    def _request(self, size: tuple[int, int]) -> Any:
        """The graph for a size; the last one used is the last to be dropped."""
        request = self._compiled.pop(size, None)
        if request is None:
            while self._compiled and sum(map(math.prod, (size, *self._compiled))) > HELD_PX:
                del self._compiled[next(iter(self._compiled))]
            graph = self.graph.clone()
            graph.reshape(ov.PartialShape([1, *size, self.preprocessing.channels]))
            request = ov.Core().compile_model(graph, "CPU", self.settings).create_infer_request()
        self._compiled[size] = request
        return request


@dataclass(frozen=True, slots=True)
class OpenVinoEngine:
    """Compiles models for this machine's CPU."""

    options: type[OpenVinoOptions] = OpenVinoOptions

    @property
    def version(self) -> str:
        """Name and version, as plans hold them."""
        return f"openvino {ov.__version__.split('-')[0]}"

    def load(self, model: Model, options: OpenVinoOptions) -> OpenVinoRunner:
        """Compile a model.

        Raises:
            CheckpointError: The graph cannot be read, or does not fit its card.
            InputError: It was exported in another precision.
        """
        exported = model.card.precision
        if options.precision not in ("", exported):
            raise InputError(
                f"--precision {options.precision}: {model.folder} was exported in {exported}, which OpenVINO "
                f"runs as it is; leave it out, or give --engine torch"
            )
        core = ov.Core()
        path = model.folder / GRAPH
        try:
            graph = core.read_model(path)
        except RuntimeError as error:
            raise CheckpointError(f"{path}: cannot be read by OpenVINO; export the model again") from error
        names = {name: output for output in graph.outputs for name in output.get_names()}
        missing = [head.name for head in model.card.heads if head.name not in names]
        if missing:
            raise CheckpointError(f"{path}: no output {', '.join(missing)}; graph and card are of different exports")
        integers = _with_integers(graph, model, names)
        settings = {
            # Precision is part of the plan: without the hint OpenVINO takes bfloat16 where the CPU has it.
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": options.threads,
            # Else the threads are held to the first cores, and those of other processes too, while others stand idle.
            "ENABLE_CPU_PINNING": False,
        }
        return OpenVinoRunner(integers, settings, model.card.heads, model.card.preprocessing, exported)


def _with_integers(graph: Any, model: Model, names: dict[str, Any]) -> Any:
    """The graph with 8-bit planes as input and 8-bit heads as outputs; rounding happens inside the engine."""
    outputs = [_rounded(names[head.name], head) for head in model.card.heads]
    whole = ov.Model(outputs, graph.get_parameters(), "nuclens")
    steps = ov.preprocess.PrePostProcessor(whole)
    source = steps.input()
    source.tensor().set_element_type(ov.Type.u8).set_layout(ov.Layout("NHWC"))
    source.model().set_layout(ov.Layout("NCHW"))
    preprocessing = model.card.preprocessing
    # Channels are gathered while they are bytes: as floats that takes four times as long.
    source.preprocess().convert_layout(ov.Layout("NCHW")).convert_element_type(ov.Type.f32)
    source.preprocess().mean(list(preprocessing.mean)).scale(list(preprocessing.std))
    return steps.build()


def _rounded(output: Any, head: Head) -> Any:
    low, high, kind = (-127.0, 127.0, ov.Type.i8) if head.signed else (0.0, 255.0, ov.Type.u8)
    value = output.get_node().input_value(0)  # what goes into the graph's result
    scaled = ops.multiply(value, ops.constant(np.float32(head.scale)))
    return ops.convert(ops.clamp(ops.round(scaled, "half_to_even"), low, high), kind)


PLUGIN = OpenVinoEngine()
