"""Writing a prediction as mmCIF with the ModelCIF categories that carry confidence [1]_.

Viewers color by confidence from `_ma_qa_metric_local`; B-factors alone do not tell Mol* that they are pLDDT.

References
----------
.. [1] B. Vallat et al. 2023, "ModelCIF: An Extension of PDBx/mmCIF Data Representation for Computed Structure
   Models", J. Mol. Biol. 435, 168021. Dictionary `mmcif_ma.dic`.
"""

import math
import os
from importlib import metadata
from pathlib import Path

import numpy as np
from biotite.structure import AtomArray, get_residue_starts
from biotite.structure.io.pdbx import CIFBlock, CIFCategory, CIFFile, set_structure

from protquant.proteins.atoms import chain_ids, check_atoms, residue_names
from protquant.proteins.names import safe_name
from protquant.proteins.outputs import atomic_write
from protquant.proteins.prediction import Prediction

__all__ = ["write_mmcif"]

_SEQUENCE_WIDTH = 80
_PLDDT_GLOBAL, _PLDDT_LOCAL, _PTM = 1, 2, 3  # rows of _ma_qa_metric


def write_mmcif(prediction: Prediction, path: str | os.PathLike[str]) -> Path:
    """Write a prediction as mmCIF / ModelCIF.

    Chains of one sequence are one entity. Coordinates have three decimals and B-factors two, as in the PDB file.
    Nothing in the file depends on the time, so the same prediction gives the same bytes.

    Parameters
    ----------
    prediction : Prediction
        The prediction.
    path : str or PathLike
        The file.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ProtquantError
        If the prediction has no atoms, coordinates are not finite, or the file cannot be written.
    """
    check_atoms(prediction.atoms, path)
    name = safe_name(prediction.name)
    block = CIFBlock()
    file = CIFFile({name: block})
    block["entry"] = CIFCategory({"id": name})
    block["struct"] = CIFCategory({"entry_id": name, "title": f"Prediction of {_plain(prediction.header, name)}"})
    block["audit_conform"] = CIFCategory(
        {
            "dict_name": "mmcif_ma.dic",
            "dict_version": "1.4.7",
            "dict_location": "https://raw.githubusercontent.com/ihmwg/ModelCIF/master/dist/mmcif_ma.dic",
        }
    )
    _add_entities(block, prediction)
    _add_provenance(block, prediction, name)
    _add_confidence(block, prediction)
    set_structure(file, _annotated(prediction), data_block=name)
    # biotite pads every column to its longest text, which takes lines beyond the 2,048 characters that CIF allows.
    lines = (line.rstrip() for line in file.serialize().splitlines())
    return atomic_write(path, "".join(f"{line}\n" for line in lines if line))


def _entities(prediction: Prediction) -> dict[str, list[str]]:
    """The distinct sequences, in order of appearance, with the names of their chains."""
    entities: dict[str, list[str]] = {}
    for chain_id, sequence in zip(chain_ids(len(prediction.chains)), prediction.chains, strict=True):
        entities.setdefault(sequence, []).append(chain_id)
    return entities


def _annotated(prediction: Prediction) -> AtomArray:
    """A copy of the atoms with the precision of a PDB file, their entities and their model."""
    atoms = prediction.atoms.copy()
    entity_of = {
        chain_id: str(number)
        for number, chains in enumerate(_entities(prediction).values(), start=1)
        for chain_id in chains
    }
    atoms.set_annotation("label_entity_id", np.array([entity_of[chain_id] for chain_id in atoms.chain_id]))
    # Rounded in double precision, as the PDB writer does; in single precision, halves fall to the other side.
    atoms.coord = np.round(atoms.coord.astype(np.float64), 3)
    atoms.set_annotation("b_factor", np.round(atoms.b_factor.astype(np.float64), 2))
    return atoms


def _add_entities(block: CIFBlock, prediction: Prediction) -> None:
    """What the chains are made of; residues without atoms (X) are only told here."""
    entities = _entities(prediction)
    numbers = [str(number) for number in range(1, len(entities) + 1)]
    block["entity"] = CIFCategory(
        {
            "id": numbers,
            "type": ["polymer"] * len(numbers),
            "src_method": ["man"] * len(numbers),
            "pdbx_description": [f"Chain {', '.join(chains)}" for chains in entities.values()],
            "pdbx_number_of_molecules": [len(chains) for chains in entities.values()],
        }
    )
    block["entity_poly"] = CIFCategory(
        {
            "entity_id": numbers,
            "type": ["polypeptide(L)"] * len(numbers),
            "nstd_linkage": ["no"] * len(numbers),
            "nstd_monomer": ["no"] * len(numbers),
            "pdbx_strand_id": [",".join(chains) for chains in entities.values()],
            "pdbx_seq_one_letter_code": [_wrapped(["(UNK)" if x == "X" else x for x in chain]) for chain in entities],
            "pdbx_seq_one_letter_code_can": [_wrapped(list(chain)) for chain in entities],
        }
    )
    monomers = [
        (number, index, monomer)
        for number, sequence in zip(numbers, entities, strict=True)
        for index, monomer in enumerate(residue_names(sequence), start=1)
    ]
    block["entity_poly_seq"] = CIFCategory(
        {
            "entity_id": [number for number, _, _ in monomers],
            "num": [index for _, index, _ in monomers],
            "mon_id": [monomer for _, _, monomer in monomers],
            "hetero": ["n"] * len(monomers),
        }
    )
    compounds = sorted({monomer for _, _, monomer in monomers})
    block["chem_comp"] = CIFCategory(
        {
            "id": compounds,
            "type": ["peptide linking" if compound == "GLY" else "L-peptide linking" for compound in compounds],
        }
    )
    members = [(chain, number) for number, chains in zip(numbers, entities.values(), strict=True) for chain in chains]
    block["struct_asym"] = CIFCategory(
        {"id": [chain for chain, _ in members], "entity_id": [number for _, number in members]}
    )


