"""The tissue of whole images: what tiles say of it, what becomes of that in results, and how it is scored."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from jaxtyping import UInt8

from nuclens.core.datasets import DATASETS
from nuclens.core.evaluation import Resampling
from nuclens.core.heads import TISSUE
from nuclens.core.slides import ArraySlide
from nuclens.core.tissue_votes import VOTES, elected, of_texts, to_text, votes
from nuclens.core.types import read_instances
from nuclens.jobs.batch import BatchOptions, segment_files
from nuclens.jobs.evaluate import evaluate
from nuclens.jobs.journal import BLOCKS, DiskJournal
from nuclens.jobs.segment import Segmenter, load_model, run, segment
from nuclens.jobs.source import EvaluateOptions

Paint = Callable[..., UInt8[np.ndarray, "h w 3"]]
TISSUES = ("Nose", "Ear")


@pytest.fixture(scope="module")
def segmenter(tissue_model: Path) -> Segmenter:
    return load_model(tissue_model, tile_px=64)


@pytest.fixture(scope="module")
def shaded(paint: Paint) -> UInt8[np.ndarray, "h w 3"]:
    """A picture of six tiles of 64 pixels, three of them cut short, that is "Ear" to the right; with two nuclei."""
    rgb = paint(100, 190, [(20, 20, 8), (70, 150, 12)])
    rgb[:, 60:, 0] = np.minimum(rgb[:, 60:, 0], np.linspace(255, 128, 130).astype(np.uint8))
    return rgb


def test_votes_are_counted_by_owned_pixels() -> None:
    cast = [
        votes(np.array([[[a]], [[255 - a]]], np.uint8), core) for a, core in ((255, (0, 0, 2, 3)), (0, (0, 3, 1, 7)))
    ]
    assert [one.tolist() for one in cast] == [[6 * 255, 0], [0, 4 * 255]]
    assert of_texts(map(to_text, cast)).tolist() == [1530, 1020]
    assert elected(cast[0] + cast[1], TISSUES) == {"tissue": "Nose", "tissue probability": "0.600"}
    assert elected(of_texts([]), TISSUES) == {}, "of a picture without tiles nothing is said"
    # A slide of a hundred thousand tiles of 2048 pixels.
    assert of_texts([to_text(votes(np.full((1, 1, 1), 255, np.uint8), (0, 0, 2048, 2048)))] * 10)[0] * 10**4 > 2**43


def test_a_result_says_what_its_tiles_say_together(segmenter: Segmenter, shaded: np.ndarray) -> None:
    picture = segmenter.picture("array", ArraySlide(shaded, 0.25, ""), 0.25)
    assert len(picture.tiles) == 6
    seen = [(tile, segmenter.runner.run(picture.read(tile))[TISSUE]) for tile in picture.tiles]
    pixels = [(tile.core[2] - tile.core[0]) * (tile.core[3] - tile.core[1]) for tile, _ in seen]
    shares = [float(raw[0, 0, 0]) / float(raw.sum()) for _, raw in seen]
    assert len(set(shares)) > 2
    wanted = float(np.average(shares, weights=pixels))
    found = segment(shaded, model=segmenter, mpp=0.25).metadata
    assert found["tissue"] == ("Nose" if wanted > 0.5 else "Ear")
    assert float(found["tissue probability"]) == pytest.approx(max(wanted, 1 - wanted), abs=1e-3)
    assert VOTES not in found
    assert segment(np.full((40, 40, 3), 255, np.uint8), model=segmenter, mpp=0.25).metadata["tissue"] == "Nose"
    assert segment(np.full((40, 40, 3), 128, np.uint8), model=segmenter, mpp=0.25).metadata["tissue"] == "Ear"


def test_nuclei_are_those_of_the_model_without(segmenter: Segmenter, painted_model: Path, shaded: np.ndarray) -> None:
    plain, other = (segment(shaded, model=one, mpp=0.25) for one in (load_model(painted_model, tile_px=64), segmenter))
    assert len(plain) >= 2
    for name in ("vertices", "offsets", "types", "scores", "probabilities"):
        assert np.array_equal(getattr(plain, name), getattr(other, name))
    assert not {"tissue", "tissue probability", VOTES} & set(plain.metadata)


def test_a_run_that_goes_on_says_the_same(segmenter: Segmenter, shaded: np.ndarray, tmp_path: Path) -> None:
    """Votes of tiles that were done before are in the journal."""
    told = []
    for name in ("whole", "ended"):
        journal = DiskJournal(tmp_path / name)
        for _ in range(2):
            picture = replace(segmenter.picture("array", ArraySlide(shaded, 0.25, ""), 0.25), journal=journal)
            journal.begin(picture.plan)
            [found] = run(segmenter, [picture], segmenter.tissue)
            told.append(found)
            if name == "ended":
                for block in sorted((tmp_path / name / BLOCKS).iterdir())[::2]:
                    block.unlink()
    assert all(found == told[0] for found in told)
    assert told[0] == {
        key: text for key, text in segment(shaded, model=segmenter, mpp=0.25).metadata.items() if "tissue" in key
    }


def test_files_record_and_summary_name_it(
    tissue_model: Path, painted_model: Path, shaded: np.ndarray, tmp_path: Path
) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), shaded[..., ::-1])
    told = {}
    for name, model in (("with", tissue_model), ("without", painted_model)):
        options = BatchOptions(model=str(model), mpp=0.25, formats=("geoparquet", "geojson", "summary"), tile_px=64)
        [outcome] = segment_files([tmp_path / "a.png"], tmp_path / name, options)
        record = json.loads((tmp_path / name / "a" / "run.json").read_text(encoding="utf-8"))
        assert outcome.record == record
        with (tmp_path / name / "summary.csv").open(newline="", encoding="utf-8") as file:
            [row] = csv.DictReader(file)
        metadata = read_instances(tmp_path / name / "a" / "instances.parquet").metadata
        assert read_instances(tmp_path / name / "a" / "instances.geojson").metadata == metadata
        told[name] = [one.get("tissue") for one in (record, row, metadata)]
        assert record.get("tissue probability") == metadata.get("tissue probability")
        page = (tmp_path / name / "a" / "summary.html").read_text(encoding="utf-8")
        assert (f"Nose ({record.get('tissue probability')})" in page) == (name == "with")
    assert told == {"with": ["Nose"] * 3, "without": [None] * 3}


def test_accuracy_stands_beside_every_protocol(
    tissue_model: Path, painted_model: Path, paint: Paint, tmp_path: Path
) -> None:
    """Whether a model finds it or a file of results says it; where nothing is said, nothing is scored."""
    truth = tmp_path / "truth"
    for folder in (truth / "images", truth / "labels"):
        folder.mkdir(parents=True)
    organs = {"a": "Nose", "b": "Ear", "c": "Ear", "d": ""}
    for name, red in (("a", 255), ("b", 140), ("c", 250), ("d", 255)):
        rgb = paint(64, 64, [(30, 30, 9)])
        rgb[..., 0] = np.minimum(rgb[..., 0], red)
        labels = (rgb[..., 0] < 128).astype(np.uint16)
        cv2.imwrite(str(truth / "images" / f"{name}.png"), rgb[..., ::-1])
        cv2.imwrite(str(truth / "labels" / f"{name}.png"), labels)
    rows = "".join(f"{name},{name},{organ}\n" for name, organ in organs.items())
    (truth / "index.csv").write_text(f"name,patient,organ\n{rows}", encoding="utf-8")
    assert [entry.tissue for entry in DATASETS.get("folder").open(truth).entries] == [*organs.values()]
    options = EvaluateOptions("folder", mpp=0.25, resampling=Resampling(repeats=20))
    found = evaluate(load_model(tissue_model), truth, "monuseg", options=options)
    headline = found.scores[0].table.headline
    assert headline["tissue accuracy"] == pytest.approx(2 / 3)
    assert "tissue accuracy" in found.scores[0].table.averaging
    settings = BatchOptions(model=str(tissue_model), mpp=0.25, formats=("geoparquet",))
    segment_files([truth / "images"], tmp_path / "run", settings)
    of_files = evaluate(tmp_path / "run", truth, "monuseg", options=options).scores[0].table.headline
    assert of_files == headline
    plain = evaluate(load_model(painted_model), truth, "monuseg", options=options).scores[0].table.headline
    assert plain == {name: value for name, value in headline.items() if name != "tissue accuracy"}
