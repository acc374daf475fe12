"""Every shipped config composes with the schemas, and mistakes are named."""

import subprocess
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest
from hydra import compose, initialize_config_module
from hydra.errors import ConfigCompositionException
from omegaconf import DictConfig, MissingMandatoryValue, OmegaConf

from protquant.checkpoints.registry import KNOWN
from protquant.configs import ContactsTask, Dtype, LanguageTask, StructureTask
from protquant.quant import available_recipes, load_recipe


def names(group: str) -> list[str]:
    folder = resources.files("protquant.configs") / group
    return sorted(entry.name.removesuffix(".yaml") for entry in folder.iterdir() if entry.name.endswith(".yaml"))


@pytest.fixture(autouse=True)
def _hydra() -> Iterator[None]:
    with initialize_config_module("protquant.configs", version_base="1.3"):
        yield


def sweep(*overrides: str) -> DictConfig:
    return compose("sweep", list(overrides))


def test_default_is_the_float_demo_on_the_50_chains() -> None:
    config = sweep()
    assert set(config) == {"model", "quant", "data", "task"}
    assert config.model.name_or_path == "demo"
    assert config.model.dtype is Dtype.float32
    assert config.quant.name == "fp32"
    assert config.data.structures is None
    assert config.task.name == "structure"


@pytest.mark.parametrize("name", sorted({*available_recipes(), *names("quant")}))
def test_recipe_composes_to_what_load_recipe_gives(name: str) -> None:
    assert load_recipe(sweep(f"quant={name}").quant) == load_recipe(name)


@pytest.mark.parametrize("name", names("model"))
def test_model_composes(name: str) -> None:
    model = sweep(f"model={name}").model
    assert OmegaConf.is_missing(model, "name_or_path") if name == "path" else model.name_or_path == name


def test_every_released_model_has_a_config() -> None:
    assert set(KNOWN) | {"demo", "path"} == set(names("model"))


@pytest.mark.parametrize("name", names("data"))
def test_data_composes(name: str) -> None:
    config = sweep(f"data={name}", "data.limit=3")
    assert config.data.limit == 3
    assert OmegaConf.is_missing(config.data, "structures") == (name == "folder")


@pytest.mark.parametrize(
    ("name", "schema"), [("structure", StructureTask), ("contacts", ContactsTask), ("language", LanguageTask)]
)
def test_task_has_the_settings_of_its_schema(name: str, schema: type) -> None:
    task = sweep(f"task={name}").task
    assert OmegaConf.get_type(task) is schema
    assert task.name == name


def test_schemas_do_not_hide_among_the_tasks() -> None:
    assert names("task") == ["contacts", "language", "structure"]


def test_missing_path_is_an_error_that_names_the_key() -> None:
    with pytest.raises(MissingMandatoryValue, match=r"model\.name_or_path"):
        _ = sweep("model=path").model.name_or_path


@pytest.mark.parametrize(
    "override",
    [
        "model.nmae_or_path=demo",
        "model.dtype=float33",
        "data.limit=ten",
        "task.num_recycles=many",
        "quant.calibration.top_k=few",
        "quant=w7a7",
    ],
)
def test_wrong_key_or_value_is_an_error_that_names_it(override: str) -> None:
    key = override.partition("=")[0]
    with pytest.raises(Exception, match=key) as caught:
        sweep(override)
    assert type(caught.value).__module__.startswith(("hydra.", "omegaconf."))


def test_contacts_take_no_recycles() -> None:
    with pytest.raises(ConfigCompositionException, match="num_recycles"):
        sweep("task=contacts", "task.num_recycles=1")


def test_recipe_can_be_changed_from_the_command_line() -> None:
    config = sweep("quant=w8a8-uniform", "quant.kinds.norm_input=null", "quant.calibration.top_k=3")
    recipe = load_recipe(config.quant)
    assert recipe.kinds["norm_input"] is None
    assert recipe.calibration.top_k == 3


@pytest.mark.slow
def test_multirun_composes_each_recipe_and_keeps_standard_output_for_the_table(tmp_path: Path) -> None:
    application = """
import hydra, logging

@hydra.main(config_path="pkg://protquant.configs", config_name="sweep", version_base="1.3")
def main(config):
    logging.getLogger("protquant").info("not on standard output")
    print(config.model.name_or_path, config.quant.name)

main()
"""
    script = tmp_path / "application.py"
    script.write_text(application)
    overrides = ["-m", "model=demo", "quant=fp32,w8a8-uniform,w8a8-pwlq"]
    command = [sys.executable, script, *overrides]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:-1] == ["demo fp32", "demo w8a8-uniform", "demo w8a8-pwlq"]
    jobs = {folder.parent.name for folder in tmp_path.glob("outputs/sweeps/*/*/*/.hydra")}
    assert jobs == {"0_demo_fp32", "1_demo_w8a8-uniform", "2_demo_w8a8-pwlq"}
