"""The title of a leaderboard, and the conclusions, warnings and explanations printed with it."""

from statistics import fmean

from toxbench.evaluation.bootstrap import MIN_EFFECTIVE_UNITS
from toxbench.evaluation.definitions import HALF, HEADLINE, HEADLINES, OBJECTIVES
from toxbench.evaluation.ensembles import EnsembleChoice
from toxbench.evaluation.significance import Outcome
from toxbench.ranking.rows import SEEDS_NEEDED, FailedCells, Leaderboard, Row, Sampling
from toxbench.records import Audit, TuningRecord
from toxbench.report.audit import leak_note
from toxbench.report.verdicts import conclusion, reversed_verdict
from toxbench.util.text import count_of, list_items

EXPLORATORY = (
    f"Exploratory: a backbone has fewer than {SEEDS_NEEDED} seeds, so there are no tiers. Add "
    f"--seeds {SEEDS_NEEDED} to the command."
)
MAX_NOTES = 5
MAX_CUT_SHARE = 0.05  # of the tokens that max_length leaves out, without a note
PROBE = " [probe]"
_NO_INTERVAL = (
    "No interval can be given, and no candidate can be called better: {}, an effective number of "
    "{:.1f} groups of equal size; at least {:g} are needed."
)
_TRAINING_SETS = (
    "Intervals of scores are for these training sets. Verdicts are for new ones as well: they "
    "count the variance between training sets, which overlap (Nadeau and Bengio 2003)."
)
_TRAINING_SET = (
    "Intervals and verdicts are for this training set: another one may give another order. To "
    "measure that, use --folds."
)
_DEVIATION = "± is the standard deviation over seeds."
GAP_TITLES = {
    "micro_f1_gap": "micro-F1 gap",
    "subset_accuracy_gap": "subset accuracy gap",
    "micro_f1_global_gap": "micro-F1 gap (global threshold)",
    "subset_accuracy_excess_gap": "excess accuracy gap",
    "log_loss_gap": "log loss gap",
}
GAP_MEANING = (
    "A gap is the train score minus the test score: how much better a candidate is on rows that it "
    "has learnt. It does not show that less training would raise the test score, and parts that "
    "differ give a gap without learning. The excess accuracy gap is without that of predicting no "
    "label; the log loss gap is the test loss minus the train loss."
)


def leaderboard_title(leaderboard: Leaderboard) -> str:
    """Return the name of the table, the number of rows of each part and the protocol.

    Test rows in groups that are known from training are named, because their scores do not hold
    for new groups.
    """
    protocol, first = leaderboard.protocol, leaderboard.protocol.folds[0]
    fingerprint = protocol.fingerprint[:12]
    groups = known_groups(protocol.audit)
    known = f" ({groups})" if groups else ""
    if len(protocol.folds) > 1:
        tested = sum(len(fold.test) for fold in protocol.folds)
        return (
            f"Leaderboard of {protocol.name}: {tested} test rows{known} in {len(protocol.folds)} "
            f"folds; protocol {fingerprint}"
        )
    return (
        f"Leaderboard of {protocol.name}: {len(first.test)} test rows{known}, {len(first.train)} "
        f"train, {len(first.validation)} validation; protocol {fingerprint}"
    )


def known_groups(audit: Audit) -> str:
    """Return how many test rows have the group of a train or validation row; "" if none has."""
    shared = audit.shared_groups
    return f"{len(shared.rows)} with a known {shared.column}" if shared and shared.rows else ""


def count_scored_labels(leaderboard: Leaderboard) -> int:
    """Count the labels with a positive test row, which macro averages are computed over."""
    return sum(count > 0 for count in leaderboard.protocol.tested_supports.values())


def conclusions(leaderboard: Leaderboard) -> list[str]:
    """Return sentences on the candidates of tier 1 and the differences from the best one."""
    rows, metric = leaderboard.rows, leaderboard.metric
    if metric not in HEADLINES:
        return [f"Ranked by {metric}, which is not tested: the order may be due to chance."]
    sampling = leaderboard.sampling
    if sampling is not None and not sampling.has_intervals:
        return [_no_interval_note(sampling)]
    if leaderboard.is_exploratory:
        return [EXPLORATORY]
    best = rows[0].name if rows else ""
    pairs = [v for v in leaderboard.verdicts if best in (v.main.first, v.main.second)]
    pairs.sort(key=lambda v: v.metric != metric)  # the ranking metric comes first
    if not pairs:
        return []
    tiers = _tier_note(rows, HEADLINES[metric])
    return [tiers, *_fine_tuning_note(leaderboard), *map(conclusion, pairs)]


