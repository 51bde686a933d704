"""The parts of a page: sections, pictures and tables, with helpers to draw the pictures."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from toxbench.plugin.contracts import Table
from toxbench.report.figures import DASHES, GREY, HEAT, SERIES, css_names, plot_text, svg_bytes

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH = 5.0  # inches: a page scales a picture to its column
_NAME_LENGTH = 26  # characters of a name in a picture; the table below has the full name
_COLUMN_LENGTH = 22  # the same, for the columns of a heat map
_FONT = re.compile(r"(?:(bold|italic)\s+)?.*?([\d.]+)px")
_LINK = "{http://www.w3.org/1999/xlink}href"
_REFERENCE = re.compile(r"#([\w.-]+)")
_REMOVED_TAGS = {"metadata", "style"}


@dataclass(frozen=True)
class Picture:
    """A picture with its numbers as a table.

    Attributes:
        name: unique on the page.
        svg: an ``<svg>`` element, safe to insert into a page.
        numbers: table shown below the picture.
        note: caption; "" if none is needed.
    """

    name: str
    svg: str
    numbers: Table
    note: str = ""


@dataclass(frozen=True)
class Section:
    """A heading of a page and its content.

    Attributes:
        name: anchor of the section.
        title: its heading.
        text: paragraphs, not escaped.
        warnings: highlighted paragraphs, not escaped.
        findings: each a headline, followed by paragraphs on its meaning and its remedy.
        commands: to type in a shell, each of one or more lines.
        tables: shown above the pictures.
        pictures: shown with their numbers.
        collapsed_tables: below the pictures; only their titles are visible until opened.
    """

    name: str
    title: str
    text: Sequence[str] = ()
    warnings: Sequence[str] = ()
    findings: Sequence[Sequence[str]] = ()
    commands: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    collapsed_tables: Sequence[Table] = ()


def create_picture(
    name: str, alt: str, figure: "Figure", numbers: Table, note: str = ""
) -> Picture:
    """Return a picture of a finished figure; ``alt`` is its description for screen readers."""
    return Picture(name, inline_svg(figure, name, alt), numbers, note.strip())


def create_panels(count: int, height: float) -> "tuple[Figure, list[Axes]]":
    """Return a figure with ``count`` panels below each other, each ``height`` inches high."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, count * height), layout="constrained")
    grid = figure.subplots(count, 1, squeeze=False)
    panels: list[Axes] = list(grid[:, 0])
    for axes in panels:
        axes.spines[["top", "right"]].set_visible(False)
        axes.tick_params(labelsize=8)
        axes.xaxis.label.set_fontsize(8)
        axes.yaxis.label.set_fontsize(8)
        axes.set_facecolor("none")
    return figure, panels


def line_style(place: int) -> dict[str, Any]:
    """Return colour and dashes for a candidate; the first eight places have distinct colours."""
    return {"color": SERIES[place % len(SERIES)], "linestyle": DASHES[place % len(DASHES)]}


def short_name(name: str) -> str:
    """Escape a name for a picture, and shorten it."""
    return plot_text(name, _NAME_LENGTH)


def draw_legend(axes: "Axes", entries: int) -> None:
    """Draw the legend above the panel, so that it hides no data."""
    axes.legend(
        fontsize=7, frameon=False, ncols=min(2, entries), loc="lower left",
        bbox_to_anchor=(0, 1.0), borderaxespad=0.2,
    )  # fmt: skip


def label_y_axis(axes: "Axes", names: Sequence[str]) -> None:
    """Write names along the y axis, the first one at the top."""
    axes.set_yticks(range(len(names)), list(map(short_name, names)))
    axes.set_ylim(len(names) - 0.4, -0.6)


