from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from jaxtyping import UInt8

from nuclens.core.datasets import DATASETS
from nuclens.core.errors import DataError, InputError, NuclensError, UnknownPluginError
from nuclens.core.evaluation import Resampling
from nuclens.jobs.batch import BatchOptions, segment_files
from nuclens.jobs.evaluate import evaluate
from nuclens.jobs.segment import load_model
from nuclens.jobs.source import EvaluateOptions

Paint = Callable[..., UInt8[np.ndarray, "h w 3"]]
FEW = Resampling(repeats=30)
HURRIED = EvaluateOptions(resampling=FEW)
FILES = {"metrics.json", "per_image.csv", "per_tissue.csv", "per_class.csv", "report.html"}
DISCS = {
    "a_1": [(20, 20, 8), (50, 70, 12)],
    "a_2": [(30, 30, 9), (60, 60, 14), (20, 80, 7)],
    "b_1": [(45, 50, 20)],
    "b_2": [],
}


def disc_labels(discs: list[tuple[int, int, int]]) -> np.ndarray:
    labels = np.zeros((90, 100), np.int32)
    down, right = np.ogrid[:90, :100]
    for label, (row, column, radius) in reversed([*enumerate(discs, 1)]):
        labels[(down - row) ** 2 + (right - column) ** 2 <= radius**2] = label
    return labels


@pytest.fixture
def folders(tmp_path: Path, paint: Paint) -> tuple[Path, Path]:
    """A `folder` data set of painted discs, and predicted label maps that lack the last nucleus of each image."""
    root, pred = tmp_path / "truth", tmp_path / "pred"
    for folder in (root / "images", root / "labels", root / "types", pred):
        folder.mkdir(parents=True)
    for name, discs in DISCS.items():
        cv2.imwrite(str(root / "images" / f"{name}.png"), paint(90, 100, discs)[..., ::-1])
        labels = disc_labels(discs)
        cv2.imwrite(str(root / "labels" / f"{name}.png"), labels.astype(np.uint16))
        kinds = [(k, "small" if radius < 10 else "large") for k, (_, _, radius) in enumerate(discs, 1)]
        rows = "".join(f"{k},{kind}\n" for k, kind in kinds)
        (root / "types" / f"{name}.csv").write_text(f"label,type\n{rows}")
        np.save(pred / f"{name}_pred.npy", np.where(labels == len(discs), 0, labels))
    (root / "classes.csv").write_text("id,name,color\n1,small,#e63c3c\n2,large,#326ef0\n")
    (root / "index.csv").write_text("name,patient,organ\n" + "".join(f"{name},{name[0]},Nose\n" for name in DISCS))
    return pred, root


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


# --- what is said ---


@pytest.mark.data
def test_the_official_numbers_and_all_files(data_root: Path, tmp_path: Path) -> None:
    golden = data_root / "golden" / "pannuke_metrics"
    options = replace(HURRIED, tissues=golden / "types.npy")
    found = evaluate(golden / "pred.npz", golden / "true.npz", "pannuke", options=options, out=tmp_path)
    table = found["pannuke"].table
    assert table.headline["mPQ"] == pytest.approx(0.5760143852743482, abs=1e-9)
    assert table.headline["bPQ"] == pytest.approx(0.6336406934526956, abs=1e-9)
    assert (table.images, table.truth_nuclei, found.drawn) == (40, 1605, "40 images")
    assert {path.name for path in tmp_path.iterdir()} == FILES
    written = json.loads((tmp_path / "metrics.json").read_text(encoding="utf-8"))
    [scores] = written["scores"]
    assert scores["table"]["headline"]["mPQ"] == table.headline["mPQ"]
    assert scores["table"]["per_type"]["dead"]["PQ"] is None
    assert scores["headline"]["mPQ"] == list(found["pannuke"].headline["mPQ"])
    images = rows(tmp_path / "per_image.csv")
    assert len(images) == 40
    assert images[36]["mPQ"] == ""
    tissues = rows(tmp_path / "per_tissue.csv")
    skin = next(row for row in tissues if (row["tissue"], row["score"]) == ("Skin", "mPQ"))
    assert float(skin["low"]) <= float(skin["value"]) <= float(skin["high"])
    types = rows(tmp_path / "per_class.csv")
    assert {row["class"]: row["value"] for row in types}["connective"].startswith("0.597599")
    # Types.npy beside the array is found without being named.
    again = evaluate(golden / "pred.npz", golden / "true.npz", "pannuke", options=HURRIED)
    assert repr(again.scores) == repr(found.scores)


