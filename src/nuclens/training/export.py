"""Export: a run's averaged weights as a folder that engines run without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from safetensors.torch import save
from torch import Tensor, nn

from nuclens.core.card import Card, Preprocessing
from nuclens.core.errors import MissingExtraError
from nuclens.core.files import replacing
from nuclens.core.heads import Head
from nuclens.core.models import CARD, GRAPH, WEIGHTS
from nuclens.training.inputs import ACTIVATIONS, normalised
from nuclens.training.settings import ResolvedRecipe, recipe_of
from nuclens.training.start import build, heads_of
from nuclens.training.state import CHECKPOINT, fill, mixed, part, read_tensors
from nuclens.training.validation import BEST

PROBE_STRIDES, PROBE_PX = 32, 512
REACH_SHARE = 0.01
_COLOURS = Preprocessing()
_EOSIN = np.array([225, 170, 205], np.float32)


class Deployed(nn.Module):
    """A network with its heads' activations applied, outputs in the order of its heads."""

    def __init__(self, network: nn.Module, heads: tuple[Head, ...]) -> None:
        super().__init__()
        self.network, self.heads = network, heads

    def forward(self, x: Float[Tensor, "n c h w"]) -> tuple[Tensor, ...]:
        """Probabilities and vectors of normalised pixels."""
        raw = self.network(x)
        return tuple(ACTIVATIONS[head.activation](raw[head.name]) for head in self.heads)


def read_run(run: Path, *, best: bool = True) -> tuple[ResolvedRecipe, nn.Module, dict[str, str]]:
    """Recipe, network with averaged weights in evaluation mode, and metadata of a run.

    Args:
        run: Its folder.
        best: Take the weights that validation found best, where there was one; else the last.

    Raises:
        CheckpointError: The folder is not a run.
    """
    recipe = recipe_of(run)
    path = run / BEST if best and (run / BEST).exists() else run / CHECKPOINT
    tensors, metadata = read_tensors(path)
    network = build(recipe)
    if path.name != BEST:
        tensors = mixed(part(tensors, "average."), part(tensors, "start."), recipe.run.keep)
    fill(network.state_dict(), tensors, path)
    return recipe, network.eval(), metadata


def export(
    recipe: ResolvedRecipe, network: nn.Module, out: Path, *, steps: int, crops: UInt8[np.ndarray, "n h w 3"] | None
) -> Card:
    """Write graph, constants, weights and card of a trained network to a folder.

    Args:
        recipe: What it was trained by.
        network: In evaluation mode; its weights are rounded to half precision.
        out: Folder of the model; files in it are replaced.
        steps: How long it was trained.
        crops: Training crops; given, the graph is quantised to 8 bits on them.

    Raises:
        MissingExtraError: Quantisation is asked for and NNCF is not installed.
    """
    heads = heads_of(recipe)
    weights = {name: _half(value) for name, value in network.state_dict().items()}
    network.load_state_dict(weights)  # so that every engine computes with the very numbers of the weights file
    card = _card(recipe, network, steps, "f32" if crops is None else "int8")
    out.mkdir(parents=True, exist_ok=True)
    save_graph(network, heads, out / GRAPH, recipe.preprocessing, crops)
    with replacing(out / WEIGHTS) as path:
        path.write_bytes(save(weights))
    with replacing(out / CARD) as path:
        path.write_text(card.to_json(), encoding="utf-8")
    return card


def save_graph(
    network: nn.Module,
    heads: tuple[Head, ...],
    path: Path,
    preprocessing: Preprocessing = _COLOURS,
    crops: UInt8[np.ndarray, "n h w 3"] | None = None,
) -> None:
    """Write a network as OpenVINO graph and constants, of any size that is a multiple of its stride.

    Raises:
        MissingExtraError: `crops` ask for 8 bits and NNCF is not installed.
    """
    import openvino as ov
    from openvino.frontend.pytorch import ConversionExtension

    shuffle = ConversionExtension("aten::pixel_shuffle", _depth_to_space)
    side = _probe_px(network)
    channels = preprocessing.channels
    example = torch.zeros(1, channels, side, side)
    with torch.no_grad():
        graph = ov.convert_model(Deployed(network, heads).eval(), example_input=example, extension=[shuffle])
    graph.reshape({graph.inputs[0]: ov.PartialShape([1, channels, -1, -1])})
    for output, head in zip(graph.outputs, heads, strict=True):
        output.get_tensor().set_names({head.name})
    if crops is not None:
        graph = _quantised(graph, [preprocessing(crop) for crop in crops])
    # OpenVINO counts nodes up within a process; these names make every export of the same weights the same bytes.
    graph.set_friendly_name("nuclens")
    for number, node in enumerate(graph.get_ordered_ops()):
        node.set_friendly_name(f"{node.get_type_name()}_{number}")
    ov.save_model(graph, path, compress_to_fp16=False)


