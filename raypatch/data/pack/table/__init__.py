"""A table with a row per image: its cells, its columns, the files that it names."""

from raypatch.data.pack.table.columns import parse_columns
from raypatch.data.pack.table.csv_table import TableOptions, list_table

__all__ = ["TableOptions", "list_table", "parse_columns"]
