"""Files as people have them: every residue is read, or a message says what the file is."""

import gzip
import lzma
import time
from collections.abc import Callable
from pathlib import Path

import gemmi
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protquant.errors import ProtquantError
from protquant.files import unpacking
from protquant.structures import load_structure, read_pdb

REQUIRED = ("Cartn_x", "Cartn_y", "Cartn_z")


def saved(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def changed(lines: list[str], change: Callable[[str], str]) -> str:
    return "\n".join([*map(change, lines), "END", ""])


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line[:54],
        lambda line: line[:54].rstrip(),
        lambda line: f"{line[:54]}      {line[60:]}",
        lambda line: f"{line[:60]}******{line[66:]}",
        lambda line: f"{line[:6]}*****{line[11:]}",
        lambda line: line[:76],
        lambda line: f"{line}  trailing",
        lambda line: f"{line[:66]}      1AHS{line[7:11]}",
    ],
    ids=[
        "54 columns",
        "no blank behind",
        "no occupancy",
        "stars in B",
        "stars for serials",
        "no element",
        "long lines",
        "names and numbers of lines, as before 1996",
    ],
)
def test_pdb_columns_that_say_nothing_of_the_place_are_not_needed(
    pdb_lines: list[str], tmp_path: Path, change: Callable[[str], str]
):
    whole = load_structure(saved(tmp_path / "whole.pdb", changed(pdb_lines, str)))
    read = load_structure(saved(tmp_path / "x.pdb", changed(pdb_lines, change)))
    assert len(read) == 40
    assert read.sequence == whole.sequence
    assert np.array_equal(read.ca, whole.ca)
    assert read.notes == ()


def test_dummy_atoms_are_left_out_and_counted(pdb_lines: list[str], tmp_path: Path):
    dummy = "HETATM 9999  N   DUM  9999       0.000  10.000  15.000" + " " * 26
    nowhere = pdb_lines[0][:12] + " CB " + pdb_lines[0][16:30] + "9999.0009999.0009999.000" + pdb_lines[0][54:]
    read = load_structure(saved(tmp_path / "x.pdb", changed([*pdb_lines[:1], nowhere, *pdb_lines[1:], dummy], str)))
    assert len(read) == 40
    assert np.abs(read.atoms.coord).max() < 1000
    assert read.notes == ("1 atoms without a position (coordinates missing or beyond 9998) are left out",)


@pytest.mark.parametrize("place", ["  ******", "  xx.xxx", "        "])
def test_an_atom_without_coordinates_is_refused_with_its_line(pdb_lines: list[str], tmp_path: Path, place: str):
    lines = [*pdb_lines[:4], pdb_lines[4][:30] + place + pdb_lines[4][38:], *pdb_lines[5:]]
    with pytest.raises(ProtquantError, match=r"x\.pdb, line 5: no coordinates"):
        load_structure(saved(tmp_path / "x.pdb", changed(lines, str)))


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_mmcif_is_read_whichever_columns_it_lacks(
    cif_text: str, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
):
    document = gemmi.cif.read_string(cif_text)
    loop = document[0].find_loop("_atom_site.id").get_loop()
    names = [tag.removeprefix("_atom_site.") for tag in loop.tags]
    dropped = data.draw(st.sets(st.sampled_from([name for name in names if name not in REQUIRED])))
    for kind in ("atom", "comp"):
        if {f"label_{kind}_id", f"auth_{kind}_id"} & set(names) <= dropped:
            dropped.discard(f"label_{kind}_id")
    for name in dropped:
        loop.remove_column(f"_atom_site.{name}")
    read = load_structure(saved(tmp_path_factory.mktemp("cif") / "x.cif", document.as_string()))
    assert len(read) == 40
    assert read.notes == ()


@pytest.mark.parametrize("missing", [*REQUIRED, "names"])
def test_mmcif_without_places_or_names_is_refused(cif_text: str, tmp_path: Path, missing: str):
    document = gemmi.cif.read_string(cif_text)
    loop = document[0].find_loop("_atom_site.id").get_loop()
    for tag in list(loop.tags):
        if tag.endswith(missing) or (missing == "names" and tag.endswith(("_atom_id", "_comp_id"))):
            loop.remove_column(tag)
    with pytest.raises(ProtquantError, match=r"x\.cif: _atom_site has no"):
        load_structure(saved(tmp_path / "x.cif", document.as_string()))


