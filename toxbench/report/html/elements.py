"""What a page is made of: sections of sentences, pictures and tables."""

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from toxbench.plugin.contracts import Table
from toxbench.ranking.rows import Row
from toxbench.report.palette import DASHES, GREY, HEAT, SERIES, css_names
from toxbench.util.text import escape_line

if TYPE_CHECKING:
    from matplotlib.axes import Axes
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


@dataclass(frozen=True)
class Picture:
    """A drawing, and below it the numbers that it was drawn from.

    Attributes:
        name: different for every picture of a page.
        svg: an element, safe to put into a page.
        note: how to read it, "" where that is plain.
    """

    name: str
    svg: str
    numbers: Table
    note: str = ""


@dataclass(frozen=True)
class Section:
    """One heading of a page and what is below it.

    Attributes:
        name: for links to it.
        text: paragraphs; nothing is escaped yet.
        warnings: paragraphs that stand out.
        points: a headline each, then what it means and what to do, if there is anything.
        code: what to type, line by line.
        tables: shown open, above the pictures.
        folded: shown behind their titles, below the pictures.
    """

    name: str
    title: str
    text: Sequence[str] = ()
    warnings: Sequence[str] = ()
    points: Sequence[Sequence[str]] = ()
    code: Sequence[str] = ()
    tables: Sequence[Table] = ()
    pictures: Sequence[Picture] = ()
    folded: Sequence[Table] = ()


def plain_table(
    title: str,
    headers: Sequence[str],
    rows: Sequence[Sequence[str | int | float | None]],
    notes: Sequence[str] = (),
) -> Table:
    """Return a table of values; floats are rounded to three digits, None is a dash."""
    return Table(
        title=escape_line(title),
        headers=tuple(map(escape_line, headers)),
        rows=tuple(tuple(_cell(value) for value in row) for row in rows),
        notes=tuple(map(escape_line, notes)),
        records=(),
    )


def _cell(value: str | int | float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else escape_line(str(value))


WIDTH = 5.0  # inches: a page scales a picture to its column
_LONGEST = 26  # characters of a name in a picture; the table below has all of it


def picture(name: str, alt: str, figure: "Figure", numbers: Table, note: str = "") -> Picture:
    """Put a finished drawing and its numbers together; ``alt`` says what it shows."""
    return Picture(name, inline_svg(figure, name, alt), numbers, note)


def panels(count: int, height: float, width: float = WIDTH) -> "tuple[Figure, list[Axes]]":
    """Return a figure with some panels one above the other, each of that height in inches."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, count * height), layout="constrained")
    grid = figure.subplots(count, 1, squeeze=False)
    axes: list[Axes] = list(grid[:, 0])
    for one in axes:
        one.spines[["top", "right"]].set_visible(False)
        one.tick_params(labelsize=8)
        one.set_facecolor("none")
    return figure, axes


def series(place: int) -> dict[str, Any]:
    """Return the line of the candidate in that place: no two of eight look alike."""
    return {"color": SERIES[place % len(SERIES)], "linestyle": DASHES[place % len(DASHES)]}


def plain(text: str, longest: int = _LONGEST) -> str:
    """Make a name safe and short: matplotlib would read ``$`` as the start of a formula."""
    safe = escape_line(text)
    short = safe if len(safe) <= longest else f"{safe[: longest - 1]}…"
    return short.replace("$", r"\$")


def numbered(rows: Sequence[Row], row: Row) -> str:
    """Return a row's rank, counted from 1, for pictures without room for names."""
    return str(list(rows).index(row) + 1)


def legend(axes: "Axes", entries: int) -> None:
    """Put the legend above the panel, where it hides nothing."""
    axes.legend(
        fontsize=7, frameon=False, ncols=min(2, entries), loc="lower left",
        bbox_to_anchor=(0, 1.0), borderaxespad=0.2,
    )  # fmt: skip


def name_axis(axes: "Axes", names: Sequence[str]) -> None:
    """Write names down the left side, the first one on top."""
    axes.set_yticks(range(len(names)), [plain(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)


def heat(
    axes: "Axes",
    values: Sequence[Sequence[float | None]],
    text: Callable[[float], str] = "{:.2f}".format,
) -> None:
    """Draw values in [0, 1] as a grid whose cells are the fuller the higher, with their numbers."""
    from matplotlib.patches import Rectangle

    for y, row in enumerate(values):
        for x, value in enumerate(row):
            shade = 0.0 if value is None else max(0.0, min(1.0, value))
            axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=HEAT, alpha=shade))
            label = "-" if value is None else text(value)
            axes.text(x, y, label, ha="center", va="center", fontsize=7)
    axes.set_xlim(-0.5, max(1, len(values[0])) - 0.5)
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)


def guide(axes: "Axes", *, x: float | None = None, y: float | None = None) -> None:
    """Draw a thin grey line at ``x``, at ``y`` or at both."""
    style: dict[str, Any] = {"color": GREY, "linewidth": 0.7, "zorder": 0}
    if x is not None:
        axes.axvline(x, **style)
    if y is not None:
        axes.axhline(y, **style)
