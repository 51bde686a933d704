"""Colours of pictures. A page gives each its own meaning in light and dark; a file keeps these."""

INK, PAPER, GREY = "#000000", "#ffffff", "#9a9a9a"
HEAT = "#6ea8e6"  # its opacity is the value; text in INK stays readable on all of it
# Told apart by people who do not see all colours (Okabe and Ito 2008), darkened for white paper.
SERIES = (
    "#2b5f9e", "#c03a2b", "#1b7f5c", "#8a5fa8", "#b06f00", "#3d97b8", "#6b6b00", "#a8477f",
)  # fmt: skip
BLUE, RED = SERIES[0], SERIES[1]
DASHES = ("-", "--", "-.", ":")


def css_names() -> dict[str, str]:
    """Return colour -> the custom property that a page's style sheet defines for it."""
    named = {INK: "--ink", PAPER: "--paper", GREY: "--grey", HEAT: "--heat"}
    return named | {colour: f"--series-{i}" for i, colour in enumerate(SERIES, 1)}
