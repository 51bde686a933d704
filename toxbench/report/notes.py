"""What a reader must know before quoting a number of a leaderboard."""

from toxbench.evaluation.definitions import HALF
from toxbench.evaluation.row_counts import HEADLINES
from toxbench.ranking.build import SEEDS_NEEDED
from toxbench.ranking.rows import FailedCells, Leaderboard, Row
from toxbench.records import TuningRecord
from toxbench.report.audit import leak_note
from toxbench.report.verdicts import METRICS, conclusion


def title(leaderboard: Leaderboard) -> str:
    """Say which table was split how, and the protocol's fingerprint."""
    protocol, first = leaderboard.protocol, leaderboard.protocol.folds[0]
    fingerprint = protocol.fingerprint[:12]
    if len(protocol.folds) > 1:
        tested = sum(len(fold.test) for fold in protocol.folds)
        return (
            f"Leaderboard of {protocol.name}: {len(protocol.folds)} folds, {tested} rows tested "
            f"once; protocol {fingerprint}"
        )
    return (
        f"Leaderboard of {protocol.name}: {len(first.test)} test rows, {len(first.train)} train, "
        f"{len(first.validation)} validation; protocol {fingerprint}"
    )


def scored_labels(leaderboard: Leaderboard) -> int:
    """Count the labels with a positive test row, which macro averages are over."""
    return sum(count > 0 for count in leaderboard.protocol.tested_supports.values())


def notes(leaderboard: Leaderboard) -> list[str]:
    """Say what a reader must know before quoting a number."""
    protocol, rows = leaderboard.protocol, leaderboard.rows
    unit = "seed on one fold" if len(protocol.folds) > 1 else "seed"
    said: list[str] = []
    if protocol.synthetic:
        said.append("Synthetic sample: these scores say nothing about real comments.")
    if protocol.audit.leaked_rows:
        said.append(leak_note(protocol.audit))
    if any(row.stand_in for row in rows):
        said.append(
            "stand-in rows start from small substitute weights; they do not measure the "
            "checkpoint that gives the backbone its name."
        )
    unscored = [name for name, count in protocol.tested_supports.items() if count == 0]
    if unscored:
        said.append(f"Without a positive test row, left out of macro: {', '.join(unscored)}.")
    if any(row.constant for row in rows):
        said.append("(constant!) predicts the same for every test row.")
    if any(row.seeds > 1 for row in rows):
        said.append("± is the standard deviation over seeds.")
    said.extend(_sampling_notes(leaderboard))
    said.extend(f"No seed of {name} has every fold yet." for name in leaderboard.unfinished)
    said.extend(_failure_note(leaderboard, failed) for failed in leaderboard.failures)
    said.extend(_tuning_note(row) for row in rows if row.tuning)
    if len({row.seeds for row in rows if row.kind == "backbone"}) > 1:
        said.append("Rows do not rest on the same number of seeds; compare them with care.")
    said.append(
        f"Scores are of the test rows at {_rule(leaderboard.rule)} unless a column says otherwise; "
        f"tuned thresholds are chosen on validation rows. Seconds are for training one {unit}."
    )
    return said


def _failure_note(leaderboard: Leaderboard, failed: FailedCells) -> str:
    """Say how many of a candidate's cells have no score, and why."""
    ranked = {(row.candidate, row.digest): row.name for row in leaderboard.rows}
    names = [own.name for own in leaderboard.failures] + [row.name for row in leaderboard.rows]
    told_apart = f" #{failed.digest[:6]}" if names.count(failed.name) > 1 else ""
    name = ranked.get((failed.name, failed.digest), f"{failed.name}{told_apart}")
    why = ", ".join(failed.kinds)
    if failed.failed == failed.cells:
        cells = "its only cell" if failed.cells == 1 else f"all of its {failed.cells} cells"
        return f"{name} has no score: {cells} failed ({why})."
    folds = len(leaderboard.protocol.folds) > 1
    return (
        f"{failed.failed} of {failed.cells} cells of {name} failed ({why}); "
        f"{'it has' if failed.failed == 1 else 'they have'} no score"
        f"{', and a seed counts only with every fold' if folds else ''}."
    )