def test_a_seed_decides_the_intervals(folders: tuple[Path, Path]) -> None:
    found, again, other = (
        evaluate(*folders, "monuseg", options=EvaluateOptions(resampling=Resampling(30, seed))) for seed in (3, 3, 4)
    )
    assert repr(found) == repr(again)
    assert found.scores[0].headline != other.scores[0].headline
    assert repr(found.scores[0].table) == repr(other.scores[0].table)


def test_a_folder_of_label_maps_is_scored_by_names(folders: tuple[Path, Path]) -> None:
    found = evaluate(*folders, "monuseg", options=HURRIED)
    table = found["monuseg"].table
    assert table.per_image["id"] == list(DISCS)
    assert table.per_image["group"] == ["a", "a", "b", "b"]
    assert table.per_image["DQ"][:3] == pytest.approx([2 / 3, 4 / 5, 0])
    assert math.isnan(table.per_image["DQ"][3])
    assert (found.images["truth"], found.images["pred"]) == ([2, 3, 1, 0], [1, 2, 0, 0])
    assert found.images["pixels"] == [9000] * 4
    assert (sum(found.sizes["truth"]), sum(found.sizes["found"]), sum(found.sizes["right"])) == (6, 3, 3)
    assert found.colors == {"small": (230, 60, 60), "large": (50, 110, 240)}


def test_all_takes_what_fits_and_says_what_does_not(folders: tuple[Path, Path], tmp_path: Path) -> None:
    found = evaluate(*folders, options=HURRIED, out=tmp_path / "out")
    names = [scores.table.protocol for scores in found.scores]
    assert names == ["cellvit", "hovernet", "monuseg", "pannuke_plus", "semantic", "stardist"]
    left_out = [note for note in found.notes if "left out" in note]
    assert [note.split()[1] for note in left_out] == ["pannuke"]
    assert any("types are the truth's" in note for note in found["pannuke_plus"].table.notes)
    assert list(found["pannuke_plus"].table.per_type) == ["small", "large"]
    columns = rows(tmp_path / "out" / "per_image.csv")[0]
    assert {"id", "monuseg AJI", "hovernet AJI"} <= columns.keys()
    with pytest.raises(InputError, match=r"no protocol 'x'; there are cellvit"):
        found["x"]


def test_repaired_is_another_protocol(folders: tuple[Path, Path]) -> None:
    found = evaluate(*folders, "hovernet", options=replace(HURRIED, repaired=True))
    assert found["hovernet"].table.protocol == "hovernet repaired"


@pytest.mark.parametrize(("mpp", "radius"), [(None, 12), (0.25, 12), (0.5, 6), (0.27, 12), (1.0, 3)])
def test_the_radius_is_that_of_the_resolution(tmp_path: Path, mpp: float | None, radius: float) -> None:
    """The prediction is farther off than the radius by a pixel, then by one less."""
    truth, near, far = (np.zeros((64, 64), np.int32) for _ in range(3))
    truth[30:34, 10:14] = 1
    near[30:34, 10 + int(radius) : 14 + int(radius)] = 1
    far[30:34, 11 + int(radius) : 15 + int(radius)] = 1
    for name, labels in (("truth", truth), ("near", near), ("far", far)):
        np.save(tmp_path / f"{name}.npy", labels)
    options = replace(HURRIED, mpp=mpp)
    found = [
        evaluate(tmp_path / f"{name}.npy", tmp_path / "truth.npy", "hovernet", options=options)
        for name in ("near", "far")
    ]
    assert [one["hovernet"].table.headline["F_d"] for one in found] == [1, 0]
    assert any("--mpp" in note for note in found[0].notes) == (mpp is None)


