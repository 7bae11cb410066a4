"""MoNuSeg 2018: TIFF pictures with the outlines of all nuclei in Aperio's XML; or packs of it."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import NoReturn
from xml.parsers import expat

import numpy as np
import tifffile
from jaxtyping import Float32, Int64

from nuclens.core.contours import outlines, rasterise, ring_offsets
from nuclens.core.datasets import Dataset, DatasetCard, Entry, Samples, below, need_some, pairs, read_rgb
from nuclens.core.errors import CorruptDatasetError
from nuclens.core.labels import compact
from nuclens.core.made import made_nuclei
from nuclens.core.types import Sample
from nuclens.datasets import pack

_PART = re.compile(r"(?:^|[^a-z]|MoNuSeg)(train|test)", re.IGNORECASE)
_WANTED = "wanted Aperio's XML: Region elements with Vertex X Y"


def regions(path: Path) -> tuple[Float32[np.ndarray, "v 2"], Int64[np.ndarray, "ends"]]:
    """Outlines of an Aperio file as (row, column), in file order; the corner of the first pixel is the origin.

    Raises:
        CorruptDatasetError: It is absent, no such XML, or declares entities; the text begins with the path.
    """
    corners: list[tuple[float, float]] = []
    begins: list[int] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        if name == "Region":
            begins.append(len(corners))
        elif name == "Vertex" and begins:
            corners.append((float(attributes["Y"]), float(attributes["X"])))

    def refuse(*_: object) -> NoReturn:
        raise ValueError("it declares a document type, with which a short file can fill the memory")

    parser = expat.ParserCreate()
    parser.StartElementHandler = start
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(path.read_bytes(), True)
    except (OSError, expat.ExpatError, ValueError, KeyError) as error:
        raise CorruptDatasetError(f"{path}: cannot be read ({error}); {_WANTED}") from error
    vertices = np.array(corners, np.float32).reshape(-1, 2)
    if not np.isfinite(vertices).all():
        raise CorruptDatasetError(f"{path}: a corner that is no finite number; {_WANTED}")
    return vertices, ring_offsets(np.diff(np.append(begins, len(corners))).astype(np.int64))


def patient(name: str) -> str:
    """TCGA's code of the patient: the first three parts of a slide's name.

    Example:
        >>> patient("TCGA-HT-8564-01Z-00-DX1")
        'TCGA-HT-8564'
    """
    return "-".join(name.split("-")[:3])


def _open(root: Path) -> Samples:
    """Training images before test images, each by name."""
    if pack.holds(root):
        packed = [replace(entry, group=patient(entry.id)) for entry in pack.entries(root)]
        return Samples(tuple(packed), pack.read, CARD.schema)
    xml = below(root, "*.xml", depth=3)
    folders = {folder for file in xml for folder in (file.parent, file.parent.with_name("Tissue Images"))}
    images = [path for folder in folders for path in folder.glob("*.tif")]
    found = []
    for name, image, labels in pairs(images, xml, expected=min(xml, default=root / "x.xml")):
        split = _split(root, labels if labels in xml else image)
        found.append(Entry(name, image, labels, patient(name), split))
    found.sort(key=lambda entry: (entry.split == "test", entry.id))
    return Samples(need_some(found, root, CARD), _read, CARD.schema)


def _split(root: Path, path: Path) -> str:
    """The part that the nearest folder with a telling name is of."""
    for name in (*reversed(path.relative_to(root).parts[:-1]), root.resolve().name):
        if said := _PART.search(name):
            return said[1].lower()
    return "train"


def _read(entry: Entry) -> Sample:
    """Where outlines overlap, the first in the file keeps the pixel, as in the organisers' own script."""
    vertices, offsets = regions(entry.labels)
    rgb = read_rgb(entry.image)
    labels, kept = compact(rasterise(vertices, offsets, (rgb.shape[0], rgb.shape[1])))
    return Sample(entry.id, entry.group, rgb, labels, np.zeros(len(kept) + 1, np.uint8))


def _write_example(root: Path) -> None:
    places = (
        ("MoNuSegTrainingData/Tissue Images", "MoNuSegTrainingData/Annotations", "TCGA-AA-0001-01Z-00-DX1", 6),
        ("MoNuSegTestData", "MoNuSegTestData", "TCGA-BB-0002-01Z-00-DX1", 0),
    )
    for seed, (images, truths, name, nuclei) in enumerate(places):
        for folder in (images, truths):
            (root / folder).mkdir(parents=True, exist_ok=True)
        rgb, labels, _ = made_nuclei(48 + 16 * seed, 80, nuclei=nuclei, seed=seed)
        tifffile.imwrite(root / images / f"{name}.tif", rgb, photometric="rgb", compression="zlib")
        vertices, offsets = outlines(labels, int(labels.max()))
        rings = np.split(vertices, offsets[1:-1]) if nuclei else []
        texts = ["".join(f'<Vertex X="{x:g}" Y="{y:g}"/>' for y, x in ring) for ring in rings]
        body = "".join(f'<Region Id="{k}"><Vertices>{text}</Vertices></Region>' for k, text in enumerate(texts, 1))
        (root / truths / f"{name}.xml").write_bytes(
            f'<Annotations MicronsPerPixel="0.252">\r\n<Annotation Id="1"><Regions>{body}</Regions></Annotation>'
            f"<!-- µ --></Annotations>".encode()
        )


CARD = DatasetCard(
    title="MoNuSeg 2018",
    paper="N. Kumar et al., A Multi-Organ Nucleus Segmentation Challenge, IEEE TMI 39(5), 2020; "
    "training part: IEEE TMI 36(7), 2017, doi:10.1109/TMI.2017.2677499",
    doi="10.1109/TMI.2019.2947628",
    license="CC-BY-NC-SA-4.0",
    source="https://monuseg.grand-challenge.org/Data/",
    layout="MoNuSegTrainingData/Tissue Images/*.tif and Annotations/*.xml, MoNuSegTestData/*.tif and *.xml; "
    "or packs train/ and test/",
    mpp=0.25,
    images={"train": 30, "test": 14},
    triples=(("train", "", "test"),),
    notes=(
        "The challenge later gave out 37 training images; its first 30 are those of the 2017 paper, the Kumar set, "
        "whose usual test images are among them.",
        "The annotation files state 0.2456 to 0.2527 µm per pixel.",
    ),
)
PLUGIN = Dataset(CARD, _open, _write_example)
