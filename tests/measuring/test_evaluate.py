from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from protquant.errors import ProtquantError
from protquant.measuring import Evaluation, evaluate
from protquant.models import ESMFold
from protquant.predicting import fold
from protquant.predicting.folding import fold_within_memory
from protquant.proteins import write_pdb
from protquant.structures import load_references


@pytest.fixture(scope="module")
def structure_evaluation(esmfold_checkpoint: Path, structures_folder: Path, calibration_file: Path) -> Evaluation:
    return evaluate(
        [str(esmfold_checkpoint)], ["w8a8-uniform", "w8"], structures=structures_folder, calibration=calibration_file
    )


def test_the_float_model_comes_first_whether_asked_for_or_not(structure_evaluation: Evaluation):
    assert [record["recipe"] for record in structure_evaluation.records] == ["fp32", "w8a8-uniform", "w8"]


def test_the_float_model_has_not_drifted_from_itself(structure_evaluation: Evaluation):
    frame = pd.DataFrame(structure_evaluation.targets).query("recipe == 'fp32'")
    np.testing.assert_allclose(frame.tm_to_float, 1, atol=1e-9)
    np.testing.assert_allclose(frame.rmsd_to_float, 0, atol=1e-5)


def test_a_model_agrees_with_what_it_folded_itself(structure_evaluation: Evaluation):
    record = structure_evaluation.records[0]
    assert record["tm_score"] == pytest.approx(1, abs=1e-4)
    assert record["gdt_ts"] == pytest.approx(1)
    assert record["lddt_ca"] == pytest.approx(1, abs=1e-3)
    assert record["rmsd_ca"] == pytest.approx(0, abs=2e-3)


def test_quantization_costs_accuracy_and_saves_bits(structure_evaluation: Evaluation):
    exact, both, weights = structure_evaluation.records
    assert both["tm_to_float"] < 1
    assert exact["weight_bits"] == exact["activation_bits"] == weights["activation_bits"] == 32
    assert 8 <= weights["weight_bits"] < 20  # scales weigh heavily in a model this small
    assert both["activation_bits"] == 8
    assert weights["weight_bytes"] < exact["weight_bytes"]


def test_records_are_the_means_of_their_targets(structure_evaluation: Evaluation):
    targets = pd.DataFrame(structure_evaluation.targets)
    columns = [*("tm_score", "gdt_ts", "lddt_ca", "rmsd_ca", "plddt", "plddt_error", "ptm"), "tm_to_float"]
    for record in structure_evaluation.records:
        own = targets[targets.recipe == record["recipe"]]
        assert own.target.tolist() == ["one", "two"]
        assert record["targets"] == 2
        for column in columns:
            assert record[column] == pytest.approx(own[column].mean()), column


def test_the_result_is_a_table_and_says_what_is_not_measured(structure_evaluation: Evaluation):
    assert structure_evaluation.to_frame().recipe.tolist() == ["fp32", "w8a8-uniform", "w8"]
    assert "<table" in structure_evaluation._repr_html_()
    assert any("seconds say nothing" in note for note in structure_evaluation.notes)
    assert not any("memorized" in note for note in structure_evaluation.notes)


def test_the_shipped_chains_are_the_default(esmfold_checkpoint: Path):
    result = evaluate([str(esmfold_checkpoint)], ["fp32"], limit=1, num_recycles=0)
    assert [target["target"] for target in result.targets] == [load_references(limit=1)[0].name]
    assert 0 <= result.records[0]["tm_score"] <= 1