def headline_notes(leaderboard: Leaderboard) -> list[str]:
    """Return the most important notes for the headline table: at most five, and the sources."""
    important = [
        *(_failure_note(leaderboard, failed) for failed in leaderboard.failures),
        *_cut_notes(leaderboard.rows),
        *conclusions(leaderboard)[:2],
        *_ensemble_notes(leaderboard)[:1],
        *warnings(leaderboard),
    ]
    if len(important) > MAX_NOTES - 1:
        hidden = len(important) - (MAX_NOTES - 2)
        important[MAX_NOTES - 2 :] = [
            f"{hidden} more notes: toxbench leaderboard --full, or the report."
        ]
    return [*important, _headline_explanation(leaderboard), *quoted_notes(leaderboard)]


def limitations(leaderboard: Leaderboard) -> list[str]:
    """Return the reasons why the p-values of a comparison are too optimistic, and of averages."""
    sampling = leaderboard.sampling
    reasons = []
    if sampling is not None and not sampling.has_intervals:
        reasons.append(_no_interval_note(sampling))
    reasons += [EXPLORATORY] if leaderboard.is_exploratory else []
    return [*reasons, _training_note(leaderboard), *_ensemble_notes(leaderboard)]


def warnings(leaderboard: Leaderboard) -> list[str]:
    """Return the reasons why scores do not measure what they seem to measure."""
    protocol, rows = leaderboard.protocol, leaderboard.rows
    texts: list[str] = []
    has_stand_ins = any(row.stand_in for row in rows)
    if protocol.synthetic:
        stand_ins = ", nor to the checkpoints that backbones are named after: their weights are "
        texts.append(
            "Synthetic sample: these scores do not apply to real comments"
            f"{f'{stand_ins}stand-ins' if has_stand_ins else ''}."
        )
    elif has_stand_ins:
        texts.append(
            "Stand-in weights are small substitutes: their scores are not those of the checkpoint "
            "that the backbone is named after."
        )
    if protocol.audit.leaked_rows:
        texts.append(leak_note(protocol.audit))
    if any(row.constant for row in rows):
        texts.append("(constant!): the candidate predicts the same labels for every test row.")
    texts.extend(
        f"{row.name}: its cells differ in {row.mixed}, which changes scores a little."
        for row in rows
        if row.mixed
    )
    texts.extend(
        f"{name} is not ranked: none of its seeds has a result for every fold yet."
        for name in leaderboard.unfinished
    )
    return texts


def _cut_notes(rows: tuple[Row, ...]) -> list[str]:
    """Return the candidates that do not read much of the comments; empty if there are none."""
    shares = [
        f"{row.cut_token_share:.0%} for {row.name}"
        for row in rows
        if row.cut_token_share > MAX_CUT_SHARE
    ]
    if not shares:
        return []
    return [
        f"Tokens cut at max_length: {', '.join(shares)}. A higher --max-length or --long-text "
        "windows reads them."
    ]


def explanations(leaderboard: Leaderboard) -> list[str]:
    """Return the definitions and circumstances that are needed to read the scores."""
    protocol, rows = leaderboard.protocol, leaderboard.rows
    texts: list[str] = []
    unscored = [name for name, count in protocol.tested_supports.items() if count == 0]
    if unscored:
        texts.append(
            f"macro-F1 leaves out the labels without a positive test row: {list_items(unscored)}."
        )
    if any(row.seeds > 1 for row in rows):
        texts.append(_DEVIATION)
    texts.extend(_sampling_notes(leaderboard))
    texts.extend(_failure_note(leaderboard, failed) for failed in leaderboard.failures)
    texts.extend(_cut_notes(rows))
    texts.extend(_tuning_note(leaderboard, row, row.tuning) for row in rows if row.tuning)
    texts.extend(_ensemble_notes(leaderboard))
    if len({row.seeds for row in rows if row.stochastic}) > 1:
        texts.append("Candidates have different numbers of seeds; compare them with care.")
    unit = "seed and fold" if len(protocol.folds) > 1 else "seed"
    texts.append(
        f"Scores are for test rows at {_thresholds(leaderboard)}, unless the column title names "
        "other rows or thresholds. Other thresholds are chosen on validation rows. "
        f"Seconds are for the training of one {unit}. {GAP_MEANING}"
    )
    return texts


