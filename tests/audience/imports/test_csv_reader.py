"""CSV reader and column mapping: encodings, delimiters, headers, quotes and broken rows."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from campaigns.audience.imports.column_mapping import attribute_key, guess_mapping, validate_mapping
from campaigns.audience.imports.csv_reader import CsvDialect, read_rows, sniff_dialect
from campaigns.errors import ValidationFailed

TABLE = "email,имя,ville\nann@example.org,Анна,Orléans\nbob@example.org,Борис,Nîmes\n"
CELLS = [["ann@example.org", "Анна", "Orléans"], ["bob@example.org", "Борис", "Nîmes"]]


def write_csv(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "file.csv"
    path.write_bytes(content)
    return path


def read_all(path: Path, dialect: CsvDialect) -> list[tuple[int, list[str], str]]:
    return [tuple(row) for row in read_rows(path, dialect.encoding, dialect.delimiter)]  # type: ignore[misc]


@pytest.mark.parametrize("written", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_encodings_delimiters_and_line_ends(tmp_path: Path, written: str, delimiter: str, end: str) -> None:
    text = TABLE.replace(",", delimiter).replace("\n", end)
    content = (b"\xfe\xff" if written == "utf-16-be" else b"") + text.encode(written)
    shape = sniff_dialect(write_csv(tmp_path, content))
    assert (shape.delimiter, shape.has_header, shape.columns) == (delimiter, True, ["email", "имя", "ville"])
    assert shape.samples == CELLS


@pytest.mark.parametrize("written", ["utf-16-le", "utf-16-be"])
def test_utf16_without_bom(tmp_path: Path, written: str) -> None:
    assert sniff_dialect(write_csv(tmp_path, TABLE.encode(written))).samples == CELLS


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("email;имя\nann@example.org;Анна\nb@example.org;Борис\n", "cp1251"),
        ("email;prénom\nann@example.org;Orléane\nb@example.org;Zoë\n", "cp1252"),
        ("email;nom\nann@example.org;É\n", "cp1252"),
    ],
)
def test_code_pages_are_guessed(tmp_path: Path, text: str, encoding: str) -> None:
    shape = sniff_dialect(write_csv(tmp_path, text.encode(encoding)))
    assert shape.encoding == encoding
    assert shape.samples[0][1] == text.split("\n")[1].split(";")[1]


def test_without_a_header(tmp_path: Path) -> None:
    shape = sniff_dialect(write_csv(tmp_path, b"Ann;ann@example.org\nBob;bob@example.org\n"))
    assert (shape.has_header, shape.columns) == (False, ["", ""])
    assert guess_mapping(shape) == ["", "email"]


def test_one_column_is_a_table_too(tmp_path: Path) -> None:
    shape = sniff_dialect(write_csv(tmp_path, b"ann@example.org\nbob@example.org\n"))
    assert (shape.has_header, shape.columns, guess_mapping(shape)) == (False, [""], ["email"])


def test_excel_delimiter_line_is_skipped(tmp_path: Path) -> None:
    path = write_csv(tmp_path, b"sep=;\r\nemail;name, title\r\nann@example.org;Ann, Dr\r\n")
    shape = sniff_dialect(path)
    assert (shape.delimiter, shape.columns) == (";", ["email", "name, title"])
    assert read_all(path, shape)[1][0] == 2


def test_stray_comma_adds_no_column(tmp_path: Path) -> None:
    shape = sniff_dialect(write_csv(tmp_path, b"email,name\na@example.org,A\nb@example.org,B\nc@example.org,C, D\n"))
    assert shape.columns == ["email", "name"]


def test_two_hundred_columns(tmp_path: Path) -> None:
    header = ",".join(["Email", *(f"Field {n}" for n in range(199))])
    shape = sniff_dialect(write_csv(tmp_path, f"{header}\nann@example.org{',x' * 199}\n".encode()))
    assert len(shape.columns) == 200
    assert guess_mapping(shape) == ["email", *[""] * 199]


QUOTES = [
    ('a@example.org,"Lee, Ann"\n', ["a@example.org", "Lee, Ann"]),
    ('a@example.org,"two\nlines"\n', ["a@example.org", "two\nlines"]),
    ('a@example.org,"say ""hi"""\n', ["a@example.org", 'say "hi"']),
    ('a@example.org,5" pipe\n', ["a@example.org", '5" pipe']),
    ('a@example.org,"Ann" Lee\n', ["a@example.org", "Ann Lee"]),
]


@pytest.mark.parametrize(("line", "cells"), QUOTES)
def test_quotes(tmp_path: Path, line: str, cells: list[str]) -> None:
    path = write_csv(tmp_path, f"email,note\n{line}b@example.org,x\n".encode())
    found = read_all(path, sniff_dialect(path))
    assert [one[1] for one in found[1:]] == [cells, ["b@example.org", "x"]]


