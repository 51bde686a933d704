"""A table and its folds, wherever they come from: drawn, from a split file, or as given."""

from dataclasses import dataclass
from pathlib import Path

from toxbench.data.folds import draw_folds
from toxbench.data.official import Official, read_column, read_files
from toxbench.data.sample import sample_comments
from toxbench.data.split import Split
from toxbench.data.split_file import folds_from_file, read_split_file, write_split_file
from toxbench.data.table import Comments, read_comments
from toxbench.errors import SettingsError
from toxbench.settings import DRAWING, ColumnSettings, SplitSettings


@dataclass(frozen=True, eq=False)
class Source:
    """A table with its folds.

    Attributes:
        comments: the validated table.
        folds: one or several splits of its rows.
        settings: how its rows were drawn, where they were; of a split file, what it says.
        origin: how the folds came about, for people.
        unwritten: the split file that is to be written; None: there is none.
    """

    comments: Comments
    folds: tuple[Split, ...]
    settings: SplitSettings
    origin: str
    unwritten: Path | None = None

    def write(self) -> None:
        """Write the split file, if one was asked for; raises `StorageError`."""
        if self.unwritten is not None:
            write_split_file(self.unwritten, self.comments, self.folds, self.settings)


def open_source(
    data: Path | None,
    columns: ColumnSettings,
    settings: SplitSettings,
    asked: frozenset[str] = frozenset(),
) -> Source:
    """Read a table, and split it as settings say; write nothing.

    Args:
        data: a file; None: the synthetic sample.
        columns: what its columns mean.
        settings: how it is split.
        asked: settings that the user set, which a split file must not contradict.

    Raises:
        DataError: the table or the split file cannot be used, or there are too few rows.
        SettingsError: the split file was drawn with other settings than those that were asked for.
    """
    if data is not None and settings.test is not None:
        files = " and ".join(p.name for p in (settings.valid, settings.test) if p is not None)
        return _as_given(read_files(data, columns, settings), settings, files)
    if data is not None and settings.split_column is not None:
        name = settings.split_column
        official = read_column(data, columns, name, settings)
        return _as_given(official, settings, f"column {name!r}")
    comments = sample_comments() if data is None else read_comments(data, columns)
    if settings.split_file is not None:
        return _with_file(comments, settings.split_file, settings, asked)
    return Source(comments, draw_folds(comments, settings), settings, settings.split)


def _as_given(official: Official, settings: SplitSettings, by: str) -> Source:
    drawn = f", validation rows {settings.split} out of train" if official.drawn else ""
    return Source(official.comments, (official.fold,), settings, f"official, by {by}{drawn}")


def _with_file(
    comments: Comments, path: Path, settings: SplitSettings, asked: frozenset[str]
) -> Source:
    file = read_split_file(path)
    if file is None:
        origin = f"{settings.split}, to be written to {path}"
        return Source(comments, draw_folds(comments, settings), settings, origin, path)
    for name in DRAWING:
        there, here = getattr(file.settings, name), getattr(settings, name)
        if name in asked and there != here:
            raise SettingsError(
                f"{path} was drawn with {name} = {there}, not {here}; leave that out, or name "
                "another split file"
            )
    origin = f"{file.settings.split}, read from {path}"
    return Source(comments, folds_from_file(path, file, comments), file.settings, origin)