def quoted_notes(leaderboard: Leaderboard) -> list[str]:
    """Return a note with the sources of the quoted rows; no note if there are none."""
    sources = "; ".join(f"{row.name}: {row.source}" for row in leaderboard.quoted)
    meaning = "(quoted): scores of a publication, not measured here and not ranked"
    return [f"{meaning}. {sources}"] if sources else []


def _fine_tuning_note(leaderboard: Leaderboard) -> list[str]:
    """Return a sentence that compares backbones with their linear probes; empty without probes."""
    texts: list[str] = []
    for verdict in (v for v in leaderboard.verdicts if v.metric == leaderboard.metric):
        v = verdict if verdict.main.second.endswith(PROBE) else reversed_verdict(verdict)
        d = v.main
        if d.second == f"{d.first}{PROBE}":
            pays = "pays" if v.outcome is Outcome.BETTER else "is not shown to pay"
            interval = f"{d.difference:+.3f} [{d.low:+.3f}, {d.high:+.3f}]"
            texts.append(f"{pays} for {d.first} ({interval})")
    metric = HEADLINES[leaderboard.metric]
    return [f"Fine-tuning {', '.join(texts)} in {metric} over a linear probe."] if texts else []


def _thresholds(leaderboard: Leaderboard) -> str:
    return "threshold 0.5" if leaderboard.rule == HALF else f"{leaderboard.rule} thresholds"


def _headline_explanation(leaderboard: Leaderboard) -> str:
    text = f"Scores at {_thresholds(leaderboard)}; a gap is the train score minus the test score"
    source = interval_source(leaderboard)
    if not source and any(row.seeds > 1 for row in leaderboard.rows):
        source = _DEVIATION
    return f"{text}; {source}" if source else f"{text}."


def interval_source(leaderboard: Leaderboard) -> str:
    """Return a sentence on what the intervals cover; "" if there are none."""
    sampling, untested = leaderboard.sampling, leaderboard.untested
    if sampling is None or not sampling.has_intervals:
        return ""
    stochastic = [row.name for row in leaderboard.rows if row.stochastic]
    text = "[low, high] is the 95 % confidence interval over test rows"
    if not untested:
        return f"{text} and seeds."
    if len(untested) == len(stochastic):
        return f"{text} only: with one seed, it does not cover other seeds, and nothing is tested."
    return f"{text} and seeds; of {', '.join(untested)} with one seed, over test rows only."


def _tier_note(rows: tuple[Row, ...], metric: str) -> str:
    first = [row.name for row in rows if row.tier == 1]
    meaning = "No candidate of a tier is apart from the best one of that tier."
    if len(first) == 1:
        return f"Only {first[0]} is in tier 1 by {metric}. {meaning}"
    return (
        f"Tier 1 by {metric} has {len(first)} candidates: {', '.join(first)}. {meaning} None of "
        "these can be called the best."
    )


def _sampling_notes(leaderboard: Leaderboard) -> list[str]:
    """Return notes on the intervals and their sampling units."""
    sampling = leaderboard.sampling
    if sampling is None:
        return []
    if not sampling.has_intervals:
        return [_no_interval_note(sampling)]
    texts = [
        f"{interval_source(leaderboard)} SE is the standard error due to test rows, seeds or folds "
        "alone."
    ]
    if sampling.group_count:
        texts.append(
            f"Intervals resample whole groups: {_describe_units(sampling)}, an effective number of "
            f"{sampling.effective_units:.1f} groups of equal size."
        )
    texts.append(_training_note(leaderboard))
    if any(row.ranks for row in leaderboard.rows):
        texts.append(
            "P(best) is the share of resamples in which a candidate has the highest score, and "
            "rank the 95 % interval of its place, without constant candidates."
        )
    return texts


def _training_note(leaderboard: Leaderboard) -> str:
    return _TRAINING_SETS if len(leaderboard.protocol.folds) > 1 else _TRAINING_SET


def _no_interval_note(sampling: Sampling) -> str:
    units = _describe_units(sampling)
    return _NO_INTERVAL.format(units, sampling.effective_units, MIN_EFFECTIVE_UNITS)


def _describe_units(sampling: Sampling) -> str:
    single = count_of(sampling.single_rows, "row")
    if not sampling.group_count:
        return f"the test rows are {single}"
    without = f", and {single} belong to none" if sampling.single_rows else ""
    return f"the test rows belong to {count_of(sampling.group_count, 'group')}{without}"