# --- who is scored ---


def test_a_run_folder_and_a_loaded_model_score_the_same(
    folders: tuple[Path, Path], painted_model: Path, tmp_path: Path
) -> None:
    _, truth = folders
    options = replace(HURRIED, mpp=0.25)
    [*outcomes] = segment_files([truth / "images"], tmp_path / "run", BatchOptions(model=str(painted_model), mpp=0.25))
    assert not any(outcome.error for outcome in outcomes)
    of_run = evaluate(tmp_path / "run", truth, "hovernet", options=HURRIED)
    assert of_run.mpp == 0.25
    seen = []
    of_model = evaluate(load_model(painted_model), truth, "hovernet", options=options, out=tmp_path / "out",
                        report=lambda progress: seen.append((progress.done, progress.total)))  # fmt: skip
    assert of_model.pred == "model painted 1"
    assert repr(of_run.scores) == repr(of_model.scores)
    assert seen == [(k, 4) for k in range(1, 5)]
    table = of_run["hovernet"].table
    assert table.headline["F_d"] == 1
    assert [cells["F"] for cells in table.per_type.values()] == [1, 1]
    assert "<img" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


@pytest.mark.data
def test_a_run_on_real_packs_is_scored_as_its_labels_are(data_root: Path, tmp_path: Path) -> None:
    """Label maps of the packs as a prediction of themselves are perfect, in the words of CoNSeP's paper."""
    pred = tmp_path / "pred"
    pred.mkdir()
    samples = DATASETS.get("consep").open(data_root / "consep").split("test")
    for sample in (samples[0], samples[1]):
        np.savez_compressed(pred / f"{sample.id}.npz", instances=sample.labels, type_ids=sample.types,
                            type_names=np.array(samples.schema.names))  # fmt: skip
    listed = tmp_path / "two.txt"
    listed.write_text("\n".join(samples.ids[:2]))
    options = replace(HURRIED, dataset="consep", split=str(listed))
    found = evaluate(pred, data_root / "consep", "hovernet", options=options)
    table = found["hovernet"].table
    assert found.mpp == 0.25
    assert list(table.per_type) == ["miscellaneous", "inflammatory", "epithelial", "spindle-shaped"]
    assert table.headline["AJI"] == table.headline["F_d"] == 1
    scores = [cells["F"] for cells in table.per_type.values()]
    assert {score for score in scores if not math.isnan(score)} == {1.0}


def test_types_without_counterpart_are_told(folders: tuple[Path, Path], tmp_path: Path) -> None:
    _, truth = folders
    pred = tmp_path / "typed"
    pred.mkdir()
    for name, discs in DISCS.items():
        kinds = np.array([0, *(3 if radius < 10 else 1 for _, _, radius in discs)], np.uint8)
        np.savez(pred / f"{name}.npz", instances=disc_labels(discs), type_ids=kinds, type_names=["LARGE", "x", "tiny"])
    found = evaluate(pred, truth, "hovernet", options=HURRIED)
    assert any("3 nuclei of the prediction are 'tiny'" in note for note in found.notes)
    per_type = found["hovernet"].table.per_type
    assert (per_type["small"]["F"], per_type["large"]["F"]) == (0, 1)


