"""The plan of a run or a search, in a few lines."""

import shlex
from typing import TYPE_CHECKING

from toxbench.records import PARTS
from toxbench.util.text import count_of, escape_line

if TYPE_CHECKING:
    from toxbench.benchmark.candidates import BackboneCandidate, Candidate
    from toxbench.benchmark.plan import Plan
    from toxbench.training.weights import Weights
    from toxbench.tuning.tune import TunePlan


def run_plan_text(plan: "Plan") -> str:
    """Describe table, split, candidates and cells of a run."""
    import numpy as np

    from toxbench.benchmark.resources import num_workers

    comments, folds = plan.protocol.comments, plan.protocol.folds
    test_targets = comments.targets[np.concatenate([fold.test for fold in folds])]
    train, validation, test = (_range([len(fold.part(part)) for fold in folds]) for part in PARTS)
    in_folds = f" in each of {len(folds)} folds" if len(folds) > 1 else ""
    lines = [
        f"Table     {comments.name}: {len(comments)} comments, {len(comments.labels)} labels",
        *(f"          {note}" for note in comments.notes),
        f"Split     {plan.source.origin}: {train} train, {validation} validation, {test} test rows"
        f"{in_folds}; protocol {plan.protocol.fingerprint[:12]}",
        f"Test      {test_targets.sum()} positive entries; "
        f"{(~test_targets.any(axis=1)).mean():.1%} of the rows have no label",
        *_group_lines(plan),
        *(_candidate_line(plan, candidate) for candidate in plan.candidates),
        *tracker_lines(plan),
        *_power_lines(plan),
    ]
    if plan.missing:
        workers = min(num_workers(plan), len(plan.missing))
        at_once = f", {workers} at once" if workers > 1 else ""
        lines.append(f"Cells     {len(plan.missing)} to compute{at_once}")
    else:
        lines.append("Cells     nothing to compute: every cell is stored")
    return "\n".join(lines)


def size_line(plan: "Plan") -> str:
    """Describe the cells with one number of train rows."""
    rows = _range([len(fold.train) for fold in plan.protocol.folds])
    cells = count_of(len(plan.cells), "cell")
    return f"Size      {rows} train rows: {len(plan.missing)} of {cells} to compute"


def tune_plan_text(planned: "TunePlan") -> str:
    """Describe table, split and searches."""
    from toxbench.settings import INNER_FOLDS
    from toxbench.tuning.space import format_dimension
    from toxbench.tuning.storage import redact_url

    plan, settings = planned.plan, planned.settings
    comments = plan.protocol.comments
    rows = len(planned.specs[0].data.comments)
    folds = len(plan.protocol.folds)
    in_folds = f"; again for each of {folds} folds" if folds > 1 else ""
    limits = [f"{settings.trial_limit} trials"] if settings.trial_limit else []
    limits += [settings.budget] if settings.budget else []
    lines = [
        f"Table     {comments.name}: {len(comments)} comments, {len(comments.labels)} labels; "
        f"protocol {plan.protocol.fingerprint[:12]}",
        f"Split     {plan.source.origin}",
        f"Search    {' or '.join(limits)} for each backbone, {settings.sampler}, pruner "
        f"{settings.pruner}, on {settings.inner_folds} of {INNER_FOLDS} inner folds of {rows} "
        f"rows; test rows are not among them{in_folds}",
    ]
    if settings.costs:
        lines.append(f"Costs     {', '.join(settings.costs)}: minimized in addition to the metric")
    for spec in (spec for spec in planned.specs if spec.fold == 0):
        space = ", ".join(f"{name}={format_dimension(d)}" for name, d in spec.space.items())
        weights = _weights_text(spec.candidate.weights) + _windows(plan, spec.candidate)
        lines.append(f"Backbone  {spec.candidate.name} from {weights}: {space}")
    lines.append(f"Studies   {redact_url(planned.url)} (optuna-dashboard opens it)")
    return "\n".join([*lines, *tracker_lines(plan)])


