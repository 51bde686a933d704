"""The data, the split, and how anybody gets the same numbers again."""

from collections.abc import Callable, Mapping, Sequence

from toxbench.evaluation.curves import agreement
from toxbench.plugin.contracts import Table
from toxbench.records import CellRecord, TrialRecord
from toxbench.report.audit import audit_findings
from toxbench.report.html.elements import (
    Picture,
    Section,
    heat,
    panels,
    picture,
    plain,
    plain_table,
)
from toxbench.report.html.load import ReportData, Search
from toxbench.report.label_errors import TABLES, Shown
from toxbench.report.notes import notes
from toxbench.report.tuning import importance_table, study_figures
from toxbench.settings import TrainSettings
from toxbench.util.text import format_millions


def data(findings: ReportData) -> Section:
    """Say what the table holds, how it was split and what leaks."""
    protocol = findings.board.protocol
    labels = protocol.labels
    positives = plain_table(
        "Positive rows of each label",
        ("label", "all rows", "share", "test rows"),
        [
            [label, protocol.supports[label], f"{protocol.supports[label] / protocol.rows:.1%}",
             protocol.tested_supports[label]]
            for label in labels
        ],
    )  # fmt: skip
    folds = plain_table(
        "Rows of each part",
        ("fold", "train", "validation", "test"),
        [[i, len(f.train), len(f.validation), len(f.test)] for i, f in enumerate(protocol.folds)],
    )
    points = audit_findings(protocol.audit, lambda row: findings.ids[row])
    text = [
        f"{protocol.name}: {protocol.rows} rows, {len(labels)} labels, "
        f"{sum(protocol.supports.values())} positive entries."
    ]
    warnings = [note for note in notes(findings.board) if note.startswith("The split leaks")]
    return Section("data", "Data and split", text, warnings, points=points,
                   tables=[folds], folded=[positives])  # fmt: skip


def reproduce(findings: ReportData) -> Section:
    """Say what to type, and with what it was computed."""
    protocol, manifest = findings.board.protocol, findings.manifest
    records = [record for own in findings.records.values() for record in own]
    text = [
        f"Protocol {protocol.fingerprint}: the table, the rows of each part, and every "
        "definition of a metric. Results with another one cannot be compared with these.",
        f"Data {protocol.data_fingerprint}.",
    ]
    if manifest.commands:
        text.append("In the folder of the table, with the versions below:")
    return Section(
        "reproduce",
        "How to get these numbers again",
        text,
        code=manifest.commands,
        folded=[_environments(records), _settings(findings), _plugins(findings)],
    )


def _environments(records: Sequence[CellRecord]) -> Table:
    """List the different machines and versions that cells come from."""
    found: dict[tuple[str, ...], int] = {}
    for record in records:
        e = record.environment
        key = (
            f"{e.device_name} ({e.device})", e.precision, str(e.threads), e.commit or "-",
            ", ".join(f"{name} {version}" for name, version in e.versions.items()),
        )  # fmt: skip
        found[key] = found.get(key, 0) + 1
    return plain_table(
        "Machines and versions",
        ("cells", "device", "precision", "threads", "commit of the working folder", "versions"),
        [[count, *key] for key, count in found.items()],
    )


def _settings(findings: ReportData) -> Table:
    """List every setting of each backbone."""
    rows = [
        (row, record.settings)
        for row in findings.board.rows
        if (record := findings.records[row.name][0]).settings is not None
    ]
    names = list(TrainSettings.model_fields) if rows else []
    values = [[name, *(str(getattr(settings, name)) for _, settings in rows)] for name in names]
    if rows:
        values.append(["parameters", *(format_millions(row.parameters) for row, _ in rows)])
    return plain_table("Settings", ["setting", *(row.name for row, _ in rows)], values)


def _plugins(findings: ReportData) -> Table:
    """List every plugin whose code ran."""
    plugins = {
        (plugin.name, plugin.distribution)
        for code in findings.manifest.runs
        for plugin in code.plugins
    }
    return plain_table("Plugins whose code ran", ("plugin", "distribution"), sorted(plugins))


_LIMIT = 20


def agreeing(findings: ReportData) -> Section | None:
    """Show for how many rows two candidates predict the same labels."""
    names = [row.name for row in findings.drawn]
    if len(names) < 2:
        return None
    shares = agreement({name: findings.predicted.candidates[name] for name in names}).tolist()
    figure, (axes,) = panels(1, 1.0 + 0.4 * len(names))
    heat(axes, shares)
    axes.set_yticks(range(len(names)), [plain(name) for name in names])
    axes.set_xticks(range(len(names)), [plain(n, 22) for n in names], rotation=25, ha="right")
    numbers = plain_table(
        "Share of test rows with the same predicted labels", ["candidate", *names],
        [[name, *row] for name, row in zip(names, shares, strict=True)],
    )  # fmt: skip
    alt = f"Matrix: share of test rows for which two of {len(names)} candidates agree."
    note = f"Seeds of a candidate decide by their mean probability. {findings.omitted_note}"
    return Section("agreement", "Agreement between candidates",
                   pictures=[picture("agreement", alt, figure, numbers, note.strip())])  # fmt: skip


def to_look_at(findings: ReportData) -> Section:
    """List rows worth reading, by id; their texts only where those were asked for."""
    shown = Shown(_LIMIT, findings.texts)
    text = (
        "Where to look first; toxbench errors prints more of them."
        if findings.texts is not None
        else "By id, without the comments; toxbench report --show-text --data FILE shows those."
    )
    tables = [make(findings.predicted, shown) for make in TABLES.values()]
    return Section("rows", "Rows to look at", [text], folded=tables)


Importances = Callable[[Sequence[TrialRecord]], Mapping[str, float]]
_ALT = {
    "history": "Score of each trial in its order, and the best so far.",
    "importance": "Share of each hyperparameter in what the scores differ by.",
}


def searches(findings: ReportData, importances: Importances) -> Section | None:
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
            ["0 (default)" if t.is_default else t.number, t.state, t.value, t.epochs, _drawn(t)]
            for t in search.trials
        ],
    )


def _drawn(trial: TrialRecord) -> str:
    values = {k: f"{v:.3g}" if isinstance(v, float) else v for k, v in trial.params.items()}
    return ", ".join(f"{name} {value}" for name, value in sorted(values.items())) or "-"
