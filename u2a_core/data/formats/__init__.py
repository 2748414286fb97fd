"""Data set schemas: the formats that are known, how one is recognised, and how its rows become preference pairs."""

from u2a_core.data.formats.registry import FORMATS, Format, named_format, recognise
from u2a_core.data.formats.row import InvalidRow, LeftOut, Row, RowContext

__all__ = ["FORMATS", "Format", "InvalidRow", "LeftOut", "Row", "RowContext", "named_format", "recognise"]
