"""Colours of pictures. A page replaces each by a custom property, for a light and a dark theme."""

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
