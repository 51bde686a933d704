"""The sentences of verdicts: the guide lists each with its rule."""

import re

from generated_docs import DOCS

from toxbench.evaluation.significance import Difference, Outcome, Verdict
from toxbench.report.verdicts import conclusion


def make_verdict(*pairs: tuple[float, float | None]) -> Verdict:
    """Return a verdict on differences with these values and p-values; A has the higher score."""
    first, second = "AB" if pairs[0][0] >= 0 else "BA"
    return Verdict("micro_f1", tuple(
        Difference(first, second, "micro_f1", d, d - 0.01, d + 0.01, 0.5, 0.1, 0.1, p, p)
        for d, p in pairs
    ))  # fmt: skip


VERDICTS = (
    make_verdict((0.1, None)),
    make_verdict((0.0, 1.0)),
    make_verdict((0.1, 0.2)),
    make_verdict((0.1, 0.01), (0.0, 1.0)),
    make_verdict((0.1, 0.01)),
    make_verdict((-0.1, 0.01)),
)


def listed_sentences() -> set[str]:
    """Return the sentences of the guide's table up to the first omission, by rows with a rule."""
    page = (DOCS / "explanation" / "statistics.md").read_text(encoding="utf-8")
    table = page.partition("| sentence | rule |")[2].partition("\n\n")[0]
    return {
        s.partition(" …")[0] for s, _ in re.findall(r"^\| ([^|]+) \| ([^|-]+) \|$", table, re.M)
    }


def printed_sentences() -> list[str]:
    return [conclusion(verdict).replace(" in micro-F1", "") for verdict in VERDICTS]


def test_guide_lists_every_sentence() -> None:
    assert {verdict.outcome for verdict in VERDICTS} == {*Outcome}
    listed = tuple(listed_sentences())
    assert [text for text in printed_sentences() if not text.startswith(listed)] == []


def test_every_listed_sentence_is_printed() -> None:
    printed = printed_sentences()
    assert [s for s in listed_sentences() if not any(t.startswith(s) for t in printed)] == []
