"""What ``toxbench tune`` tried and what mattered."""

from collections.abc import Callable, Mapping, Sequence

from toxbench.plugin.formats import Table
from toxbench.records import TrialRecord
from toxbench.report.html.drawing import picture
from toxbench.report.html.findings import Findings, Search
from toxbench.report.html.parts import Picture, Section, plain_table
from toxbench.report.plots import study_figures
from toxbench.report.studies import importance_table

Importances = Callable[[Sequence[TrialRecord]], Mapping[str, float]]
_ALT = {
    "history": "Score of each trial in its order, and the best so far.",
    "importance": "Share of each hyperparameter in what the scores differ by.",
    "parallel-coordinates": "One line a trial across all hyperparameters.",
    "slices": "Score against each hyperparameter.",
}


def searches(findings: Findings, importances: Importances) -> Section | None:
    """Show every search of this protocol."""
    if not findings.searches:
        return None
    pictures: list[Picture] = []
    folded: list[Table] = []
    for place, search in enumerate(findings.searches):
        shares = importances(search.trials)
        complete = sum(trial.state == "complete" for trial in search.trials)
        tables = {"importance": importance_table(search.name, complete, shares)}
        figures = study_figures(search.trials, shares)
        pictures += [
            picture(f"search-{place}-{name}", f"{search.name}: {_ALT[name]}", figure,
                    tables.get(name, _trials(search)), search.name)
            for name, figure in figures.items()
        ]  # fmt: skip
    text = "Scores are micro average precision on inner validation rows: no test row is in them."
    return Section("search", "Searched settings", [text], pictures=pictures, folded=folded)


def _trials(search: Search) -> Table:
    names = sorted({name for trial in search.trials for name in trial.params})
    return plain_table(
        f"Trials of {search.name}",
        ("trial", "state", "score", "epochs", *names),
        [
            [
                "0 (default)" if t.default else t.number, t.state, t.value, t.epochs,
                *(_text(t.params.get(name)) for name in names),
            ]
            for t in search.trials
        ],
    )  # fmt: skip


def _text(value: str | int | float | None) -> str | int | None:
    return f"{value:.3g}" if isinstance(value, float) else value
