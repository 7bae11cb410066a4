"""Sound files and folders of every kind that is read, small, one to a folder."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import imagecodecs
import made_dicom  # type: ignore[import-not-found]  # lies beside this file
import numpy as np
import tifffile

from nuclens.core.errors import NuclensError
from nuclens.core.models import shipped
from nuclens.core.slides import READERS
from nuclens.core.suffixes import FORMATS
from nuclens.jobs.batch import BatchOptions, segment_files
from nuclens.testing.nuclei import CASES
from nuclens.testing.slides import shrunk, write_dicom, write_mrxs, write_svs

SLIDE = {f"dicom.{name}UID": "1.2.3" for name in ("StudyInstance", "SeriesInstance", "SOPInstance")}
SLIDE["dicom.SOPClassUID"] = "1.2.840.10008.5.1.4.1.1.77.1.6"
MOST_BYTES = 5 << 20


def samples(name: str, data: Path, folder: Path) -> None:
    """Sound files of a reader or format, as written by us, or by others where there are any."""
    kind, _, plugin = name.partition("/")
    {"formats": results, "readers": slides, "inputs": inputs}[kind](plugin, data, folder)


def results(name: str, _: Path, folder: Path) -> None:
    plugin = FORMATS.get(name)
    ending = plugin.suffix if plugin.suffix.startswith(".") else f"-{plugin.suffix}"
    for case in ("one", "many", "foreign", "untyped", "pixels only", "empty", "unknown"):
        place = folder / case
        place.mkdir()
        nuclei = CASES[case]()
        path = place / f"nuclei{ending}"
        try:
            plugin.write(path, replace(nuclei, metadata=nuclei.metadata | SLIDE))
        except NuclensError:  # formats differ in what they can hold
            shutil.rmtree(place)
            continue
        if name in FOREIGN and case in ("many", "foreign"):
            shutil.copytree(place, folder / f"{case}, of others")
            FOREIGN[name](folder / f"{case}, of others" / path.name)


def of_others_parquet(path: Path) -> None:
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    metadata = {key: text for key, text in table.schema.metadata.items() if key != b"nuclens"}
    pq.write_table(table.replace_schema_metadata(metadata), path)


def of_others_store(path: Path) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("DELETE FROM metadata WHERE key = 'nuclens'")


def of_others_anndata(path: Path) -> None:
    import h5py

    with h5py.File(path, "r+") as file:
        del file["uns/nuclens"], file["uns/outlines"]


def of_others_dicom(path: Path) -> None:
    import pydicom

    document = pydicom.dcmread(path)
    document.remove_private_tags()
    document.save_as(path)


def of_others_spatialdata(path: Path) -> None:
    shutil.rmtree(path / "tables" / "table" / "uns" / "nuclens")
    # Libraries believe what a group repeats of what is below it.
    for file in path.rglob("zarr.json"):
        fields: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        copies = (fields.get("consolidated_metadata") or {}).get("metadata", {})
        for name in [name for name in copies if name.endswith("uns/nuclens")]:
            del copies[name]
        file.write_text(json.dumps(fields), encoding="utf-8")


FOREIGN: dict[str, Callable[[Path], None]] = {
    "geoparquet": of_others_parquet,
    "annotation_store": of_others_store,
    "anndata": of_others_anndata,
    "dicom_ann": of_others_dicom,
    "spatialdata": of_others_spatialdata,
}


def inputs(name: str, data: Path, folder: Path) -> None:
    for number, write in enumerate(INPUTS[name]):
        (folder / str(number)).mkdir()
        write(folder / str(number), data)


def table(place: Path, _: Path) -> None:
    (place / "a.csv").write_text(
        'path;patient;group;mpp;region\n"a b.svs";17;re""sp;0,25;1,2,3,4\nc.tif;18;x;;\n', encoding="utf-8"
    )


def table_with_mark(place: Path, _: Path) -> None:
    text = "path,name,mpp,tissue,stage\nscans/17-A.svs,x,0.25,none,T2\nscans/é.svs,y,,,T3\n"
    (place / "a.csv").write_text(text, encoding="utf-8-sig")


def drawn(place: Path, _: Path) -> None:
    rings = [[[1, 1], [900, 1], [900, 900], [1, 1]], [[10, 10], [20, 10], [20, 20], [10, 10]]]
    geometry = {"type": "MultiPolygon", "coordinates": [rings, [rings[1]]]}
    feature = {"type": "Feature", "geometry": geometry, "properties": {"objectType": "annotation"}}
    document = {"type": "FeatureCollection", "features": [feature]}
    (place / "a.geojson").write_text(json.dumps(document), encoding="utf-8")


def painted(place: Path, _: Path) -> None:
    mask = np.zeros((200, 300), np.uint8)
    mask[50:150, 60:200] = 255
    (place / "a.png").write_bytes(imagecodecs.png_encode(mask))


def card(place: Path, _: Path) -> None:
    shutil.copy(shipped()["default"] / "card.json", place)


def run(place: Path, data: Path) -> None:
    """Results of a cohort of three, one of which is not there."""
    pictures = sorted((data / "tnbc" / "images").glob("01_*.jpg"))[:2]
    rows = [f"{path},{k},a,0.25" for k, path in enumerate((*pictures, Path("gone.svs")))]
    (place / "a").mkdir()
    (place / "a" / "cohort.csv").write_text("\n".join(["path,patient,group,mpp", *rows]), encoding="utf-8")
    segment_files([place / "a" / "cohort.csv"], place / "a" / "results.run", BatchOptions(formats=("csv",)))
    (place / "a" / "results.run").rename(place / "results.run")
    shutil.rmtree(place / "a")


INPUTS: dict[str, tuple[Callable[[Path, Path], None], ...]] = {
    "cohort": (table, table_with_mark),
    "tissue": (drawn, painted),
    "card": (card,),
    "run": (run,),
}


def slides(name: str, data: Path, folder: Path) -> None:
    known = READERS.get(name).suffixes
    picture = sorted((data / "tnbc" / "images").glob("01_*.jpg"))[0]
    rgb = np.ascontiguousarray(imagecodecs.imread(picture)[:300, :280, :3])
    for number, (suffix, write) in enumerate(made(rgb)):
        if suffix in known:
            place = folder / str(number)
            place.mkdir()
            write(place / f"1{suffix}")
    for path in sorted((data / "slides").iterdir()):
        if path.suffix in known and path.stat().st_size < MOST_BYTES:
            (folder / path.stem).mkdir()
            shutil.copy(path, folder / path.stem / path.name)


def made(rgb: Any) -> Iterator[tuple[str, Callable[[Path], object]]]:
    """Small pictures and slides of every kind, by suffix, and what writes each."""
    yield ".png", lambda path: path.write_bytes(imagecodecs.png_encode(rgb))
    yield ".jpg", lambda path: path.write_bytes(imagecodecs.jpeg8_encode(rgb))
    yield ".webp", lambda path: path.write_bytes(imagecodecs.webp_encode(rgb))
    yield ".bmp", lambda path: path.write_bytes(imagecodecs.bmp_encode(rgb))
    yield ".jp2", lambda path: path.write_bytes(imagecodecs.jpeg2k_encode(rgb))
    for compression in ("jpeg", "deflate", "lzw", "jpeg2000", "webp", "zstd", "packbits", None):
        yield ".tif", partial(tifffile.imwrite, data=rgb, tile=(64, 64), compression=compression)
    yield ".tif", partial(tifffile.imwrite, data=rgb, rowsperstrip=50, compression="lzma", bigtiff=True)
    grey = rgb[..., 0].astype(np.uint16)
    yield (
        ".tif",
        partial(
            tifffile.imwrite,
            data=grey,
            metadata={"axes": "YX"},
            ome=True,
            compression="lzw",
            predictor=True,
            tile=(32, 32),
        ),
    )
    yield ".svs", lambda path: write_svs(path, rgb, (4,))
    yield ".svs", lambda path: write_svs(path, rgb, compression="jpeg")
    yield ".dcm", partial(write_dicom, rgb=rgb)
    for encode, sparse in ((made_dicom.jpeg, False), (made_dicom.jpeg, True), (made_dicom.jpeg_2000, False)):
        yield ".dcm", partial(dicom_series, rgb=rgb, encode=encode, sparse=sparse)
    images = {(row, row): rgb[32 * row : 32 * row + 32, :32] for row in range(4)}
    yield ".mrxs", lambda path: write_mrxs(path, images, (4, 4))


def dicom_series(path: Path, rgb: Any, encode: Callable[[Any], bytes], *, sparse: bool) -> None:
    """A slide of two levels."""
    made_dicom.write(path, rgb, encode, 0.25, sparse=sparse)
    made_dicom.write(path.with_name("2.dcm"), shrunk(rgb, 4), encode, 1.0, sparse=sparse)