def _ensemble_notes(leaderboard: Leaderboard) -> list[str]:
    """Return how the members of the average over candidates were chosen, and what averages are."""
    choice = leaderboard.ensemble_choice
    if choice is None:
        return []
    texts = [_choice_note(choice, len(leaderboard.protocol.folds))]
    if any(row.kind == "ensemble" for row in leaderboard.rows):
        texts.append(
            "An average is a single prediction: its interval is over test rows only, not over "
            "other seeds. Its seconds and parameters are the sums of its members'."
        )
    return texts


def _choice_note(choice: EnsembleChoice, folds: int) -> str:
    if not choice.steps:
        return (
            "No average over candidates: its members cannot be chosen without positive validation "
            "rows and a candidate that is not constant."
        )
    (best, score), *added = choice.steps
    if choice.name is None:
        return (
            "No average over candidates: on the validation rows, none raises the micro average "
            f"precision of {best} ({score:.3f})."
        )
    scores = ", ".join([f"{best} {score:.3f}", *(f"+ {name} {s:.3f}" for name, s in added)])
    overlap = " Folds validate on rows that other folds test, so this choice is optimistic."
    return (
        f"{choice.name}: the best candidate on the validation rows, then each that raises their "
        f"micro average precision most ({scores}). A backbone counts as the mean of its seeds."
        f"{overlap if folds > 1 else ''}"
    )


def _failure_note(leaderboard: Leaderboard, failed: FailedCells) -> str:
    """Return the number of failed cells of a candidate, and the kinds of failure."""
    name, reasons = _candidate_name(leaderboard, failed), ", ".join(failed.kinds)
    if failed.failed == failed.cells:
        cells = "its only cell" if failed.cells == 1 else f"all of its {failed.cells} cells"
        return f"{name} has no score: {cells} failed ({reasons})."
    verb = "has" if failed.failed == 1 else "have"
    folds = len(leaderboard.protocol.folds) > 1
    return (
        f"{failed.failed} of {failed.cells} cells of {name} failed ({reasons}) and {verb} no score"
        f"{'; a seed counts only if every fold has a score' if folds else ''}."
    )


def _candidate_name(leaderboard: Leaderboard, failed: FailedCells) -> str:
    """Return the leaderboard name, or the candidate name with its digest if the name repeats."""
    ranked = {(row.candidate, row.digest): row.name for row in leaderboard.rows}
    names = [f.name for f in leaderboard.failures] + [row.name for row in leaderboard.rows]
    digest = f" #{failed.digest[:6]}" if names.count(failed.name) > 1 else ""
    return ranked.get((failed.name, failed.digest), f"{failed.name}{digest}")


def _tuning_note(leaderboard: Leaderboard, row: Row, tuning: TuningRecord) -> str:
    """Return the origin of tuned settings, with their promised and realised gain."""
    return (
        f"{row.title}: {_origin(leaderboard, tuning)}. Gain over the default settings in the "
        f"{OBJECTIVES[tuning.metric]}: promised {_signed(row.mean('promised_gain'))} (inner "
        "validation rows, new seeds), realised "
        f"{_signed(_realised_gain(leaderboard, row, tuning.metric))} (test rows). Thresholds are "
        "chosen on inner validation rows."
    )


def _realised_gain(leaderboard: Leaderboard, tuned: Row, metric: str) -> float | None:
    """Return the score of a tuned row minus that of the row with default settings.

    None if there is no such row, or a score is undefined.
    """
    defaults = [row for row in leaderboard.rows if row.name == tuned.candidate]
    names = HEADLINES if metric == HEADLINE else (metric,)
    scores = [(tuned.mean(name), row.mean(name)) for row in defaults for name in names]
    gains = [high - low for high, low in scores if high is not None and low is not None]
    return fmean(gains) if gains else None


def _signed(gain: float | None) -> str:
    return "unknown" if gain is None else f"{gain:+.3f}"


def _origin(leaderboard: Leaderboard, tuning: TuningRecord) -> str:
    folds = len(leaderboard.protocol.folds)
    if folds > 1:
        return f"the best settings of {folds} searches, each without the test rows of its fold"
    count = count_of(tuning.trials, "trial")
    trials = f"{count} ({tuning.pruned_trials} pruned, {tuning.failed_trials} failed)"
    if tuning.picked_trial is not None:
        return f"trial {tuning.picked_trial} of {trials}, picked from the Pareto front"
    if tuning.default_won:
        return f"the default settings, without an improvement in {trials}"
    return f"the best settings of {trials}"