def test_a_coordinate_that_is_no_number_is_refused_with_its_row(cif_text: str, tmp_path: Path):
    document = gemmi.cif.read_string(cif_text)
    document[0].find_loop("_atom_site.Cartn_y")[2] = "far"
    with pytest.raises(ProtquantError, match=r"x\.cif: row 3 of _atom_site: Cartn_y is 'far'"):
        load_structure(saved(tmp_path / "x.cif", document.as_string()))


@pytest.mark.parametrize("unknown", ["?", "."])
def test_numbers_of_the_archive_serve_where_the_authors_give_none(cif_text: str, tmp_path: Path, unknown: str):
    document = gemmi.cif.read_string(cif_text)
    column = document[0].find_loop("_atom_site.auth_seq_id")
    for row in range(len(column)):
        column[row] = unknown
    assert len(load_structure(saved(tmp_path / "x.cif", document.as_string()))) == 40
    document[0].find_loop("_atom_site.label_seq_id").get_loop().remove_column("_atom_site.label_seq_id")
    assert len(load_structure(saved(tmp_path / "x.cif", document.as_string()))) == 40


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "\ufeff" + text,
        lambda text: text.replace("_atom_site.", "_ATOM_SITE.").replace("data_", "DATA_"),
        lambda text: f"# written by hand\ndata_first\n_cell.length_a 1\n{text}",
        lambda text: f"{text}\ndata_comp_LIG\n_chem_comp.id LIG\n",
        lambda text: text.replace("\n", "\r\n"),
    ],
    ids=["byte-order mark", "upper case", "a block before", "a block behind", "lines of Windows"],
)
def test_mmcif_is_read_as_other_programs_write_it(cif_text: str, tmp_path: Path, change: Callable[[str], str]):
    assert len(load_structure(saved(tmp_path / "x.cif", change(cif_text)))) == 40


def test_standard_uncertainties_of_coordinates_are_passed_over(cif_text: str, tmp_path: Path):
    document = gemmi.cif.read_string(cif_text)
    expected = load_structure(saved(tmp_path / "y.cif", cif_text)).ca
    for name in REQUIRED:
        column = document[0].find_loop(f"_atom_site.{name}")
        for row in range(len(column)):
            column[row] = f"{column[row]}(12)"
    assert np.allclose(load_structure(saved(tmp_path / "x.cif", document.as_string())).ca, expected)


def test_the_content_tells_what_a_file_is_whatever_its_name(pdb_lines: list[str], cif_text: str, tmp_path: Path):
    pdb = changed(pdb_lines, str).encode()
    for name, data in {
        "gzipped.pdb": gzip.compress(pdb),
        "plain.pdb.gz": pdb,
        "mmcif.pdb": cif_text.encode(),
        "pdb.cif": pdb,
        "assembly.pdb1": pdb,
        "assembly.pdb1.gz": gzip.compress(pdb),
        "pdb1abc.ent": pdb,
        "no_suffix": pdb,
        "utf16.pdb": pdb.decode().encode("utf-16"),
    }.items():
        read = load_structure(saved(tmp_path / name, data))
        assert len(read) == 40, name
        assert read.name == name.partition(".")[0]


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (gzip.compress(b"", mtime=0), "is empty"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "is a web page"),
        (b"\n <html>\n", "is a web page"),
        (b"<?xml version='1.0'?><PDBx:datablock/>", "is XML"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n", "run `git lfs pull`"),
        (b'{"confidenceScore": [1]}', "is JSON"),
        (b">1abc\nMKTAYIAK\n", "is a FASTA file"),
        (lzma.compress(b"ATOM"), "is packed by xz"),
        (b"PK\x03\x04rest", "is a zip archive"),
        (b"x.pdb".ljust(257, b"\0") + b"ustar\0" + b"\nATOM  ".rjust(600), "is a tar archive"),
        (
            b"MODEL        1\nENDMDL\nMODEL        2\nATOM      1  CA  ALA A   1       1.0     1.0     1.0\n",
            "has no atoms",
        ),
        (gzip.compress(b"ATOM  " * 1000, mtime=0)[:30], "the gzip file is damaged or cut short"),
        (b"HEADER    HYDROLASE\nREMARK   2\nEND\n", "has no atoms"),
        (b"data_x\n_cell.length_a 10\n", "has no atoms: no data block of 1 (x) has the table _atom_site"),
        (b"data_x\nloop_\n_atom_site.id\n_atom_site.Cartn_x\n1 2 3\n", "cannot be read as mmCIF"),
        (b"\x83\xaadataBlocks\x01", "cannot be read as BinaryCIF"),
        (b"\x00\x01\x02\x03" * 9, "is not a structure"),
    ],
)
def test_what_is_no_structure_is_called_by_its_name(tmp_path: Path, data: bytes, says: str):
    with pytest.raises(ProtquantError) as refusal:
        load_structure(saved(tmp_path / "x.pdb", data))
    assert str(refusal.value).startswith(f"{tmp_path / 'x.pdb'}: ")
    assert says in str(refusal.value)


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("protquant.files.unpacking.UNSUSPICIOUS", 2**24)
    with pytest.raises(ProtquantError, match=r"\d+ bytes unpack to more than 16 MiB"):
        load_structure(saved(tmp_path / "x.pdb.gz", gzip.compress(b" " * 2**25)))


