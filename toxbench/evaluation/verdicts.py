"""Verdicts on two candidates: what several differences between them show together."""

from dataclasses import dataclass
from enum import StrEnum

from toxbench.evaluation.significance import Difference


class Outcome(StrEnum):
    """What can be concluded about two candidates."""

    BETTER = "better"
    WORSE = "worse"
    EQUIVALENT = "equivalent"
    UNDECIDED = "undecided"
    DEPENDS = "depends on the threshold"
    UNTESTED = "one seed"


@dataclass(frozen=True)
class Verdict:
    """The comparison of two candidates in one headline score.

    Attributes:
        metric: the headline score.
        differences: in the headline score at the thresholds of the leaderboard, at 0.5 and at tuned
            thresholds, and in micro average precision; those that could be measured.
    """

    metric: str
    differences: tuple[Difference, ...]

    @property
    def main(self) -> Difference:
        """The difference at the thresholds of the leaderboard."""
        return self.differences[0]

    @property
    def outcome(self) -> Outcome:
        """The outcome, by these rules in this order.

        One seed: a p-value is missing. Equivalent: all intervals are within the ROPE. Undecided: no
        difference is clear. Depends on the threshold: one is clear, and another is smaller than
        the ROPE or has the other sign. Better or worse: the main one and another are clear (or the
        main one, if there is no other). Else undecided.
        """
        clear = [d for d in self.differences if d.is_clear]
        if self.main.p is None:
            return Outcome.UNTESTED
        if all(d.is_equivalent for d in self.differences):
            return Outcome.EQUIVALENT
        if not clear:
            return Outcome.UNDECIDED
        sign = 1 if clear[0].difference > 0 else -1
        if any(sign * d.difference < d.rope for d in self.differences):
            return Outcome.DEPENDS
        if not self.main.is_clear or len(clear) < min(2, len(self.differences)):
            return Outcome.UNDECIDED
        return Outcome.BETTER if sign > 0 else Outcome.WORSE

    @property
    def is_apart(self) -> bool:
        """Whether one of the two candidates is better."""
        return self.outcome in {Outcome.BETTER, Outcome.WORSE}
