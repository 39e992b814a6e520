"""Account files: the columns of Kamailio's `uacreg` and ours, as CSV or JSON text.

Reads a file into rows of text with their line numbers, and writes rows as a file.  Knows nothing of the database and
judges no value: that is `exchange`'s part.  A file that cannot be read is refused with line, column and reason.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches

#: The columns of table version 6 but `id`, in the table's order.
SEED_COLUMNS = (
    "l_uuid", "l_username", "l_domain", "r_username", "r_domain", "realm", "auth_username", "auth_password", "auth_ha1",
    "auth_proxy", "expires", "flags", "reg_delay", "contact_addr", "contact_user", "socket",
)
OWN_COLUMNS = (
    "provider", "inbound_identity", "inbound_from", "registrars", "at_once", "outbound_proxy", "digest_minimum",
    "authentication", "numbers", "max_calls", "max_rate", "qualify", "outbound", "gin",
    "note",
)
COLUMNS = SEED_COLUMNS + OWN_COLUMNS
SECRET_COLUMNS = ("auth_password", "auth_ha1")
NUMBER_COLUMNS = ("expires", "flags", "reg_delay")
#: Stands in every dump of Kamailio's table; our rows are known by `l_uuid`.
IGNORED_COLUMNS = ("id",)
FORMATS = ("csv", "json")

#: How dumps write SQL's NULL; the seed's columns are all NOT NULL, an empty text says the same.
_NULLS = ("\\N", "NULL")
_WHITESPACE = re.compile(r"[ \t\n\r]*")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a file, or one row of it, is not taken.  Never holds a secret."""

    line: int | None
    column: str | None
    reason: str

    def __str__(self) -> str:
        where = [f"line {self.line}"] if self.line else []
        where += [f"column {self.column}"] if self.column else []
        return f"{', '.join(where)}: {self.reason}" if where else self.reason


class ImportRefused(Exception):
    """The file was refused as a whole; nothing was written."""

    def __init__(self, *refusals: Refusal) -> None:
        super().__init__("; ".join(map(str, refusals[:5])))
        self.refusals = refusals


@dataclass(frozen=True, slots=True)
class FileRow:
    """One account as it stands in the file; `values` has only the columns that the file has."""

    line: int
    values: dict[str, str]


def read_rows(data: bytes | str, format: str | None = None) -> list[FileRow]:
    """Read a whole file; `format` empty recognises JSON by its first character.

    Raises ImportRefused for what is no readable account file.
    """
    text = decode(data) if isinstance(data, bytes) else data.removeprefix("\ufeff")
    if not text.strip():
        raise ImportRefused(Refusal(None, None, "The file is empty."))
    if (format or ("json" if text.lstrip()[0] in "[{" else "csv")) == "json":
        rows = list(_read_json(text))
    else:
        rows = list(_read_csv(text))
    if not rows:
        raise ImportRefused(Refusal(None, None, "The file has no accounts in it."))
    return rows