def test_records_in_lower_case_and_serials_of_six_digits_are_atoms(pdb_lines: list[str], tmp_path: Path):
    for change in (
        lambda line: line[:6].lower() + line[6:],
        lambda line: f"ATOM {100000 + int(line[6:11])}{line[11:]}",
    ):
        assert len(load_structure(saved(tmp_path / "x.pdb", changed(pdb_lines, change)))) == 40


def test_what_lies_behind_an_end_is_read_too(pdb_lines: list[str], tmp_path: Path):
    other = [f"{line[:21]}B{line[22:]}" for line in pdb_lines]
    structure = load_structure(saved(tmp_path / "x.pdb", "\n".join([*pdb_lines, "END", *other, "END", ""])))
    assert structure.chain_ids == ("A", "B")
    assert len(structure) == 80


@pytest.mark.parametrize("chain", ["A", " "])
def test_four_letters_of_a_residue_are_no_name_of_a_chain(pdb_lines: list[str], tmp_path: Path, chain: str):
    number = pdb_lines[0][22:26]
    lines = [line[:21] + chain + line[22:] for line in pdb_lines]
    for name, letter in (("LYSH", "K"), ("HISE", "H"), ("NALA", "A"), ("CYS2", "C"), ("GLUH", "E")):
        named = [line[:17] + name + line[21:] if line[22:26] == number else line for line in lines]
        structure = load_structure(saved(tmp_path / "x.pdb", changed(named, str)))
        assert structure.chain_ids == (chain.strip(),)
        assert structure.sequence[0] == letter
        assert len(structure) == 40


def test_names_of_chains_may_have_two_letters(pdb_lines: list[str], tmp_path: Path):
    lines = [f"{line[:20]}AB{line[22:]}" for line in pdb_lines]
    assert load_structure(saved(tmp_path / "x.pdb", changed(lines, str))).chain_ids == ("AB",)


def test_segments_name_chains_that_have_no_names(pdb_lines: list[str], tmp_path: Path):
    first = [f"{line[:21]} {line[22:72]}PROA{line[76:]}" for line in pdb_lines]
    second = [
        f"{line[:21]} {int(line[22:26]) + 60:4d}{line[26:30]}{float(line[30:38]) + 50:8.3f}{line[38:72]}PROB{line[76:]}"
        for line in pdb_lines
    ]
    structure = load_structure(saved(tmp_path / "x.pdb", changed([*first, *second], str)))
    assert structure.chain_ids == ("PROA", "PROB")
    assert len(structure) == 80


def test_that_only_the_first_model_or_block_is_read_is_told(pdb_lines: list[str], cif_text: str, tmp_path: Path):
    models = ["MODEL        1", *pdb_lines, "ENDMDL", "MODEL        2", *pdb_lines, "ENDMDL", "END"]
    structure = load_structure(saved(tmp_path / "x.pdb1", "\n".join(models)))
    assert structure.notes == ("the first of 2 models is read",)
    two = cif_text + cif_text.replace("data_", "data_other", 1)
    (note,) = load_structure(saved(tmp_path / "x.cif", two)).notes
    assert note.startswith("the first of 2 data blocks with atoms is read: ")


