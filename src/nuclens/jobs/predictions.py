"""Anyone's predictions, found by the names of the images they are for and read one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from nuclens.core.errors import DataError, InputError
from nuclens.core.predictions import Prediction, drawn
from nuclens.core.suffixes import FORMATS, format_to_read, is_folder, is_result_folder

Read = Callable[[tuple[int, int] | None], Prediction]

# What programs put behind the name of an image.
TAILS = (".ome", "_label", "_labels", "_instances", "_pred", "_mask", "_masks", "_cp_masks")
# Results of one image in a folder of its own: the first of these that is there is read.
RESULTS = (
    *("geoparquet", "geojson", "labels", "ome_tiff", "ome_zarr", "cellvit", "hovernet_json", "coco", "hovernet_mat"),
    *("npz", "png16", "npy"),
)
_STRAY = ("Thumbs.db",)  # left by file managers, and no AnnotationStore
_SHOWN = 10


def predictions(path: str | Path, names: Sequence[str], format: str | None = None) -> Mapping[str, Read]:
    """What reads the prediction for each image, by the image's name and in the order of the names.

    Nothing is decoded until a reader is called, with the height and width of
    the image; no prediction is kept.

    Args:
        path: The folder of a run of Nuclens or of CellViT, with a folder for each image; a folder of files in one
            format, called like the images, with one of `TAILS` or a format's suffix behind the name or not; or one
            file that holds all images, or the only one, whatever it is called. Only in the arrays of PanNuke and CoNIC
            images have places instead of names: the first is for the first of `names`, unless those are the places.
        names: Of the images, each once, without folder and ending.
        format: Name of the format, where files in several are in the folder, or the files do not tell it.

    Raises:
        InputError: Images and predictions do not match one to one; the text lists what is left over on either side.
        DataError: There are no predictions. On call: a file is damaged, or of an image of another size.

    Example:
        >>> for name, read in predictions("run/", ["a", "b"]).items():  # doctest: +SKIP
        ...     prediction = read((1000, 1000))
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder; check the name")
    several = path.is_dir() and not is_result_folder(path, format)
    found = _folder(path, format, names) if several else _file(path, format, names)
    if not several and len(found) == len(names) == 1:
        return {names[0]: found[0][2]}
    return _matched(path, names, found)


