"""Write a prediction as mmCIF with the categories of ModelCIF [1]_ for provenance and confidence.

Viewers color residues by the pLDDT in `_ma_qa_metric_local`; Mol* does not take B-factors for pLDDT. ChimeraX and Mol*
show the predicted aligned error from `_ma_qa_metric_local_pairwise`, under the name PAE, for residues with atoms.

References
----------
.. [1] B. Vallat et al. 2023, "ModelCIF: An Extension of PDBx/mmCIF Data Representation for Computed Structure
   Models", J. Mol. Biol. 435, 168021. Dictionary `mmcif_ma.dic`.
"""

import io
import math
import os
from collections.abc import Iterator
from pathlib import Path

import gemmi
import modelcif
import modelcif.associated
import modelcif.dumper
import modelcif.model
import modelcif.protocol
import modelcif.qa_metric
import numpy as np
from biotite.structure import AtomArray, get_residue_starts

from protquant.files.outputs import atomic_write
from protquant.proteins.atoms import chain_ids, check_atoms, residue_names, residue_positions
from protquant.proteins.b_factors import expected_error
from protquant.proteins.names import safe_name
from protquant.proteins.pae import checked_pae
from protquant.proteins.pairwise_scores import write_pairwise_scores
from protquant.proteins.prediction import Prediction
from protquant.proteins.provenance import PROGRAM

__all__ = ["PAE_RESIDUES", "write_mmcif"]

PAE_RESIDUES = 400
"""Number of residues up to which the mmCIF file has the PAE, then 5.7 MB; with 1,000 residues it would have 36 MB."""

_LONGEST_TEXT = 1000


def write_mmcif(
    prediction: Prediction, path: str | os.PathLike[str], *, pae_residues: int = PAE_RESIDUES, pae_file: str = ""
) -> Path:
    """Write a prediction as mmCIF / ModelCIF.

    Chains with equal sequences share one entity. Coordinates have three decimals and B-factors two, as in the PDB file.
    The file does not depend on the time, so the same prediction gives the same bytes. modelcif writes
    `_ma_target_entity.origin` as `designed` for every sequence without a reference to a database.

    ===============================  ==============================================================================
    `_struct`                        header of the record; `pdbx_model_details`: the warnings
    `_software`                      protquant and its version
    `_ma_software_parameter`         model, fingerprint, recipe, execution, kernels, number type, recycles, B-factors
    `_ma_data`                       sequences, weights with their fingerprint, structure
    `_ma_protocol_step`              from sequences and weights to the structure; `details`: all of the above as text
    `_ma_qa_metric`                  pLDDT of the structure and of each residue with atoms; if known, pTM, ipTM of the
                                     complex and of each pair of chains, and expected errors
    `_ma_qa_metric_local_pairwise`   PAE of all ordered pairs of residues with atoms: error of residue 2 if residue 1 is
                                     superimposed; two decimals
    `_ma_entry_associated_files`     the file with the PAE, if the mmCIF file has none
    ===============================  ==============================================================================

    Parameters
    ----------
    prediction : Prediction
        The prediction.
    path : str or PathLike
        The file.
    pae_residues : int
        Largest number of residues for which the PAE is written to the file; 0 writes it to no file.
    pae_file : str
        Name of the file of `write_pae` in the same folder, to be named if the PAE is not in the mmCIF file.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ProtquantError
        If the prediction has no atoms, coordinates or errors are not finite, or the file cannot be written.
    """
    check_atoms(prediction.atoms, path)
    name = safe_name(prediction.name)
    title = f"Prediction of {_plain(prediction.header) or name}"
    details = _text("; ".join(f"WARNING: {warning}" for warning in prediction.warnings))
    system = modelcif.System(title=_text(title), id=name, model_details=details)
    chains = _chains(prediction)
    system.asym_units += chains.values()
    model = _Model(modelcif.Assembly(chains.values()), name, prediction.atoms, chains)
    model.not_modeled_residue_ranges += [
        modelcif.model.NotModeledResidueRange(chain, number, number)
        for chain in chains.values()
        for number, residue in enumerate(chain.entity.sequence, start=1)
        if residue.code_canonical == "X"
    ]
    software = _software(prediction)
    model.qa_metrics += _confidence(prediction, chains, software)
    system.model_groups.append(modelcif.model.ModelGroup([model], name="All models"))
    system.protocols.append(_protocol(prediction, model, software))
    inside = prediction.pae is not None and prediction.length <= pae_residues
    errors = checked_pae(prediction, path) if inside else None
    metric = _PairwisePAE(software)
    if errors is not None:
        model.qa_metrics.append(metric)
    elif prediction.pae is not None and pae_file:
        beside = modelcif.associated.File(pae_file, details="Predicted aligned error, as the AlphaFold database has it")
        system.repositories.append(modelcif.associated.Repository(None, [beside]))
    written = io.StringIO()
    modelcif.dumper.write(written, [system])
    text = io.StringIO()
    text.write(_with_author_names(written.getvalue()))
    if errors is not None:
        residues = prediction.atoms[get_residue_starts(prediction.atoms)]
        places = residue_positions(prediction.chains, residues)
        names = list(zip(residues.chain_id.tolist(), residues.res_id.tolist(), residues.res_name.tolist(), strict=True))
        # The text ends in an open data block. modelcif keeps the numbers of models and metrics in private attributes.
        ids = model._id, metric._id  # noqa: SLF001
        write_pairwise_scores(text, errors[np.ix_(places, places)], names, *ids)
    return atomic_write(path, text.getvalue())


