from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from jaxtyping import UInt8

from nuclens.core.errors import InputError, ResolutionError, UnreadableImageError
from nuclens.core.models import shipped
from nuclens.core.slides import open_image
from nuclens.jobs.demo import CREDIT, demo, example_image

Paint = Callable[..., UInt8[np.ndarray, "h w 3"]]


@pytest.fixture
def painted_default(painted_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installation whose default model is the painted one."""
    monkeypatch.setattr("nuclens.core.models.shipped", lambda: {"default": painted_model})


def test_the_example_is_in_the_package() -> None:
    slide = open_image(example_image())
    assert slide.shape == (512, 512)


@pytest.mark.usefixtures("painted_default")
def test_without_an_image_it_takes_the_example(tmp_path: Path) -> None:
    shown = demo(None, None, tmp_path / "new")
    assert shown.folder == tmp_path / "new" / "tnbc_09_1"
    assert shown.credit == CREDIT
    assert shown.record["mpp"] == 0.25
    assert shown.seconds > 0
    assert {path.name for path in shown.folder.iterdir()} == {*shown.record["files"], "run.json"}


@pytest.mark.usefixtures("painted_default")
def test_an_image_of_ones_own(tmp_path: Path, paint: Paint) -> None:
    path = tmp_path / "own.png"
    cv2.imwrite(str(path), paint(90, 100, [(40, 50, 12)])[..., ::-1])
    for _ in range(2):
        shown = demo(path, 0.25, tmp_path / "out")
        assert (shown.record["nuclei"], shown.credit) == (1, "")
    with pytest.raises(ResolutionError, match=r"own\.png"):
        demo(path, None, tmp_path / "out")
    with pytest.raises(UnreadableImageError, match="no such file"):
        demo(tmp_path / "absent.png", 0.25, tmp_path / "out")


def test_one_image_is_enough(tmp_path: Path, paint: Paint) -> None:
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(tmp_path / name), paint(9, 9, []))
    with pytest.raises(InputError, match="2 images; the demo takes one"):
        demo(tmp_path, 0.25, tmp_path / "out")


def test_mpp_needs_an_image_of_ones_own(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="image of your own"):
        demo(None, 0.5, tmp_path)


def test_the_shipped_model_sees_the_example(tmp_path: Path) -> None:
    """Offline, as all tests are, in a folder of its own."""
    if "default" not in shipped():
        pytest.skip("MODEL MISSING: no default model is inside the package; the demo was not tried with it")
    record = demo(None, None, tmp_path).record
    assert 50 < record["nuclei"] < 400
    assert sum(record["by_type"].values()) == record["nuclei"]
    assert record["warnings"] == []
