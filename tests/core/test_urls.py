"""URLs: which are meant, and what is never written down."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from nuclens.core.errors import InputError
from nuclens.core.urls import file_system, last_name, local_path, path_here, shown, url_of, without_secrets


@pytest.mark.parametrize(("source", "url"), [
    ("a.svs", None),
    ("folder/a.svs", None),
    ("C:/slides/a.svs", None),
    ("my:/a.svs", None),
    (Path("my:/a.svs"), None),
    ("s3://bucket/folder/a.svs", "s3://bucket/folder/a.svs"),
    (Path("s3://bucket/folder/a.svs"), "s3://bucket/folder/a.svs"),
    ("HTTPS://host/a.svs", "https://host/a.svs"),
    ("memory://a.svs", "memory://a.svs"),
    ("file:///data/a.svs", "file:///data/a.svs"),
    (Path("file:///data/a.svs"), "file:///data/a.svs"),
])  # fmt: skip
def test_what_is_a_url(source: str | Path, url: str | None) -> None:
    assert url_of(source) == url


@pytest.mark.parametrize("source", [
    "simplecache::s3://bucket/a.svs",
    Path("simplecache::s3://bucket/a.svs"),
    "zip://a.svs::s3://bucket/a.zip",
    "zip://a.svs",
    "reference://a",
    "git://a.svs",
    "local://etc/passwd",
    "s4://bucket/a.svs",
    "http://[::1/a.svs",
])  # fmt: skip
def test_chains_and_other_kinds_are_refused(source: str) -> None:
    with pytest.raises(InputError, match="wanted"):
        url_of(source)


def test_a_chain_behind_a_key_is_part_of_the_key(tmp_path: Path) -> None:
    """fsspec itself would open the second file."""
    pytest.importorskip("fsspec", reason="fsspec is not installed")
    (tmp_path / "a.svs").write_bytes(b"a")
    system, place = file_system(f"memory://a::file://{tmp_path}/a.svs")
    assert type(system).__name__ == "MemoryFileSystem"
    assert not system.exists(place)


@pytest.mark.parametrize(("source", "told"), [
    ("a?b.png", "a?b.png"),
    ("s3://bucket/a.svs", "s3://bucket/a.svs"),
    ("s3://key:secret@bucket/a.svs?versionId=secret", "s3://bucket/a.svs"),
    ("https://me:secret@host:8080/b/a.svs?X-Amz-Signature=secret#secret", "https://host:8080/b/a.svs"),
    ("sftp://me@host/a.svs", "sftp://host/a.svs"),
    ("https://me:se'cret@host:9/b.png", "https://host:9/b.png"),
    ("https://me:p@ss\"(w)@host/a@b.svs?id=me@host", "https://host/a@b.svs"),
    ("s3://arn:aws:s3:eu:1:accesspoint/p/a@b.svs", "s3://arn:aws:s3:eu:1:accesspoint/p/a@b.svs"),
    ("http://[::1]:80/a@b.svs", "http://[::1]:80/a@b.svs"),
    ("file:///data/a@b.svs", "file:///data/a@b.svs"),
])  # fmt: skip
def test_secrets_are_not_shown(source: str, told: str) -> None:
    assert shown(source) == told
    assert shown(Path(source)) == told


@pytest.mark.parametrize("source", [
    "s3://key:sec/ret@bucket/a.svs",
    Path("s3://key:sec/ret@bucket/a.svs"),
    "https://me:sec?ret@host/a.svs",
    "https://me:sec#ret@host/a.svs?id=1",
    "sftp://me:sec ret@host/a.svs",
    "simplecache::https://me:sec/ret@host/a.svs",
    "s4://me:sec/ret@host/a.svs",
])  # fmt: skip
def test_what_may_be_a_password_is_never_taken_for_a_path(source: str | Path) -> None:
    with pytest.raises(InputError, match="%2F %3F %23 %20") as told:
        url_of(source)
    assert "ret" not in str(told.value)


@pytest.mark.parametrize(("text", "left"), [
    ("403, message='Forbidden', url='https://me:secret@host/a.svs?X-Amz-Signature=secret&X=secret'",
     "403, message='Forbidden', url='https://host/a.svs'"),
    ("cannot reach https://me:se'c@r\"et@host:80/a@b.svs?sig=se'cret(), really?",
     "cannot reach https://host:80/a@b.svs), really?"),
    ('Invalid bucket name "key:secret@bucket": wrong', 'Invalid bucket name "bucket": wrong'),
    ("file:///data/a@b.svs", "file:///data/a@b.svs"),
])  # fmt: skip
def test_texts_of_libraries_lose_their_secrets(text: str, left: str) -> None:
    assert without_secrets(text, "s3://key:secret@bucket/a.svs") == left


def test_what_has_to_be_here() -> None:
    assert path_here("a.csv", "it") == Path("a.csv")
    assert path_here("file:///data/a.csv", "it") == path_here(Path("file:///data/a.csv"), "it") == Path("/data/a.csv")
    with pytest.raises(InputError, match=r"^https://host/a\.csv: not on this machine; fetch the table first") as told:
        path_here("https://me:secret@host/a.csv?sig=secret", "the table")
    assert "secret" not in str(told.value)


@pytest.mark.parametrize(("url", "name"), [
    ("https://host/b/a%20b.svs?sig=a/c.png", "a b.svs"),
    ("s3://bucket/a#b.svs", "a#b.svs"),
    ("s3://bucket/a%20b.svs", "a%20b.svs"),
    ("memory://a.svs", "a.svs"),
])  # fmt: skip
def test_the_name_of_the_file(url: str, name: str) -> None:
    assert last_name(url) == name


@pytest.mark.parametrize("url", [
    "https://host/", "s3://bucket/..", "https://host/..%2fa.svs", "https://host/%00.svs", f"s3://bucket/{'a' * 300}",
])  # fmt: skip
def test_names_that_no_file_may_have_are_refused(url: str) -> None:
    with pytest.raises(InputError, match="names no file"):
        last_name(url)


def test_files_of_this_machine() -> None:
    assert local_path("file:///data/a%20b.svs") == Path("/data/a b.svs")
    assert local_path("s3://data/a.svs") is None


WALLED = """
import importlib.abc, sys
from nuclens.core.errors import MissingExtraError
from nuclens.core.urls import file_system
class Wall(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == sys.argv[1]:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Wall())
try:
    file_system(sys.argv[2])
except MissingExtraError as error:
    print(error)
"""


@pytest.mark.parametrize(("walled", "url", "remedy"), [
    ("s3fs", "s3://bucket/a.svs", "'nuclens[remote]'"),
    ("gcsfs", "gs://bucket/a.svs", "'nuclens[remote]' gcsfs"),
    ("aiohttp", "https://me:secret@host/a.svs", "'nuclens[remote]'"),
    ("fsspec", "memory://a.svs", "'nuclens[remote]'"),
])  # fmt: skip
def test_a_package_that_is_not_installed_is_named_with_its_extra(walled: str, url: str, remedy: str) -> None:
    if walled != "fsspec":
        pytest.importorskip("fsspec", reason="fsspec is not installed")
    said = subprocess.run([sys.executable, "-c", WALLED, walled, url], capture_output=True, text=True, check=True)
    scheme = url.partition(":")[0]
    told = f"{shown(url)}: {scheme}:// needs {walled}, which is not installed; `pip install {remedy}`"
    assert said.stdout.strip() == told
