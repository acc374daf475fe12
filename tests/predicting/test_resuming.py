"""A run that is repeated does what is not done, and nothing else."""

import importlib
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from protquant.errors import ProtquantError
from protquant.files import Manifest, OutputError, only_writer
from protquant.predicting import FoldRun, fold_batch, fold_fasta, folding, merge_shards

TEXT = ">a\nMKTAYIAK\n>b\nGAVLIDEGAV\n>c\nRNDCQEGHILKM\n"
Fold = Callable[..., FoldRun]
# The package exports a function of the module's name.
MODULE = importlib.import_module("protquant.predicting.fold_outputs")


@pytest.fixture
def folded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names that really went through the model since the test last cleared it."""
    names: list[str] = []

    def remembering(model, sequences, names_, *args, **settings):
        names.extend(names_)
        return fold_batch(model, sequences, names_, *args, **settings)

    monkeypatch.setattr(folding, "fold_batch", remembering)
    return names


@pytest.fixture
def fold_again(esmfold_checkpoint: Path, tmp_path: Path, folded: list[str]) -> Fold:
    def run(text: str = TEXT, model: str = str(esmfold_checkpoint), **settings) -> FoldRun:
        (tmp_path / "in.fasta").write_text(text)
        folded.clear()
        return fold_fasta(tmp_path / "in.fasta", tmp_path / "out", model, **({"plots": False} | settings))

    return run


def content(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.glob("[a-c]*")}


def test_a_repeated_run_skips_what_is_done_and_returns_the_same_rows(fold_again, folded, tmp_path: Path):
    first = fold_again()
    before = content(tmp_path / "out")
    second = fold_again()
    assert folded == []
    assert second.skipped == ["a", "b", "c"]
    assert second.rows == first.rows
    assert content(tmp_path / "out") == before


@pytest.mark.parametrize(
    "changed",
    [{"num_recycles": 0}, {"dtype": "bfloat16"}, {"quant": "w8"}, {"overwrite": True}, {"pae_in_cif": 0}],
    ids=lambda changed: next(iter(changed)),
)
def test_other_settings_fold_again(fold_again, folded, changed: dict[str, object]):
    fold_again()
    fold_again(**changed)
    assert sorted(folded) == ["a", "b", "c"]


def test_settings_that_change_no_result_fold_nothing(fold_again, folded, esmfold_checkpoint, calibration_file):
    fold_again()
    elsewhere = str(esmfold_checkpoint.parent / "." / ".." / esmfold_checkpoint.parent.name / esmfold_checkpoint.name)
    fold_again(model=elsewhere, max_tokens_per_batch=0, chunk_size=3, calibration=calibration_file)
    fold_again(pae_in_cif=5000)  # those that are as long are not among them
    assert folded == []


def test_other_calibration_sequences_fold_again_where_ranges_are_frozen(fold_again, folded, calibration_file, tmp_path):
    fold_again(quant="w8a8-uniform", calibration=calibration_file)
    copied = tmp_path / "copied.fasta"
    copied.write_bytes(calibration_file.read_bytes())
    fold_again(quant="w8a8-uniform", calibration=copied)
    assert folded == []
    copied.write_text(">x\nGIVEQCCTSICSLYQ\n")
    fold_again(quant="w8a8-uniform", calibration=copied)
    assert sorted(folded) == ["a", "b", "c"]


def test_a_record_that_changed_is_folded_again_alone(fold_again, folded):
    fold_again()
    run = fold_again(TEXT.replace("GAVLIDEGAV", "GAVLIDEGAW").replace(">c", ">c with a description"))
    assert sorted(folded) == ["b", "c"]
    assert run.skipped == ["a"]
    assert run.rows[2]["header"] == "c with a description"


@pytest.mark.parametrize("name", ["b.pdb", "b.cif", "b_pae.json"])
@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_text(path.read_text().replace("1", "2"))])
def test_an_output_that_was_deleted_or_edited_is_made_again(fold_again, folded, tmp_path, name: str, damage):
    fold_again()
    before = {name: data for name, (data, _) in content(tmp_path / "out").items()}
    damage(tmp_path / "out" / name)
    fold_again(max_tokens_per_batch=0)
    assert folded == ["b"]
    after = {name: data for name, (data, _) in content(tmp_path / "out").items()}
    assert set(after) == set(before)
    assert after["a.pdb"] == before["a.pdb"]


def test_pictures_asked_for_later_are_drawn(fold_again, folded, tmp_path: Path):
    fold_again(TEXT[:12])
    fold_again(TEXT[:12], plots=True)
    assert folded == ["a"]
    assert (tmp_path / "out" / "a.png").exists()
    fold_again(TEXT[:12], plots=True)
    fold_again(TEXT[:12])
    assert folded == []


@pytest.mark.parametrize("step", ["write_mmcif", "write_pdb", "write_pae"])
def test_an_interrupted_run_keeps_what_is_complete_and_goes_on_from_there(
    fold_again, folded, tmp_path: Path, monkeypatch, step: str
):
    write, calls = getattr(MODULE, step), []

    def interrupted(*arguments, **choices):
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return write(*arguments, **choices)

    monkeypatch.setattr(MODULE, step, interrupted)
    with pytest.raises(KeyboardInterrupt):
        fold_again(max_tokens_per_batch=0)
    assert list(Manifest.load(tmp_path / "out").entries) == ["a"]
    assert list((tmp_path / "out").glob(".*")) == []
    complete = {name: data for name, data in content(tmp_path / "out").items() if name.startswith("a")}

    run = fold_again(max_tokens_per_batch=0)
    assert run.skipped == ["a"]
    assert sorted(folded) == ["b", "c"]
    assert [row["name"] for row in run.rows] == ["a", "b", "c"]
    assert complete.items() <= content(tmp_path / "out").items()


def test_another_file_into_the_same_folder_adds_to_the_table(fold_again, tmp_path: Path):
    fold_again(">a\nMKTAYIAK\n")
    run = fold_again(">b\nGAVLIDEGAV\n")
    assert [row["name"] for row in run.rows] == ["b"]
    lines = (tmp_path / "out" / "predictions.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["name", "b", "a"]


def test_an_interrupted_run_goes_on_with_the_same_batches(fold_again, folded, tmp_path: Path, monkeypatch):
    batches: list[tuple[str, ...]] = []

    def remembering(model, sequences, names, *args, **settings):
        batches.append(tuple(names))
        return fold_batch(model, sequences, names, *args, **settings)

    monkeypatch.setattr(folding, "fold_batch", remembering)
    text = "".join(f">p{k}\n{'MKTAYIAKQRQISFVKSHFSRQ'[: 8 + k]}\n" for k in range(6))
    fold_again(text, max_tokens_per_batch=24)
    whole = list(batches)
    assert [len(batch) for batch in whole] == [2, 2, 1, 1]
    expected = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("p*")}
    for entry in ("p2", "p3"):  # as if killed before their batch was recorded
        lines = (tmp_path / "out" / "manifest.jsonl").read_text().splitlines(keepends=True)
        (tmp_path / "out" / "manifest.jsonl").write_text("".join(line for line in lines if f'"{entry}"' not in line))
    batches.clear()
    fold_again(text, max_tokens_per_batch=24)
    assert batches == [whole[1]]
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").glob("p*")} == expected


def test_a_full_disk_ends_the_run_at_once_and_what_is_done_is_safe(fold_again, folded, tmp_path: Path, monkeypatch):
    write = MODULE.write_pae

    def full(prediction, path):
        if prediction.name == "c":
            raise OutputError(f"{path}: the file cannot be written (No space left on device).")
        return write(prediction, path)

    monkeypatch.setattr(MODULE, "write_pae", full)
    text = TEXT + ">d\nRNDCQEGHILKMFPSTWYV\n"
    with pytest.raises(OutputError, match="2 of 4 targets of this run are done and stay so; run the same command"):
        fold_again(text, max_tokens_per_batch=0)
    assert folded == ["a", "b", "c"]  # and not d, which could not be written either
    assert list(Manifest.load(tmp_path / "out").entries) == ["a", "b"]
    monkeypatch.setattr(MODULE, "write_pae", write)
    assert len(fold_again(text, max_tokens_per_batch=0).rows) == 4
    assert folded == ["c", "d"]


def test_a_second_process_is_told_that_the_folder_is_taken(fold_again, tmp_path: Path):
    (tmp_path / "out").mkdir()
    with only_writer(tmp_path / "out"), pytest.raises(ProtquantError, match="another protquant is writing"):
        fold_again()


def test_shards_give_what_one_run_gives(esmfold_checkpoint: Path, tmp_path: Path):
    fasta = tmp_path / "in.fasta"
    fasta.write_text(
        "".join(f">p{k}\n{'MKTAYIAKQRQISFVKSHFSRQ'[: 8 + k]}\n" for k in (4, 0, 5, 2, 1, 3)) + ">bad\nM-K\n"
    )
    settings = {"plots": False, "max_tokens_per_batch": 24}
    fold_fasta(fasta, tmp_path / "one", str(esmfold_checkpoint), **settings)
    for shard in ("2/3", "1/3"):
        run = fold_fasta(fasta, tmp_path / "many", str(esmfold_checkpoint), shard=shard, **settings)
        assert [row["name"] for row in run.rows] == {"2/3": ["p2", "p3"], "1/3": ["p0", "p5", "p1"]}[shard]
    with pytest.raises(ProtquantError, match=r"of 3 shards these have not begun: 3; run them by .* --shard 3/3"):
        merge_shards(tmp_path / "many", fasta)
    fold_fasta(fasta, tmp_path / "many", str(esmfold_checkpoint), shard="3/3", **settings)
    assert merge_shards(tmp_path / "many", fasta) == {
        "output": str(tmp_path / "many"),
        "shards": 3,
        "unfinished": 0,
        "done": 6,
        "failed": 1,
    }
    names = {path.name for path in (tmp_path / "one").iterdir()}
    assert {path.name for path in (tmp_path / "many").iterdir()} == names
    for name in names - {"manifest.jsonl"}:
        assert (tmp_path / "many" / name).read_bytes() == (tmp_path / "one" / name).read_bytes(), name
    again = fold_fasta(fasta, tmp_path / "many", str(esmfold_checkpoint), **settings)
    assert len(again.skipped) == 6


def test_a_shard_that_was_interrupted_is_merged_on_request_only(esmfold_checkpoint: Path, tmp_path: Path):
    fasta, output = tmp_path / "in.fasta", tmp_path / "out"
    fasta.write_text("".join(f">p{k}\n{'MKTAYIAKQRQISFVKSHFSRQ'[: 8 + k]}\n" for k in range(4)))
    settings = {"plots": False, "max_tokens_per_batch": 0}
    for shard in ("1/2", "2/2"):
        fold_fasta(fasta, output, str(esmfold_checkpoint), shard=shard, **settings)
    manifest = output / "manifest.2-of-2.jsonl"
    lines = manifest.read_text().splitlines()
    manifest.write_text("\n".join(lines[:-2]) + "\n")  # one of its two targets, as a kill leaves it
    with pytest.raises(ProtquantError, match=r"1 of 2 shards did not come to their end: 2/2; run them again by `protq"):
        merge_shards(output, fasta)
    merged = merge_shards(output, fasta, even_so=True)
    assert (merged["unfinished"], merged["done"]) == (1, 3)
    rest = fold_fasta(fasta, output, str(esmfold_checkpoint), **settings)
    assert (len(rest.rows), len(rest.skipped)) == (4, 3)


def test_a_shard_that_folds_again_is_unfinished_until_it_ends(
    esmfold_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    fasta, output = tmp_path / "in.fasta", tmp_path / "out"
    fasta.write_text(">p0\nMKTAYIAK\n")

    def run(num_recycles: int) -> FoldRun:
        return fold_fasta(
            fasta,
            output,
            str(esmfold_checkpoint),
            plots=False,
            shard="1/1",
            num_recycles=num_recycles,
            skip_output=["pae"],
        )

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    run(0)
    with monkeypatch.context() as patch:
        patch.setattr(MODULE, "write_pdb", interrupt)  # the mmCIF is new, the rest and the manifest are not
        with pytest.raises(KeyboardInterrupt):
            run(1)
    with pytest.raises(ProtquantError, match="1 of 1 shards did not come to their end"):
        merge_shards(output)
    run(1)
    assert merge_shards(output)["unfinished"] == 0


def test_failures_of_a_shard_that_was_interrupted_are_listed(esmfold_checkpoint: Path, tmp_path: Path):
    fasta, output = tmp_path / "in.fasta", tmp_path / "out"
    fasta.write_text(">p0\nMKTAYIAK\n>p1\nMKTAYIAKQR\n")
    fold_fasta(fasta, output, str(esmfold_checkpoint), plots=False, shard="1/1", max_tokens_per_batch=0)
    manifest = Manifest.load(output, "1-of-1")
    manifest.record_failure("p1", "p1", "other settings", "does not fit")
    assert merge_shards(output, fasta, even_so=True)["failed"] == 1
    assert "p1,p1,3,does not fit" in (output / "failures.csv").read_text()


def test_files_of_another_prediction_do_not_stay_beside_a_new_one(fold_again, folded, tmp_path: Path):
    fold_again(">a\nMKTAYIAK:GAVLIDE\n", layout="nf-core")
    fold_again(">a\nMKTAYIAK:GAVLIDE\n", skip_output=["pae"])
    names = {path.name for path in (tmp_path / "out").glob("a*")}
    assert {"a_iptm.tsv", "a_esmfold.pdb", "a.cif", "a.pdb"} <= names
    fold_again(">a\nMKTAYIAK:GAVLIDE\n", layout="nf-core")
    assert folded == []  # both layouts are there
    fold_again(">a\nMKTAYIAK\n", layout="nf-core")
    names = {path.name for path in (tmp_path / "out").glob("a*")}
    assert names == {f"a{end}" for end in ("_esmfold.pdb", "_plddt.tsv", "_plddt_mqc.tsv", "_ptm.tsv", "_0_pae.tsv")}


def test_a_file_of_another_target_is_not_replaced(fold_again, tmp_path: Path):
    fold_again(">x_esmfold\nMKTAYIAK\n")
    before = (tmp_path / "out" / "x_esmfold.pdb").read_bytes()
    run = fold_again(">x\nGAVLIDEGAV\n", layout="nf-core")
    (failure,) = run.failures
    assert "its file x_esmfold.pdb would take the place of that of the target x_esmfold" in failure["error"]
    assert (tmp_path / "out" / "x_esmfold.pdb").read_bytes() == before


def test_shards_may_write_at_once_and_the_whole_may_not(tmp_path: Path):
    with only_writer(tmp_path, "1-of-2"), only_writer(tmp_path, "2-of-2"):
        for part in ("", "1-of-2"):
            with pytest.raises(ProtquantError, match="another protquant is writing"), only_writer(tmp_path, part):
                pass
    with only_writer(tmp_path), pytest.raises(ProtquantError, match="another"), only_writer(tmp_path, "1-of-2"):
        pass
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shard", ["0/4", "5/4", "1", "a/b", "1/0", ""])
def test_a_shard_that_there_is_not_is_refused(fold_again, shard: str):
    with pytest.raises(ProtquantError, match=f"--shard {shard}: give a part and the number of parts"):
        fold_again(shard=shard)


def test_files_that_are_skipped_are_not_written_and_come_when_they_are_wanted(fold_again, folded, tmp_path: Path):
    fold_again(skip_output=["pdb", "pae"])
    assert {path.name for path in (tmp_path / "out").glob("[abc].*")} == {"a.cif", "b.cif", "c.cif"}
    fold_again(skip_output=["pae", "pdb", "cif"])
    assert folded == []
    fold_again(skip_output=["pae"])
    assert sorted(folded) == ["a", "b", "c"]
    assert {path.suffix for path in (tmp_path / "out").glob("[abc].*")} == {".cif", ".pdb"}
    with pytest.raises(ProtquantError, match=r"--skip-output pea: not known; did you mean pae\?"):
        fold_again(skip_output=["pea"])


def test_a_target_that_is_done_in_another_layout_is_folded_again(fold_again, folded, tmp_path: Path, capsys):
    fold_again()
    before = content(tmp_path / "out")
    run = fold_again(layout="nf-core")
    assert sorted(folded) == ["a", "b", "c"]
    assert "3 of them were done without all of the files that are wanted now in the layout nf-core" in (
        capsys.readouterr().err
    )
    assert before.items() <= content(tmp_path / "out").items()
    assert fold_again(layout="nf-core").rows == run.rows
    assert folded == []
    (tmp_path / "out" / "b_ptm.tsv").unlink()
    fold_again(layout="nf-core")
    assert folded == ["b"]


def test_shards_with_nothing_to_do_are_shards_too(esmfold_checkpoint: Path, tmp_path: Path):
    fasta = tmp_path / "in.fasta"
    fasta.write_text(">a\nMKTAYIAK\n")
    for shard in ("1/3", "2/3", "3/3"):
        fold_fasta(fasta, tmp_path / "out", str(esmfold_checkpoint), plots=False, shard=shard)
    assert merge_shards(tmp_path / "out")["done"] == 1


@pytest.mark.skipif(sys.platform != "linux", reason="processes share weights on Linux only")
def test_workers_give_what_one_process_gives(esmfold_checkpoint: Path, tmp_path: Path):
    fasta = tmp_path / "in.fasta"
    records = [f">p{k}\n{'MKTAYIAKQRQISFVKSHFSRQ'[: 8 + k]}\n" for k in (4, 0, 5, 2, 1, 3)]
    fasta.write_text("".join([*records, ">bad\nM-K\n"]))
    program = (
        "import sys, torch; from pathlib import Path; from protquant.predicting import fold_fasta\n"
        "torch.set_num_threads(2 if sys.argv[4] == '2' else 1)\n"
        "run = fold_fasta(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], plots=False, max_tokens_per_batch=24,"
        " workers=int(sys.argv[4]))\n"
        "assert len(run.rows) == 6 and len(run.failures) == 1 and run.execution, run\n"
    )
    for workers in ("1", "2"):
        command = [sys.executable, "-c", program, str(fasta), str(tmp_path / workers), str(esmfold_checkpoint), workers]
        subprocess.run(command, check=True, timeout=120)
    names = {path.name for path in (tmp_path / "1").iterdir()}
    assert {path.name for path in (tmp_path / "2").iterdir()} == names
    for name in names - {"manifest.jsonl"}:
        assert (tmp_path / "2" / name).read_bytes() == (tmp_path / "1" / name).read_bytes(), name


@pytest.mark.parametrize("workers", [0, -1])
def test_fewer_than_one_worker_is_refused(fold_again, workers: int):
    with pytest.raises(ProtquantError, match=f"--workers {workers}: give 1 or more"):
        fold_again(workers=workers)


def test_shards_that_do_not_go_together_are_refused(esmfold_checkpoint: Path, tmp_path: Path):
    fasta = tmp_path / "in.fasta"
    fasta.write_text("".join(f">p{k}\n{'MKTAYIAKQRQISFVKSHFSRQ'[: 8 + k]}\n" for k in range(3)))

    def run(**settings) -> FoldRun:
        return fold_fasta(fasta, tmp_path / "out", str(esmfold_checkpoint), plots=False, **settings)

    run(shard="1/2", max_tokens_per_batch=0)
    for settings in ({"shard": "2/2", "max_tokens_per_batch": 1024}, {"shard": "2/3", "max_tokens_per_batch": 0}):
        with pytest.raises(ProtquantError, match=r"shard 1/2 is of other records, batches or number than 2/"):
            run(**settings)
    with pytest.raises(ProtquantError, match=r"there are shards; put them together first: `protquant merge"):
        run()
    fasta.write_text(fasta.read_text() + ">new\nMKT\n")
    with pytest.raises(ProtquantError, match="is of other records"):
        run(shard="2/2", max_tokens_per_batch=0)
