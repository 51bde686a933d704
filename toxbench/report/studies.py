"""What a search found, as tables."""

from collections.abc import Mapping

from toxbench.plugin.contracts import Table
from toxbench.records import TunedSettings, TuningRecord
from toxbench.report.words import printable
from toxbench.settings import TrainSettings


def tuned_table(tuned: TunedSettings, default: TrainSettings) -> Table:
    """Return the settings that differ from the default ones, with how they were found."""
    found, before = tuned.train.model_dump(), default.model_dump()
    changed = [name for name in found if found[name] != before[name]]
    tuning = tuned.tuning
    return Table(
        title=(
            f"Settings found for {tuned.backbone}: {tuning.trials} trials, {tuning.pruned} pruned, "
            f"{tuning.failed} failed"
        ),
        headers=("setting", "default", "tuned"),
        rows=tuple((name, _text(before[name]), _text(found[name])) for name in changed),
        notes=_scores(tuning),
        records=tuple(
            {"setting": name, "default": before[name], "tuned": found[name]} for name in changed
        ),
    )


def _scores(tuning: TuningRecord) -> tuple[str, ...]:
    """Say what was reached, and by the default settings under the same conditions."""
    reference = tuning.default_average_precision
    note = (
        "Micro average precision on inner validation rows, with fresh seeds: "
        f"{tuning.average_precision:.3f}; default settings, same seeds and rows: "
        f"{'failed' if reference is None else f'{reference:.3f}'}."
    )
    won = "The default settings won: no other finalist scored higher."
    return (note, won) if tuning.default_won else (note,)


def importance_table(study: str, trials: int, shares: Mapping[str, float]) -> Table:
    """Return how much of the scores' variance each hyperparameter explains."""
    note = (
        "Functional ANOVA over complete trials and the hyperparameters that all of them have; "
        "of few trials it is a hint, not a finding."
        if shares
        else "Too few complete trials with different scores to tell what mattered."
    )
    return Table(
        title=f"What mattered in {printable(study)} ({trials} complete trials)",
        headers=("hyperparameter", "importance"),
        rows=tuple((name, f"{share:.3f}") for name, share in shares.items()),
        notes=(note,),
        records=tuple({"hyperparameter": n, "importance": s} for n, s in shares.items()),
    )


def _text(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