class _Model(modelcif.model.AbInitioModel):
    """The structure; atoms are generated one by one from the array."""

    def __init__(
        self, assembly: modelcif.Assembly, name: str, atoms: AtomArray, chains: dict[str, modelcif.AsymUnit]
    ) -> None:
        super().__init__(assembly, name)
        self._array, self._chains = atoms, chains

    def get_atoms(self) -> Iterator[modelcif.model.Atom]:
        array = self._array
        for i in range(array.array_length()):
            # Double precision, like the PDB writer: single precision would round some halves to the other side.
            x, y, z = map(float, array.coord[i])
            yield modelcif.model.Atom(
                asym_unit=self._chains[array.chain_id[i]],
                seq_id=int(array.res_id[i]),
                atom_id=str(array.atom_name[i]),
                type_symbol=str(array.element[i]),
                x=x,
                y=y,
                z=z,
                biso=round(float(array.b_factor[i]), 2),
                occupancy=float(array.occupancy[i]),
            )


class _GlobalPLDDT(modelcif.qa_metric.Global, modelcif.qa_metric.PLDDT):
    """Mean pLDDT of the residues."""

    name = "pLDDT"


class _LocalPLDDT(modelcif.qa_metric.Local, modelcif.qa_metric.PLDDT):
    """pLDDT of the alpha carbon of each residue."""

    name = "pLDDT"


class _LocalError(modelcif.qa_metric.Local, modelcif.qa_metric.Distance):
    """Expected root-mean-square error of the alpha carbon in angstrom: 1.5 exp(4 (0.7 - pLDDT/100))."""

    name = "expected error"


class _PairwisePAE(modelcif.qa_metric.MetricMode, modelcif.qa_metric.PAE):
    """Error of residue 2 in angstrom when residue 1 is superimposed."""

    # Not derived from LocalPairwise: modelcif only declares this metric, `write_pairwise_scores` writes its values.
    mode, name = "local-pairwise", "PAE"

    def __init__(self, software: modelcif.SoftwareGroup) -> None:
        self.software = software


class _PTM(modelcif.qa_metric.Global, modelcif.qa_metric.PTM):
    """Predicted TM-score."""

    name = "pTM"


class _IpTM(modelcif.qa_metric.Global, modelcif.qa_metric.IpTM):
    """Predicted interface TM-score of the complex."""

    name = "ipTM"


class _PairIpTM(modelcif.qa_metric.FeaturePairwise, modelcif.qa_metric.IpTM):
    """Predicted interface TM-score of two chains."""

    name = "ipTM of two chains"


def _chains(prediction: Prediction) -> dict[str, modelcif.AsymUnit]:
    """Return the chains by name; chains with equal sequences share one entity."""
    names = dict(zip(chain_ids(len(prediction.chains)), prediction.chains, strict=True))
    entities = {}
    for sequence in dict.fromkeys(prediction.chains):
        residues = zip(sequence, residue_names(sequence), strict=True)
        codes = ["UNK" if name == "UNK" else letter for letter, name in residues]
        same = ", ".join(chain for chain, other in names.items() if other == sequence)
        entities[sequence] = modelcif.Entity(codes, description=f"Chain {same}")
    return {chain: modelcif.AsymUnit(entities[sequence], id=chain) for chain, sequence in names.items()}


