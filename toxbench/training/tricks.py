"""What the training loop does to be fast, each of it to be left out for a comparison."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Tricks:
    """Ways to compute the same in less time; tests/bench/test_tricks.py measures each.

    Attributes:
        cheap_dropout: masks from a pool of noise (`CheapDropout`); on the CPU only.
        used_rows: of the token embedding, train only what the table uses (`used_rows_only`).
    """

    cheap_dropout: bool = True
    used_rows: bool = True


ALL = Tricks()
PLAIN = Tricks(cheap_dropout=False, used_rows=False)
