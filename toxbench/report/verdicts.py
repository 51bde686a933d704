"""Differences between candidates in one plain sentence, and as a table."""

from collections.abc import Sequence
from dataclasses import replace

from toxbench.evaluation.significance import Difference
from toxbench.plugin.contracts import Table
from toxbench.util.text import escape_line

METRICS = {"micro_f1": "micro-F1", "subset_accuracy": "subset accuracy"}


def conclusion(difference: Difference) -> str:
    """Say whether two candidates can be told apart, the better one first."""
    d = difference if difference.difference >= 0 else reversed_difference(difference)
    metric = METRICS[d.metric]
    p = "< 0.001" if d.adjusted_p < 0.001 else f"= {d.adjusted_p:.3f}"
    numbers = (
        f"difference {d.difference:+.3f}, 95 % interval {d.low:+.3f} to {d.high:+.3f}, "
        f"p {p} after Holm's correction"
    )
    if d.is_clear:
        return f"{d.first} is better than {d.second} in {metric}: {numbers}."
    return (
        f"{d.first} and {d.second} cannot be told apart in {metric}: {numbers}; these test rows "
        f"and seeds would show a difference of {d.detectable:.3f} four times in five."
    )


def reversed_difference(difference: Difference) -> Difference:
    """Return the same difference the other way round."""
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
    """Return pairs of candidates, one row for each pair and metric."""
    return Table(
        title="Paired differences on the same test rows and seeds",
        headers=(
            "first", "second", "metric", "difference", "95 % interval", "p", "p (Holm)",
            "P(first better)", "detectable",
        ),
        rows=tuple(
            (
                escape_line(d.first), escape_line(d.second), METRICS[d.metric],
                f"{d.difference:+.3f}", f"{d.low:+.3f} to {d.high:+.3f}",
                _p(d.p), _p(d.adjusted_p), f"{d.better:.2f}", f"{d.detectable:.3f}",
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


def _p(value: float) -> str:
    return f"{value:.3f}" if value >= 0.001 else "<0.001"
