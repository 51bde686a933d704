"""Sections on the data, the split, the search, agreement, rows to review and reproduction."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from toxbench.evaluation.curves import agreement
from toxbench.evaluation.definitions import OBJECTIVES
from toxbench.plugin.contracts import Table
from toxbench.records import CellRecord, TrialRecord
from toxbench.report.audit import audit_findings, leak_note
from toxbench.report.html.elements import (
    Picture,
    Section,
    create_panels,
    create_picture,
    draw_heat_map,
    short_name,
)
from toxbench.report.html.load import ReportData, Search
from toxbench.report.predictions import TABLES, DisplayOptions
from toxbench.report.tables import create_table
from toxbench.report.tuning import front_table, importance_table, param_text, study_figures
from toxbench.util.many_labels import select_labels
from toxbench.util.text import format_millions

# Trials -> importance of each hyperparameter; an empty mapping if they are too few.
ComputeImportances = Callable[[Sequence[TrialRecord]], Mapping[str, float]]
_MAX_REVIEW_ROWS = 20
_SEARCH_PICTURES = {
    "history": "Score of each trial, and the best score so far.",
    "front": "Score of each trial against its costs, with the Pareto front.",
    "importance": "Share of the scores' variance that each hyperparameter explains.",
}  # name -> description; other figures are too wide for a page, and stored next to the trials


def agreement_section(data: ReportData) -> Section | None:
    """Return a matrix with the share of rows for which two candidates predict the same labels."""
    names = [row.name for row in data.plotted_rows]
    if len(names) < 2:
        return None
    shares = agreement({name: data.predicted.candidates[name] for name in names}).tolist()
    figure, (axes,) = create_panels(1, 1.0 + 0.4 * len(names))
    draw_heat_map(axes, shares, list(map(short_name, names)), names)
    numbers = create_table(
        "Share of test rows with the same predicted labels", ["candidate", *names],
        [[name, *row] for name, row in zip(names, shares, strict=True)],
    )  # fmt: skip
    alt = f"Matrix: share of test rows for which two of {len(names)} candidates agree."
    note = (
        "A candidate's predictions are those of the mean probability of its seeds. "
        f"{data.omitted_note}"
    )
    picture = create_picture("agreement", alt, figure, numbers, note)
    return Section("agreement", "Agreement between candidates", pictures=[picture])


def search_section(data: ReportData, importances: ComputeImportances) -> Section | None:
    """Return the pictures of every hyperparameter search."""
    if not data.searches:
        return None
    pictures: list[Picture] = []
    for place, search in enumerate(data.searches):
        values = importances(search.trials)
        complete = sum(trial.state == "complete" for trial in search.trials)
        tables = {
            "front": front_table(search.name, search.trials),
            "importance": importance_table(search.name, complete, values),
        }
        figures = study_figures(search.trials, values)
        pictures += [
            create_picture(f"search-{place}-{name}", f"{search.name}: {_SEARCH_PICTURES[name]}",
                           figure, tables.get(name, _trial_table(search)), f"Study {search.name}")
            for name, figure in figures.items()
            if name in _SEARCH_PICTURES
        ]  # fmt: skip
    metrics = dict.fromkeys(OBJECTIVES[search.trials[0].metric] for search in data.searches)
    text = f"Scores on inner validation rows: {', '.join(metrics)}. No test row is used."
    return Section("search", "Hyperparameter search", [text], pictures=pictures)


def data_section(data: ReportData) -> Section:
    """Return the size of the data and of the split, and the findings of the audit."""
    protocol, audit = data.board.protocol, data.board.protocol.audit
    labels, tested = protocol.labels, protocol.tested_supports
    shown = select_labels(list(protocol.supports.values()), protocol.rows)
    positives = create_table(
        "Positive rows of each label",
        ("label", "positive rows", "share of rows", "positive test rows"),
        [
            [label, protocol.supports[label], f"{protocol.supports[label] / protocol.rows:.1%}",
             tested[label]]
            for label in (labels[i] for i in shown.places)
        ],
        shown.notes,
    )  # fmt: skip
    folds = create_table(
        "Number of rows",
        ("fold", "train", "validation", "test"),
        [[i, len(f.train), len(f.validation), len(f.test)] for i, f in enumerate(protocol.folds)],
    )
    findings = audit_findings(audit, lambda row: data.ids[row])
    text = [
        f"{protocol.name}: {protocol.rows} rows, {len(labels)} labels, "
        f"{sum(protocol.supports.values())} positive (row, label) entries."
    ]
    warnings = [leak_note(audit)] if audit.leaked_rows else []
    return Section("data", "Data and split", text, warnings, findings=findings,
                   tables=[folds], collapsed_tables=[positives])  # fmt: skip


def review_section(data: ReportData) -> Section:
    """Return tables of rows to review, by id; with comments only if the report data has them."""
    display = DisplayOptions(_MAX_REVIEW_ROWS, data.texts)
    text = (
        "toxbench errors lists more of these rows."
        if data.texts is not None
        else "Rows are listed by id, without comments. To include the comments: toxbench report "
        "--show-text --data FILE."
    )
    tables = [create(data.predicted, display) for create in TABLES.values()]
    return Section("review", "Rows to review", [text], collapsed_tables=tables)


def reproduction_section(data: ReportData) -> Section:
    """Return the commands, versions, settings and plugins that computed the results."""
    protocol, manifest = data.board.protocol, data.manifest
    records = [record for of_row in data.records.values() for record in of_row]
    text = [
        f"Protocol fingerprint: {protocol.fingerprint}. It identifies the data, the split and the "
        "metric definitions; results with another fingerprint are not comparable.",
        f"Data fingerprint: {protocol.data_fingerprint}.",
    ]
    if manifest.commands:
        text.append("Commands, to run in the folder of the data table, with the versions below:")
    return Section(
        "reproduction",
        "How to reproduce these results",
        text,
        commands=manifest.commands,
        collapsed_tables=[_environment_table(records), _settings_table(data), _plugin_table(data)],
    )


def _trial_table(search: Search) -> Table:
    return create_table(
        f"Trials of {search.name}",
        ("trial", "state", "score", "epochs", "settings"),
        [
            ["0 (default)" if t.is_default else t.number, t.state, t.value, t.epochs, param_text(t)]
            for t in search.trials
        ],
    )  # fmt: skip


def _environment_table(records: Sequence[CellRecord]) -> Table:
    """List the distinct machines and versions of the cells."""
    counts = Counter(
        (
            f"{e.device_name} ({e.device})", e.precision, e.threads, e.commit,
            ", ".join(f"{name} {version}" for name, version in e.versions.items()),
        )
        for e in (record.environment for record in records)
    )  # fmt: skip
    return create_table(
        "Machines and versions",
        ("cells", "device", "precision", "threads", "commit of the working folder", "versions"),
        [[count, *key] for key, count in counts.items()],
    )


def _settings_table(data: ReportData) -> Table:
    """List every setting of each candidate that has any."""
    rows = [
        (row, settings)
        for row in data.board.rows
        if (settings := data.records[row.name][0].all_settings)
    ]
    names = dict.fromkeys(name for _, settings in rows for name in settings)
    values = [[name, *(str(settings.get(name, "-")) for _, settings in rows)] for name in names]
    values.append(["parameters", *(format_millions(row.parameters) for row, _ in rows)])
    values = values if rows else []
    return create_table("Training settings", ["setting", *(row.name for row, _ in rows)], values)


def _plugin_table(data: ReportData) -> Table:
    """List every plugin whose code ran."""
    plugins = {
        (plugin.name, plugin.distribution) for code in data.manifest.runs for plugin in code.plugins
    }
    return create_table("Loaded plugins", ("plugin", "distribution"), sorted(plugins))
