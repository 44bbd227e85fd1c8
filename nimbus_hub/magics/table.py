"""Rows for people: a pandas DataFrame where pandas is there, else a plain table."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

__all__ = ["Table", "table"]


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under their columns, readable as text and as HTML."""

    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.rows)

    def __repr__(self) -> str:
        """Return aligned text."""
        cells = [self.columns, *(tuple(map(_text, row)) for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in cells
        )

    def _repr_html_(self) -> str:
        head = "".join(f'<th scope="col">{escape(name)}</th>' for name in self.columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(_text(cell))}</td>" for cell in row) + "</tr>"
            for row in self.rows
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def table(columns: Sequence[str], rows: Sequence[tuple[object, ...]]) -> object:
    """Return a DataFrame, or a Table where pandas is not installed."""
    try:
        pandas = importlib.import_module("pandas")
    except ImportError:
        return Table(tuple(columns), tuple(rows))
    frame: object = pandas.DataFrame(rows, columns=list(columns))
    return frame


def _text(cell: object) -> str:
    return "" if cell is None else str(cell)
