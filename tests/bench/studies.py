"""Generators of studies with a known truth: labels and probabilities, without training."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from toxbench.util.arrays import Floats, Probabilities, Targets

ROWS, VALIDATION = 200, 100
# Shares of positive rows as in the YouTube table; two labels are empty.
SHARES = np.array([0.46, 0.38, 0.02, 0.17, 0.13, 0.15, 0.14, 0.012, 0, 0, 0.015, 0.004])
GROUP_SHARES = np.array([27, 17, 15, 11, 10, 4, 4, 4, 3, 2, 2, 1]) / 100  # as the videos' sizes
_POSITIVE, _NEGATIVE = 0.305, -1.728  # centres of a recall of 0.62 and 4.2 % false positives
_TRAIN_SKILL = 0.4  # added on train rows
_NORMALS = np.random.default_rng(0).standard_normal(400_000)
_CUTS = np.array([np.quantile(_NORMALS, 1 - s) if s else np.inf for s in SHARES])
Groups = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Study:
    """Test and validation rows of equal candidates.

    Attributes:
        targets: of the test rows, then of the validation rows, ``[row, label]``.
        probabilities: ``[candidate, seed, row, label]``.
        groups: of all rows, ``[row]``.
    """

    targets: Targets
    probabilities: Probabilities
    groups: Groups


@dataclass(frozen=True)
class Generator:
    """A model of tables and of the errors of candidates that are equally good.

    Attributes:
        degrees: of the t distribution of the rows' noise; a few make heavy tails.
        row: weight of noise per row, which all labels and candidates share.
        label: weight of noise per entry, which all candidates share.
        candidate: weight of noise per entry and candidate.
        seed: weight of noise per entry and seed.
        shift: standard deviation of a seed's skill, for each candidate.
        group: standard deviation of the targets' level and of the noise between groups.
        candidate_group: standard deviation of a candidate's skill between groups.
        rarity: added to the latent number that a row needs for a label.
    """

    degrees: float = np.inf
    row: float = 1.4
    label: float = 0.8
    candidate: float = 0.3
    seed: float = 0.75
    shift: Sequence[float] = (0.045, 0.045)
    group: float = 0.0
    candidate_group: float = 0.0
    rarity: float = 0.0
    skills: Sequence[float] = (0.0, 0.0)
    offsets: Sequence[float] = (0.0, 0.0)  # of a candidate's logits: another threshold is best

    def draw(self, rng: np.random.Generator, rows: int, seeds: int, groups: Groups) -> Study:
        """Draw targets and probabilities of rows, whose groups are numbered from 0."""
        shape, count = (rows, len(SHARES)), len(self.shift)
        number = int(groups.max()) + 1
        level = self.group * rng.standard_normal(number)[groups][:, None]
        latent = rng.standard_normal((rows, 1)) + level
        scale = (1 + self.group**2) ** 0.5
        noise = 0.9 * latent / scale + 0.19**0.5 * rng.standard_normal(shape)
        targets = (noise > _CUTS + self.rarity).astype(np.uint8)
        tails = rng.standard_normal((rows, 1))
        if np.isfinite(self.degrees):
            tails = (
                rng.standard_t(self.degrees, (rows, 1)) * ((self.degrees - 2) / self.degrees) ** 0.5
            )
        errors = self.row * tails + self.label * rng.standard_normal(shape)
        errors = errors + self.group * rng.standard_normal(number)[groups][:, None]
        errors = errors + self.candidate * rng.standard_normal((count, 1, *shape))
        errors = errors + self.seed * rng.standard_normal((count, seeds, *shape))
        parts = (self.row, self.label, self.group, self.candidate, self.seed)
        errors /= np.square(parts).sum() ** 0.5
        skill = np.array(self.skills)[:, None] + np.array(self.shift)[
            :, None
        ] * rng.standard_normal((count, seeds))
        by_group = self.candidate_group * rng.standard_normal((count, 1, number))[..., groups]
        signs = 2.0 * targets - 1
        centre = np.where(targets == 1, _POSITIVE, _NEGATIVE)
        logits = errors + centre + (skill[..., None] + by_group)[..., None] * signs
        logits += np.array(self.offsets)[:, None, None, None]
        probabilities = 1 / (1 + np.exp(-2 * logits))
        return Study(targets, probabilities.astype(np.float32), groups)


TODAY = Generator()
HEAVY = Generator(degrees=3, row=2.0, shift=(0.2, 0.2))
GROUPED = Generator(group=0.5, candidate_group=0.15)
RARE = Generator(rarity=0.4)
GENERATORS = {"as today": TODAY, "heavy tails, strong seeds": HEAVY, "12 unequal groups": GROUPED}


def rows_of_study(generator: Generator, rng: np.random.Generator) -> Groups:
    """Return the groups of the test and validation rows: 12 unequal ones, or one for each row."""
    if not generator.group:
        return np.arange(ROWS + VALIDATION)
    sizes = np.round(GROUP_SHARES * ROWS).astype(int)
    test = np.repeat(np.arange(len(sizes)), sizes)
    return np.concatenate([test, len(sizes) + rng.integers(0, 8, VALIDATION)])


def draw_study(generator: Generator, seeds: int, number: int) -> Study:
    """Draw the study with this number."""
    rng = np.random.default_rng([2, number])
    groups = rows_of_study(generator, rng)
    return generator.draw(rng, len(groups), seeds, groups)


def draw_parts(
    generator: Generator, rng: np.random.Generator, sizes: Groups, validation: int, seeds: int
) -> list[Study]:
    """Draw test, train and validation rows of one candidate, which knows the train rows.

    ``sizes`` are those of the groups of the test rows, and of the train rows.
    """
    groups, count = np.repeat(np.arange(len(sizes)), sizes), len(sizes)
    of_validation = rng.integers(0, 8, validation) if generator.group else np.arange(validation)
    numbers = np.concatenate([groups, count + groups, 2 * count + of_validation])
    one = replace(generator, shift=generator.shift[:1], skills=(0.0,), offsets=(0.0,))
    study = one.draw(rng, len(numbers), seeds, numbers)
    test, end = len(groups), 2 * len(groups)
    odds = study.probabilities / (1 - study.probabilities).clip(1e-6)
    odds *= np.exp(2 * _TRAIN_SKILL * (2.0 * study.targets - 1))
    study.probabilities[..., test:end, :] = (odds / (1 + odds))[..., test:end, :]
    return [
        Study(study.targets[rows], study.probabilities[:, :, rows], numbers[rows])
        for rows in (slice(test), slice(test, end), slice(end, None))
    ]


def error(share: float, count: int) -> float:
    """Monte Carlo standard error of a share."""
    return (share * (1 - share) / count) ** 0.5


def draw_trained_study(
    rng: np.random.Generator, folds: int, seeds: int
) -> tuple[Targets, Floats, Groups]:
    """Draw a table, and the test predictions of two equal algorithms in cross-validation.

    Both fit least squares to half of the features, one to the first and one to the second half.
    The halves have the same weights, so the expected scores on fresh tables are equal. A
    seed leaves out a fifth of the features.

    Returns:
        targets ``[row, label]``, probabilities ``[candidate, seed, row, label]``, fold of each row.
    """
    rows, half, labels = 250, 30, 4
    features = rng.standard_normal((rows, 2 * half))
    weights = np.tile(rng.standard_normal((half, labels)) / half**0.5, (2, 1))
    targets = (features @ weights + rng.standard_normal((rows, labels)) > 0.8).astype(np.uint8)
    probabilities = np.empty((2, seeds, rows, labels))
    part = rng.permutation(rows) % folds
    for candidate in range(2):
        for seed in range(seeds):
            kept = candidate * half + rng.permutation(half)[: half * 4 // 5]
            for fold in range(folds):
                train, test = part != fold, part == fold
                design = np.c_[features[:, kept], np.ones(rows)]
                fitted = np.linalg.lstsq(design[train], targets[train], rcond=None)[0]
                probabilities[candidate, seed, test] = (design[test] @ fitted).clip(0, 1)
    return targets, probabilities, part
