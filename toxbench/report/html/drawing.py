"""What the pictures of a page have in common."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from toxbench.leaderboard.rows import Row
from toxbench.plugin.contracts import Table
from toxbench.report.html.parts import Picture
from toxbench.report.html.svg import inline_svg
from toxbench.report.palette import DASHES, GREY, HEAT, SERIES
from toxbench.report.words import printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

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
    safe = printable(text)
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