def own_names(path: str | Path) -> Mapping[str, Read]:
    """What reads each image of a folder or file as `predictions` takes them, by their own names.

    A reader that is not told a size takes the one that the file says.

    Raises:
        InputError: Two files are of one image.
        DataError: There is nothing to read. On call: a file is damaged, or does not say how large its image is.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: there is no such file or folder; check the name")
    several = path.is_dir() and not is_result_folder(path)
    found = _folder(path, None, ()) if several else _file(path, None, ())
    readers: dict[str, Read] = {}
    for stem, place, read in found:
        tail = max((tail for tail in TAILS if stem.endswith(tail)), key=len, default="")
        name = stem.removesuffix(tail)
        if name in readers:
            raise InputError(f"{path}: {place} is not the only file for image {name}; wanted one each")
        readers[name] = read
    return readers


def _file(path: Path, name: str | None, names: Sequence[str]) -> list[tuple[str, str, Read]]:
    """Name, place for messages, and reader of every image in one file."""
    plugin = format_to_read(path, name)
    if not hasattr(plugin, "images"):
        return [(_stem(path, plugin), path.name, partial(_read, plugin, path))]
    images = plugin.images(path)
    keys = list(images)
    if names and getattr(plugin, "placed", False) and set(names) != set(keys):
        if len(keys) != len(names):
            raise InputError(f"{path}: holds {len(keys)} images for {len(names)}; wanted one each, in their order")
        keys = list(names)
    return [(key, key, partial(_sized, path, image)) for key, image in zip(keys, images.values(), strict=True)]


def _folder(folder: Path, name: str | None, names: Sequence[str]) -> list[tuple[str, str, Read]]:
    """The same of every file of a folder, or of every folder of a run."""
    try:
        entries = sorted(one for one in folder.iterdir() if not one.name.startswith(".") and one.name not in _STRAY)
    except OSError as error:
        raise DataError(f"{folder}: cannot be looked into ({error.strerror}); check its permissions") from error
    wanted = FORMATS.get(name) if name else None
    results = [wanted] if wanted else [FORMATS.get(result) for result in RESULTS]
    folders = [entry for entry in entries if entry.is_dir() and not is_result_folder(entry)]
    of_run = [(entry, _result(entry, results)) for entry in folders]
    if any(result for _, result in of_run):
        return [(entry.name, entry.name, partial(_read, *result)) for entry, result in of_run if result]
    files = [(entry, _plugin(entry, wanted)) for entry in entries if entry not in folders]
    known = [(entry, plugin) for entry, plugin in files if plugin is not None and "outlines" not in plugin.lost]
    kinds = {plugin.suffix: entry.name for entry, plugin in known}
    if len(kinds) > 1:
        several = ", ".join(f"{suffix} ({example})" for suffix, example in sorted(kinds.items()))
        raise InputError(f"{folder}: files in several formats: {several}; give format=..., or one folder for each")
    if not known:
        raise DataError(
            f"{folder}: no predictions there; wanted a run of nuclens or CellViT, or files in one format it reads"
        )
    if len(known) == 1 and hasattr(known[0][1], "images"):
        return _file(known[0][0], name, names)
    return [(_stem(entry, plugin), entry.name, partial(_read, plugin, entry)) for entry, plugin in known]


def _result(folder: Path, plugins: Iterable[Any]) -> tuple[Any, Path] | None:
    """The best result of one image in a folder of its own, and its format."""
    for plugin in plugins:
        own = f"instances{plugin.suffix}" if plugin.suffix.startswith(".") else plugin.suffix
        for name in (own, *getattr(plugin, "nested", ())):
            if (folder / name).is_dir() if is_folder(plugin) else (folder / name).is_file():
                return plugin, folder / name
    return None


def _plugin(path: Path, wanted: Any) -> Any:
    """The format of a file; None where it is in none, or not in the one that is wanted."""
    try:
        plugin = format_to_read(path)
    except (InputError, DataError):
        # Formats that share an ending may not know a damaged file, which the wanted one shall then tell.
        return wanted if wanted and path.name.lower().endswith(getattr(wanted, "endings", wanted.suffix)) else None
    return plugin if wanted in (None, plugin) else None


def _stem(path: Path, plugin: Any) -> str:
    """Name of a file without its ending, or without the format's longer suffix."""
    endings = sorted((plugin.suffix, *getattr(plugin, "endings", ())), key=len, reverse=True)
    known = next((end for end in endings if end.startswith(".") and path.name.lower().endswith(end)), None)
    return path.stem if known is None else path.name[: -len(known)]


def _matched(path: Path, names: Sequence[str], found: list[tuple[str, str, Read]]) -> dict[str, Read]:
    """One reader per name."""
    if len(set(names)) < len(names):
        raise InputError(f"{path}: {len(names) - len(set(names))} images have the name of another; wanted one each")
    wanted = set(names)
    readers: dict[str, Read] = {}
    places: dict[str, str] = {}
    spare = []
    for stem, place, read in found:
        tails = [stem.removesuffix(tail) for tail in TAILS]
        name = next((one for one in (stem, *tails) if one in wanted), None)
        if name is None:
            spare.append(place)
        elif name in readers:
            raise InputError(f"{path}: both {places[name]} and {place} are for image {name}; wanted one")
        else:
            readers[name], places[name] = read, place
    missing = [name for name in names if name not in readers]
    if missing or spare:
        raise InputError(
            f"{path}: {len(missing)} of {len(names)} images have no prediction{_listed(missing)}; "
            f"{len(spare)} predictions have no image{_listed(spare)}; names must match"
        )
    return {name: readers[name] for name in names}


def _listed(names: Sequence[str]) -> str:
    more = ", ..." if len(names) > _SHOWN else ""
    return f" ({', '.join(names[:_SHOWN])}{more})" if names else ""


def _read(plugin: Any, path: Path, shape: tuple[int, int] | None) -> Prediction:
    """The prediction of a file of one image."""
    if hasattr(plugin, "predict"):
        return _sized(path, partial(plugin.predict, path), shape)
    if hasattr(plugin, "images"):
        images = plugin.images(path)
        if len(images) == 1:
            return _sized(path, next(iter(images.values())), shape)
    nuclei = plugin.read(path)
    own = (nuclei.frame.height, nuclei.frame.width)
    if shape is None and not all(own):
        raise DataError(f"{path}: does not say how large its image is; put it into labels/ beside images/")
    return drawn(path, nuclei, shape or own)


def _sized(path: Path, read: Callable[[], Prediction], shape: tuple[int, int] | None) -> Prediction:
    prediction = read()
    if shape not in (None, prediction.labels.shape):
        raise DataError(f"{path}: a prediction of {prediction.labels.shape} pixels for an image of {shape}")
    return prediction
