"""Reading FASTA and CSV files."""

import gzip
import io
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protquant.errors import ProtquantError
from protquant.proteins import AMINO_ACIDS, Record, read_fasta, write_fasta


def read(tmp_path: Path, content: str | bytes, name: str = "in.fasta", **options: int):
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return read_fasta(path, **options)


def test_records_carry_header_line_name_and_chains(tmp_path: Path) -> None:
    fasta = read(tmp_path, ">sp|P1|A first one\nMKV\nGA\n\n>dimer\nMK:\nGW\n")
    assert fasta.records == [
        Record("sp|P1|A first one", "MKVGA", 1, "sp_P1_A"),
        Record("dimer", "MK:GW", 5, "dimer"),
    ]
    assert fasta.records[1].chains == ["MK", "GW"]
    assert fasta.records[1].length == 4
    assert fasta.rejected == []


def test_bad_records_are_set_aside_and_the_others_go_on(tmp_path: Path) -> None:
    fasta = read(tmp_path, ">a\nMK\n>gap\nMKV\nM-V\n>empty\n>digits\nMK1\n>b\nmu*\n")
    assert [record.name for record in fasta.records] == ["a", "b"]
    assert fasta.records[1].substitutions == (
        "lower case -> upper case",
        "1 x trailing * (stop codon) dropped",
        "1 x U -> C",
    )
    assert [(bad.header, bad.line) for bad in fasta.rejected] == [("gap", 3), ("empty", 6), ("digits", 7)]
    assert fasta.rejected[0].reason == "gap '-' at position 5 (line 5)"
    assert fasta.rejected[0].remedy == "remove gap characters; this looks like an alignment"
    assert fasta.rejected[1].reason == "the sequence is empty"


def test_too_long_records_are_set_aside(tmp_path: Path) -> None:
    fasta = read(tmp_path, ">a\nMK\n>b\nMKVGA\n", max_length=4)
    assert [record.name for record in fasta.records] == ["a"]
    assert "5 residues are more than the limit of 4" in fasta.rejected[0].reason


def test_duplicate_and_hostile_headers_get_safe_unique_names(tmp_path: Path) -> None:
    fasta = read(tmp_path, ">x\nMK\n>X\nMK\n>../x\nMK\n>\nMK\n")
    assert [record.name for record in fasta.records] == ["x", "X_2", "x_3", "record_4"]
    assert [record.header for record in fasta.records] == ["x", "X", "../x", ""]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_line_ends_of_every_system_and_a_byte_order_mark_are_read(tmp_path: Path, newline: str) -> None:
    fasta = read(tmp_path, b"\xef\xbb\xbf" + newline.join([">a", "MK", "GA", ""]).encode())
    assert fasta.records == [Record("a", "MKGA", 1, "a")]


def test_unusual_line_breaks_stay_in_the_header(tmp_path: Path) -> None:
    assert read(tmp_path, ">a b\N{LINE SEPARATOR}c\x0bd\nMK\n").records[0].header == "a b\N{LINE SEPARATOR}c\x0bd"


def test_comment_lines_are_skipped(tmp_path: Path) -> None:
    assert read(tmp_path, "; made by hand\n>a\nMK\n; half\nGA\n").records == [Record("a", "MKGA", 2, "a")]


def test_gzip_is_recognized_by_content(tmp_path: Path) -> None:
    data = gzip.compress(b">a\nMK\n")
    assert read(tmp_path, data, "in.fasta.gz").records == read(tmp_path, data, "in.fasta").records
    assert read(tmp_path, data).records == [Record("a", "MK", 1, "a")]


def test_standard_input_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(b">a\nMK\n")))
    assert read_fasta("-").records == [Record("a", "MK", 1, "a")]


@pytest.mark.parametrize("name", ["in.csv", "in.CSV", "in.csv.gz"])
def test_csv_tables_are_read(tmp_path: Path, name: str) -> None:
    table = b'\xef\xbb\xbfSequence,id,note\nmk:ga,a/b,"one, two"\n\nM-K,gap,\nMKV\n'
    fasta = read(tmp_path, gzip.compress(table) if name.endswith("gz") else table, name)
    assert fasta.records == [
        Record("a/b", "MK:GA", 2, "a_b", ("lower case -> upper case",)),
        Record("", "MKV", 5, "record_3"),
    ]
    assert [(rejected.header, rejected.line) for rejected in fasta.rejected] == [("gap", 4)]


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ("", "in.fasta", "in.fasta: the file is empty"),
        (" \n\n", "in.fasta", "the file is empty"),
        ("; only a comment\n", "in.fasta", "no record in this file"),
        ("id,sequence\n", "in.csv", "no record in this file"),
        ("\n\nMKV\n>a\nMK\n", "in.fasta", "line 3: sequence text before the first header"),
        (b">a\nMK\n>caf\xe9\nMK\n", "in.fasta", "line 3: this is not UTF-8 text"),
        (b"PK\x03\x04\xff\xfe", "in.fasta", "not UTF-8 text"),
        (gzip.compress(b">a\n" + b"MK" * 1000, mtime=0)[:-20], "in.fa.gz", "damaged or cut short"),
        (gzip.compress(b">a\nMK\n", mtime=0)[:-4] + b"xxxx", "in.fa.gz", "damaged or cut short"),
        ("name,seq\na,MK\n", "in.csv", "line 1: no column 'id' and 'sequence' (found name, seq)"),
        ("id,sequence\na," + "M" * 200_000 + "\n", "in.csv", "line 2: this is not a CSV table"),
    ],
)
def test_a_file_without_records_says_what_is_wrong(tmp_path: Path, content: str, name: str, message: str) -> None:
    with pytest.raises(ProtquantError) as caught:
        read(tmp_path, content, name)
    assert message in str(caught.value)
    assert str(tmp_path / name) in str(caught.value)


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(ProtquantError, match="there is no such file"):
        read_fasta(tmp_path / "none.fasta")
    with pytest.raises(ProtquantError, match="this is a folder"):
        read_fasta(tmp_path)
    with pytest.raises(ProtquantError, match="not a file name"):
        read_fasta("a\0b")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fasta")


