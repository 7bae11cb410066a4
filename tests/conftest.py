"""What every test shares."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from hypothesis import settings
from jaxtyping import UInt8

from nuclens.core.card import Card, Preprocessing, card_from_json
from nuclens.core.heads import TISSUE, Head, tissue_heads
from nuclens.core.models import CARD, GRAPH
from nuclens.core.schema import ClassSchema, NucleusType

if TYPE_CHECKING:
    from nuclens.training.settings import ResolvedRecipe

ROOT = Path(__file__).parent.parent

# How long an example takes says more about the machine's other work than about ours.
settings.register_profile("nuclens", deadline=None)
settings.load_profile("nuclens")


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder of the real annotated images, beside the repository."""
    root = ROOT.parent / "shared" / "data"
    if not root.is_dir():
        pytest.skip("DATA MISSING: the annotated images are not beside the repository; real-image tests did not run")
    return root


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Data root of one pack, `cells`: pictures of ellipses on pink, one of each of the patients a, b, c and d.

    Type 1 is purple and round, type 2 blue and long; the upper left of b's picture is to be ignored.
    """
    root = tmp_path_factory.mktemp("data")
    for folder in ("images", "labels"):
        (root / "cells" / folder).mkdir(parents=True)
    for seed, patient in enumerate("abcd"):
        rng = np.random.default_rng(seed)
        rgb, labels = np.full((96, 96, 3), (228, 190, 214), np.uint8), np.zeros((96, 96), np.int32)
        types = np.array([0, 1, 2, 1, 2, 1, 2, 1, 2, 1], np.uint8)
        for nucleus in range(1, 10):
            centre = [16 + 32 * place + int(rng.integers(-3, 4)) for place in divmod(nucleus - 1, 3)]
            round_one = types[nucleus] == 1
            shape = (centre, (8, 8) if round_one else (13, 6), float(rng.integers(180)), 0, 360)
            cv2.ellipse(rgb, *shape, (120, 50, 140) if round_one else (60, 70, 170), -1)
            cv2.ellipse(labels, *shape, nucleus, -1)
        ignore = np.zeros((96, 96), bool)
        ignore[:30, :40] = patient == "b"
        arrays = {"instances": labels, "type_ids": types, "ignore": ignore}
        np.savez(root / "cells" / "labels" / f"{patient}_1.npz", **arrays)  # type: ignore[arg-type]
        cv2.imwrite(str(root / "cells" / "images" / f"{patient}_1.png"), rgb[..., ::-1])
    rows = "".join(f"{patient}_1,{patient}\n" for patient in "abcd")
    (root / "cells" / "index.csv").write_text(f"name,patient\n{rows}", encoding="utf-8")
    return root


@pytest.fixture(scope="session")
def tiny_recipe() -> ResolvedRecipe:
    """A recipe that learns `tiny_data` in seconds, and keeps patients c and d aside."""
    pytest.importorskip("torch", reason="torch is not installed: nothing can be trained")
    settings = pytest.importorskip("nuclens.training.settings", exc_type=ImportError)
    recipe: ResolvedRecipe = settings.ResolvedRecipe(
        name="tiny",
        mpp=0.25,
        network="nuclens",
        network_options={"widths": (8, 8, 16, 16), "blocks": (1, 1, 1, 1), "top_blocks": (1, 1, 1)},
        encoding="offset",
        encoding_options={},
        leaves=("round", "long"),
        types=(
            settings.TypeSettings("round", (230, 60, 60), ("round",)),
            settings.TypeSettings("long", (50, 110, 240), ("long",)),
        ),
        data=(
            settings.DataSettings("cells", leaves={"1": ("round",), "2": ("long",)}, exclude=("d",), validate=("c",)),
        ),
        losses={"nucleus_border_bce": 1.0, "nucleus_dice": 1.0, "offset_smooth_l1": 1.0, "type_coarse": 0.5},
        train=settings.TrainSettings(steps=20, batch=2, crop=64, warm_up=5, save_every=5),
    )
    return recipe


@pytest.fixture(scope="session")
def tiny_model(tiny_recipe: ResolvedRecipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an exported model of two types with random weights: quick to run, and right about nothing."""
    from nuclens.training.export import export
    from nuclens.training.start import build

    folder = tmp_path_factory.mktemp("models") / "tiny"
    with warnings.catch_warnings():
        # OpenVINO converts by way of torch.jit, which torch would rather see gone.
        warnings.simplefilter("ignore", DeprecationWarning)
        export(tiny_recipe, build(tiny_recipe).eval(), folder, steps=0, crops=None)
    return folder


