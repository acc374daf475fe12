"""Naming atoms."""

from collections.abc import Callable

import numpy as np
import pytest
from transformers.models.esm.openfold_utils import residue_constants

from protquant.proteins import AMINO_ACIDS, atoms_from_atom37, chain_ids, residue_names

Atom37 = Callable[[str], tuple[np.ndarray, ...]]


def test_chains_are_named_and_numbered_from_one(atom37: Atom37) -> None:
    sequence = "MKW:GA"
    atoms = atoms_from_atom37(*atom37(sequence)[:2], sequence, np.full(5, 70.0))
    alpha = atoms[atoms.atom_name == "CA"]
    assert alpha.chain_id.tolist() == ["A", "A", "A", "B", "B"]
    assert alpha.res_id.tolist() == [1, 2, 3, 1, 2]
    assert alpha.res_name.tolist() == ["MET", "LYS", "TRP", "GLY", "ALA"]


def test_each_residue_has_its_own_atoms(atom37: Atom37) -> None:
    positions, mask, plddt = atom37("GMC")
    atoms = atoms_from_atom37(positions, mask, "GMC", plddt)
    names = [atoms.atom_name[atoms.res_id == number].tolist() for number in (1, 2, 3)]
    assert names == [
        ["N", "CA", "C", "O"],
        ["N", "CA", "C", "CB", "O", "CG", "SD", "CE"],
        ["N", "CA", "C", "CB", "O", "SG"],
    ]
    assert atoms.element[atoms.atom_name == "SD"].tolist() == ["S"]
    np.testing.assert_array_equal(atoms.coord[atoms.atom_name == "SD"][0], positions[1, 18])
    np.testing.assert_array_equal(atoms.b_factor[atoms.atom_name == "SD"], plddt[1, [18]])
    assert set(atoms.occupancy) == {1.0}
    assert not atoms.hetero.any()


def test_atoms_and_residues_are_named_as_the_model_orders_them() -> None:
    letters = AMINO_ACIDS + "XBU"
    assert residue_names(letters) == [residue_constants.restype_1to3.get(letter, "UNK") for letter in letters]
    atoms = atoms_from_atom37(np.zeros((1, 37, 3)), np.ones((1, 37)), "W", np.zeros(1))
    assert atoms.atom_name.tolist() == residue_constants.atom_types


def test_a_plddt_of_residues_is_spread_over_their_atoms(atom37: Atom37) -> None:
    positions, mask, _ = atom37("GM")
    atoms = atoms_from_atom37(positions, mask, "GM", np.array([30.0, 80.0]))
    assert set(atoms.b_factor[atoms.res_id == 1]) == {30.0}
    assert set(atoms.b_factor[atoms.res_id == 2]) == {80.0}


def test_an_unknown_residue_keeps_its_number_but_has_no_atoms(atom37: Atom37) -> None:
    positions, mask, plddt = atom37("GXA")
    assert sorted(set(atoms_from_atom37(positions, mask, "GXA", plddt).res_id)) == [1, 3]
    mask[1, :3] = 1  # a model that does place a backbone for X
    atoms = atoms_from_atom37(positions, mask, "GXA", plddt)
    assert atoms.res_name[atoms.res_id == 2].tolist() == ["UNK"] * 3


def test_arrays_that_do_not_fit_the_sequence_are_refused(atom37: Atom37) -> None:
    positions, mask, plddt = atom37("GMA")
    with pytest.raises(ValueError, match=r"positions has shape \(3, 37, 3\).* 2 residues"):
        atoms_from_atom37(positions, mask, "GM", plddt)
    with pytest.raises(ValueError, match="plddt has shape"):
        atoms_from_atom37(positions, mask, "GMA", plddt[:2])


def test_chain_names_go_on_after_the_alphabet() -> None:
    names = chain_ids(4000)
    assert len(set(names)) == 4000
    assert "".join(names[:62]) == "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
    assert names[62:64] == ["AA", "AB"]
    assert names[62 + 62 * 62] == "AAA"
    assert chain_ids(0) == []
