"""Models of others and of our own with small random weights, shared by the tests of several folders."""

import os

# Triton's kernels run in its interpreter, on the CPU; that is settled when triton is first imported, by torch too.
# With PROTQUANT_TEST_DEVICE=cuda those of tests/kernels/triton are compiled, and run on a GPU.
if "PROTQUANT_TEST_DEVICE" not in os.environ:
    os.environ["TRITON_INTERPRET"] = "1"
# Programs that tests start keep the bytecode of protquant; each takes two seconds to compile it.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Processes that test side by side share the cores; more threads than cores take many times as long.
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // int(workers))))

from shape_checks import check_shapes

check_shapes("protquant")

import importlib
import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from esm.model import esm2 as fair_esm
from hypothesis import settings
from small_models import randomize, small_esmfold
from transformers import EsmConfig, EsmForMaskedLM, EsmForProteinFolding

from protquant.bench.worker import Worker, first_line
from protquant.bench.worker_process import CandidateError
from protquant.checkpoints import load, save_model
from protquant.models import ESMFold
from protquant.models.alphabet import TOKENS
from protquant.predicting import fold
from protquant.proteins import write_pdb

# Files and folders of `pytest -m fast`: some of every package, two minutes in all on two cores.
FAST = (
    "bench/test_report.py",
    "bench/test_roofline.py",
    "bench/test_tuning.py",
    "checkpoints/test_names.py",
    "checkpoints/test_native.py",
    "choosing/test_sensitivity.py",
    "cli/test_folding_options.py",
    "cli/test_formats_command.py",
    "configs",
    "demo/test_losses.py",
    "files",
    "integer/test_packed_sequences.py",
    "integer/test_pair_stream.py",
    "kernels/cpu/test_packing.py",
    "kernels/reference",
    "kernels/test_backend.py",
    "measuring/test_tasks.py",
    "models",
    "options",
    "predicting/test_folding.py",
    "preparing/test_statistics_cache.py",
    "proteins",
    "quant/formats/test_every_format.py",
    "quant/formats/test_uniform.py",
    "quant/test_observers.py",
    "quant/test_ranges.py",
    "quant/test_recipe.py",
    "reporting/test_progress.py",
    "running",
    "scores",
    "structures/test_reader.py",
    "test_lazy_package.py",
)
TESTS = Path(__file__).parent

settings.register_profile("suite", deadline=None)  # other processes test beside this one
settings.load_profile("suite")
settings.register_profile("thorough", deadline=None, max_examples=20_000)  # --hypothesis-profile=thorough, for a night


def is_fast(path: Path) -> bool:
    return any(path.is_relative_to(TESTS / each) for each in FAST)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave files without a fast test unread where only these are asked for: reading all takes ten seconds."""
    if config.option.markexpr != "fast" or collection_path.is_dir():
        return None
    return not is_fast(collection_path) or None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if is_fast(item.path) and item.get_closest_marker("slow") is None:
            item.add_marker("fast")


@pytest.fixture(scope="session", autouse=True)
def _signals_reach_programs() -> None:
    """Whoever runs the tests in the background has them, and so what they start, ignore interruptions."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests, and the programs they start, leave the user's cache of statistics alone; those side by side share one."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "cache"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PROTQUANT_CACHE", str(folder))
        yield


def hugging_face_config(folding: bool) -> EsmConfig:
    structure_module = {"sequence_dim": 24, "pairwise_dim": 12, "ipa_dim": 8, "resnet_dim": 16, "num_heads_ipa": 3}
    structure_module |= {"num_qk_points": 2, "num_v_points": 5, "num_blocks": 3, "num_transition_layers": 2}
    trunk = {"num_blocks": 2, "sequence_state_dim": 32, "pairwise_state_dim": 16, "sequence_head_width": 8}
    trunk |= {"pairwise_head_width": 4, "position_bins": 6, "structure_module": structure_module}
    return EsmConfig(
        vocab_size=len(TOKENS),
        mask_token_id=TOKENS.index("<mask>"),
        pad_token_id=TOKENS.index("<pad>"),
        hidden_size=40,
        num_hidden_layers=3,
        num_attention_heads=5,
        intermediate_size=160,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        layer_norm_eps=1e-5,
        position_embedding_type="rotary",
        emb_layer_norm_before=False,
        token_dropout=True,
        is_folding_model=folding,
        esmfold_config={"fp16_esm": False, "lddt_head_hid_dim": 20, "trunk": trunk} if folding else None,
        vocab_list=TOKENS if folding else None,
        attn_implementation="eager",  # the others return no attentions
    )


@pytest.fixture(scope="session")
def hugging_face_esm2() -> EsmForMaskedLM:
    model = EsmForMaskedLM(hugging_face_config(folding=False)).eval()
    randomize(model, seed=0)
    return model


@pytest.fixture(scope="session")
def hugging_face_esmfold() -> EsmForProteinFolding:
    model = EsmForProteinFolding(hugging_face_config(folding=True)).eval()
    randomize(model, seed=1)
    return model


@pytest.fixture(scope="session")
def fair_esm2() -> fair_esm.ESM2:
    model = fair_esm.ESM2(num_layers=3, embed_dim=40, attention_heads=5).eval()
    randomize(model, seed=2)
    return model


@pytest.fixture(scope="session")
def esmfold_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that `-m` takes."""
    return save_model(small_esmfold(), tmp_path_factory.mktemp("checkpoints") / "small_esmfold")


@pytest.fixture(scope="session")
def esmfold(esmfold_checkpoint: Path) -> ESMFold:
    model = load(esmfold_checkpoint)
    assert isinstance(model, ESMFold)
    return model


@pytest.fixture(scope="session")
def esm2_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The language model of `esmfold_checkpoint` alone."""
    return save_model(small_esmfold().lm, tmp_path_factory.mktemp("checkpoints") / "small_esm2")


@pytest.fixture(scope="session")
def calibration_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two short proteins: enough to freeze ranges of a small model."""
    path = tmp_path_factory.mktemp("calibration") / "calibration.fasta"
    path.write_text(">insulin A\nGIVEQCCTSICSLYQLENYCN\n>insulin B\nFVNQHLCGSHLVEALYLVCGERGFFYTPKT\n")
    return path


@pytest.fixture(scope="session")
def structures_folder(esmfold_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the float model folds, as the truth to score against: a score of 1 is due."""
    folder = tmp_path_factory.mktemp("structures")
    model = load(esmfold_checkpoint)
    assert isinstance(model, ESMFold)
    for name, sequence in {"one": "MKTAYIAKQRQISFVKSHFSRQLEERLG", "two": "GSHMLEDPVDAFKQWWTRLNEAYCPIHA"}.items():
        write_pdb(fold(model, sequence, name=name).atoms, folder / f"{name}.pdb")
    return folder


class _WorkerHere:
    """In place of a `WorkerProcess`; requests and answers go through JSON all the same."""

    def __init__(self) -> None:
        self.worker = Worker()

    def ask(self, verb: str, **arguments: Any) -> dict[str, Any]:
        request = json.loads(json.dumps({"verb": verb, **arguments}))
        try:
            return json.loads(json.dumps(self.worker.answer(request)))
        except Exception as error:
            raise CandidateError(first_line(error)) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass


@pytest.fixture
def workers_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let benchmarks run their candidates in this process, where they start at once, except for another Python."""
    # The package shows the function of this name in place of the module.
    module = importlib.import_module("protquant.bench.paired_benchmark")
    real = module.WorkerProcess
    monkeypatch.setattr(
        module, "WorkerProcess", lambda threads, python: real(threads, python) if python else _WorkerHere()
    )