def decode(data: bytes) -> str:
    """Turn a file's bytes into text: UTF-8, with or without byte order mark."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise ImportRefused(Refusal(1, None, "The file is UTF-16. Save it as UTF-8."))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The neighbourhood of the byte is not shown: it may be a password's.
        line = data.count(b"\n", 0, error.start) + 1
        raise ImportRefused(Refusal(
            line, None, f"Byte 0x{data[error.start]:02x} is not UTF-8. Save the file as UTF-8, "
                        "for example with: iconv -f windows-1252 -t utf-8",
        )) from None


def _read_csv(text: str) -> Iterator[FileRow]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
    header: list[str] | None = None
    start = 1
    try:
        for cells in reader:
            line, start = start, reader.line_num + 1
            if not any(cells):
                continue
            if header is None:
                header = [cell.strip() for cell in cells]
                _check_columns(header, line)
                continue
            if len(cells) != len(header):
                raise ImportRefused(Refusal(
                    line, None, f"The row has {len(cells)} fields, the header has {len(header)}. "
                                "A field with the separator in it needs double quotes.",
                ))
            yield FileRow(line, {
                column: "" if cell in _NULLS and column not in SECRET_COLUMNS else cell
                for column, cell in zip(header, cells, strict=True) if column not in IGNORED_COLUMNS
            })
    except csv.Error as error:
        reason = f"The CSV is malformed in the row that begins here: {error}."
        if "field larger" in str(error) or "end of data" in str(error):
            reason = "A field that begins in this row has no end: a double quote is missing."
        raise ImportRefused(Refusal(start, None, reason)) from None


def _delimiter(text: str) -> str:
    """The separator that splits the header line most: comma, semicolon (spreadsheets) or tab (mysql --batch)."""
    header = text.lstrip().split("\n", 1)[0]
    return max(",;\t", key=header.count)


def _read_json(text: str) -> Iterator[FileRow]:
    """Read a list of objects one by one, so that each keeps its line."""
    decoder = json.JSONDecoder(object_pairs_hook=list)
    place = _skip(text, 0)
    if text[place] != "[":
        raise ImportRefused(Refusal(
            1, None, "The JSON is not a list of accounts: it begins with [ and holds one object an account.",
        ))
    place = _skip(text, place + 1)
    line = 1 + text.count("\n", 0, place)
    try:
        while not text.startswith("]", place):
            element, end = decoder.raw_decode(text, place)
            yield _json_row(element, text[place], line)
            after = _skip(text, end)
            if text.startswith(",", after):
                after = _skip(text, after + 1)
                if text.startswith("]", after):
                    raise json.JSONDecodeError("An account must follow the comma", text, after)
            elif not text.startswith("]", after):
                raise json.JSONDecodeError("A comma or ] must follow the account", text, after)
            line += text.count("\n", place, after)
            place = after
        place = _skip(text, place + 1)
        if place < len(text):
            raise json.JSONDecodeError("Nothing may follow the list", text, place)
    except json.JSONDecodeError as error:
        raise ImportRefused(Refusal(
            error.lineno, None, f"The JSON is malformed at character {error.colno} of this line: {error.msg}.",
        )) from None
    except (ValueError, RecursionError):  # a number of thousands of digits, or brackets in thousands
        raise ImportRefused(Refusal(line, None, "The element that begins here is no account.")) from None


def _json_row(pairs: object, opening: str, line: int) -> FileRow:
    if opening != "{" or not isinstance(pairs, list):
        raise ImportRefused(Refusal(line, None, "This element is not an object with column names and values."))
    _check_columns([name for name, _ in pairs], line)
    values: dict[str, str] = {}
    for column, value in pairs:
        if column in IGNORED_COLUMNS:
            continue
        if value is None:
            values[column] = ""
        elif isinstance(value, str) or (isinstance(value, int) and not isinstance(value, bool)):
            values[column] = str(value)
        else:
            raise ImportRefused(Refusal(line, column, "The value is neither text nor a whole number."))
    return FileRow(line, values)


def _skip(text: str, place: int) -> int:
    found = _WHITESPACE.match(text, place)
    return found.end() if found else place


def _check_columns(names: list[str], line: int) -> None:
    if not set(COLUMNS).intersection(names):
        # The names are not shown: where the header is missing they are an account's values.
        raise ImportRefused(Refusal(line, None, f"No column name stands here. Known columns: {', '.join(COLUMNS)}."))
    for index, name in enumerate(names):
        if name in names[:index]:
            raise ImportRefused(Refusal(line, name[:64], "The column stands here twice."))
        if name not in COLUMNS and name not in IGNORED_COLUMNS:
            close = get_close_matches(name.lower(), COLUMNS, n=1, cutoff=0.6)
            cure = f"Did you mean {close[0]}?" if close else f"Known columns: {', '.join(COLUMNS)}."
            raise ImportRefused(Refusal(line, name[:64], f"No such column. {cure}"))
    if "l_uuid" not in names:
        raise ImportRefused(Refusal(line, "l_uuid", "The column is missing; accounts are known by it."))


def write_csv(rows: Iterable[dict[str, str | int]]) -> Iterator[str]:
    """Yield the lines of a CSV file with all columns."""
    line = io.StringIO()
    writer = csv.DictWriter(line, COLUMNS, lineterminator="\n")
    writer.writeheader()
    yield line.getvalue()
    for row in rows:
        line.seek(0)
        line.truncate()
        writer.writerow(row)
        yield line.getvalue()


def write_json(rows: Iterable[dict[str, str | int]]) -> Iterator[str]:
    """Yield the lines of a JSON file: a list with one object, one line, an account."""
    before = "["
    for row in rows:
        yield f"{before}\n  {json.dumps(row, ensure_ascii=False)}"
        before = ","
    yield f"{before}]\n" if before == "[" else "\n]\n"
