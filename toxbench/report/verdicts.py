"""Verdicts on pairs of candidates, as sentences and as a table."""

from collections.abc import Sequence
from dataclasses import replace

from toxbench.evaluation.definitions import HEADLINES
from toxbench.evaluation.significance import Difference, Outcome, Verdict
from toxbench.plugin.contracts import Table
from toxbench.util.text import escape_line

COLUMN_TITLES = {
    **HEADLINES,
    "micro_f1_global": "micro-F1 (global threshold)",
    "subset_accuracy_accuracy": "subset accuracy (accuracy threshold)",
    "micro_average_precision": "micro average precision",
}
# Sentences that a verdict can print; toxbench/docs/explanation/statistics.md lists their rules.
_SENTENCES = {
    Outcome.BETTER: "{first} is better than {second} in {metric}: {numbers}; {p}.",
    Outcome.EQUIVALENT: (
        "{first} and {second} are equivalent in {metric}, within ±{rope:g}: {numbers}."
    ),
    Outcome.DEPENDS: (
        "Whether {first} or {second} is better in {metric} depends on the threshold: {numbers}."
    ),
    Outcome.UNDECIDED: (
        "It is undecided whether {first} or {second} is better in {metric}: {numbers}; {p}. The "
        "smallest difference detectable with 80 % power is {detectable:.3f}."
    ),
    Outcome.UNTESTED: (
        "No verdict on {first} and {second} in {metric}: with one seed of a backbone, the variance "
        "between seeds is unknown. On these seeds, over test rows only: {numbers}."
    ),
}


def conclusion(verdict: Verdict) -> str:
    """Return a sentence on two candidates, the one with the higher score first."""
    shown = verdict if verdict.main.difference >= 0 else reversed_verdict(verdict)
    d = shown.main
    outcome = Outcome.BETTER if shown.outcome is Outcome.WORSE else shown.outcome
    return _SENTENCES[outcome].format(
        first=d.first,
        second=d.second,
        metric=HEADLINES[shown.metric],
        numbers=", ".join(map(_number, shown.differences)),
        p=f"Holm-adjusted p {_p_text(d.adjusted_p, '= ')}",
        rope=d.rope,
        detectable=d.detectable,
    )


def reversed_verdict(verdict: Verdict) -> Verdict:
    """Return the verdict with the two candidates swapped."""
    return replace(verdict, differences=tuple(map(_reversed_difference, verdict.differences)))


def comparison_table(verdicts: Sequence[Verdict], notes: Sequence[str]) -> Table:
    """Return one row for each pair of candidates and compared column."""
    outcomes = {(d.first, d.second, d.metric): "" for v in verdicts for d in v.differences}
    outcomes |= {(v.main.first, v.main.second, v.metric): v.outcome.value for v in verdicts}
    differences = {(d.first, d.second, d.metric): d for v in verdicts for d in v.differences}
    return Table(
        title="Paired differences (first minus second) on the same test rows",
        headers=(
            "first", "second", "score", "difference", "95 % confidence interval", "p",
            "p (Holm-adjusted)", "P(first better)", "P(equivalent)", "detectable difference",
            "first is",
        ),
        rows=tuple(
            (
                escape_line(d.first), escape_line(d.second), COLUMN_TITLES[d.metric],
                f"{d.difference:+.3f}", f"{d.low:+.3f} to {d.high:+.3f}", _p_text(d.p),
                _p_text(d.adjusted_p), f"{d.better:.2f}", f"{d.equivalent:.2f}",
                f"{d.detectable:.3f}", outcomes[key],
            )
            for key, d in differences.items()
        ),
        notes=tuple(map(escape_line, notes)),
        records=tuple(
            {
                "first": escape_line(d.first), "second": escape_line(d.second), "metric": d.metric,
                "difference": d.difference, "low": d.low, "high": d.high, "p": d.p,
                "p_holm": d.adjusted_p, "first_better": d.better, "equivalent": d.equivalent,
                "detectable": d.detectable, "verdict": outcomes[key],
            }
            for key, d in differences.items()
        ),
        keys=3,
    )  # fmt: skip


def _reversed_difference(d: Difference) -> Difference:
    return replace(
        d,
        first=d.second,
        second=d.first,
        difference=-d.difference,
        low=-d.high,
        high=-d.low,
        better=1 - d.better - d.equivalent,
    )


def _number(d: Difference) -> str:
    return f"{COLUMN_TITLES[d.metric]} {d.difference:+.3f} [{d.low:+.3f}, {d.high:+.3f}]"


def _p_text(value: float | None, sign: str = "") -> str:
    if value is None:
        return "-"
    return f"{sign}{value:.3f}" if value >= 0.001 else f"{'< ' if sign else '<'}0.001"
