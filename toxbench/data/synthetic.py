"""The built-in synthetic sample: no real comment, no slur, the same rows on every machine.

It imitates the shape of the YouTube toxicity table: the same columns, about half of the rows
without a label, labels that imply one another, two labels that nobody has, comments from three
words to several hundred, videos as groups, repeated texts. Scores on it say nothing about real
data; they show that the line from table to leaderboard works.

How a comment is made: a latent set of labels is drawn, each label contributes one sentence, and
neutral sentences surround them. What keeps any candidate from F1 1.0: clean comments that quote
or deny a hostile sentence, hostile comments without any telling word, and labels that the
imaginary annotators missed.
"""

import random
from collections.abc import Sequence
from typing import TypeVar

import pandas as pd

from toxbench.data.groups import plain_text
from toxbench.data.table import TextDataset, comments_from_frame
from toxbench.settings import ColumnSettings

Option = TypeVar("Option")

SAMPLE_NAME = "synthetic sample"
ROWS = 480
_SEED = 20_240_817

LABELS = (
    "IsToxic", "IsAbusive", "IsThreat", "IsProvocative", "IsObscene", "IsHatespeech",
    "IsRacist", "IsNationalist", "IsSexist", "IsHomophobic", "IsReligiousHate", "IsRadicalism",
)  # fmt: skip

# Label -> probability, given that the comment is toxic. IsToxic itself comes with all of them.
_GIVEN_TOXIC = {
    "IsAbusive": 0.72, "IsThreat": 0.06, "IsProvocative": 0.34, "IsObscene": 0.22,
    "IsHatespeech": 0.28, "IsNationalist": 0.02, "IsSexist": 0.005, "IsReligiousHate": 0.03,
}  # fmt: skip
_RACIST_GIVEN_HATE = 0.85

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


def sample_frame(rows: int = ROWS) -> pd.DataFrame:
    """Make the table as strings, with the columns of the YouTube toxicity table.

    Only ``Random.random`` is drawn from, whose sequence is fixed for a seed in every Python.
    """
    draw = random.Random(_SEED)
    made: list[dict[str, str]] = []
    videos: dict[str, str] = {}  # equal texts stand below one video, or all videos would be linked
    for row in range(rows):
        labels = _draw_labels(draw)
        repeat = made and draw.random() < 0.01
        text = _choose(draw, made)["Text"] if repeat else _write(draw, labels)
        video = _video(draw, row, rows)
        video = videos[plain_text(text)] = videos.get(plain_text(text)) or video
        seen = {label for label in labels if draw.random() > 0.06}
        made.append(
            {"CommentId": f"sample-{row + 1:04d}", "VideoId": video, "Text": text}
            | {label: "True" if label in seen else "False" for label in LABELS}
        )
    return pd.DataFrame(made, dtype="str")


def sample_comments() -> TextDataset:
    """Return the synthetic sample as a validated table."""
    return comments_from_frame(sample_frame(), SAMPLE_NAME, SAMPLE_NAME, ColumnSettings())


def _choose(draw: random.Random, options: Sequence[Option]) -> Option:
    return options[int(draw.random() * len(options))]


def _draw_labels(draw: random.Random) -> list[str]:
    if draw.random() > 0.47:
        return []
    labels = ["IsToxic"]
    for label, probability in _GIVEN_TOXIC.items():
        if draw.random() < probability:
            labels.append(label)
    if "IsHatespeech" in labels and draw.random() < _RACIST_GIVEN_HATE:
        labels.append("IsRacist")
    return labels


def _write(draw: random.Random, labels: Sequence[str]) -> str:
    """Write one comment: a sentence for each label among neutral ones, in random order."""
    parts = [_choose(draw, _HOSTILE[label]) for label in labels if label in _HOSTILE]
    if labels and (draw.random() < 0.12 or not parts):
        parts = [_choose(draw, _VEILED)]
    if not labels and draw.random() < 0.18:
        hostile = _choose(draw, _HOSTILE[_choose(draw, ("IsAbusive", "IsObscene", "IsHatespeech"))])
        parts = [_choose(draw, _QUOTED).replace("{hostile}", hostile)]
    for _ in range(_neutral_count(draw, bool(parts))):
        parts.insert(int(draw.random() * (len(parts) + 1)), _choose(draw, _NEUTRAL))
    text = " ".join(parts)
    for slot, options in (("{place}", _PLACES), ("{person}", _PEOPLE), ("{topic}", _TOPICS)):
        while slot in text:
            text = text.replace(slot, _choose(draw, options), 1)
    return text


def _neutral_count(draw: random.Random, has_parts: bool) -> int:
    """Lengths with a long tail: most comments are short, one in fifty is an essay."""
    if draw.random() < 0.02:
        return 12 + int(draw.random() * 20)
    fewest = 0 if has_parts else 2
    return fewest + int(3 * draw.random() ** 2 + 0.3)


def _video(draw: random.Random, row: int, rows: int) -> str:
    """Ten videos in contiguous blocks; a few comments belong to none."""
    return "" if draw.random() < 0.016 else f"video-{row * 10 // rows + 1:02d}"