def reach_px(network: nn.Module, heads: tuple[Head, ...], preprocessing: Preprocessing = _COLOURS) -> int:
    """Measured reach, pixels: the farthest row below a changed upper half where over 1 % of pixels still move.

    A pixel moves if any of its outputs does, by over half an integer step.
    The pictures are smooth seeded noise in the colours of a stained section: on what it takes for no tissue at all a
    network is sure of itself, and its reach comes out too short.
    """
    side = _probe_px(network)
    deployed = Deployed(network, heads).eval()
    before, other = _sections(0, side), _sections(1, side)
    after = np.concatenate([other[:, : side // 2], before[:, side // 2 :]], axis=1)
    with torch.no_grad():
        outputs = (deployed(_inputs(pictures, preprocessing)) for pictures in (before, after))
        pairs = [(a, b, head) for a, b, head in zip(*outputs, heads, strict=True) if not head.whole]
    moved = torch.stack([((a - b).abs() * head.scale > 0.5).any(dim=1) for a, b, head in pairs]).any(dim=0)
    rows = torch.nonzero(moved.float().mean(dim=(0, 2))[side // 2 :] > REACH_SHARE)
    return int(rows.max()) + 1 if len(rows) else 0


def _probe_px(network: nn.Module) -> int:
    """Side of the pictures that a network is tried on; the deep ones would fill the memory with as many strides."""
    stride = int(network.stride)  # type: ignore[arg-type]
    return min(PROBE_STRIDES * stride, max(PROBE_PX, 8 * stride))


def _sections(seed: int, side: int) -> UInt8[np.ndarray, "n side side 3"]:
    noise = np.random.default_rng(seed).standard_normal((4, side, side, 3), np.float32)
    smooth = np.stack([cv2.GaussianBlur(picture, (0, 0), 8) for picture in noise])
    pixels: np.ndarray = (_EOSIN + 300 * smooth).clip(0, 255)
    return pixels.astype(np.uint8)


def _inputs(pictures: UInt8[np.ndarray, "n h w 3"], preprocessing: Preprocessing) -> Tensor:
    planes = np.stack([preprocessing.split(rgb) for rgb in pictures])
    return normalised(torch.from_numpy(planes), preprocessing)


def _half(value: Tensor) -> Tensor:
    return (value.half() if value.is_floating_point() else value).contiguous()


def _depth_to_space(shuffle: Any) -> list[Any]:
    """A pixel shuffle as one operation; OpenVINO's own conversion transposes six axes, six times as slow.

    The way back has to stay as it is converted: 8-bit ranges do not pass `SpaceToDepth`, so the convolution
    behind it would be run in floats.
    """
    from openvino import opset13 as ops

    side = shuffle.get_values_from_const_input(1)
    outputs: list[Any] = ops.depth_to_space(shuffle.get_input(0), "depth_first", side).outputs()
    return outputs


def _quantised(graph: Any, crops: list[Float32[np.ndarray, "h w c"]]) -> Any:
    try:
        import nncf
    except ImportError as error:
        raise MissingExtraError(
            "int8 export needs nncf; `pip install 'nuclens[export]'`, or --precision f32"
        ) from error
    pixels = [np.moveaxis(crop, -1, 0)[None] for crop in crops]
    return nncf.quantize(
        graph,
        nncf.Dataset(pixels),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(pixels),
        # Slower, and worth 0.004 of panoptic quality on the images set aside.
        fast_bias_correction=False,
        # Without VNNI instructions 8-bit products overflow unless weights keep a bit in hand.
        advanced_parameters=nncf.AdvancedQuantizationParameters(overflow_fix=nncf.OverflowFix.ENABLE),
    )


def _card(recipe: ResolvedRecipe, network: nn.Module, steps: int, precision: str) -> Card:
    about = recipe.about
    heads = heads_of(recipe)
    return Card(
        name=recipe.name,
        version=about.version,
        description=about.description,
        license=about.license,
        mpp=recipe.mpp,
        schema=recipe.schema,
        network=recipe.network,
        network_options=recipe.network_options,
        encoding=recipe.encoding,
        encoding_options=recipe.encoding_options,
        heads=heads,
        preprocessing=recipe.preprocessing,
        precision=precision,
        stride=int(network.stride),  # type: ignore[arg-type]
        reach=reach_px(network, heads, recipe.preprocessing),
        datasets=about.datasets,
        limits=about.limits,
        metrics=about.metrics,
        training={
            "recipe": recipe.digest,
            "seed": recipe.train.seed,
            "steps": steps,
            "crops": steps * recipe.train.batch,
        },
        tissues=recipe.tissues,
    )