@pytest.fixture(scope="session")
def painted_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a model, made without training, that finds exactly the discs of `paint`.

    A nucleus is where red is below 128, of type "large" where it is below 10; green and blue are the way to its centre.
    """
    import openvino as ov
    from openvino import opset13 as ops

    def where(condition: Any) -> Any:
        return ops.convert(condition, np.float32)

    pixels = ops.parameter([1, 3, -1, -1], np.float32)
    red, green, blue = ops.split(pixels, ops.constant(1), 3).outputs()
    small, large = (where(compare(red, np.float32(10))) for compare in (ops.greater_equal, ops.less))
    ways = ops.subtract(ops.concat([green, blue], 1), np.float32(128))
    outputs = {
        Head("nucleus", 1, "sigmoid", 255): where(ops.less(red, np.float32(128))),
        Head("offset", 2, "linear", 16): ops.divide(ways, np.float32(16)),
        Head("type", 2, "softmax", 255): ops.concat([small, large], 1),
    }
    types = (NucleusType("small", (230, 60, 60), (0,)), NucleusType("large", (50, 110, 240), (1,)))
    card = Card(
        name="painted",
        version="1",
        description="For tests.",
        license="CC0-1.0",
        mpp=0.25,
        schema=ClassSchema(("small", "large"), types),
        network="none",
        network_options={},
        encoding="offset",
        encoding_options={},
        heads=tuple(outputs),
        preprocessing=Preprocessing((0, 0, 0), (1, 1, 1)),
        precision="f32",
        stride=16,
        reach=0,
    )
    graph = ov.Model(list(outputs.values()), [pixels], "painted")
    for output, head in zip(graph.outputs, outputs, strict=True):
        output.get_tensor().set_names({head.name})
    folder = tmp_path_factory.mktemp("models") / "painted"
    folder.mkdir()
    ov.save_model(graph, folder / GRAPH, compress_to_fp16=False)
    (folder / CARD).write_text(card.to_json(), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tissue_model(painted_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of `painted_model` that also says of a tile how far it is "Nose", which is white, and how far "Ear".

    A pixel is wholly of the latter where red is 128 or less, half where it is 191.5, and so on.
    """
    import openvino as ov
    from openvino import opset13 as ops

    graph = ov.Core().read_model(painted_model / GRAPH)
    [pixels] = graph.get_parameters()
    red = ops.split(pixels, ops.constant(1), 3).outputs()[0]
    white = ops.clamp(ops.divide(ops.subtract(red, np.float32(128)), np.float32(127)), 0.0, 1.0)
    nose = ops.reduce_mean(white, ops.constant(np.array([2, 3])), keep_dims=True)
    tissue = ops.result(ops.concat([nose, ops.subtract(np.float32(1), nose)], 1))
    tissue.input(0).get_source_output().get_tensor().set_names({TISSUE})
    graph.add_results([tissue])
    card = card_from_json((painted_model / CARD).read_bytes(), CARD)
    tissues = ("Nose", "Ear")
    folder = tmp_path_factory.mktemp("models") / "tissue"
    folder.mkdir()
    ov.save_model(graph, folder / GRAPH, compress_to_fp16=False)
    told = replace(card, name="tissue", heads=(*card.heads, *tissue_heads(tissues)), tissues=tissues)
    (folder / CARD).write_text(told.to_json(), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def paint() -> Callable[..., UInt8[np.ndarray, "h w 3"]]:
    """Paints discs, each (row, column, radius), on white as `painted_model` reads them; of two the first is in front.

    A radius from 10 pixels up is "large". `scale` is that of the working grid on which the picture will be read.
    """

    def painted(
        height: int, width: int, discs: Iterable[tuple[int, int, int]], scale: float = 1
    ) -> UInt8[np.ndarray, "h w 3"]:
        rgb = np.full((height, width, 3), 255, np.uint8)
        for row, column, radius in discs:
            top, left = max(0, row - radius - 2), max(0, column - radius - 2)
            window = rgb[top : row + radius + 3, left : column + radius + 3]
            down, right = np.ogrid[top : top + window.shape[0], left : left + window.shape[1]]
            down, right = np.broadcast_arrays(row - down, column - right)
            free = window[..., 0] == 255
            # The way is painted a little around the disc too, so that resampling its rim does not bend it.
            window[free, 1:] = np.rint(128 + scale * np.stack([down, right], axis=-1))[free]
            window[free & (down**2 + right**2 <= radius**2), 0] = 20 if radius < 10 else 0
        return rgb

    return painted
