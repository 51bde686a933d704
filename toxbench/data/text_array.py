"""Texts of a large table: a sequence like a tuple of them, in a tenth of the memory."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # imported below where it is used: a kept leaderboard is printed without
    import pyarrow as pa

_AT_ONCE = 10_000

Text = TypeVar("Text", str, str | None)


class TextArray(Sequence[Text]):
    """Texts, or None, end to end in one Arrow array; each is a Python object only while it is used.

    It is equal to any sequence of the same texts, and is pickled as the bytes that it is.
    """

    def __init__(self, array: "pa.Array") -> None:
        """Hold an array of strings as it is."""
        self._array = array

    @classmethod
    def of(cls, values: Iterable[Text]) -> "TextArray[Text]":
        """Put texts end to end, a few at a time."""
        import pyarrow as pa

        values = iter(values)
        blocks = iter(lambda: list(islice(values, _AT_ONCE)), [])
        chunks = [pa.array(block, pa.large_string()) for block in blocks]
        return cls(pa.chunked_array(chunks, pa.large_string()).combine_chunks())

    @classmethod
    def of_column(cls, column: Any) -> "TextArray[Text]":
        """Take the texts of a pandas column of strings; what is missing there is None."""
        import pyarrow as pa

        array = pa.array(column, pa.large_string(), from_pandas=True)
        return cls(array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array)

    @classmethod
    def from_flat(
        cls, data: npt.NDArray[np.uint8], ends: npt.NDArray[np.int64]
    ) -> "TextArray[Text]":
        """Take texts as `flat` gives them.

        Raises:
            ValueError: they are none.
        """
        import pyarrow as pa

        offsets = np.concatenate([np.zeros(1, dtype=np.int64), ends.astype(np.int64)])
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(data))]
        array = pa.Array.from_buffers(pa.large_string(), len(ends), buffers)
        array.validate(full=True)
        return cls(array)

    @property
    def flat(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """The texts in UTF-8, uint8 ``[byte]``, and where each ends, int64 ``[text]``; no None."""
        _, offsets, data = self._array.buffers()
        first = self._array.offset
        places = np.frombuffer(offsets, dtype=np.int64)[first : first + len(self) + 1]
        whole = np.frombuffer(data if data is not None else b"", dtype=np.uint8)
        return whole[places[0] : places[-1]], places[1:] - places[0]

    def __len__(self) -> int:
        return len(self._array)

    @overload
    def __getitem__(self, place: int) -> Text: ...
    @overload
    def __getitem__(self, place: slice) -> "TextArray[Text]": ...
    def __getitem__(self, place: int | slice) -> "Text | TextArray[Text]":
        if not isinstance(place, slice):
            text: Text = self._array[place].as_py()
            return text
        start, stop, step = place.indices(len(self))
        if step == 1:
            return TextArray(self._array[start : max(start, stop)])
        return self.take(np.arange(start, stop, step))

    def __iter__(self) -> Iterator[Text]:
        starts = range(0, len(self), _AT_ONCE)
        blocks = (self._array[start : start + _AT_ONCE].to_pylist() for start in starts)
        return chain.from_iterable(blocks)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, TextArray):
            return bool(self._array.equals(other._array))
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(map(lambda a, b: a == b, self, other))

    def __repr__(self) -> str:
        return f"<{len(self)} texts>"  # they may be comments, which are not printed by the way

    def take(self, rows: npt.NDArray[np.int64]) -> "TextArray[Text]":
        """Return the texts of some rows, in their order."""
        import pyarrow as pa

        return TextArray(self._array.take(pa.array(rows)))


def take_rows(values: Sequence[Text], rows: npt.NDArray[np.int64]) -> Sequence[Text]:
    """Return some of the values, in the order of ``rows``; it holds nothing of the others."""
    if isinstance(values, TextArray):
        return values.take(rows)
    return tuple(values[row] for row in rows.tolist())
