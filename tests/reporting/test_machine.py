"""Facts of the machine, and nothing that says whose it is."""

import getpass
import json
import platform
from pathlib import Path

import pytest
import torch

from protquant.reporting import describe_machine


@pytest.fixture(autouse=True)
def nothing_is_hidden(monkeypatch: pytest.MonkeyPatch):
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "ATEN_CPU_CAPABILITY", "MKL_ENABLE_INSTRUCTIONS"):
        monkeypatch.delenv(name, raising=False)


def test_a_machine_is_described_by_its_cpuinfo(tmp_path: Path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: Fast 9000\nflags\t\t: fpu avx2 avx512_vnni amx_int8 pge\n")
    machine = describe_machine(cpuinfo)
    assert machine.cpu == "Fast 9000"
    assert machine.instruction_sets == ("avx2", "avx512_vnni", "amx_int8")
    assert str(machine).startswith("Fast 9000 (avx2, avx512_vnni, amx_int8), ")


def test_instructions_that_are_hidden_from_libraries_are_told(monkeypatch: pytest.MonkeyPatch):
    assert "LIMITED" not in str(describe_machine())
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", "AVX2")
    machine = describe_machine()
    assert machine.limited_by == {"ONEDNN_MAX_CPU_ISA": "AVX2"}
    assert ", LIMITED BY ONEDNN_MAX_CPU_ISA=AVX2, " in str(machine)


def test_without_cpuinfo_there_is_still_a_machine(tmp_path: Path):
    machine = describe_machine(tmp_path / "none")
    assert machine.instruction_sets == ()
    assert machine.cpu
    assert machine.cores >= 1


def test_threads_and_versions_are_those_of_this_process():
    machine = describe_machine()
    assert machine.threads == torch.get_num_threads()
    assert machine.versions["torch"] == torch.__version__
    assert "protquant" in machine.versions


def test_no_host_no_user_and_no_folder_is_told():
    said = json.dumps(describe_machine().to_dict())
    for private in (platform.node(), str(Path.home()), str(Path(__file__).parents[3])):
        assert private not in said
    assert getpass.getuser() not in said.replace("protquant", "")
