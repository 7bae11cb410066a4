"""URLs of files in other places: which are meant, how they are shown without secrets, and what is behind one."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from nuclens.core.errors import InputError, MissingExtraError

# Stores that hold files themselves. Of fsspec's others some open a second place that the URL names, as a chain does,
# and some run what they are told.
STORES = (
    *("s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "hdfs", "webhdfs"),
    *("http", "https", "ftp", "sftp", "ssh", "smb", "memory", "file"),
)
_WEB = ("http", "https")
# What of fsspec's company reads a store, and whether our extra brings it.
_BROUGHT = {"s3": "s3fs", "s3a": "s3fs", "http": "aiohttp", "https": "aiohttp"}
_OTHERS = {
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("az", "abfs", "abfss", "adl"), "adlfs"),
    **dict.fromkeys(("sftp", "ssh"), "paramiko"),
    **dict.fromkeys(("smb",), "smbprotocol"),
    **dict.fromkeys(("hdfs",), "pyarrow"),
    **dict.fromkeys(("webhdfs",), "requests"),
}
_URL = re.compile(r"([a-zA-Z][a-zA-Z0-9+.:-]+?):/{1,3}([^/].*)", re.DOTALL)  # pathlib leaves one slash of two
_QUERY, _USER = re.compile(r"\?[^\s'\")>]+"), re.compile(r"(?<=//)[^/@\s'\"]*@")
_NAME_BYTES = 200
_SILENT_S, _CONNECT_S = 60, 30  # after which a web server is taken for gone


def url_of(source: str | Path) -> str | None:
    """The URL that a source is, also where pathlib has swallowed a slash; None for the name of a file.

    Example:
        >>> url_of("s3://bucket/a.svs"), url_of(Path("s3://bucket/a.svs")), url_of("a.svs")
        ('s3://bucket/a.svs', 's3://bucket/a.svs', None)

    Raises:
        InputError: It is a chain of URLs, of a kind that is not opened, or no URL after all.
    """
    found = _URL.fullmatch(str(source))
    if found is None:
        return None
    scheme = found[1].lower()
    if "::" in scheme:
        raise InputError(f"{without_secrets(found[0])}: a chain of URLs; wanted one place, as s3://bucket/slide.svs")
    if scheme not in STORES:
        if "://" not in found[0]:
            return None  # a folder may be called "my:"
        raise InputError(f"{without_secrets(found[0])}: {scheme}:// is not opened; wanted {', '.join(STORES)}")
    url = f"{scheme}:{'///' if scheme == 'file' else '//'}{found[2]}"
    try:
        urlsplit(url)
    except ValueError as error:
        raise InputError(f"{without_secrets(url)}: no URL ({error}); wanted one as s3://bucket/slide.svs") from None
    return url


def shown(source: str | Path) -> str:
    """A source as it may be written down: of a URL without user, password, signature and anything else in its query.

    Example:
        >>> shown("https://me:secret@host/a.svs?X-Amz-Signature=1"), shown("a?b.png")
        ('https://host/a.svs', 'a?b.png')
    """
    url = url_of(source)
    return str(source) if url is None else without_secrets(_whole(url))


def without_secrets(text: str) -> str:
    """A text, as an error of a library, without users, passwords and queries of the URLs in it."""
    return _USER.sub("", _QUERY.sub("", text))


def local_path(url: str) -> Path | None:
    """The file that a `file://` URL names; None for every other."""
    return Path(url2pathname(urlsplit(url).path)) if url.startswith("file://") else None


def last_name(url: str) -> str:
    """The name that a URL's file has once it is here.

    Raises:
        InputError: It has none that a file can have.
    """
    name = _whole(url).rpartition("/")[2]
    name = unquote(name) if is_web(url) else name
    if name in ("", ".", "..") or "/" in name or "\0" in name or len(name.encode()) > _NAME_BYTES:
        raise InputError(f"{shown(url)}: names no file; wanted one, as s3://bucket/slide.svs")
    return name


def is_web(url: str) -> bool:
    """Whether it is of a web server, which lists no folders and takes no files."""
    return urlsplit(url).scheme in _WEB


def file_system(url: str) -> tuple[Any, str]:
    """What fsspec has for a URL, and how that calls the place.

    Accounts and servers are those that its libraries find in their own settings.

    Raises:
        MissingExtraError: A package is not installed.
    """
    scheme = urlsplit(url).scheme
    try:
        import fsspec  # here, since the light installation lacks it

        kind: Any = fsspec.get_filesystem_class(scheme)
        options = kind._get_kwargs_from_urls(url)
        if is_web(url):
            import aiohttp

            # Its usual limit is five minutes for all of a file.
            patience = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_SILENT_S)
            options["client_kwargs"] = {"timeout": patience}
        # And not by fsspec's own way from a URL, which follows chains.
        return kind(**options), kind._strip_protocol(url)
    except ImportError as error:
        lacking = "fsspec" if error.name == "fsspec" else {**_BROUGHT, **_OTHERS}.get(scheme) or str(error)
        more = f" {lacking}" if lacking in _OTHERS.values() else ""
        raise MissingExtraError(
            f"{shown(url)}: {scheme}:// needs {lacking}, which is not installed; `pip install 'nuclens[remote]'{more}`"
        ) from error


# Not all that these libraries raise is an OSError. One that is not loaded has raised nothing.
_ERRORS = {
    "aiohttp": ("ClientError",),
    "botocore.exceptions": ("BotoCoreError", "ClientError"),
    "gcsfs.retry": ("HttpError",),
    "google.auth.exceptions": ("GoogleAuthError",),
    "azure.core.exceptions": ("AzureError",),
    "paramiko.ssh_exception": ("SSHException",),
}


def store_errors() -> tuple[type[Exception], ...]:
    """What a place raises that cannot be reached, refuses, or breaks off."""
    loaded = ((sys.modules[module], names) for module, names in _ERRORS.items() if module in sys.modules)
    return (OSError, EOFError, ValueError, *(getattr(module, name) for module, names in loaded for name in names))


def _whole(url: str) -> str:
    """A URL up to its query."""
    return url.partition("?")[0].partition("#")[0] if is_web(url) else url.partition("?")[0]