def draw_heat_map(
    axes: "Axes",
    values: Sequence[Sequence[float | None]],
    row_texts: Sequence[str],
    columns: Sequence[str],
) -> None:
    """Draw values in [0, 1] as a grid of cells with numbers; higher values are more opaque."""
    from matplotlib.patches import Rectangle

    for y, row in enumerate(values):
        for x, value in enumerate(row):
            shade = 0.0 if value is None else max(0.0, min(1.0, value))
            axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=HEAT, alpha=shade))
            label = "-" if value is None else f"{value:.2f}"
            axes.text(x, y, label, ha="center", va="center", fontsize=7)
    axes.set_yticks(range(len(row_texts)), row_texts)
    column_texts = [plot_text(name, _COLUMN_LENGTH) for name in columns]
    axes.set_xticks(range(len(columns)), column_texts, rotation=25, ha="right")
    axes.set_xlim(-0.5, max(1, len(values[0])) - 0.5)
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def draw_reference_line(axes: "Axes", x: float) -> None:
    """Draw a thin vertical grey line."""
    axes.axvline(x, color=GREY, linewidth=0.7, zorder=0)


def inline_svg(figure: "Figure", name: str, alt: str) -> str:
    """Return a figure as an ``<svg>`` element, with ``name`` as the prefix of all ids.

    The colours of `toxbench.report.figures` in it become custom properties.
    """
    svg = svg_bytes(figure, transparent=True)
    root = ElementTree.fromstring(svg)  # noqa: S314 - matplotlib has just written it
    _Cleaner(root, name).clean()
    view_box = root.get("viewBox", "")
    root.attrib.clear()
    root.attrib |= {"viewBox": view_box, "role": "img", "aria-label": alt, "fill": "var(--ink)"}
    return ElementTree.tostring(root, encoding="unicode")


class _Cleaner:
    """Changes an SVG of matplotlib so that it fits into a page with a strict content policy.

    Removes metadata, styles and unused ids, prefixes the other ids, and turns colours into custom
    properties.
    """

    def __init__(self, root: ElementTree.Element, name: str) -> None:
        self._root = root
        self._name = name
        self._colours = {colour: f"var({name})" for colour, name in css_names().items()}
        values = (value for element in root.iter() for value in element.attrib.values())
        self._used_ids = {id_ for value in values for id_ in _REFERENCE.findall(value)}

    def clean(self) -> None:
        for element in self._root.iter():
            for child in list(element):
                if _local_name(child.tag) in _REMOVED_TAGS:
                    element.remove(child)
            element.tag = _local_name(element.tag)
            self._clean_attributes(element)

    def _clean_attributes(self, element: ElementTree.Element) -> None:
        attributes = dict(element.attrib)
        if attributes.get("id") not in self._used_ids:
            attributes.pop("id", None)
        if _LINK in attributes:
            attributes["href"] = attributes.pop(_LINK)
        attributes |= _style_attributes(attributes.pop("style", ""))
        element.attrib = {key: self._value(key, value) for key, value in attributes.items()}

    def _value(self, key: str, value: str) -> str:
        if key == "id":
            return f"{self._name}-{value}"
        if key == "href" or value.startswith("url("):
            return _REFERENCE.sub(lambda match: f"#{self._name}-{match[1]}", value)
        return self._colours.get(value, value) if key in {"fill", "stroke"} else value


def _local_name(tag: str) -> str:
    """Return a tag without its namespace."""
    return tag.rpartition("}")[2]


def _style_attributes(style: str) -> dict[str, str]:
    """Convert ``fill: #fff; font: bold 10px Sans`` to attributes, without the font family."""
    pairs = (part.split(":", 1) for part in style.split(";") if ":" in part)
    attributes = {key.strip(): value.strip() for key, value in pairs}
    font = _FONT.match(attributes.pop("font", ""))
    if font:
        attributes["font-size"] = font[2]
        if font[1] == "bold":
            attributes["font-weight"] = "bold"
    attributes.pop("font-family", None)
    return {key: value.removesuffix("px") for key, value in attributes.items()}