def test_unclosed_quote_rejects_one_row(tmp_path: Path) -> None:
    lines = ["email,note", 'a@example.org,"oops', *(f"p{n}@example.org,x" for n in range(500))]
    path = write_csv(tmp_path, "\n".join(lines).encode())
    found = read_all(path, sniff_dialect(path))
    assert found[1] == (2, ['a@example.org,"oops'], "A quotation mark in this row is never closed.")
    assert [one[0] for one in found] == list(range(1, 503))
    assert all(not one[2] for one in found[2:])


def test_nul_and_replacement_characters_reject_one_row(tmp_path: Path) -> None:
    path = write_csv(tmp_path, b"email,note\na@example.org,\x00\nb@example.org,\xef\xbf\xbd\nc@example.org,x\n")
    found = read_all(path, sniff_dialect(path))
    assert [bool(one[2]) for one in found] == [False, True, True, False]
    assert "\x00" not in found[1][1][0]


def test_overlong_line_rejects_one_row(tmp_path: Path) -> None:
    path = write_csv(tmp_path, b"email\n" + b"x" * 2_500_000 + b"\nann@example.org\n")
    found = read_all(path, sniff_dialect(path))
    assert [(one[0], bool(one[2])) for one in found] == [(1, False), (2, True), (3, False)]
    assert len(found[1][1][0]) == 1000


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.one_of(st.binary(max_size=300), st.text(alphabet='a@.,;"\n\r\t\x00é', max_size=120).map(str.encode)))
def test_arbitrary_bytes_never_crash_the_reader(tmp_path: Path, content: bytes) -> None:
    path = write_csv(tmp_path, content)
    try:
        shape = sniff_dialect(path)
    except ValidationFailed:
        return
    found = read_all(path, shape)
    assert all(one[1] for one in found)
    assert [one[0] for one in found] == sorted({one[0] for one in found})
    guess_mapping(shape)


MAILCHIMP = (
    "Email Address,First Name,Last Name,Birthday,MEMBER_RATING,OPTIN_TIME,OPTIN_IP,CONFIRM_TIME,CONFIRM_IP,LATITUDE,"
    "LONGITUDE,GMTOFF,DSTOFF,TIMEZONE,CC,REGION,LAST_CHANGED,LEID,EUID,NOTES,TAGS"
)
HUBSPOT = "Record ID,First Name,Last Name,Email,Phone Number,Contact owner,Lead Status,Create Date,Lifecycle Stage"


def dialect_with_header(header: str) -> CsvDialect:
    return CsvDialect("utf-8-sig", ",", True, header.split(","), [])


def test_mailchimp_and_hubspot_exports_are_mapped() -> None:
    mailchimp = dict(zip(MAILCHIMP.split(","), guess_mapping(dialect_with_header(MAILCHIMP)), strict=True))
    assert {name: target for name, target in mailchimp.items() if target} == {
        "Email Address": "email",
        "First Name": "first_name",
        "Last Name": "last_name",
        "TIMEZONE": "timezone",
    }
    hubspot = dict(zip(HUBSPOT.split(","), guess_mapping(dialect_with_header(HUBSPOT)), strict=True))
    assert {name: target for name, target in hubspot.items() if target} == {
        "First Name": "first_name",
        "Last Name": "last_name",
        "Email": "email",
        "Phone Number": "attributes.phone_number",
    }


@pytest.mark.parametrize(
    "header",
    [
        "E-mail,First name,Last name",
        "Adresse e-mail,Prénom,Nom",
        "ელფოსტა,სახელი,გვარი",
        "E-poçt,Ad,Soyad",
        "Эл. почта,Имя,Фамилия",
        "ایمیل,نام,نام خانوادگی",
        "E-Mail-Adresse,Vorname,Nachname",
        "Correo electrónico,Nombre,Apellidos",
        "email_address,FIRST-NAME,last.name",
    ],
)
def test_headers_are_mapped_in_many_languages(header: str) -> None:
    assert guess_mapping(dialect_with_header(header)) == ["email", "first_name", "last_name"]


def test_attribute_keys_from_headers() -> None:
    assert [attribute_key(name, 7) for name in ("Favourite Colour!", "Prénom 2", "2nd", "Город", "")] == [
        "favourite_colour",
        "prenom_2",
        "nd",
        "column_7",
        "column_7",
    ]


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        (["", ""], "Choose the column"),
        (["email", "email"], "both go to the same"),
        (["email"], "have changed"),
        (["email", "id"], "name the field"),
        (["email", "attributes."], "name the field"),
        (["email", "attributes.A b"], "name the field"),
    ],
)
def test_invalid_mappings_are_refused(mapping: list[str], words: str) -> None:
    with pytest.raises(ValidationFailed, match=words):
        validate_mapping(mapping, 2)
