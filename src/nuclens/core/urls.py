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
# In a text: what follows a ? but the signs that end a sentence or a quotation; what stands before the last @ of a host.
_QUERY, _USER = re.compile(r"\?\S+?(?=['\")>\],.;:]*(?:\s|$))"), re.compile(r"(:/{1,2})(?!/)[^/\s]*@")
_NO_PORT = re.compile(r"(?!arn:)[^:\[]*:.*\D.*", re.DOTALL)  # Amazon's names of places have colons too
_NAME_BYTES = 200
_SILENT_S, _CONNECT_S = 60, 30  # after which a web server is taken for gone


def url_of(source: str | Path) -> str | None:
    """The URL that a source is, also where pathlib has swallowed a slash; None for the name of a file.

    Example:
        >>> url_of("s3://bucket/a.svs"), url_of(Path("s3://bucket/a.svs")), url_of("a.svs")
        ('s3://bucket/a.svs', 's3://bucket/a.svs', None)

    Raises:
        InputError: It is a chain of URLs, of a kind that is not opened, has a password that cannot be told from a path,
            or is no URL after all.
    """
    found = _URL.fullmatch(str(source))
    if found is None:
        return None
    scheme = found[1].lower()
    if "://" not in found[0] and "::" not in scheme and scheme not in STORES:
        return None  # a folder may be called "my:"
    _need_clear(scheme, found[2])
    if "::" in scheme:
        raise InputError(f"{without_secrets(found[0])}: a chain of URLs; wanted one place, as s3://bucket/slide.svs")
    if scheme not in STORES:
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
    if url is None:
        return str(source)
    scheme, _, rest = _whole(url).partition("//")
    host, slash, path = rest.partition("/")
    return f"{scheme}//{host.rpartition('@')[2]}{slash}{path}"


def without_secrets(text: str, url: str = "") -> str:
    """A text, as an error of a library, without users, passwords and queries of the URLs in it.

    Args:
        text: What the library says.
        url: What it was asked for: some name the host of it alone, with the user.
    """
    user = urlsplit(url).netloc.rpartition("@")[0]
    return _USER.sub(r"\1", _QUERY.sub("", text.replace(f"{user}@", "") if user else text))


def path_here(source: str | Path, what: str) -> Path:
    """The path of what has to be on this machine, where it may be given as a `file://` URL.

    Raises:
        InputError: It is a URL of another place; the text says to fetch `what`.
    """
    url = url_of(source)
    path = Path(source) if url is None else local_path(url)
    if path is None:
        raise InputError(f"{shown(source)}: not on this machine; fetch {what} first, and give its path here")
    return path


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


def _need_clear(scheme: str, rest: str) -> None:
    """Check that what stands before an @ can be told from host and path, so that it is never taken for one of them."""
    host, _, path = rest.partition("/")
    if "@" in host:
        unclear = re.search(r"[?#\s]", host) is not None
    else:
        unclear = "@" in path and _NO_PORT.fullmatch(host) is not None
    if unclear:
        raise InputError(
            f"{scheme}://...: where its user and password end cannot be told; write / ? # and spaces in them as "
            f"%2F %3F %23 %20"
        )


def _whole(url: str) -> str:
    """A URL up to its query."""
    return url.partition("?")[0].partition("#")[0] if is_web(url) else url.partition("?")[0]
