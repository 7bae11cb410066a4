"""HTML and SVG as strings in which whatever comes from files is text and never markup."""

from __future__ import annotations

import base64
from html import escape
from importlib import resources

import cv2
import numpy as np
from jaxtyping import UInt8


class Html(str):
    """Markup; any other text becomes it by being escaped."""

    __slots__ = ()


def tag(name: str, *parts: str, **attributes: object) -> Html:
    """An element; underscores in names of attributes are hyphens, one at the end says nothing.

    Example:
        >>> tag("p", "a < b", tag("br"), class_="x")
        '<p class="x">a &lt; b<br></p>'
    """
    said = "".join(
        f' {key.rstrip("_").replace("_", "-") if key != "viewBox" else key}="{escape(str(value))}"'
        for key, value in attributes.items()
    )
    closing = "" if name in ("br", "img", "meta") else f"</{name}>"
    return Html(f"<{name}{said}>{join(*parts)}{closing}")


def join(*parts: str) -> Html:
    """Parts one after another.

    Example:
        >>> join("<", tag("b", "&"))
        '&lt;<b>&amp;</b>'
    """
    return Html("".join(part if isinstance(part, Html) else escape(part) for part in parts))


def table(head: list[str], rows: list[list[str]], **attributes: object) -> Html:
    """A table that scrolls by itself where it is too wide; the first cell of a row is its heading."""
    top = tag("tr", *(tag("th", cell, scope="col") for cell in head))
    body = (tag("tr", tag("th", row[0], scope="row"), *(tag("td", cell) for cell in row[1:])) for row in rows)
    return tag("div", tag("table", tag("thead", top), tag("tbody", *body), **attributes), class_="scroll")


def picture(rgb: UInt8[np.ndarray, "h w 3"], alt: str) -> Html:
    """A picture inside the page, as PNG."""
    coded = cv2.imencode(".png", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), (cv2.IMWRITE_PNG_COMPRESSION, 6))[1]
    source = "data:image/png;base64," + base64.b64encode(coded.tobytes()).decode()
    return tag("img", src=source, alt=alt, width=rgb.shape[1], height=rgb.shape[0], loading="lazy")


def photograph(rgb: UInt8[np.ndarray, "h w 3"], alt: str) -> Html:
    """A picture inside the page, as JPEG: a tenth of a PNG's size where the picture is of tissue."""
    coded = cv2.imencode(".jpg", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), (cv2.IMWRITE_JPEG_QUALITY, 88))[1]
    source = "data:image/jpeg;base64," + base64.b64encode(coded.tobytes()).decode()
    return tag("img", src=source, alt=alt, width=rgb.shape[1], height=rgb.shape[0])


def page(title: str, body: Html) -> str:
    """A whole page that holds its style and loads nothing."""
    style = Html(resources.files("nuclens.report").joinpath("style.css").read_text(encoding="utf-8"))
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("title", title),
        tag("style", style),
    )
    return "<!DOCTYPE html>\n" + tag("html", head, tag("body", tag("main", body)), lang="en") + "\n"


def number(value: float, digits: int = 4) -> str:
    """A score as text; a dash where it is undefined.

    Example:
        >>> number(0.57601), number(float("nan")), number(1200.5)
        ('0.5760', '–', '1,200')
    """
    if not np.isfinite(value):
        return "–"
    return f"{value:.{digits}f}" if abs(value) < 100 else f"{value:,.0f}"


def span(low: float, high: float) -> str:
    """An interval as text, empty where there is none.

    Example:
        >>> span(0.5, 0.61234)
        '0.500 to 0.612'
    """
    return f"{number(low, 3)} to {number(high, 3)}" if np.isfinite(low) and np.isfinite(high) else ""
