"""Facts of the machine, and nothing that says whose it is."""

import getpass
import json
import platform
from pathlib import Path

import torch

from protquant.pipelines.bench import describe_machine


def test_a_machine_is_described_by_its_cpuinfo(tmp_path: Path):
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nmodel name\t: Fast 9000\nflags\t\t: fpu avx2 avx512_vnni amx_int8 pge\n")
    machine = describe_machine(cpuinfo)
    assert machine.cpu == "Fast 9000"
    assert machine.instruction_sets == ("avx2", "avx512_vnni", "amx_int8")
    assert str(machine).startswith("Fast 9000 (avx2, avx512_vnni, amx_int8), ")


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