def test_an_interrupted_evaluation_goes_on_where_it_stopped(
    esm2_checkpoint: Path, structures_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    tasks = import_module("protquant.measuring.tasks")
    predict, calls = tasks.predict_contacts, []

    def interrupted(model, sequence, **options):
        calls.append(sequence)
        if len(calls) == 6:  # the second target of the third row
            raise KeyboardInterrupt
        return predict(model, sequence, **options)

    given = {"recipes": ["w8", "w4"], "task": "contacts", "structures": structures_folder}
    whole = evaluate([str(esm2_checkpoint)], **given)
    monkeypatch.setattr(tasks, "predict_contacts", interrupted)
    with pytest.raises(KeyboardInterrupt):
        evaluate([str(esm2_checkpoint)], **given, cache=tmp_path / "kept")
    resumed = evaluate([str(esm2_checkpoint)], **given, cache=tmp_path / "kept")
    assert len(calls) == 6 + 2
    assert resumed.to_frame().drop(columns="seconds").equals(whole.to_frame().drop(columns="seconds"))
    assert pd.DataFrame(resumed.targets).equals(pd.DataFrame(whole.targets))


def test_contacts_of_a_folding_model_are_those_of_its_language_model(
    esmfold_checkpoint, esm2_checkpoint, structures_folder
):
    models = [str(esmfold_checkpoint), str(esm2_checkpoint)]
    result = evaluate(models, ["w8"], "contacts", structures=structures_folder)
    folding, language = (
        [
            {k: v for k, v in record.items() if k not in ("model", "seconds")}
            for record in result.records[start : start + 2]
        ]
        for start in (0, 2)
    )
    assert [record["model"] for record in result.records] == [models[0], models[0], models[1], models[1]]
    pd.testing.assert_frame_equal(pd.DataFrame(folding), pd.DataFrame(language))
    assert [record["contact_drift"] for record in language] == [0, pytest.approx(language[1]["contact_drift"])]
    assert language[1]["contact_drift"] > 0
    assert {"long P@L", "medium P@L", "short P@L", "local P@L"} <= set(language[0])


def test_several_chains_are_refused_where_contacts_are_asked_for(esmfold: ESMFold, esm2_checkpoint, tmp_path: Path):
    write_pdb(fold(esmfold, "MKTAYIAKQR:GAVLIDEGAV").atoms, tmp_path / "pair.pdb")
    with pytest.raises(ProtquantError, match="fp32: pair: contacts are predicted for single chains"):
        evaluate([str(esm2_checkpoint)], ["fp32"], "contacts", structures=tmp_path)


def test_a_target_that_fails_is_reported_and_no_part_of_the_means(
    esmfold_checkpoint: Path, structures_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    whole = evaluate([str(esmfold_checkpoint)], ["fp32"], structures=structures_folder)
    spoiled = whole.targets[0]["target"]

    def fail_on_one(model, sequences, names, **settings):
        if names == [spoiled]:
            raise ProtquantError("the coordinates are not finite")
        return fold_within_memory(model, sequences, names, **settings)

    # The package's function of that name hides the module.
    monkeypatch.setattr(import_module("protquant.measuring.tasks"), "fold_within_memory", fail_on_one)
    rest = evaluate([str(esmfold_checkpoint)], ["fp32"], structures=structures_folder)
    assert [failure["target"] for failure in rest.failures] == [spoiled]
    assert rest.records[0]["targets"] == whole.records[0]["targets"] - 1
    assert rest.records[0]["tm_score"] == pytest.approx(pd.DataFrame(whole.targets[1:]).tm_score.mean(), abs=1e-6)


def test_a_complex_is_folded_and_scored_as_a_whole(esmfold: ESMFold, esmfold_checkpoint, tmp_path: Path):
    write_pdb(fold(esmfold, "MKTAYIAKQRQISFVK:GAVLIDEGAVLKDE").atoms, tmp_path / "pair.pdb")
    (record,) = evaluate([str(esmfold_checkpoint)], ["fp32"], structures=tmp_path).records
    assert record["tm_score"] == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "folding"}, "unknown task 'folding'; choose structure, contacts or language"),
        ({"recipes": ["w99"]}, "no recipe 'w99'"),
        ({"num_recycles": -2}, "recycles is -2"),
        ({"limit": 0}, "limit is 0"),
        ({"structures": Path("nowhere")}, "nowhere: no such folder"),
        ({"dtype": "float8"}, "unknown dtype"),
        ({"models": ["nothing-like-it"]}, "nothing-like-it: neither a known model"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(esmfold_checkpoint: Path, structures_folder, settings, message):
    given = {"models": [str(esmfold_checkpoint)], "recipes": ["fp32"], "structures": structures_folder}
    with pytest.raises(ProtquantError, match=message):
        evaluate(**(given | settings))


def test_a_language_model_cannot_be_scored_on_structures(esm2_checkpoint: Path, structures_folder: Path):
    with pytest.raises(ProtquantError, match="is a language model and cannot fold; use --task contacts or language"):
        evaluate([str(esm2_checkpoint)], ["fp32"], structures=structures_folder)
