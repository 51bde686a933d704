"""Memory-efficient sequence of texts, for the columns of large tables."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, TypeVar, overload

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # at run time imported in functions: printing a leaderboard does not need it
    import pyarrow as pa

_TEXTS_PER_BLOCK = 10_000

Text = TypeVar("Text", str, str | None)


class TextArray(Sequence[Text]):
    """Sequence of texts or None, stored in one Arrow array in a tenth of the memory of a tuple.

    Items become Python objects only when they are accessed. An array is equal to any sequence of
    the same texts, and is pickled as its bytes.
    """

    def __init__(self, array: "pa.Array") -> None:
        """Wrap an array of strings without copying it."""
        self._array = array

    @classmethod
    def from_texts(cls, values: Iterable[Text]) -> "TextArray[Text]":
        """Copy texts into an array, block by block."""
        import pyarrow as pa

        values = iter(values)
        blocks = iter(lambda: list(islice(values, _TEXTS_PER_BLOCK)), [])
        chunks = [pa.array(block, pa.large_string()) for block in blocks]
        return cls(pa.chunked_array(chunks, pa.large_string()).combine_chunks())

    @classmethod
    def from_column(cls, column: Any) -> "TextArray[Text]":
        """Convert a pandas column of strings; missing values become None."""
        import pyarrow as pa

        array = pa.array(column, pa.large_string(), from_pandas=True)
        return cls(array.combine_chunks() if isinstance(array, pa.ChunkedArray) else array)

    @classmethod
    def from_flat(
        cls, data: npt.NDArray[np.uint8], ends: npt.NDArray[np.int64]
    ) -> "TextArray[Text]":
        """Build an array from the parts that `flat` returns.

        Args:
            data: UTF-8, uint8 ``[byte]``.
            ends: end of each text in ``data``, int64 ``[text]``.

        Raises:
            ValueError: the bytes are not UTF-8, or the ends are out of order or range.
        """
        import pyarrow as pa

        offsets = np.concatenate([np.zeros(1, dtype=np.int64), ends.astype(np.int64)])
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(np.ascontiguousarray(data))]
        array = pa.Array.from_buffers(pa.large_string(), len(ends), buffers)
        array.validate(full=True)
        return cls(array)

    @property
    def flat(self) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
        """The UTF-8 of all texts, uint8 ``[byte]``, and the end of each, int64 ``[text]``.

        Not for arrays that contain None.
        """
        _, offset_buffer, data_buffer = self._array.buffers()
        first = self._array.offset  # not 0 for a slice
        offsets = np.frombuffer(offset_buffer, dtype=np.int64)[first : first + len(self) + 1]
        data = np.frombuffer(data_buffer if data_buffer is not None else b"", dtype=np.uint8)
        return data[offsets[0] : offsets[-1]], offsets[1:] - offsets[0]

    def __len__(self) -> int:
        return len(self._array)

    @overload
    def __getitem__(self, index: int) -> Text: ...
    @overload
    def __getitem__(self, index: slice) -> "TextArray[Text]": ...
    def __getitem__(self, index: int | slice) -> "Text | TextArray[Text]":
        if not isinstance(index, slice):
            text: Text = self._array[index].as_py()
            return text
        start, stop, step = index.indices(len(self))
        if step == 1:
            return TextArray(self._array[start : max(start, stop)])
        return self.take(np.arange(start, stop, step))

    def __iter__(self) -> Iterator[Text]:
        starts = range(0, len(self), _TEXTS_PER_BLOCK)
        blocks = (self._array[start : start + _TEXTS_PER_BLOCK].to_pylist() for start in starts)
        return chain.from_iterable(blocks)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, TextArray):
            return bool(self._array.equals(other._array))
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(map(lambda a, b: a == b, self, other))

    def __repr__(self) -> str:
        return f"<{len(self)} texts>"  # without the texts, because comments must not be printed

    def take(self, rows: npt.NDArray[np.int64]) -> "TextArray[Text]":
        """Return the texts of these rows, in this order."""
        import pyarrow as pa

        return TextArray(self._array.take(pa.array(rows)))


def take_rows(values: Sequence[Text], rows: npt.NDArray[np.int64]) -> Sequence[Text]:
    """Return the values of these rows, in this order; other values are not kept in memory."""
    if isinstance(values, TextArray):
        return values.take(rows)
    return tuple(values[row] for row in rows.tolist())