def tracker_lines(plan: "Plan") -> list[str]:
    """Return where each tracker writes, and the command that shows it."""
    from toxbench.benchmark.tracking import FOLDER

    lines = []
    for tracker in (registered.item for registered in plan.run.trackers):
        folder = plan.store.folder / FOLDER / tracker.name
        quoted = shlex.quote(str(folder.absolute())) if tracker.view else str(folder)
        view = (tracker.view or "{folder}").replace("{folder}", quoted)
        lines.append(f"Tracker   {tracker.name}: {view}")
    return lines


def _candidate_line(plan: "Plan", candidate: "Candidate") -> str:
    from toxbench.benchmark.candidates import BackboneCandidate

    cells = sum(c.title == candidate.title for c, _ in plan.cells)
    stored = cells - sum(c.title == candidate.title for c, _ in plan.missing)
    line = f"Candidate {candidate.title}: {count_of(cells, 'cell')}, {stored} stored already"
    if not isinstance(candidate, BackboneCandidate):
        return f"{line}; from {_weights_text(candidate.weights)}" if candidate.weights else line
    device = plan.devices[candidate.title]
    epochs = count_of(candidate.settings.epochs, "epoch")
    line += (
        f"; {epochs if candidate.has_epochs else 'a linear probe'} on {device.kind} in "
        f"{device.precision} from {_weights_text(candidate.weights)}{_windows(plan, candidate)}"
    )
    if plan.processes > 1:
        per_process = -(-candidate.settings.batch_size // plan.processes)
        line += f"; {plan.processes} processes, {count_of(per_process, 'comment')} each"
    return line


def _weights_text(weights: "Weights") -> str:
    """Return the label of weights, and what is changed when they are loaded."""
    return ", ".join([weights.record.label, *weights.notes])


def _windows(plan: "Plan", candidate: "BackboneCandidate") -> str:
    """Return how many passes a comment takes, if its windows are read."""
    from toxbench.benchmark.resources import windows_per_row

    if candidate.settings.long_text != "windows":
        return ""
    count = windows_per_row(plan.protocol.comments.texts, candidate.settings)
    return f"; windows: about {count:.2f} passes a comment"


def _group_lines(plan: "Plan") -> list[str]:
    """Return how many test rows have a known group, and how to test on unknown ones."""
    from toxbench.config import command_line
    from toxbench.data.audit import count_known_groups

    comments, folds = plan.protocol.comments, plan.protocol.folds
    known = count_known_groups(comments, folds)
    if not known:
        return []
    tested = sum(len(fold.test) for fold in folds)
    column = comments.columns.get("group") or "group"
    split = plan.settings.split | {"split": "grouped"}
    command = command_line("run", plan.settings.model_copy(update={"split": split}))
    line = (
        f"Groups    {known} of {tested} test rows have a {column} that train or validation rows "
        f"have; for unknown ones: {command}"
    )
    return [escape_line(line)]


def _power_lines(plan: "Plan") -> list[str]:
    """Return how large a difference the test rows can show, before anything is trained."""
    import numpy as np

    from toxbench.benchmark.candidates import BackboneCandidate
    from toxbench.evaluation.definitions import HEADLINES
    from toxbench.evaluation.power import detectable_difference

    seeds = {key.seed for c, key in plan.cells if isinstance(c, BackboneCandidate)}
    if not seeds:
        return []
    if len(seeds) == 1:
        return ["Power     none: backbones with one seed are not tested; add --seeds 5"]
    test_rows = np.concatenate([fold.test for fold in plan.protocol.folds])
    sizes = detectable_difference(plan.protocol.comments.targets[test_rows], len(seeds))
    differences = (f"{size:.3f} in {HEADLINES[name]}" for name, size in sizes.items())
    return [
        f"Power     {' or '.join(differences)}: the smallest difference detectable with 80 % power "
        f"and {count_of(len(seeds), 'seed')}, if candidates err as two stand-ins did"
    ]


def _range(counts: list[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"
