"""Data sets as commands use them: the table of them, looking a copy over, made examples, contact sheets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nuclens.core.datasets import DATASETS, DatasetCard, Samples, listed_ids, write_png
from nuclens.core.errors import InputError, OutputError
from nuclens.core.types import Progress
from nuclens.core.verify import Verification
from nuclens.core.verify import verify as look_over
from nuclens.report.contacts import contact_sheet


@dataclass(frozen=True, slots=True)
class Listed:
    """A line of the table of data sets.

    Attributes:
        name: Of the plug-in.
        card: What is known of it.
        writable: Whether `convert` writes it.
    """

    name: str
    card: DatasetCard
    writable: bool


def listed() -> list[Listed]:
    """All data sets, by name."""
    plugins = {name: DATASETS.get(name) for name in DATASETS.names()}
    return [Listed(name, plugin.card, plugin.write is not None) for name, plugin in plugins.items()]


def described(name: str) -> list[tuple[str, str]]:
    """What is known of a data set, as topics and texts; the title first.

    Raises:
        UnknownPluginError: No such data set.
    """
    card = DATASETS.get(name).card
    topics = [
        ("title", card.title),
        ("paper", card.paper),
        ("doi", card.doi),
        ("licence", card.license),
        ("source", card.source),
        ("types", ", ".join(f"{k} {kind}" for k, kind in enumerate(card.schema.names, start=1))),
        ("µm/px", "" if card.mpp is None else f"{card.mpp:g}"),
        ("tissues", ", ".join(card.tissues)),
        ("images", ", ".join(f"{count:,} {split}".rstrip() for split, count in card.images.items())),
        ("official", "; ".join(" / ".join(split or "-" for split in triple) for triple in card.triples)),
        ("layout", card.layout),
        *(("note", note) for note in card.notes),
    ]
    return [(topic, text) for topic, text in topics if text]


def open_samples(name: str, root: Path, part: str = "") -> Samples:
    """Samples of a copy, or of a part of it.

    Args:
        name: Of the data set.
        root: Folder of the copy.
        part: An official split, or a text file with the id of a sample on each line; all samples if empty.

    Raises:
        UnknownPluginError: No such data set.
        InputError: No such split, or an id in the list that is not in the copy.
        CorruptDatasetError: Nothing of the data set is there.
    """
    samples = DATASETS.get(name).open(root)
    if not part:
        return samples
    return samples.pick(listed_ids(Path(part))) if Path(part).is_file() else samples.split(part)


def verify(name: str, root: Path, report: Callable[[Progress], None] = lambda progress: None) -> Verification:
    """What is missing, damaged or leaking in a copy.

    Raises:
        UnknownPluginError: No such data set.
    """
    return look_over(DATASETS.get(name), root, report)


def example(name: str, out: Path) -> int:
    """Write a made, tiny data set in the layout of a real one; returns its number of images.

    Raises:
        UnknownPluginError: No such data set.
        OutputError: The folder has something in it, or cannot be written to.
    """
    plugin = DATASETS.get(name)
    need_free(out)
    try:
        out.mkdir(parents=True, exist_ok=True)
        plugin.write_example(out)
    except OSError as error:
        raise OutputError(f"{out}: cannot be written to ({error.strerror or error}); give another folder") from error
    return len(plugin.open(out))


def preview(name: str, samples: Samples, out: Path, images: int) -> int:
    """Write a contact sheet of samples spread evenly over all; returns how many are on it.

    Raises:
        InputError: Fewer than one picture is asked for.
        CorruptDatasetError: One of them cannot be read.
        OutputError: The file cannot be written.
    """
    if images < 1:
        raise InputError(f"preview: got {images} pictures; wanted at least 1")
    chosen = np.unique(np.linspace(0, len(samples) - 1, min(images, len(samples))).round().astype(int)).tolist()
    title = f"{DATASETS.get(name).card.title}: {len(chosen)} of {len(samples):,} images"
    write_png(out, contact_sheet(title, (samples[index] for index in chosen), samples.schema))
    return len(chosen)


def need_free(out: Path) -> None:
    """Check that a folder may be filled.

    Raises:
        OutputError: It has something in it, or is a file.
    """
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise OutputError(f"{out}: there is something already; give a new folder")
