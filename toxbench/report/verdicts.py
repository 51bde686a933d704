"""Differences between candidates, as sentences and as a table."""

from collections.abc import Sequence
from dataclasses import replace

from toxbench.evaluation.definitions import HEADLINES
from toxbench.evaluation.significance import Difference
from toxbench.plugin.contracts import Table
from toxbench.util.text import escape_line


def conclusion(difference: Difference) -> str:
    """Return a sentence on whether two candidates differ significantly, the better one first."""
    d = difference if difference.difference >= 0 else reversed_difference(difference)
    metric = HEADLINES[d.metric]
    p = "< 0.001" if d.adjusted_p < 0.001 else f"= {d.adjusted_p:.3f}"
    numbers = (
        f"difference {d.difference:+.3f}, 95 % confidence interval {d.low:+.3f} to {d.high:+.3f}, "
        f"Holm-adjusted p {p}"
    )
    if d.is_clear:
        return f"{d.first} is significantly better than {d.second} in {metric}: {numbers}."
    return (
        f"{d.first} and {d.second} do not differ significantly in {metric}: {numbers}. The "
        f"smallest difference detectable with 80 % power is {d.detectable:.3f}."
    )


def reversed_difference(difference: Difference) -> Difference:
    """Return the difference with the two candidates swapped."""
    return replace(
        difference,
        first=difference.second,
        second=difference.first,
        difference=-difference.difference,
        low=-difference.high,
        high=-difference.low,
        better=1 - difference.better,
    )


def comparison_table(differences: Sequence[Difference], notes: Sequence[str]) -> Table:
    """Return one row for each pair of candidates and metric."""
    return Table(
        title="Paired differences (first minus second) on the same test rows and seeds",
        headers=(
            "first", "second", "metric", "difference", "95 % confidence interval", "p",
            "p (Holm-adjusted)", "P(first better)", "detectable difference",
        ),
        rows=tuple(
            (
                escape_line(d.first), escape_line(d.second), HEADLINES[d.metric],
                f"{d.difference:+.3f}", f"{d.low:+.3f} to {d.high:+.3f}", _p_text(d.p),
                _p_text(d.adjusted_p), f"{d.better:.2f}", f"{d.detectable:.3f}",
            )
            for d in differences
        ),
        notes=tuple(map(escape_line, notes)),
        records=tuple(
            {
                "first": escape_line(d.first), "second": escape_line(d.second), "metric": d.metric,
                "difference": d.difference, "low": d.low, "high": d.high, "p": d.p,
                "p_holm": d.adjusted_p, "first_better": d.better, "detectable": d.detectable,
                "clear": d.is_clear,
            }
            for d in differences
        ),
        keys=3,
    )  # fmt: skip


def _p_text(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "<0.001"