HEADERS = st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), max_size=30).map(str.strip)
CHAINS = st.lists(st.text(AMINO_ACIDS, min_size=1, max_size=100), min_size=1, max_size=3)


@given(st.lists(st.tuples(HEADERS, CHAINS.map(":".join)), min_size=1, max_size=5))
def test_what_is_written_is_read_back(folder: Path, proteins: list[tuple[str, str]]) -> None:
    # Line-break characters other than CR and LF become spaces when written, so they are left out of this claim.
    records = [Record(" ".join(header.splitlines()), sequence, 0, "") for header, sequence in proteins]
    fasta = read_fasta(write_fasta(records, folder / "round.fasta"))
    assert [(r.header, r.sequence) for r in fasta.records] == [(r.header.strip(), r.sequence) for r in records]
    assert fasta.rejected == []


@given(st.binary(max_size=80) | st.text('>aMKx:*-1 ;,"\n\r\t', max_size=60).map(str.encode), st.booleans())
def test_arbitrary_bytes_are_read_or_refused(folder: Path, data: bytes, table: bool) -> None:
    path = folder / ("any.csv" if table else "any.fasta")
    path.write_bytes((b"id,sequence\n" if table else b">") + data)
    try:
        fasta = read_fasta(path)
    except ProtquantError as error:
        message = str(error)
    else:
        assert fasta.records or fasta.rejected
        assert len({record.name.lower() for record in fasta.records}) == len(fasta.records)
        return
    assert str(path) in message


def test_what_reads_as_dna_or_rna_is_refused_and_folded_only_if_asked_to(tmp_path: Path):
    path = tmp_path / "x.fasta"
    path.write_text(
        ">gene dna\nATGGCCAAGTTGACCAGTGC\nCGTTCCGGTG\n>rna\nauggccaaguugaccagugcc\n>peptide\nATGNNNATGC\n"
        ">complex\nMKTAYIAKQRQISFVKSHFSRQ:GATTACAGATTACAGATTACA\n>protein\nACGTACGTACGTACGTACGTK\n"
    )
    found = read_fasta(path)
    assert [record.header for record in found.records] == ["peptide", "protein"]
    reasons = {each.header: each.reason for each in found.rejected}
    assert reasons["gene dna"] == "the sequence reads as DNA: 30 letters, all of them of ACGTUN"
    assert reasons["rna"].startswith("the sequence reads as RNA: 21 letters")
    assert reasons["complex"].startswith("chain 2 reads as DNA")
    assert all("--even-so" in each.remedy for each in found.rejected)
    assert len(read_fasta(path, nucleotides=True).records) == 5


@pytest.mark.parametrize(
    ("header", "kind"),
    [
        ("ligand|name=ATP", "a ligand"),
        ("B|smiles", "a ligand"),
        ("C|ccd", "a ligand"),
        ("glycan|name=g", "a glycan"),
        ("dna|name=d", "DNA"),
        ("R|RNA|empty", "RNA"),
    ],
)
def test_molecules_that_headers_of_boltz_and_chai_name_are_called_by_them(tmp_path: Path, header: str, kind: str):
    path = tmp_path / "x.fasta"
    path.write_text(f">{header}\nCCNC\n>protein|name=a\nMKTAYIAK\n>A|protein|x.a3m\nMKTAYIAK\n>sp|P0|dna\nMKTAYIAK\n")
    found = read_fasta(path)
    assert len(found.records) == 3
    (rejected,) = found.rejected
    assert rejected.reason == f"its header calls it {kind} ({header!r}, as in files of Boltz and Chai)"
    assert len(read_fasta(path, nucleotides=True).records) == (4 if kind in ("DNA", "RNA") else 3)


def test_an_alignment_of_colabfold_is_called_by_its_name(tmp_path: Path):
    path = tmp_path / "x.a3m"
    for line in ("#31\t1", "#31,12\t1,2"):
        path.write_text(f"{line}\n>101\nMKTAYIAK\n>other\nMK-AYIAK\n")
        with pytest.raises(ProtquantError, match=r"x\.a3m, line 1: this is an alignment of ColabFold \(a3m\)"):
            read_fasta(path)


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("protquant.files.unpacking.UNSUSPICIOUS", 2**24)
    path = tmp_path / "x.fasta.gz"
    path.write_bytes(gzip.compress(b">a\n" + b"M" * 2**25))
    with pytest.raises(ProtquantError, match=r"x\.fasta\.gz: \d+ bytes unpack to more than 16 MiB"):
        read_fasta(path)


def test_a_file_of_very_many_records_that_are_no_proteins_is_another(tmp_path: Path):
    with pytest.raises(ProtquantError, match=r"more than 100,000 records cannot be folded; the first, in line 1: "):
        read(tmp_path, ">\n" * 2**20)
    assert len(read(tmp_path, ">\n" * 2000 + ">a\nMKV\n").rejected) == 2000


def test_any_line_ends_are_read(tmp_path: Path):
    for end in ("\n", "\r\n", "\r"):
        fasta = read(tmp_path, end.join([">a", "MK", "", ">b", "V!"]).encode())
        assert (fasta.records[0].sequence, fasta.rejected[0].line) == ("MK", 4)
        assert "line 5" in fasta.rejected[0].reason