def _add_provenance(block: CIFBlock, prediction: Prediction, name: str) -> None:
    """Which program made the model, and from what."""
    entities = _entities(prediction)
    count = len(entities)
    block["software"] = CIFCategory(
        {
            "pdbx_ordinal": 1,
            "name": "protquant",
            "version": metadata.version("protquant"),
            "type": "program",
            "classification": "model building",
            "description": "ESMFold structure prediction with post-training quantization",
        }
    )
    block["ma_software_group"] = CIFCategory({"ordinal_id": 1, "group_id": 1, "software_id": 1})
    block["ma_data"] = CIFCategory(
        {
            "id": list(range(1, count + 2)),
            "name": [*(f"Target sequence {number}" for number in range(1, count + 1)), "Predicted structure"],
            "content_type": [*["target"] * count, "model coordinates"],
        }
    )
    block["ma_target_entity"] = CIFCategory(
        {
            "entity_id": list(range(1, count + 1)),
            "data_id": list(range(1, count + 1)),
            "origin": ["."] * count,
        }
    )
    block["ma_model_list"] = CIFCategory(
        {
            "ordinal_id": 1,
            "model_id": 1,
            "model_group_id": 1,
            "model_name": name,
            "model_group_name": "All models",
            "data_id": count + 1,
            "model_type": "Ab initio model",
        }
    )


def _add_confidence(block: CIFBlock, prediction: Prediction) -> None:
    """The pLDDT of the model and of each residue that has atoms, and the pTM where there is one."""
    metrics = [(_PLDDT_GLOBAL, "pLDDT", "global", "pLDDT"), (_PLDDT_LOCAL, "pLDDT", "local", "pLDDT")]
    values = [(_PLDDT_GLOBAL, f"{prediction.mean_plddt:.2f}")]
    if math.isfinite(prediction.ptm):
        metrics.append((_PTM, "pTM", "global", "pTM"))
        values.append((_PTM, f"{prediction.ptm:.3f}"))
    block["ma_qa_metric"] = CIFCategory(
        {
            "id": [metric for metric, *_ in metrics],
            "name": [name for _, name, _, _ in metrics],
            "mode": [mode for _, _, mode, _ in metrics],
            "type": [kind for *_, kind in metrics],
            "software_group_id": [1] * len(metrics),
        }
    )
    block["ma_qa_metric_global"] = CIFCategory(
        {
            "ordinal_id": list(range(1, len(values) + 1)),
            "model_id": [1] * len(values),
            "metric_id": [metric for metric, _ in values],
            "metric_value": [value for _, value in values],
        }
    )
    residues = prediction.atoms[get_residue_starts(prediction.atoms)]
    starts = np.cumsum([0, *map(len, prediction.chains[:-1])])
    start_of = dict(zip(chain_ids(len(starts)), starts, strict=True))
    confidence = prediction.plddt[[start_of[residue.chain_id] + residue.res_id - 1 for residue in residues]]
    count = len(confidence)
    block["ma_qa_metric_local"] = CIFCategory(
        {
            "ordinal_id": list(range(1, count + 1)),
            "model_id": [1] * count,
            "label_asym_id": residues.chain_id.tolist(),
            "label_seq_id": residues.res_id.tolist(),
            "label_comp_id": residues.res_name.tolist(),
            "metric_id": [_PLDDT_LOCAL] * count,
            "metric_value": [f"{value:.2f}" for value in confidence],
        }
    )


def _wrapped(codes: list[str]) -> str:
    """A sequence over several lines, each of them ended: so even a short one is a text that is not padded."""
    text = "".join(codes)
    return "".join(text[start : start + _SEQUENCE_WIDTH] + "\n" for start in range(0, len(text), _SEQUENCE_WIDTH))


def _plain(header: str, name: str) -> str:
    """A header as CIF can hold it: ASCII in one line, with one kind of quote."""
    text = " ".join(header.encode("ascii", "replace").decode("ascii").replace('"', "'").split())
    printable = "".join(character for character in text if character.isprintable())
    return printable[:1000] or name
