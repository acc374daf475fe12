"""Write data/tmscore_answers.csv: what the TMscore program says about 200 perturbed chains.

Needs the program (Debian package tm-align) on the path. Run ``python tests/scores/make_tmscore_answers.py``.
"""

import csv
import re
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from perturbations import KINDS, perturb

from protquant.structures import Reference, load_references

ANSWERS = Path(__file__).parent / "data" / "tmscore_answers.csv"
COLUMNS = ("name", "kind", "magnitude", "dropped", "seed", "displacement", "tm_score", "gdt_ts", "rmsd")
PATTERNS = {
    "tm_score": r"^TM-score\s*=\s*([\d.]+)",
    "gdt_ts": r"^GDT-TS-score\s*=\s*([\d.]+)",
    "rmsd": r"^RMSD of\s+the common residues\s*=\s*([\d.]+)",
}


def write_trace(path: Path, reference: Reference, ca: NDArray[np.float64]) -> None:
    """Write C-alpha atoms as a PDB file, residues numbered from 1, missing ones left out."""
    names = reference.atoms.res_name[reference.atoms.atom_name == "CA"]
    lines = [
        f"ATOM  {i:5d}  CA  {names[i - 1]:3s} A{i:4d}    {x:8.3f}{y:8.3f}{z:8.3f}  1.00  0.00           C"
        for i, (x, y, z) in enumerate(ca, start=1)
        if np.isfinite(x)
    ]
    path.write_text("\n".join([*lines, "TER", "END", ""]))


def run_tmscore(prediction: Path, reference: Path) -> dict[str, str]:
    """Scores of the program as it prints them."""
    done = subprocess.run(["TMscore", prediction, reference], capture_output=True, text=True, check=True)
    found = {name: re.search(pattern, done.stdout, re.MULTILINE) for name, pattern in PATTERNS.items()}
    return {name: match.group(1) for name, match in found.items() if match}


def main() -> None:
    """Perturb each of the 50 chains in each of four ways, magnitudes spread from 0.1 to 20 angstrom."""
    references = load_references()
    magnitudes = np.geomspace(0.1, 20.0, len(references))
    with TemporaryDirectory() as folder, ANSWERS.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        for k, kind in enumerate(KINDS):
            for i, reference in enumerate(references):
                seed = 1000 * k + i
                # 13 and 50 have no common factor, so that each kind meets each magnitude once, in another order.
                magnitude = round(float(magnitudes[(13 * i + 12 * k) % len(references)]), 3)
                dropped = 0.2 if i % 5 == k else 0.0
                ca = perturb(reference.ca, kind, magnitude, dropped, seed)
                write_trace(Path(folder) / "prediction.pdb", reference, ca)
                write_trace(Path(folder) / "reference.pdb", reference, reference.ca)
                row = {"name": reference.name, "kind": kind, "magnitude": magnitude, "dropped": dropped, "seed": seed}
                row["displacement"] = f"{np.sqrt(np.nanmean((ca - reference.ca) ** 2)):.4f}"
                row |= run_tmscore(Path(folder) / "prediction.pdb", Path(folder) / "reference.pdb")
                writer.writerow(row)


if __name__ == "__main__":
    main()
