"""Make the shipped set of 50 chains (TS50) from the source distribution of MDAnalysisTests.

Run ``python -m protquant.structures.make_ts50 mdanalysistests-2.11.0.tar.gz`` in a source checkout. It rewrites
``structures/data/ts50``, with the same bytes each time if zlib is the same.
"""

import argparse
import csv
import gzip
import re
import tarfile
from io import StringIO
from pathlib import Path

from biotite.structure.io.pdb import PDBFile

from protquant.errors import ProtquantError
from protquant.structures.reader import read_structure

__all__ = ["make_ts50"]

SOURCE = "MDAnalysisTests 2.11.0"
MEMBER = re.compile(r".*/MDAnalysisTests/data/dssp/((\d\w{3})(\w))\.pdb\.gz")
"""Pattern of the path of a chain in the archive; the two files that are not TS50 chains do not match."""
COLUMNS = ("name", "pdb_id", "chain", "length", "sequence", "source")


def make_ts50(archive: Path, folder: Path) -> int:
    """Copy the chains of `archive` into `folder`, with an index.

    Only heavy atoms of the protein are kept, each once: some of the files contain hydrogens or repeated atoms.

    Parameters
    ----------
    archive : Path
        ``mdanalysistests-2.11.0.tar.gz`` from PyPI.
    folder : Path
        Folder for ``NAME.pdb.gz`` and ``index.csv``; created if it does not exist.

    Returns
    -------
    int
        Number of chains written.

    Raises
    ------
    ProtquantError
        If the archive contains no chains.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows: list[dict[str, str]] = []
    with tarfile.open(archive) as tar:
        for member in sorted(tar.getmembers(), key=lambda member: member.name):
            match = MEMBER.fullmatch(member.name)
            extracted = tar.extractfile(member) if match else None
            if match is None or extracted is None:
                continue
            name, pdb_id, chain = match.groups()
            source = f"PDB {pdb_id.upper()} chain {chain} ({SOURCE})"
            reference = read_structure(extracted.read(), f"{name}.pdb.gz", source)
            cleaned = PDBFile()
            cleaned.set_structure(reference.atoms)
            text = StringIO()
            cleaned.write(text)
            packed = gzip.compress(text.getvalue().encode("ascii"), compresslevel=9, mtime=0)
            (folder / f"{name}.pdb.gz").write_bytes(packed)
            values = (name, pdb_id, chain, str(len(reference)), reference.sequence, source)
            rows.append(dict(zip(COLUMNS, values, strict=True)))
    if not rows:
        raise ProtquantError(f"{archive}: no chains under MDAnalysisTests/data/dssp. Give the sdist of {SOURCE}.")
    with (folder / "index.csv").open("w", newline="", encoding="utf-8") as index:
        writer = csv.DictWriter(index, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return len(rows)


def main() -> None:
    """Run the command line; its arguments are the archive and, optionally, the folder to write."""
    parser = argparse.ArgumentParser(description="Make structures/data/ts50 from the sdist of MDAnalysisTests.")
    parser.add_argument("sdist", type=Path, help="mdanalysistests-2.11.0.tar.gz")
    parser.add_argument("--folder", type=Path, default=Path(__file__).parent / "data" / "ts50", help="folder to write")
    arguments = parser.parse_args()
    count = make_ts50(arguments.sdist, arguments.folder)
    print(f"{count} chains in {arguments.folder}")


if __name__ == "__main__":
    main()
