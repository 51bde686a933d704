"""Tables to start with: the built-in synthetic sample, and the YouTube toxicity table.

The synthetic sample has no real comment and no slur, and the same rows on every machine.

It imitates the YouTube toxicity table: the same columns, about half of the rows without a label,
labels that imply one another, two labels without a positive row, comments from three words to
several hundred, videos as groups, repeated texts. Scores on it are not comparable with scores on
real data; they show that every step from the table to the leaderboard works.

A comment is made from a random set of labels: each label contributes one sentence, and neutral
sentences surround them. No candidate can reach an F1 of 1.0, because some clean comments quote or
deny a hostile sentence, some hostile comments have no telltale word, and some labels are missing
as if annotators had overlooked them.
"""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

import pandas as pd

from toxbench.data.groups import normalize_text
from toxbench.data.table import TextDataset, comments_from_frame, read_comments
from toxbench.errors import DataError, SettingsError, TryAgainError
from toxbench.settings import ColumnSettings
from toxbench.util.content import sha256_file

Option = TypeVar("Option")

SAMPLE_NAME = "synthetic sample"
ROWS = 480
SEED = 20_240_817

LABELS = (
    "IsToxic", "IsAbusive", "IsThreat", "IsProvocative", "IsObscene", "IsHatespeech",
    "IsRacist", "IsNationalist", "IsSexist", "IsHomophobic", "IsReligiousHate", "IsRadicalism",
)  # fmt: skip

# Label -> probability, given that the comment is toxic; each of these also has IsToxic.
_PROBABILITY_IF_TOXIC = {
    "IsAbusive": 0.72, "IsThreat": 0.06, "IsProvocative": 0.34, "IsObscene": 0.22,
    "IsHatespeech": 0.28, "IsNationalist": 0.02, "IsSexist": 0.005, "IsReligiousHate": 0.03,
}  # fmt: skip
_RACIST_PROBABILITY_IF_HATE = 0.85
_TOXIC_PROBABILITY = 0.47
_OVERLOOKED_PROBABILITY = 0.06  # of a label, by the imaginary annotators
REPEAT_PROBABILITY = 0.01
NO_VIDEO_PROBABILITY = 0.016

_PLACES = ("Norvania", "Eastmark", "Quillon", "Tarsia", "Velmond", "Ostermoor", "Pellworth")
_PEOPLE = ("the host", "that reporter", "the mayor", "this driver", "the referee", "my neighbour")
_TOPICS = (
    "the bridge report", "the cooking show", "the football final", "the bus strike",
    "the school vote", "the market fire", "the rail plan", "the song contest", "the flood news",
    "the parking law", "the museum tour", "the chess match",
)  # fmt: skip

_NEUTRAL = (
    "I watched {topic} twice and the sound was much better the second time.",
    "Thanks for the upload.",
    "Does anybody know where {topic} was filmed?",
    "The part about {topic} starts at minute four.",
    "We visited {place} last summer and it rained every day.",
    "My sister works there and says the numbers are right.",
    "I think {person} explained it quite well.",
    "Please add subtitles, my father would like to follow along.",
    "First of all, the camera work is lovely.",
    "Not sure that I agree, but it is an interesting point.",
    "The map at the end would have helped at the beginning.",
    "Same here.",
    "It took {person} ten minutes to get to the point.",
    "There was a similar story about {topic} a few years ago.",
    "Good luck to everybody in {place}.",
    "The train from {place} was late again, as always.",
    "I hope that they repair the road before winter.",
    "Somebody should write all this down for the people who come later.",
)
_HOSTILE = {
    "IsAbusive": (
        "You are a complete clown and you know it.",
        "What an idiot {person} is.",
        "Shut your mouth, nobody asked you.",
        "Only a fool could believe {person}.",
        "You people are pathetic losers.",
        "{person} is a liar and a coward.",
        "Go back to bed, you useless lump.",
        "How stupid can one person be?",
    ),
    "IsThreat": (
        "Wait until I find you, you will regret it.",
        "Somebody should break his windows tonight.",
        "I know where {person} lives, so watch out.",
        "You will get hurt if you come here.",
    ),
    "IsProvocative": (
        "Come on then, prove it if you dare.",
        "Cry more, everybody from {place} always does.",
        "I bet that none of you has the guts to answer.",
        "Keep whining, it is fun to watch.",
        "You deserve everything that happened with {topic}.",
        "Admit that you lost and go home.",
    ),
    "IsObscene": (
        "What the f*** was that?",
        "This is utter cr*p from start to end.",
        "Kiss my a**, {person}.",
        "Holy sh**, {topic} is a mess.",
        "Take your d*** camera and leave.",
    ),
    "IsHatespeech": (
        "Those people ruin every place they move to.",
        "Nothing good has ever come out of {place}.",
        "They are all the same, throw them out.",
        "We would be better off without that lot.",
        "They are animals and should be treated so.",
    ),
    "IsRacist": (
        "Everybody born in {place} is a thief by nature.",
        "You can tell from their faces what they are.",
        "The people of {place} are simply lower than us.",
        "Never trust anybody with blood from {place}.",
    ),
    "IsNationalist": (
        "{place} first, and the rest can starve.",
        "Only true sons of {place} should have a vote.",
    ),
    "IsSexist": ("Women should not be allowed near {topic}.",),
    "IsReligiousHate": (
        "Their temple should be closed and the believers sent away.",
        "Anybody who prays like that is an enemy.",
        "That faith is a disease.",
    ),
}
_QUOTED = (
    'He wrote "{hostile}" and I think that is out of order.',
    'In the film somebody says "{hostile}" and everybody laughs.',
    "Nobody should ever have to read things like: {hostile}",
    'My teacher told us never to say "{hostile}"',
)
_VEILED = (
    "Well, we all know what kind of person says that.",
    "Bless your heart, that must have taken you all day.",
    "Typical for somebody from {place}, is it not?",
    "One day {person} will get what is coming.",
)
HANDLE = "reihanenamdari/youtube-toxicity-data"
KNOWN_SHA256 = "a2408d78f4c8380a8acbc1b1a13b8f4d22868a74fa03c07a38ab00375b876eab"


