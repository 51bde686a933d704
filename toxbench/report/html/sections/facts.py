"""The data, the split, and how anybody gets the same numbers again."""

from collections.abc import Sequence

from toxbench.plugin.contracts import Table
from toxbench.records import CellRecord
from toxbench.report.audit import audit_findings
from toxbench.report.html.elements import Section, plain_table
from toxbench.report.html.load import Findings
from toxbench.report.notes import notes
from toxbench.report.words import millions
from toxbench.settings import TrainSettings


def data(findings: Findings) -> Section:
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
    audit = protocol.audit
    points = [] if audit is None else audit_findings(audit, lambda row: findings.ids[row])
    text = [
        f"{protocol.name}: {protocol.rows} rows, {len(labels)} labels, "
        f"{sum(protocol.supports.values())} positive entries."
    ]
    warnings = [note for note in notes(findings.board) if note.startswith("The split leaks")]
    return Section("data", "Data and split", text, warnings, points=points,
                   tables=[folds], folded=[positives])  # fmt: skip


def reproduce(findings: Findings) -> Section:
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


def _settings(findings: Findings) -> Table:
    """List every setting of each backbone."""
    rows = [
        (row, record.settings)
        for row in findings.board.rows
        if (record := findings.records[row.name][0]).settings is not None
    ]
    names = list(TrainSettings.model_fields) if rows else []
    values = [[name, *(str(getattr(settings, name)) for _, settings in rows)] for name in names]
    values += [["parameters", *(millions(row.parameters) for row, _ in rows)]] if rows else []
    return plain_table("Settings", ["setting", *(row.name for row, _ in rows)], values)


def _plugins(findings: Findings) -> Table:
    """List every plugin whose code ran."""
    plugins = {
        (plugin.name, plugin.distribution)
        for code in findings.manifest.runs
        for plugin in code.plugins
    }
    return plain_table("Plugins whose code ran", ("plugin", "distribution"), sorted(plugins))
