"""What ``toxbench tune`` tried and what mattered."""

from collections.abc import Callable, Mapping, Sequence

from toxbench.plugin.contracts import Table
from toxbench.records import TrialRecord
from toxbench.report.html.elements import Picture, Section, picture, plain_table
from toxbench.report.html.load import Findings, Search
from toxbench.report.tuning import importance_table, study_figures

Importances = Callable[[Sequence[TrialRecord]], Mapping[str, float]]
_ALT = {
    "history": "Score of each trial in its order, and the best so far.",
    "importance": "Share of each hyperparameter in what the scores differ by.",
}


def searches(findings: Findings, importances: Importances) -> Section | None:
    """Show every search of this protocol."""
    if not findings.searches:
        return None
    pictures: list[Picture] = []
    for place, search in enumerate(findings.searches):
        shares = importances(search.trials)
        complete = sum(trial.state == "complete" for trial in search.trials)
        tables = {"importance": importance_table(search.name, complete, shares)}
        figures = study_figures(search.trials, shares)
        pictures += [
            picture(f"search-{place}-{name}", f"{search.name}: {_ALT[name]}", figure,
                    tables.get(name, _trials(search)), search.name)
            for name, figure in figures.items()
            if name in _ALT  # the others are too wide for a page; they lie beside the trials
        ]  # fmt: skip
    text = "Scores are micro average precision on inner validation rows: no test row is in them."
    return Section("search", "Searched settings", [text], pictures=pictures)


def _trials(search: Search) -> Table:
    return plain_table(
        f"Trials of {search.name}",
        ("trial", "state", "score", "epochs", "settings"),
        [
            ["0 (default)" if t.default else t.number, t.state, t.value, t.epochs, _drawn(t)]
            for t in search.trials
        ],
    )


def _drawn(trial: TrialRecord) -> str:
    values = {k: f"{v:.3g}" if isinstance(v, float) else v for k, v in trial.params.items()}
    return ", ".join(f"{name} {value}" for name, value in sorted(values.items())) or "-"
