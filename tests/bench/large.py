"""Tables of any size, written block by block, with comments like those of the built-in sample.

``python tests/bench/large.py ROWS FILE`` writes CSV or Parquet, depending on the suffix of FILE.
"""

import csv
import random
import sys
import zlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from toxbench.data.groups import normalize_text
from toxbench.data.samples import (
    LABELS,
    NO_VIDEO_PROBABILITY,
    REPEAT_PROBABILITY,
    SEED,
    annotate,
    choose,
    draw_labels,
    write_comment,
)

COLUMNS = ("CommentId", "VideoId", "Text", *LABELS)
_ROWS_PER_BLOCK = 50_000
_MAX_RECENT_TEXTS = 10_000  # repeated rows copy one of these
_ROWS_PER_VIDEO = 48
Row = tuple[str, ...]


def draw_rows(count: int, seed: int = SEED) -> Iterator[Row]:
    """Yield rows like those of `toxbench.data.samples`, in constant memory."""
    rng = random.Random(seed)
    texts: list[str] = []
    video_count = max(1, count // _ROWS_PER_VIDEO)
    for row in range(count):
        labels = draw_labels(rng)
        is_repeat = texts and rng.random() < REPEAT_PROBABILITY
        text = choose(rng, texts) if is_repeat else write_comment(rng, labels)
        if len(texts) < _MAX_RECENT_TEXTS:
            texts.append(text)
        else:
            texts[int(rng.random() * _MAX_RECENT_TEXTS)] = text
        # Equal texts are in one video; otherwise grouped splits would link all videos.
        number = zlib.crc32(normalize_text(text).encode("utf-8")) % video_count
        video = "" if rng.random() < NO_VIDEO_PROBABILITY else f"video-{number + 1:06d}"
        yield (f"sample-{row + 1:07d}", video, text, *annotate(rng, labels))


def write_table(path: Path, count: int) -> None:
    """Write a table of ``count`` rows as ``.csv`` or ``.parquet``."""
    rows = draw_rows(count)
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows(rows)
        return
    types = [pa.string()] * 3 + [pa.bool_()] * len(LABELS)
    with pq.ParquetWriter(path, pa.schema(list(zip(COLUMNS, types, strict=True)))) as parquet:
        for block in iter(lambda: list(islice(rows, _ROWS_PER_BLOCK)), []):
            columns = list(zip(*block, strict=True))
            labels = [pa.array([value == "True" for value in column]) for column in columns[3:]]
            arrays = [pa.array(column) for column in columns[:3]] + labels
            parquet.write_table(pa.table(arrays, names=list(COLUMNS)))


if __name__ == "__main__":
    write_table(Path(sys.argv[2]), int(sys.argv[1]))
