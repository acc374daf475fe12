"""Compare the residues that we read with gemmi's own count, on all structures of some archives.

    pip download --no-deps --no-binary :all: biopython gemmi
    python tests/structures/compare_readers.py biopython-*.tar.gz gemmi-*.tar.gz

Prints a line for each file on which the counts differ, and for each that is refused.
"""

import argparse
import gzip
import re
import sys
import tarfile
from collections.abc import Iterator

import gemmi

from protquant.errors import ProtquantError
from protquant.structures.reader import read_structure

_STRUCTURE = re.compile(r"\.(?:pdb\d*|ent|cif|mmcif|bcif)(?:\.gz)?$", re.IGNORECASE)


def files(archive: str) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of the structures of a tar archive."""
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            if member.isfile() and _STRUCTURE.search(member.name):
                file = tar.extractfile(member)
                assert file is not None
                yield member.name, file.read()


def gemmi_count(content: bytes) -> int:
    """Residues of the polypeptides of the first model that have a C-alpha."""
    text = gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    if text.lstrip()[:5].lower() == b"data_" or b"\n_atom_site." in text or b"\ndata_" in text:
        structure = gemmi.make_structure_from_block(gemmi.cif.read_string(text)[0])
    else:
        structure = gemmi.read_pdb_string(text)
    structure.setup_entities()
    if not len(structure):
        return 0
    alphas = {
        (chain.name, str(residue.seqid))
        for chain in structure[0]
        for residue in chain.get_polymer()
        if residue.find_atom("CA", "*", gemmi.Element("C")) is not None
    }
    return len(alphas)


def main() -> None:
    """Compare all files of the archives named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("archives", nargs="+")
    equal = compared = 0
    for archive in parser.parse_args().archives:
        for name, content in files(archive):
            try:
                theirs = str(gemmi_count(content))
            except Exception as error:  # noqa: BLE001 (whatever gemmi says of a file that is no structure)
                theirs = f"refused ({error})"[:90]
            try:
                read = read_structure(content, name.rpartition("/")[2], name)
                ours = str(sum(bool(line) for line in (~(read.ca != read.ca).any(axis=1)).tolist()))
                said = "; ".join(read.notes)
            except ProtquantError as error:
                ours, said = "0", str(error).removeprefix(f"{name}: ")
            if ours == theirs == "0":
                continue  # no structure, or none of a protein
            compared += 1
            equal += ours == theirs
            if ours != theirs:
                sys.stdout.write(f"{name}: ours {ours}, gemmi's {theirs}{f' [{said}]' if said else ''}\n")
    sys.stdout.write(f"{equal} of {compared} files with a protein give the same number\n")


if __name__ == "__main__":
    main()
