"""Validation: what is set aside, read by the averaged weights as `segment` would and scored as `evaluate` does."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.func import functional_call

from nuclens.core.comparison import Comparison, Nuclei, from_instances
from nuclens.core.files import replacing
from nuclens.core.heads import TISSUE, UNKNOWN, Head, RawHeads, to_integers
from nuclens.core.kinds import Kind
from nuclens.core.plan import MARGIN_PX
from nuclens.core.resample import read_working
from nuclens.core.slides import ArraySlide
from nuclens.core.tiling import tile_plan
from nuclens.core.tissue_votes import elected, votes
from nuclens.core.types import InstanceMap
from nuclens.training.augment_settings import AugmentSettings
from nuclens.training.film import FILM, FilmReel
from nuclens.training.inputs import ACTIVATIONS, normalised
from nuclens.training.log import VALIDATION, Log
from nuclens.training.sampling import Batch, Sampler, Source
from nuclens.training.settings import ResolvedRecipe
from nuclens.training.start import ENCODINGS, heads_of
from nuclens.training.state import State, rounded

METRICS: Kind[Any] = Kind("nuclens.metrics")
BEST, BEST_NOTE = "best.safetensors", "best.json"
CORE_PX, HALO_PX = 1024, 192  # of the windows an image is read in
CROPS = 8  # batches of plain crops that the loss is taken of
RULES = {
    "pq": "highest panoptic quality, IoU above 0.5, mean over validation images; of equals the lowest loss",
    "loss": "lowest weighted loss of plain crops of the validation images; the earliest of equals",
}
_PLAIN = AugmentSettings(0, 0, 0, 0, 0, 0, noise=0, jpeg=0, symmetry="none")


@dataclass(frozen=True, slots=True, eq=False)
class Reader:
    """Reads whole images with the weights of a state.

    Attributes:
        network: Whose layers are used.
        weights: What is put in place of its own.
        recipe: Encoding, its options and the classes.
        device: Where the network is.
    """

    network: nn.Module
    weights: Mapping[str, Tensor]
    recipe: ResolvedRecipe
    device: torch.device

    def __call__(self, rgb: UInt8[np.ndarray, "h w 3"]) -> InstanceMap:
        """The nuclei of an image, by the recipe's decoder."""
        return self.read(rgb)[0]

    def read(self, rgb: UInt8[np.ndarray, "h w 3"]) -> tuple[InstanceMap, str]:
        """The nuclei of an image, by the recipe's decoder, and its tissue, where the recipe has some."""
        encoding = ENCODINGS.get(self.recipe.encoding)
        options = encoding.options(**self.recipe.encoding_options)
        raw, tissues = self.raw(rgb), self.recipe.tissues
        found: InstanceMap = encoding.decode(raw, self.recipe.schema, options)
        return found, elected(raw[TISSUE], tissues).get("tissue", "") if tissues else ""

    def raw(self, rgb: UInt8[np.ndarray, "h w 3"]) -> RawHeads:
        """All heads of an image as integers; windows overlap, beyond the image it is mirrored.

        That of tissues is the votes of all windows, (tissues,).
        """
        heads = heads_of(self.recipe)
        stride = int(self.network.stride)  # type: ignore[arg-type]
        shape = rgb.shape[0], rgb.shape[1]
        whole: dict[str, np.ndarray] = {
            head.name: np.zeros(head.channels, np.int64)
            if head.whole
            else np.zeros((head.channels, *shape), np.int8 if head.signed else np.uint8)
            for head in heads
        }
        core = -(-CORE_PX // stride) * stride
        slide = ArraySlide(rgb, None, "")
        for tile in tile_plan(shape, core, HALO_PX, stride, margin_px=MARGIN_PX):
            values = self._values(read_working(slide, tile.box, 1.0), heads)
            top, left, bottom, right = tile.core
            rows, columns = (
                slice(top - tile.box[0], bottom - tile.box[0]),
                slice(left - tile.box[1], right - tile.box[1]),
            )
            for head in heads:
                if head.whole:
                    whole[head.name] += votes(to_integers(head, values[head.name]), tile.core)
                else:
                    whole[head.name][:, top:bottom, left:right] = to_integers(head, values[head.name][:, rows, columns])
        return whole

    @torch.no_grad()
    def _values(self, rgb: UInt8[np.ndarray, "h w 3"], heads: tuple[Head, ...]) -> dict[str, np.ndarray]:
        preprocessing = self.recipe.preprocessing
        planes = np.ascontiguousarray(preprocessing.split(rgb))
        x = normalised(torch.from_numpy(planes[None]).to(self.device), preprocessing)
        training = self.network.training
        raw = functional_call(self.network.eval(), dict(self.weights), (x,))
        self.network.train(training)
        return {head.name: ACTIVATIONS[head.activation](raw[head.name].float())[0].cpu().numpy() for head in heads}


class Validator:
    """Scores the averaged weights on what is set aside, keeps the best of them, and films a few windows.

    Args:
        recipe: What is trained.
        sources: Images set aside; none where nothing is, so that there is only a film.
        shown: Images that are filmed.
        place: Run folder, the steps done, beyond which rows are forgotten, and the steps between two validations.
    """

    def __init__(
        self, recipe: ResolvedRecipe, sources: list[Source], shown: list[Source], place: tuple[Path, int, int]
    ) -> None:
        self.recipe, self.sources, (self.out, step, self.every) = recipe, sources, place
        self.log = Log(self.out / VALIDATION, step)
        self.reel = FilmReel(self.out / FILM, shown, recipe.schema)
        plain = replace(recipe, augment=_PLAIN)
        self.sampler = Sampler(plain, ENCODINGS.get(recipe.encoding), sources)
        self.best = best_of(self.log.rows, recipe.run.best)

    @property
    def regular(self) -> list[dict[str, str]]:
        """Rows but those of the ends that a run had before it was prolonged: what it does must not depend on them."""
        return [row for row in self.log.rows if int(row["step"]) % self.every == 0]

    @property
    def history(self) -> list[tuple[int, float]]:
        """Step and loss of every regular validation."""
        return [(int(row["step"]), float(row["loss"])) for row in self.regular]

    def lacks(self, step: int, *, ended: bool) -> bool:
        """Whether a step was to be validated and was not."""
        wanted = step > 0 and (ended or step % self.every == 0)
        return bool(self.sources) and wanted and str(step) not in {row["step"] for row in self.log.rows}

    def __call__(self, state: State, epoch: float, losses: Callable[[Batch], dict[str, float]]) -> None:
        """Look at the weights of a step, and keep them if there were no better ones.

        Raises:
            OutputError: Something cannot be written.
        """
        network = state.network
        # A nucleus that just so is one may not be in the exported model: its weights are rounded.
        reader = Reader(
            network, rounded(state.kept(self.recipe.run.keep)), self.recipe, next(network.parameters()).device
        )
        self.reel.add(state.step, reader)
        if not self.sources:
            return
        scores = self._scores(reader) | self._losses(losses)
        self.log.add(state.step, {"epoch": epoch, **scores})
        self.log.flush()
        best = best_of(self.log.rows, self.recipe.run.best)
        if best is not None and (best != self.best or not (self.out / BEST).exists()):
            self.best = best
            self._keep(state, scores)

    def stale(self) -> bool:
        """Whether so many validations have brought nothing better that the run is to end."""
        patience, best = self.recipe.run.patience, best_of(self.regular, self.recipe.run.best)
        return bool(patience and best is not None and sum(int(row["step"]) > best for row in self.regular) >= patience)

    def _scores(self, reader: Reader) -> dict[str, float]:
        """Panoptic quality and its factors, as means over images where they are defined, and accuracy of tissues."""
        metric = METRICS.get("panoptic")
        parts, right, tissues = [], [], self.recipe.tissues
        for source in self.sources:
            truth = source.labels
            nuclei, tissue = reader.read(source.rgb)
            found = from_instances(nuclei)
            # Where nothing is known, nothing is scored.
            pred = Nuclei(np.where(truth < 0, 0, found.labels))
            parts.append(metric.parts(Comparison(Nuclei(truth.clip(0).astype(np.int32)), pred)))
            right += [tissue == tissues[source.tissue]] if source.tissue != UNKNOWN else []
        scores = metric.scores(np.stack(parts))
        found_scores = {name: _mean(scores[name]) for name in ("pq", "dq", "sq")}
        return found_scores | ({"tissue_accuracy": _mean(np.array(right, float))} if tissues else {})

    def _losses(self, losses: Callable[[Batch], dict[str, float]]) -> dict[str, float]:
        """Mean of every loss term over plain crops, the same each time, and their weighted sum as `loss`."""
        told = [losses(self.sampler.batch(index)) for index in range(CROPS)]
        terms = {name: sum(one[name] for one in told) / CROPS for name in self.recipe.losses}
        total = sum(weight * terms[name] for name, weight in self.recipe.losses.items())
        return {"loss": total, **terms}

    def _keep(self, state: State, scores: dict[str, float]) -> None:
        """Write the averaged weights, and what they are the best by."""
        note = {"step": state.step, "rule": RULES[self.recipe.run.best], **scores}
        with replacing(self.out / BEST) as path:
            tensors = {
                name: value.detach().cpu().contiguous() for name, value in state.kept(self.recipe.run.keep).items()
            }
            save_file(tensors, path, {"step": str(state.step), "recipe": self.recipe.digest})
        with replacing(self.out / BEST_NOTE) as path:
            path.write_text(json.dumps(note, indent=2) + "\n", encoding="utf-8")


def best_of(rows: list[dict[str, str]], rule: str) -> int | None:
    """Step of the best row of a validation log; None where no row has a number.

    Example:
        >>> best_of([{"step": "10", "pq": "0", "loss": "3"}, {"step": "20", "pq": "0", "loss": "2"}], "pq")
        20
    """
    columns = ((-1, "pq"), (1, "loss")) if rule == "pq" else ((1, "loss"),)
    keys = [(*(sign * float(row[name]) for sign, name in columns), int(row["step"])) for row in rows]
    known = [key for key in keys if all(map(math.isfinite, key))]
    return int(min(known)[-1]) if known else None


def _mean(values: np.ndarray) -> float:
    defined = values[np.isfinite(values)]
    return float(defined.mean()) if len(defined) else math.nan
