"""Colours of figures, and functions to draw and store them.

A page replaces each colour by a custom property, for a light and a dark theme.
"""

import io
import sys
from typing import TYPE_CHECKING

from toxbench.util.text import escape_line

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, PAPER, GREY = "#000000", "#ffffff", "#9a9a9a"
HEAT = "#6ea8e6"  # its opacity is the value; text in INK is readable at every opacity
# Distinct for people with colour vision deficiencies (Okabe and Ito 2008), darker for white paper.
SERIES = (
    "#2b5f9e", "#c03a2b", "#1b7f5c", "#8a5fa8", "#b06f00", "#3d97b8", "#6b6b00", "#a8477f",
)  # fmt: skip
BLUE, RED = SERIES[0], SERIES[1]
DASHES = ("-", "--", "-.", ":")


def css_names() -> dict[str, str]:
    """Return colour -> the custom property that a page's style sheet defines for it."""
    names = {INK: "--ink", PAPER: "--paper", GREY: "--grey", HEAT: "--heat"}
    return names | {colour: f"--series-{i}" for i, colour in enumerate(SERIES, 1)}


def plot_text(text: str, max_length: int = sys.maxsize) -> str:
    """Escape and shorten a text; matplotlib reads an unescaped ``$`` as the start of a formula."""
    safe = escape_line(text)
    short = safe if len(safe) <= max_length else f"{safe[: max_length - 1]}…"
    return short.replace("$", r"\$")


def svg_bytes(figure: "Figure", transparent: bool = False) -> bytes:
    """Return a figure as SVG, the same bytes for the same figure."""
    import matplotlib as mpl

    buffer = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "toxbench", "svg.fonttype": "none"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=transparent)
    return buffer.getvalue()
