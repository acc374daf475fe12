"""The script that made the shipped chains."""

import tarfile
from io import BytesIO
from pathlib import Path

import pytest

from protquant.errors import ProtquantError
from protquant.structures.collection import shipped_folder
from protquant.structures.make_ts50 import make_ts50


def archive(path: Path, names: list[str], content: bytes) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for name in names:
            member = tarfile.TarInfo(f"mdanalysistests-2.11.0/MDAnalysisTests/data/dssp/{name}")
            member.size = len(content)
            tar.addfile(member, BytesIO(content))
    return path


def test_only_chains_are_taken_and_made_the_same_each_time(tmp_path: Path) -> None:
    content = (shipped_folder() / "1ahsA.pdb.gz").read_bytes()
    names = ["1ahsA.pdb.gz", "1mr1D_failing.pdb.gz", "wrong_hydrogens.pdb.gz", "1ahsA.pdb.dssp"]
    sdist = archive(tmp_path / "sdist.tar.gz", names, content)
    for folder in ("first", "second"):
        assert make_ts50(sdist, tmp_path / folder) == 1
    files = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert files == ["1ahsA.pdb.gz", "index.csv"]
    for name in files:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()
    index = (tmp_path / "first" / "index.csv").read_text().splitlines()
    assert index[1] == (shipped_folder() / "index.csv").read_text(encoding="utf-8").splitlines()[1]


def test_other_archives_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ProtquantError, match="no chains"):
        make_ts50(archive(tmp_path / "other.tar.gz", ["README.md"], b""), tmp_path / "out")