def test_modified_residues_are_put_where_their_numbers_say(pdb_lines: list[str], tmp_path: Path):
    number = list(dict.fromkeys(line[22:26] for line in pdb_lines))[5]
    whole = load_structure(saved(tmp_path / "y.pdb", changed(pdb_lines, str)))
    rest = [line for line in pdb_lines if line[22:26] != number]
    modified = [f"HETATM{line[6:17]}MSE{line[20:]}" for line in pdb_lines if line[22:26] == number]
    for lines in ([*rest, *modified], [*rest, "TER", *modified]):
        structure = load_structure(saved(tmp_path / "x.pdb", changed(lines, str)))
        assert structure.sequence == whole.sequence[:5] + "M" + whole.sequence[6:]
        assert np.array_equal(structure.ca, whole.ca)
    beside_gaps = [line for line in rest if abs(int(line[22:26]) - int(number)) > 2]
    assert len(load_structure(saved(tmp_path / "x.pdb", changed([*beside_gaps, *modified], str)))) == 36


def test_an_amino_acid_beside_the_chain_is_left_out_and_told(pdb_lines: list[str], tmp_path: Path):
    number = pdb_lines[0][22:26]
    ligand = [
        f"HETATM{line[6:17]}GLU A 301    {float(line[30:38]) + 30:8.3f}{line[38:]}"
        for line in pdb_lines
        if line[22:26] == number
    ]
    structure = load_structure(saved(tmp_path / "x.pdb", changed([*pdb_lines, "TER", *ligand], str)))
    assert len(structure) == 40
    assert structure.notes == (
        "1 amino acids that are marked as HETATM and not part of a chain are left out: GLU A 301",
    )


def test_names_of_chains_with_two_letters_beside_those_with_one(pdb_lines: list[str], tmp_path: Path):
    other = [f"{line[:20]}AA{line[22:30]}{float(line[30:38]) + 40:8.3f}{line[38:]}" for line in pdb_lines]
    structure = load_structure(saved(tmp_path / "x.pdb", changed([*pdb_lines, "TER", *other], str)))
    assert structure.chain_ids == ("A", "AA")
    assert structure.chain_sequences[0] == structure.chain_sequences[1]


def test_frames_between_ends_are_models(pdb_lines: list[str], tmp_path: Path):
    structure = load_structure(saved(tmp_path / "x.pdb", "\n".join([*pdb_lines, "END", *pdb_lines, "END", ""])))
    assert len(structure) == 40
    assert structure.notes == ("the first of 2 models is read",)


def test_lines_are_looked_over_as_a_whole_once(pdb_lines: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    looked: list[str] = []
    for name in ("_has_segments", "_lines_with_four_letters"):
        whole = getattr(read_pdb, name)
        monkeypatch.setattr(read_pdb, name, lambda lines, name=name, whole=whole: looked.append(name) or whole(lines))
    load_structure(saved(tmp_path / "x.pdb", changed(pdb_lines, str)))
    assert looked == ["_has_segments", "_lines_with_four_letters"]  # and not once for each line


def test_a_modified_residue_that_a_chain_begins_with_is_put_there(pdb_lines: list[str], tmp_path: Path):
    number = pdb_lines[0][22:26]
    rest = [line for line in pdb_lines if line[22:26] != number]
    modified = [f"HETATM{line[6:17]}MSE{line[20:]}" for line in pdb_lines if line[22:26] == number]
    structure = load_structure(saved(tmp_path / "x.pdb", changed([*rest, "TER", *modified], str)))
    assert structure.sequence[0] == "M"
    assert len(structure) == 40


def test_a_name_as_long_as_a_book_is_refused(cif_text: str, tmp_path: Path):
    text = cif_text.replace(" CA ", f" {'C' * 2**20} ", 1)
    with pytest.raises(ProtquantError, match=r"x\.cif: row 2 of _atom_site: \w+ has 1048576 characters"):
        load_structure(saved(tmp_path / "x.cif", text))


def test_a_device_without_an_end_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pdb_lines: list[str]):
    monkeypatch.setattr(unpacking, "MAX_UNPACKED", 1000)
    with pytest.raises(ProtquantError, match=r"x\.pdb: a file of more than .* GiB is not read"):
        load_structure(saved(tmp_path / "x.pdb", "\n".join(pdb_lines)))


def test_thousands_of_molecules_of_one_name_are_told_apart_quickly(pdb_lines: list[str], tmp_path: Path):
    began = time.process_time()
    chain = "\n".join([*pdb_lines[:5], "TER", ""])
    read = load_structure(saved(tmp_path / "x.pdb", chain * 4000))
    assert len(read.chain_ids) == 4000
    assert time.process_time() - began < 10  # one second; a minute where each chain looks at all atoms
