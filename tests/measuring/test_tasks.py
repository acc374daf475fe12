from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from protquant.checkpoints import load
from protquant.errors import ProtquantError
from protquant.files.run_store import RunStore
from protquant.measuring import evaluate
from protquant.measuring import tasks as tasks_module
from protquant.measuring.grid import ScoredModel
from protquant.measuring.masking import masked_logits
from protquant.measuring.tasks import ContactTask, LanguageTask, Outcome, Task, heldout_records
from protquant.models import ESM2
from protquant.preparing import calibration_sequences, quantize
from protquant.residues import AMINO_ACIDS
from protquant.scores import logit_kl, pseudo_perplexity
from protquant.structures import load_references


@pytest.fixture(scope="module")
def heldout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("heldout") / "heldout.fasta"
    path.write_text(">short\nMKTAYIAKQR\n>long\nGIVEQCCTSICSLYQLENYCNMKTAYIAKQRQISFVKSHF\n")
    return path


@pytest.fixture(scope="module")
def esm2(esm2_checkpoint: Path) -> ESM2:
    model = load(esm2_checkpoint)
    assert isinstance(model, ESM2)
    return model


def test_shipped_heldout_proteins_calibrate_nothing():
    records = heldout_records()
    assert len(records) == 20
    assert all(80 <= record.length <= 200 and set(record.sequence) <= set(AMINO_ACIDS) for record in records)
    five = {s[i : i + 5] for s in calibration_sequences() for i in range(len(s) - 4)}
    for record in records:
        own = [record.sequence[i : i + 5] for i in range(record.length - 4)]
        assert sum(piece in five for piece in own) < 0.05 * len(own)


def test_language_scores_are_those_of_all_residues_together(esm2_checkpoint, esm2, heldout, calibration_file):
    result = evaluate(
        [str(esm2_checkpoint)], ["w8a8-uniform"], "language", heldout=heldout, calibration=calibration_file
    )
    exact, quantized = result.records
    assert exact["logit_kl"] == pytest.approx(0, abs=1e-9)
    model, _ = quantize(esm2, "w8a8-uniform", calibration_sequences(calibration_file))
    answers = [masked_logits(model, record.sequence) for record in heldout_records(heldout)]
    before = [masked_logits(esm2, record.sequence)[0] for record in heldout_records(heldout)]
    logits, truth = (np.concatenate(each) for each in zip(*answers, strict=True))
    assert quantized["pseudo_perplexity"] == pytest.approx(pseudo_perplexity(logits, truth))
    assert quantized["logit_kl"] == pytest.approx(logit_kl(logits, np.concatenate(before)))
    assert quantized["logit_kl"] > 0
    assert "50 residues, each hidden once, those 8 apart together" in result.notes[0]


def test_one_at_a_time_is_said(esm2_checkpoint, heldout):
    result = evaluate([str(esm2_checkpoint)], ["fp32"], "language", heldout=heldout, mask_every=None, limit=1)
    assert "1 sequences of" in result.notes[0] and "one at a time" in result.notes[0]


def test_a_mean_that_leaves_out_a_target_says_so(esm2_checkpoint: Path, structures_folder: Path):
    # Of 28 residues, four pairs are 24 apart and more; with fewer than 25 there is none.
    result = evaluate([str(esm2_checkpoint)], ["fp32", "w8"], "contacts", structures=structures_folder)
    assert not any("no value" in note for note in result.notes)
    outcome = tasks_module.Outcome([{"target": "a", "length": 9, "x": 1.0}, {"target": "b", "length": 9, "x": np.nan}])
    assert outcome.undefined() == {"x": ["b"]}


def test_what_the_float_model_could_not_do_is_no_drift_of_zero(
    esm2_checkpoint: Path, structures_folder: Path, monkeypatch: pytest.MonkeyPatch
):
    spoiled = load_references(structures_folder)[0]
    calls = []

    def fail_at_first(model, sequence, **options):
        calls.append(sequence)
        if calls == [spoiled.sequence]:
            raise ProtquantError("out of memory")
        return predict(model, sequence, **options)

    predict = tasks_module.predict_contacts
    monkeypatch.setattr(tasks_module, "predict_contacts", fail_at_first)
    result = evaluate([str(esm2_checkpoint)], ["w8"], "contacts", structures=structures_folder)
    quantized = pd.DataFrame(result.targets).query("recipe == 'w8'").set_index("target").contact_drift
    assert np.isnan(quantized[spoiled.name])
    assert quantized.drop(spoiled.name).gt(0).all()
    assert any(f"contact_drift: no value for 1 targets ({spoiled.name})" in note for note in result.notes)


@pytest.mark.parametrize("kind", ["contacts", "language"])
def test_what_the_float_model_said_is_kept(kind: str, esm2, heldout, structures_folder, tmp_path, monkeypatch):
    def task() -> Task:
        if kind == "contacts":
            return ContactTask(load_references(structures_folder))
        return LanguageTask(heldout_records(heldout))

    def run_float(task: Task, identity: str = "these weights") -> Outcome:
        store = RunStore(tmp_path / "cache" / "rows.jsonl")
        return ScoredModel("small", esm2, identity, [task], [], store).float_outcomes()[0]

    first, second, other = task(), task(), task()
    outcome = run_float(first)
    with monkeypatch.context() as patched:
        patched.setattr(Task, "run", lambda *_, **__: pytest.fail("computed again"))
        again = run_float(second)
    assert again == outcome
    assert set(second.baseline) == set(first.baseline)
    for name, said in first.baseline.items():
        np.testing.assert_array_equal(second.baseline[name], said)
    (kept,) = (tmp_path / "cache").iterdir()
    kept.write_bytes(kept.read_bytes()[:100])  # damaged: computed again
    assert run_float(other).targets == outcome.targets
    run_float(task(), "other weights")
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_settings_without_a_meaning_are_refused(heldout: Path):
    with pytest.raises(ProtquantError, match="limit is 0"):
        heldout_records(heldout, limit=0)
    with pytest.raises(ProtquantError, match="mask_every is 0"):
        LanguageTask(heldout_records(heldout), mask_every=0)
