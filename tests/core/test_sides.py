from __future__ import annotations

import numpy as np
import pytest
from jaxtyping import Int32

from nuclens.core.predictions import Prediction
from nuclens.core.sides import Joined, Scene, Side, of_sample
from nuclens.core.types import Sample
from nuclens.core.vocabulary import Vocabulary

LABELS = np.array([[1, 1, 0, 2], [0, 0, 0, 2], [3, 3, 3, 0]], np.int32)


def nuclei(labels: Int32[np.ndarray, "h w"] = LABELS, names: tuple[str, ...] = ("a", "b")) -> Prediction:
    return Prediction(labels, np.array([0, 1, 2, 1], np.uint8), names)


def side(scene: Scene, **facts: object) -> Side:
    return Side("somewhere", ("x",), lambda name, partner: scene, **facts)  # type: ignore[arg-type]


def test_types_are_counted_in_the_common_words_and_what_has_none_is_told() -> None:
    words = Vocabulary(("b", "c"), {"a": "c"})
    joined = Joined(side(Scene(nuclei()), tissues={"x": "Colon"}), side(Scene(nuclei(names=("b", "z")))), words)
    image = joined[0]
    assert (image.id, image.truth.tissue) == ("x", "Colon")
    assert image.truth_types.tolist() == [2, 1, 2]
    assert image.pred_types.tolist() == [1, 0, 1]
    assert image.wordless == {("prediction", "z"): 1}


def test_without_words_nothing_is_typed() -> None:
    image = Joined(side(Scene(nuclei())), side(Scene(nuclei())))[0]
    assert image.truth.types is None
    assert image.pred.types is None


def test_a_type_without_a_name_is_told_by_its_number() -> None:
    joined = Joined(side(Scene(nuclei(names=()))), side(Scene(nuclei())), Vocabulary(("q",)))
    image = joined[0]
    assert image.truth_types.tolist() == [0, 0, 0]
    assert image.wordless == {
        ("truth", "1"): 2,
        ("truth", "2"): 1,
        ("prediction", "a"): 2,
        ("prediction", "b"): 1,
    }


def test_probabilities_of_merged_types_are_summed() -> None:
    shares = np.array([[0, 0, 0], [0.5, 0.2, 0.3], [0.1, 0.2, 0.7], [1, 0, 0]], np.float32)
    pred = Prediction(LABELS, np.array([0, 1, 3, 1], np.uint8), ("a", "b", "c"), probabilities=shares)
    words = Vocabulary(("one", "two"), {"a": "one", "b": "two", "c": "one"})
    image = Joined(side(Scene(nuclei())), side(Scene(pred)), words)[0]
    assert image.pred.probabilities is not None
    assert image.pred.probabilities.tolist() == pytest.approx(np.array([[0, 0], [0.8, 0.2], [0.8, 0.2], [1, 0]]))


def test_overlapping_layers_become_layers_of_the_common_types() -> None:
    layers = np.zeros((3, 4, 3), np.int32)
    layers[0, :2, 0], layers[0, 1:3, 2], layers[2, :, 1] = 1, 1, 1
    pred = Prediction(np.zeros((3, 4), np.int32), np.array([0, 1, 2, 3], np.uint8), ("a", "b", "c"), layers=layers)
    words = Vocabulary(("p", "q"), {"a": "q", "c": "p", "b": "p"})
    image = Joined(side(Scene(nuclei())), side(Scene(pred)), words)[0]
    assert image.pred.layers is not None
    assert image.pred.layers.shape == (3, 4, 2)
    # Nuclei of two own types that are one here do not become one nucleus.
    assert len(np.unique(image.pred.layers[..., 0])) == 3
    assert sorted(image.within_types[2].tolist()) == [1, 1, 2]


def test_what_lies_mostly_where_nothing_is_scored_is_left_out() -> None:
    ignore = np.zeros(LABELS.shape, bool)
    ignore[2, :2] = True
    ignore[0, 3] = True
    joined = Joined(side(Scene(nuclei(), ignore=ignore)), side(Scene(nuclei())))
    assert np.unique(joined[0].pred.labels).tolist() == [0, 1, 2]
    assert np.unique(joined[0].truth.labels).tolist() == [0, 1, 2, 3]


def test_a_sample_brings_its_pixels_and_places_to_ignore() -> None:
    rgb, ignore = np.zeros((3, 4, 3), np.uint8), LABELS == 3
    sample = Sample("x", "x", rgb, LABELS, np.array([0, 1, 2, 1], np.uint8), ignore)
    scene = of_sample(sample, ("a", "b"))
    assert (scene.rgb is rgb, scene.ignore is ignore, scene.nuclei.names) == (True, True, ("a", "b"))


def test_images_end_where_they_end() -> None:
    joined = Joined(side(Scene(nuclei())), side(Scene(nuclei())))
    assert len(list(joined)) == len(joined) == 1
    with pytest.raises(IndexError):
        joined[1]
