"""Looking a copy of a data set over: what is missing or damaged, and what would leak from one split into another."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nuclens.core.datasets import Dataset, DatasetCard, Entry, Samples
from nuclens.core.errors import CorruptDatasetError
from nuclens.core.slides import file_digest
from nuclens.core.types import Progress, Sample

CHECKSUMS = "checksums.sha256"


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found in a copy.

    Attributes:
        images: Sound images of each split.
        nuclei: Of each type, by name.
        problems: What is damaged, missing or leaks; with one, the copy should not be used.
        notes: What is only worth knowing, as that a copy is a part of the published set.
    """

    images: dict[str, int] = field(default_factory=dict)
    nuclei: dict[str, int] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def verify(dataset: Dataset, root: Path, report: Callable[[Progress], None] = lambda progress: None) -> Verification:
    """Read every sample of a copy and compare it with the others and with what is published.

    Checked are: every file; ids, patients and pixels of one split against those of the others; the number of images;
    checksums of published archives that lie there, and of a `checksums.sha256` beside the data.
    """
    try:
        samples = dataset.open(root)
    except CorruptDatasetError as error:
        return Verification(problems=(str(error),))
    problems = [*_bad_checksums(root, dataset.card)]
    notes: list[str] = []
    images: Counter[str] = Counter()
    nuclei: Counter[str] = Counter()
    seen: dict[bytes, Entry] = {}
    for done, (entry, sample) in enumerate(_read(samples, problems), start=1):
        if sample is not None:
            images[entry.split] += 1
            nuclei.update(_names(samples, sample))
            first = seen.setdefault(_digest(sample), entry)
            if first is not entry:
                same = f"{entry.image}: {entry.id} has the pixels of {first.id}"
                leaks = first.split != entry.split
                (problems if leaks else notes).append(f"{same}, of split {first.split!r}; drop one" if leaks else same)
        report(Progress("verify", done, len(samples)))
    problems += _groups_in_two_splits(root, samples)
    known = dataset.card.tissues
    if strange := sorted({entry.tissue for entry in samples.entries} - {*known}) if known else []:
        notes.append(f"{root}: tissues {', '.join(map(repr, strange))}; known are {', '.join(known)}")
    notes += [
        f"{root}: {images[split]} images{f' of {split}' if split else ''}; {count} are published"
        for split, count in dataset.card.images.items()
        if images[split] != count
    ]
    return Verification(dict(sorted(images.items())), dict(nuclei), tuple(problems), tuple(notes))


def _read(samples: Samples, problems: list[str]) -> Iterator[tuple[Entry, Sample | None]]:
    for entry in samples.entries:
        try:
            sample = samples.reader(entry)
        except CorruptDatasetError as error:
            problems.append(str(error))
            sample = None
        yield entry, sample


def _names(samples: Samples, sample: Sample) -> Counter[str]:
    counts = np.bincount(sample.types[1:])
    known = len(samples.schema.types)
    names = [samples.schema.name(k) if k <= known else f"type {k}" for k in range(len(counts))]
    return Counter({name: int(count) for name, count in zip(names, counts, strict=True) if count})


def _digest(sample: Sample) -> bytes:
    digest = hashlib.sha256(str(sample.rgb.shape).encode())
    digest.update(np.ascontiguousarray(sample.rgb).data)
    return digest.digest()


def _groups_in_two_splits(root: Path, samples: Samples) -> Iterator[str]:
    splits: dict[str, set[str]] = {}
    for entry in samples.entries:
        splits.setdefault(entry.group, set()).add(entry.split)
    for group, names in splits.items():
        if len(names) > 1:
            yield f"{root}: patient {group} is in the splits {', '.join(sorted(names))}; wanted each in one"


def _bad_checksums(root: Path, card: DatasetCard) -> Iterator[str]:
    known = {root / name: digest for name, digest in card.archives.items() if (root / name).is_file()}
    lists = [folder / CHECKSUMS for folder in (root, *root.resolve().parents[:2]) if (folder / CHECKSUMS).is_file()]
    for line in lists[0].read_text(encoding="utf-8", errors="replace").splitlines() if lists else ():
        digest, _, name = line.partition(" ")
        path = lists[0].parent / name.lstrip(" *")
        if path.resolve().is_relative_to(root.resolve()):
            known[path] = digest
    for path, digest in known.items():
        if not path.is_file():
            yield f"{path}: missing, though {CHECKSUMS} lists it; copy it again"
        elif file_digest(path) != digest:
            yield f"{path}: its bytes are not the published ones (SHA-256 differs); copy it again"