def _tuning_note(row: Row) -> str:
    """Say how settings were found, and how much the validation rows promised too much."""
    tuning, test, optimism = (
        row.tuning,
        row.values["micro_average_precision"],
        row.values["optimism"],
    )
    if tuning is None or test is None or optimism is None:
        return f"{row.title}: average precision is undefined on these test rows."
    return (
        f"{row.title}: {_won(tuning)}, thresholds from inner validation rows; micro average "
        f"precision {tuning.average_precision:.3f} there with fresh seeds{_reference(tuning)}, "
        f"{test.mean:.3f} on test rows: validation-to-test optimism {optimism.mean:+.3f}."
    )


def _won(tuning: TuningRecord) -> str:
    """Say which configuration of how many it is."""
    trials = (
        f"{tuning.trials} trials ({tuning.pruned_trials} pruned, {tuning.failed_trials} failed)"
    )
    if tuning.default_won:
        return f"the default settings, not beaten in {trials}"
    return f"best of {trials}"


def _reference(tuning: TuningRecord) -> str:
    """Give the default settings' score if another finalist won."""
    if tuning.default_won or tuning.default_average_precision is None:
        return ""
    return f" ({tuning.default_average_precision:.3f} with the default settings)"


def _rule(rule: str) -> str:
    return "threshold 0.5" if rule == HALF else f"{rule} thresholds"


def conclusions(leaderboard: Leaderboard) -> list[str]:
    """Say in plain sentences what can be concluded, and what cannot."""
    rows, metric = leaderboard.rows, leaderboard.metric
    if metric not in HEADLINES:
        return [f"Ranked by {metric}, which has no interval: who is first may be so by chance."]
    if is_exploratory(leaderboard):
        return [EXPLORATORY]
    best = rows[0].name if rows else ""
    pairs = [d for d in leaderboard.differences if best in (d.one, d.other)]
    pairs.sort(key=lambda d: d.metric != metric)  # what ranks comes first
    return [_tiers(rows, METRICS[metric]), *map(conclusion, pairs)] if pairs else []


def limitations(leaderboard: Leaderboard) -> list[str]:
    """Say what makes a comparison weaker than it looks."""
    sampling = leaderboard.sampling
    said = [EXPLORATORY] if is_exploratory(leaderboard) else []
    if sampling is not None and not sampling.by_group:
        said.append(_FEW_GROUPS.format(sampling.group_count))
    return said


def is_exploratory(leaderboard: Leaderboard) -> bool:
    """Whether a backbone has too few seeds for any conclusion."""
    return any(r.kind == "backbone" and r.seeds < SEEDS_NEEDED for r in leaderboard.rows)


EXPLORATORY = (
    f"Exploratory: a backbone has fewer than {SEEDS_NEEDED} seeds, so nothing here says which is "
    f"better; go on with --seeds {SEEDS_NEEDED}."
)
_FEW_GROUPS = (
    "The test rows belong to {} groups only, too few to resample: intervals and p-values resample "
    "single rows and are too sure for comments of other groups."
)


def _tiers(rows: tuple[Row, ...], metric: str) -> str:
    first = [row.name for row in rows if row.tier == 1]
    if len(first) == 1:
        return f"{first[0]} is alone in the first tier by {metric}."
    return (
        f"The first tier by {metric} holds {len(first)} candidates, and none of them can be "
        f"called the best: {', '.join(first)}."
    )


def _sampling_notes(leaderboard: Leaderboard) -> list[str]:
    """Say what the intervals are, and where they are too narrow."""
    sampling = leaderboard.sampling
    if sampling is None:
        return []
    said = ["[low, high] is the 95 % interval over test rows and seeds."]
    if not sampling.by_group:
        said.append(_FEW_GROUPS.format(sampling.group_count))
    elif sampling.has_groups:
        said.append(f"Intervals resample the {sampling.group_count} groups of test rows whole.")
    return said