def _software(prediction: Prediction) -> modelcif.SoftwareGroup:
    program = modelcif.Software(
        name=PROGRAM,
        version=prediction.provenance.version,
        type="program",
        classification="model building",
        description="ESMFold structure prediction with post-training quantization",
        location=None,
    )
    parameters = [
        modelcif.SoftwareParameter(name, int(value) if name == "recycles" else text)
        for name, value in prediction.facts().items()
        if name != "program" and (text := _text(value)) is not None
    ]
    return modelcif.SoftwareGroup([modelcif.SoftwareWithParameters(program, parameters)])


def _protocol(
    prediction: Prediction, model: modelcif.model.Model, software: modelcif.SoftwareGroup
) -> modelcif.protocol.Protocol:
    made_by = prediction.provenance
    weights = modelcif.data.Data(
        _text(f"Weights of {made_by.model or 'an unnamed model'}"),
        details=_text(f"SHA-256 of sizes and weights: {made_by.fingerprint or 'not known'}"),
    )
    entities = dict.fromkeys(chain.entity for chain in model.assembly)
    protocol = modelcif.protocol.Protocol()
    protocol.steps.append(
        modelcif.protocol.ModelingStep(
            name="structure prediction",
            input_data=modelcif.data.DataGroup([*entities, weights]),
            output_data=model,
            software=software,
            details=_text("; ".join(prediction.remarks())),
        )
    )
    return protocol


def _confidence(
    prediction: Prediction, chains: dict[str, modelcif.AsymUnit], software: modelcif.SoftwareGroup
) -> list[modelcif.qa_metric.MetricMode]:
    metrics: list[modelcif.qa_metric.MetricMode] = [_GlobalPLDDT(round(prediction.mean_plddt, 2))]
    residues = prediction.atoms[get_residue_starts(prediction.atoms)]
    plddt = prediction.plddt[residue_positions(prediction.chains, residues)]
    where = [chains[residue.chain_id].residue(int(residue.res_id)) for residue in residues]
    metrics += [_LocalPLDDT(residue, round(float(value), 2)) for residue, value in zip(where, plddt, strict=True)]
    if math.isfinite(prediction.ptm):
        metrics.append(_PTM(round(float(prediction.ptm), 3)))
    if math.isfinite(prediction.iptm):
        metrics.append(_IpTM(round(float(prediction.iptm), 3)))
    features = {name: modelcif.EntityInstanceFeature([chain]) for name, chain in chains.items()}
    for (first, second), value in prediction.iptm_of_pairs().items():
        metrics.append(_PairIpTM(features[first], features[second], round(value, 3)))
    if prediction.b_factor == "error":
        errors = expected_error(plddt)
        metrics += [_LocalError(residue, round(float(value), 3)) for residue, value in zip(where, errors, strict=True)]
    for metric in metrics:
        metric.software = software
    return metrics


def _with_author_names(text: str) -> str:
    """Add `_atom_site.auth_atom_id`: modelcif does not write it, and biotite warns if it is missing."""
    document = gemmi.cif.read_string(text)
    block = document.sole_block()
    block.find_loop("_atom_site.label_atom_id").get_loop().add_columns(["_atom_site.auth_atom_id"], value=".")
    for row in block.find("_atom_site.", ["label_atom_id", "auth_atom_id"]):
        row[1] = row[0]
    return document.as_string(gemmi.cif.WriteOptions(gemmi.cif.Style.Pdbx))


def _text(text: str) -> str | None:
    """Return any text in a form that modelcif writes correctly; None if nothing is left of it.

    modelcif quotes text like Python, which is not always valid in CIF. The line end that is added here makes it write
    the text between semicolons, where no quotes are needed. Readers remove that line end.
    """
    plain = _plain(text)
    return f"{plain}\n" if plain else None


def _plain(text: str) -> str:
    """Return a text as one line of ASCII without backslashes, for CIF."""
    printable = "".join(letter if letter.isprintable() else " " for letter in text.replace("\\", "/"))
    return " ".join(printable.encode("ascii", "replace").decode("ascii").split())[:_LONGEST_TEXT]
