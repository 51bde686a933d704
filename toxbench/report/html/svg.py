"""A picture of matplotlib as SVG that a page can hold: themed, without ids or styles of its own.

A strict content security policy forbids style attributes; presentation attributes say the same.
"""

import io
import re
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from toxbench.report.palette import css_names

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FONT = re.compile(r"(?:(bold|italic)\s+)?.*?([\d.]+)px")
_LINK = "{http://www.w3.org/1999/xlink}href"
_REFERENCE = re.compile(r"#([\w.-]+)")
_LEFT_OUT = {"metadata", "style"}


def inline_svg(figure: "Figure", name: str, alt: str) -> str:
    """Return a picture as an ``<svg>`` element.

    Args:
        figure: its colours are those of `toxbench.report.palette`, which become custom properties.
        name: different for every picture of a page.
        alt: what it shows, in words.
    """
    import matplotlib as mpl

    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "toxbench", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    root = ElementTree.fromstring(buffer.getvalue())  # noqa: S314 - matplotlib has just written it
    _Cleaner(root, name).clean()
    box = root.get("viewBox", "")
    root.attrib.clear()
    root.attrib.update({"viewBox": box, "role": "img", "aria-label": alt, "fill": "var(--ink)"})
    return ElementTree.tostring(root, encoding="unicode")


class _Cleaner:
    def __init__(self, root: ElementTree.Element, name: str) -> None:
        self._root = root
        self._name = name
        self._colours = {colour: f"var({name})" for colour, name in css_names().items()}
        links = (value for element in root.iter() for value in element.attrib.values())
        self._used = {found for value in links for found in _REFERENCE.findall(value)}

    def clean(self) -> None:
        for element in self._root.iter():
            for child in list(element):
                if _local(child.tag) in _LEFT_OUT:
                    element.remove(child)
            element.tag = _local(element.tag)
            self._attributes(element)

    def _attributes(self, element: ElementTree.Element) -> None:
        found = dict(element.attrib)
        if found.get("id") not in self._used:
            found.pop("id", None)
        if _LINK in found:
            found["href"] = found.pop(_LINK)
        found |= _presentation(found.pop("style", ""))
        element.attrib.clear()
        element.attrib.update({key: self._value(key, value) for key, value in found.items()})

    def _value(self, key: str, value: str) -> str:
        if key == "id":
            return f"{self._name}-{value}"
        if key == "href" or value.startswith("url("):
            return _REFERENCE.sub(lambda match: f"#{self._name}-{match[1]}", value)
        return self._colours.get(value, value) if key in {"fill", "stroke"} else value


def _local(tag: str) -> str:
    return tag.rpartition("}")[2]


def _presentation(style: str) -> dict[str, str]:
    """Turn ``fill: #fff; font: bold 10px Sans`` into attributes; the page chooses the family."""
    pairs = (part.split(":", 1) for part in style.split(";") if ":" in part)
    found = {key.strip(): value.strip() for key, value in pairs}
    font = _FONT.match(found.pop("font", ""))
    if font:
        found["font-size"] = font[2]
        if font[1] == "bold":
            found["font-weight"] = "bold"
    found.pop("font-family", None)
    return {key: value.removesuffix("px") for key, value in found.items()}
