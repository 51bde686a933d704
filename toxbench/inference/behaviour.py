"""Checks of stored models: cases with known labels, and changes that must not change labels."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path

import numpy as np

from toxbench.data.groups import Terms, swap_terms
from toxbench.data.table import read_comments
from toxbench.errors import DataError
from toxbench.evaluation.definitions import HALF
from toxbench.evaluation.thresholds import predict
from toxbench.inference.model import TextClassifier, load_classifier
from toxbench.inference.select import ModelChoice, choose_model
from toxbench.plugin.contracts import Table
from toxbench.plugin.registry import Registry
from toxbench.ranking.rows import CandidateKey, candidate_key, summarize_cells
from toxbench.report.tables import Record, records_table
from toxbench.settings import ColumnSettings
from toxbench.store.cells import CellStore
from toxbench.store.models import ModelRecord
from toxbench.training.device import Device
from toxbench.util.arrays import Members, Predictions, Targets
from toxbench.util.text import escape_line, safe_quote

SHIPPED = Path(str(files("toxbench.inference").joinpath("behaviour.csv")))
_COLUMNS = ColumnSettings(text_column="text", group_column="functionality")
_SLOT = "{group}"
_INTERVAL = "Low and high are the ends of Wilson's 95 % interval; a text with {group} counts once."
# Name of a candidate, and its function from comments to predictions, [comment, label].
Predictors = Iterator[tuple[str, Callable[[Sequence[str]], Predictions]]]


@dataclass(frozen=True, eq=False)
class Cases:
    """Comments with the labels that a good model predicts.

    Attributes:
        texts: ``[case]``.
        functionalities: name of the ability that a case checks, ``[case]``.
        rows: number of the row that a case was made from, ``[case]``.
        columns: of the labels that are checked, among those of the models.
        targets: 0/1, ``[case, column]``.
    """

    texts: tuple[str, ...]
    functionalities: tuple[str, ...]
    rows: tuple[int, ...]
    columns: tuple[int, ...]
    targets: Targets


def read_cases(path: Path, labels: Sequence[str], label: str | None, terms: Terms) -> Cases:
    """Read cases; a text with ``{group}`` becomes one case for the first term of each group.

    Args:
        path: table with the columns ``text``, ``functionality``, and labels that are checked.
        labels: of the models.
        label: that the column ``expected`` is for; None if there is no such column.
        terms: identity terms.

    Raises:
        DataError: as `read_comments`, or a label is not one of the models.
    """
    table = read_comments(path, _COLUMNS)
    names = [label if name == "expected" and label else name for name in table.labels]
    unknown = [safe_quote(name) for name in names if name not in labels]
    if unknown:
        raise DataError(
            f"{path}: column {unknown[0]} is not a label of the models; name the label with --label"
        )
    cases = [
        (text.replace(_SLOT, words[0]), functionality or "", row)
        for row, (text, functionality) in enumerate(
            zip(table.texts, table.groups or (), strict=True)
        )
        for words in (terms.values() if _SLOT in text else [("",)])
    ]
    texts, functionalities, rows = zip(*cases, strict=True)
    columns = tuple(map(labels.index, names))
    return Cases(texts, functionalities, rows, columns, table.targets[list(rows)])


def load_predictors(
    store: CellStore, registry: Registry, device: Device, rule: str = HALF
) -> Predictors:
    """Yield the best stored model of each candidate, loaded one at a time.

    Raises:
        SettingsError, StorageError, PluginError: as `choose_model` and `load_classifier`.
    """
    choose_model(store)  # raises without a model
    rows = summarize_cells(store.protocol(), store.records()).rows
    names = {row.key: row.name for row in rows}
    best: dict[CandidateKey, ModelRecord] = {}
    for record in store.models.records():
        best.setdefault(candidate_key(record.key), record)
    for key, record in best.items():
        title, model = names.get(key, record.title), (store.models.path(record.key), record)
        thresholds = ModelChoice(title, (model,), record.thresholds).rule_thresholds(rule)
        yield title, partial(_predict, load_classifier([model], registry, device), thresholds)


def _predict(
    classifier: TextClassifier, thresholds: Sequence[float], texts: Sequence[str]
) -> Predictions:
    return predict(classifier.predict_probabilities(texts), thresholds)


def case_table(models: Predictors, cases: Cases) -> Table:
    """Return the share of cases with all expected labels, by candidate and functionality."""
    records: list[Record] = []
    for candidate, label in models:
        passes = (label(cases.texts)[:, list(cases.columns)] == cases.targets).all(axis=1)
        for name in dict.fromkeys(cases.functionalities):
            members = np.array([other == name for other in cases.functionalities])
            names = {"candidate": escape_line(candidate), "functionality": escape_line(name)}
            records.append({**names, **_share("passed", passes, members, cases)})
    note = "Passed: share of cases whose checked labels are all as expected."
    return records_table("Cases with the expected labels", records, (note, _INTERVAL), keys=2)


def change_table(models: Predictors, cases: Cases, terms: Terms) -> Table:
    """Return the share of cases of which a change that must not matter flips a label."""
    changes: Mapping[str, Callable[[str], str]] = {
        "upper case": str.upper,
        "typo": _swap_letters,
        "punctuation": lambda text: f"{text.rstrip('.!?')}...",
        "another group": partial(swap_terms, terms),
    }
    records: list[Record] = []
    for candidate, label in models:
        before = label(cases.texts)
        for name, change in changes.items():
            texts = [change(text) for text in cases.texts]
            members = np.array([new != old for new, old in zip(texts, cases.texts, strict=True)])
            if members.any():
                flips = label(texts) != before
                share = _share("flipped", flips.any(axis=1), members, cases)
                names = {"candidate": escape_line(candidate), "change": name}
                records.append({**names, **share, "flipped labels": float(flips[members].mean())})
    note = "Flipped: cases with another label. Flipped labels: share of all labels of the cases."
    return records_table("Cases whose labels change", records, (note, _INTERVAL), keys=2)


def _share(name: str, values: Members, members: Members, cases: Cases) -> Record:
    """Return the share of true values of some cases, with the interval of Wilson (1927)."""
    share, rows = float(values[members].mean()), len(set(np.array(cases.rows)[members].tolist()))
    squared = 1.959964**2  # 95 % of the normal distribution
    middle = (share + squared / (2 * rows)) / (1 + squared / rows)
    variance = share * (1 - share) / rows + squared / (4 * rows**2)
    half = (squared * variance) ** 0.5 / (1 + squared / rows)
    support: Record = {"cases": int(members.sum()), "texts": rows}
    return {**support, name: share, "low": max(0.0, middle - half), "high": min(1.0, middle + half)}


def _swap_letters(text: str) -> str:
    """Swap the second and third letter of the longest word."""
    word = max(text.split(), key=len)
    return text.replace(word, word[0] + word[1:3][::-1] + word[3:], 1)
