"""`protquant bench` prints a table, writes raw times, and refuses what cannot be done before the work."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from protquant.cli import app

TRUNK = ["bench", "trunk", "--preset", "demo", "--length", "6", "--rounds", "2", "-q", "none"]


def run(*arguments: str):
    return CliRunner().invoke(app, list(arguments))


@pytest.mark.slow
def test_a_table_is_printed_and_raw_times_are_written(tmp_path: Path):
    output = tmp_path / "new" / "trunk.json"
    result = run(*TRUNK, "--baseline", "transformers-float32", "--baseline", "protquant-float32", "-o", str(output))
    assert result.exit_code == 0, result.output
    assert "one block of the trunk of demo, 6 residues" in result.output
    assert "x transformers-float32" in result.output
    document = json.loads(output.read_text())
    assert document["settings"]["length"] == 6
    contenders = document["sections"][0]["contenders"]
    assert [(each["name"], len(each["seconds"])) for each in contenders] == [
        ("transformers-float32", 2),
        ("protquant-float32", 2),
    ]


def test_json_is_one_document(workers_here: None):
    result = run(*TRUNK, "--baseline", "protquant-float32", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["benchmark"] == "trunk"


def test_a_contender_that_failed_gives_exit_code_1(workers_here: None):
    result = run(
        *("bench", "lm", "--preset", "demo", "--workload", "uniform", "--rounds", "1", "-q", "none"),
        *("--baseline", "protquant-float32", "--baseline", "esm-cpp-w8a8", "--esm-cpp-python", "no/such/python"),
    )
    assert result.exit_code == 1
    assert "esm-cpp-w8a8 failed: set up: ProtquantError: no/such/python: cannot be started" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("trunk", "-o", "times.csv"), "name a file that ends in .json"),
        (("trunk", "--baseline", "jax"), "--baseline jax: not known"),
        (("lm", "--workload", "huge"), "--workload huge: choose one of uniform, ragged, both"),
        (("ops", "--shape", "round"), "--shape round: not known"),
        (("fold", "--backend", "opencl"), "unknown backend 'opencl'"),
    ],
)
def test_what_cannot_be_done_is_refused(arguments: tuple[str, ...], message: str):
    result = run("bench", *arguments, "-q", "none") if arguments[0] != "ops" else run("bench", *arguments)
    assert result.exit_code == 2
    assert message in result.output


def test_the_roofline_says_that_it_is_predicted():
    result = run("kernels", "--roofline")
    assert result.exit_code == 0
    assert "PREDICTED from published rates, not measured" in result.output
    assert "MI300X" in result.output
    document = json.loads(run("kernels", "--roofline", "--json").stdout)
    assert (document["predicted"], document["measured"], len(document["kernels"])) == (True, False, 54)
    assert run("kernels", "--roofline", "--check", "sm_90").exit_code == 2