@pytest.fixture
def strange(folders: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """Perfect label maps with types called Tumour and spindle, and the truth."""
    pred = tmp_path / "strange"
    pred.mkdir()
    for name, discs in DISCS.items():
        kinds = np.array([0, *(1 if radius < 10 else 2 for _, _, radius in discs)], np.uint8)
        names = ["Tumour", "spindle"] if discs else []
        np.savez(pred / f"{name}.npz", instances=disc_labels(discs), type_ids=kinds, type_names=np.array(names, str))
    return pred, folders[1]


def test_strange_types_are_scored_by_a_map(strange: tuple[Path, Path], folders: tuple[Path, Path]) -> None:
    options = replace(HURRIED, renames=(("tumour", "small"), ("spindle", "Large")))
    found = evaluate(*strange, "hovernet", options=options)
    assert [cells["F"] for cells in found["hovernet"].table.per_type.values()] == [1, 1]
    assert not any("without type" in note for note in found.notes)
    one = evaluate(*strange, "hovernet", options=replace(HURRIED, renames=(("tumour", "small"),)))
    assert any("3 nuclei of the prediction are 'spindle'" in note for note in one.notes)
    with pytest.raises(InputError, match=r"--map: no type called tumor in \S*strange; there are Tumour, spindle"):
        evaluate(*strange, "hovernet", options=replace(HURRIED, renames=(("tumor", "small"), ("Tumour", "large"))))
    with pytest.raises(InputError, match=r"--map spindle=x: 'x' is none of the scored types; there are small, large"):
        evaluate(*strange, "hovernet", options=replace(HURRIED, renames=(("spindle", "x"),)))
    options = replace(HURRIED, renames=(("spindle", "x"),))
    with pytest.raises(InputError, match="there are none, as the truth has no types"):
        evaluate(strange[0], folders[1] / "labels", "monuseg", options=options)


def test_a_type_that_only_a_late_image_has_is_found(tmp_path: Path) -> None:
    for side in ("pred", "truth"):
        (tmp_path / side).mkdir()
        for number in range(8):
            late = "rare" if number == 7 and side == "pred" else "common"
            arrays = {"instances": np.eye(4, dtype=np.int32), "type_ids": np.array([0, 1]), "type_names": [late]}
            np.savez(tmp_path / side / f"{number}.npz", **arrays)  # type: ignore[arg-type]
    options = replace(HURRIED, renames=(("rare", "common"),))
    found = evaluate(tmp_path / "pred", tmp_path / "truth", "hovernet", options=options)
    assert found["hovernet"].table.per_type["common"]["F"] == 1


def test_any_number_of_workers_gives_the_same_files(tmp_path: Path) -> None:
    DATASETS.get("pannuke").write_example(tmp_path / "made")
    samples = DATASETS.get("pannuke").open(tmp_path / "made")
    (tmp_path / "pred").mkdir()
    for sample in samples:
        names, moved = np.array(["odd", *samples.schema.names[1:]]), np.roll(sample.labels, 1, axis=0)
        np.savez(tmp_path / "pred" / f"{sample.id}.npz", instances=moved, type_ids=sample.types, type_names=names)
    seen = []
    for workers in (1, 3):
        options = replace(HURRIED, dataset="pannuke", workers=workers, renames=(("odd", samples.schema.names[1]),))
        evaluate(tmp_path / "pred", tmp_path / "made", options=options, out=tmp_path / str(workers),
                 report=lambda progress: seen.append(progress.done))  # fmt: skip
        files = {path.name: path.read_bytes() for path in (tmp_path / str(workers)).iterdir()}
        assert files == {path.name: path.read_bytes() for path in (tmp_path / "1").iterdir()}
    assert seen.count(len(samples)) == 2


def test_numbers_of_workers_that_make_no_sense(folders: tuple[Path, Path], painted_model: Path) -> None:
    with pytest.raises(InputError, match="workers: got -1; wanted the number of processes"):
        evaluate(*folders, "monuseg", options=replace(HURRIED, workers=-1))
    options = replace(HURRIED, workers=2, mpp=0.25)
    with pytest.raises(InputError, match="workers: got 2 beside a model"):
        evaluate(load_model(painted_model), folders[1], "monuseg", options=options)
    none_told = evaluate(*folders, "monuseg", options=replace(HURRIED, workers=0))
    assert repr(none_told.scores) == repr(evaluate(*folders, "monuseg", options=HURRIED).scores)


def test_a_part_of_a_data_set_leaves_its_other_predictions_alone(folders: tuple[Path, Path], tmp_path: Path) -> None:
    pred, truth = folders
    listed = tmp_path / "part.txt"
    listed.write_text("a_1\nb_1\n")
    options = replace(HURRIED, dataset="folder", split=str(listed))
    assert evaluate(pred, truth, "monuseg", options=options).images["id"] == ["a_1", "b_1"]
    (pred / "b_2_pred.npy").unlink()
    with pytest.raises(InputError, match=r"b_2|a_2_pred"):
        evaluate(pred, truth, "monuseg", options=options)
    np.save(pred / "c_9.npy", np.zeros((4, 4), np.int32))
    with pytest.raises(InputError, match=r"c_9"):
        evaluate(pred, truth, "monuseg", options=options)


def test_no_result_of_an_image_depends_on_another(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """At no time more than one image of each side is held."""
    import gc
    import weakref

    from nuclens.core import comparison, overlap

    alive: list[int] = []
    made: list[Any] = []
    begin = overlap.runs_of

    def counting(truth: Any, pred: Any) -> Any:
        gc.collect()
        made.append(weakref.ref(truth))
        alive.append(sum(one() is not None for one in made))
        return begin(truth, pred)

    monkeypatch.setattr(comparison, "runs_of", counting)
    evaluate(*folders, "monuseg", options=HURRIED)
    assert max(alive) <= 2


# --- what is refused ---


def changed(pred: Path, truth: Path, what: str) -> tuple[Path, Path, EvaluateOptions]:
    """Both sides after something went wrong, and the options of the call."""
    options = HURRIED
    labels = disc_labels(DISCS["a_1"])
    path = pred / "a_1_pred.npy"
    match what:
        case "missing":
            path.unlink()
        case "spare":
            np.save(pred / "new.npy", labels)
        case "shape":
            np.save(path, labels[:-1])
        case "negative":
            np.save(path, -labels)
        case "fractions":
            np.save(path, labels / 3)
        case "not a number":
            np.save(path, np.where(labels == 0, np.nan, labels))
        case "objects":
            np.save(path, np.array([{}]), allow_pickle=True)
        case "no folder":
            pred = pred / "nowhere"
        case "no truth":
            truth = truth / "nowhere"
        case "no data set":
            options = replace(options, dataset="pannuk")
        case "no split":
            options = replace(options, dataset="folder", split="test")
        case "split of files":
            truth, options = truth / "labels", replace(options, split="test")
        case "tissues of a data set":
            options = replace(options, tissues=pred)
        case "mpp":
            options = replace(options, mpp=-1.0)
    return pred, truth, options


@pytest.mark.parametrize(
    ("what", "error", "said"),
    [
        ("missing", InputError, r"1 of 4 images have no prediction \(a_1\)"),
        ("spare", InputError, r"1 predictions have no image \(new.npy\)"),
        ("shape", DataError, r"a_1_pred.npy: a prediction of \(89, 100\) pixels for an image of \(90, 100\)"),
        ("negative", DataError, r"a_1_pred.npy: ids from -2 to 0"),
        ("fractions", DataError, "a_1_pred.npy: ids with fractions"),
        ("not a number", DataError, "a_1_pred.npy: "),
        ("objects", NuclensError, "a_1"),
        ("no folder", DataError, "nowhere: there is no such file or folder"),
        ("no truth", DataError, "nowhere: there is no such file or folder"),
        ("no data set", UnknownPluginError, "no 'pannuk'; did you mean pannuke"),
        ("no split", InputError, "split 'test'"),
        ("split of files", InputError, "say which data set it is a copy of, with --dataset"),
        ("tissues of a data set", InputError, "types.npy goes with arrays alone"),
        ("mpp", InputError, "got mpp=-1"),
    ],
)
def test_what_cannot_be_scored_is_told(
    folders: tuple[Path, Path], what: str, error: type[Exception], said: str
) -> None:
    pred, truth, options = changed(*folders, what)
    with pytest.raises(error, match=said):
        evaluate(pred, truth, "monuseg", options=options)


def test_an_unknown_protocol_and_one_that_does_not_fit(folders: tuple[Path, Path]) -> None:
    with pytest.raises(UnknownPluginError, match="did you mean pannuke"):
        evaluate(*folders, "panuke", options=HURRIED)
    with pytest.raises(InputError, match="wants Adrenal_gland"):
        evaluate(folders[0], folders[1] / "labels", "pannuke", options=HURRIED)


def arrays(folder: Path, masks: np.ndarray, tissues: Any) -> EvaluateOptions:
    np.save(folder / "masks.npy", masks)
    np.save(folder / "tissues.npy", tissues)
    return replace(HURRIED, tissues=folder / "tissues.npy")


def test_arrays_that_are_no_pannuke(tmp_path: Path) -> None:
    masks = np.zeros((3, 16, 16, 6), np.int16)
    masks[0, 2:6, 2:6, 1] = 1
    options = arrays(tmp_path, masks, np.array(["Colon", "Colon", "Skin"]))
    path = tmp_path / "masks.npy"
    assert evaluate(path, path, "pannuke", options=options)["pannuke"].table.headline["mPQ"] == pytest.approx(
        1, abs=1e-5
    )
    np.save(tmp_path / "fewer.npy", masks[:2])
    with pytest.raises(InputError, match="holds 2 images for 3"):
        evaluate(tmp_path / "fewer.npy", path, "pannuke", options=options)
    with pytest.raises(DataError, match="wanted 3 tissue names as text"):
        evaluate(path, path, "pannuke", options=arrays(tmp_path, masks, np.array(["Colon"])))
    with pytest.raises(DataError, match="saved as text"):
        evaluate(path, path, "pannuke", options=arrays(tmp_path, masks, np.array(["Colon", None, 3], object)))
    colon = np.array(["Colon"] * 3)
    options = arrays(tmp_path, masks, colon)
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 and then nothing")
    with pytest.raises(DataError, match=r"broken.npz: cannot be unpacked"):
        evaluate(tmp_path / "broken.npz", path, "pannuke", options=options)
    masks[1, 0, 0, 2] = -4
    with pytest.raises(DataError, match="ids from -4 to 0"):
        evaluate(tmp_path / "masks.npy", path, "pannuke", options=arrays(tmp_path, masks, colon))


def test_an_array_of_more_than_the_part_is_refused(tmp_path: Path) -> None:
    """Places in an array of all folds are not those in one of them."""
    DATASETS.get("pannuke").write_example(tmp_path)
    masks = [tmp_path / f"Fold {fold}" / "masks" / f"fold{fold}" / "masks.npy" for fold in (2, 3)]
    options = replace(HURRIED, dataset="pannuke", split="fold3")
    assert evaluate(masks[1], tmp_path, "pannuke", options=options)["pannuke"].table.headline["bPQ"] > 0.999
    np.save(tmp_path / "all.npy", np.concatenate([np.load(masks[0])] * 3))
    with pytest.raises(InputError, match=r"all.npy: holds 6 images for 2"):
        evaluate(tmp_path / "all.npy", tmp_path, "pannuke", options=options)


@pytest.mark.parametrize(
    ("labels", "quality"),
    [
        (np.arange(90_000).reshape(300, 300), 1.0),
        (np.ones((20, 30), np.int64), 1.0),
        (np.zeros((20, 30), np.int64), math.nan),
    ],
)
def test_odd_maps_have_the_right_number(tmp_path: Path, labels: np.ndarray, quality: float) -> None:
    """Ninety thousand nuclei of a pixel, one that leaves no background, and none at all."""
    np.save(tmp_path / "map.npy", labels)
    found = evaluate(tmp_path / "map.npy", tmp_path / "map.npy", "monuseg", options=HURRIED, out=tmp_path / "out")
    assert found["monuseg"].table.headline["PQ"] == pytest.approx(quality, nan_ok=True)
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES


def test_a_model_needs_pixels(folders: tuple[Path, Path], painted_model: Path) -> None:
    with pytest.raises(InputError, match="no pixels to segment"):
        evaluate(load_model(painted_model), folders[1] / "labels", "monuseg", options=replace(HURRIED, mpp=0.25))


def test_the_report_cannot_be_written(folders: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NuclensError, match="cannot be written to"):
        evaluate(*folders, "monuseg", options=HURRIED, out=tmp_path / "file")