def sample_frame(row_count: int = ROWS) -> pd.DataFrame:
    """Return the table as strings, with the columns of the YouTube toxicity table.

    Only ``Random.random`` is used, because its sequence for a seed is fixed in every Python.
    """
    rng = random.Random(SEED)
    rows: list[dict[str, str]] = []
    # Equal texts are in one video; otherwise grouped splits would link all videos.
    video_of_text: dict[str, str] = {}
    for row in range(row_count):
        labels = draw_labels(rng)
        is_repeat = rows and rng.random() < REPEAT_PROBABILITY
        text = choose(rng, rows)["Text"] if is_repeat else write_comment(rng, labels)
        video = _draw_video(rng, row, row_count)
        key = normalize_text(text)
        video = video_of_text[key] = video_of_text.get(key) or video
        rows.append(
            {"CommentId": f"sample-{row + 1:04d}", "VideoId": video, "Text": text}
            | dict(zip(LABELS, annotate(rng, labels), strict=True))
        )
    return pd.DataFrame(rows, dtype="str")


def sample_comments() -> TextDataset:
    """Return the synthetic sample as a validated table."""
    return comments_from_frame(sample_frame(), SAMPLE_NAME, SAMPLE_NAME, ColumnSettings())


def choose(rng: random.Random, options: Sequence[Option]) -> Option:
    """Return one of the options at random."""
    return options[int(rng.random() * len(options))]


def draw_labels(rng: random.Random) -> list[str]:
    """Draw the labels of a comment; about half of all comments have none."""
    if rng.random() > _TOXIC_PROBABILITY:
        return []
    labels = ["IsToxic"]
    for label, probability in _PROBABILITY_IF_TOXIC.items():
        if rng.random() < probability:
            labels.append(label)
    if "IsHatespeech" in labels and rng.random() < _RACIST_PROBABILITY_IF_HATE:
        labels.append("IsRacist")
    return labels


def write_comment(rng: random.Random, labels: Sequence[str]) -> str:
    """Write a comment: a sentence for each label among neutral ones, in random order."""
    parts = [choose(rng, _HOSTILE[label]) for label in labels if label in _HOSTILE]
    if labels and (rng.random() < 0.12 or not parts):
        parts = [choose(rng, _VEILED)]
    if not labels and rng.random() < 0.18:
        hostile = choose(rng, _HOSTILE[choose(rng, ("IsAbusive", "IsObscene", "IsHatespeech"))])
        parts = [choose(rng, _QUOTED).replace("{hostile}", hostile)]
    for _ in range(_neutral_count(rng, bool(parts))):
        parts.insert(int(rng.random() * (len(parts) + 1)), choose(rng, _NEUTRAL))
    text = " ".join(parts)
    for slot, options in (("{place}", _PLACES), ("{person}", _PEOPLE), ("{topic}", _TOPICS)):
        while slot in text:
            text = text.replace(slot, choose(rng, options), 1)
    return text


def annotate(rng: random.Random, labels: Sequence[str]) -> list[str]:
    """Return True or False for each of `LABELS`; a few of the drawn labels are overlooked."""
    noticed = {label for label in labels if rng.random() > _OVERLOOKED_PROBABILITY}
    return ["True" if label in noticed else "False" for label in LABELS]


def _neutral_count(rng: random.Random, has_parts: bool) -> int:
    """Draw a number of sentences with a long tail: one comment in fifty is an essay."""
    if rng.random() < 0.02:
        return 12 + int(rng.random() * 20)
    minimum = 0 if has_parts else 2
    return minimum + int(3 * rng.random() ** 2 + 0.3)


def _draw_video(rng: random.Random, row: int, row_count: int) -> str:
    """Return one of ten videos, each a contiguous block of rows; a few comments have none."""
    return "" if rng.random() < NO_VIDEO_PROBABILITY else f"video-{row * 10 // row_count + 1:02d}"


def fetch() -> tuple[Path, TextDataset, bool]:
    """Download the table, or find it in kagglehub's cache, and validate it.

    Returns:
        the CSV file, the table, and whether it is the version that toxbench was measured on.

    Raises:
        SettingsError: the extra ``data`` is not installed.
        TryAgainError: Kaggle did not answer or refused.
        DataError: the download is not that table.
    """
    try:
        import kagglehub
    except ImportError as error:
        raise SettingsError(
            'kagglehub is not installed; install it with: pip install "toxbench[data]"'
        ) from error
    try:
        folder = Path(kagglehub.dataset_download(HANDLE))
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise TryAgainError(
            f"Kaggle did not deliver {HANDLE}: {reason}; try again, or download it in a browser "
            "and use --data FILE"
        ) from error
    tables = sorted(folder.rglob("*.csv"))
    if len(tables) != 1:
        raise DataError(f"{folder} contains {len(tables)} CSV files, expected one")
    return tables[0], read_comments(tables[0]), sha256_file(tables[0]) == KNOWN_SHA256
