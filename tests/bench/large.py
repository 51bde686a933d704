"""Tables of any size, written block by block: comments as the built-in sample makes them.

``python tests/bench/large.py ROWS FILE`` writes CSV or Parquet, as the file's name says.
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

from toxbench.data.groups import plain_text
from toxbench.data.synthetic import LABELS, _choose, _draw_labels, _write

COLUMNS = ("CommentId", "VideoId", "Text", *LABELS)
_ROWS_AT_ONCE = 50_000
_REMEMBERED = 10_000  # of which one row in a hundred repeats a text
_ROWS_OF_A_VIDEO = 48
Row = tuple[str, ...]


def rows_of(count: int, seed: int = 20_240_817) -> Iterator[Row]:
    """Draw rows as `toxbench.data.synthetic` does, in constant memory."""
    draw = random.Random(seed)
    texts: list[str] = []
    videos = max(1, count // _ROWS_OF_A_VIDEO)
    for row in range(count):
        labels = _draw_labels(draw)
        repeats = texts and draw.random() < 0.01
        text = _choose(draw, texts) if repeats else _write(draw, labels)
        if len(texts) < _REMEMBERED:
            texts.append(text)
        else:
            texts[int(draw.random() * _REMEMBERED)] = text
        # Equal texts stand below one video, or all videos would be linked.
        number = zlib.crc32(plain_text(text).encode("utf-8")) % videos
        video = "" if draw.random() < 0.016 else f"video-{number + 1:06d}"
        seen = {label for label in labels if draw.random() > 0.06}
        marks = ("True" if label in seen else "False" for label in LABELS)
        yield (f"sample-{row + 1:07d}", video, text, *marks)


def write_table(path: Path, count: int) -> None:
    """Write so many rows as ``.csv`` or ``.parquet``."""
    if path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(COLUMNS)
            writer.writerows(rows_of(count))
        return
    kinds = [pa.string()] * 3 + [pa.bool_()] * len(LABELS)
    with pq.ParquetWriter(path, pa.schema(list(zip(COLUMNS, kinds, strict=True)))) as parquet:
        rows = rows_of(count)
        for block in iter(lambda: list(islice(rows, _ROWS_AT_ONCE)), []):
            columns = list(zip(*block, strict=True))
            marks = [pa.array([mark == "True" for mark in column]) for column in columns[3:]]
            arrays = [pa.array(column) for column in columns[:3]] + marks
            parquet.write_table(pa.table(arrays, names=list(COLUMNS)))


if __name__ == "__main__":
    write_table(Path(sys.argv[2]), int(sys.argv[1]))
