"""`protquant-sweep`: the same evaluation as `protquant evaluate`, composed by Hydra, for multiruns.

    protquant-sweep -m model=demo quant=fp32,w8a8-uniform,w8a8-pwlq
    protquant-sweep -m 'quant=glob(*)' data.limit=10

Every job writes `result.json` to its own folder; jobs of a sweep also share one table, `table.csv`, in the sweep's
folder, to which each job adds its row, and the folder `resume` with finished rows and predictions of the float model. A
sweep that restarts in the same folder (`hydra.sweep.dir=FOLDER`) resumes: it skips jobs that are done with the same
settings, weights and version.
"""

import json
import logging
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from protquant.configs.schema import register_schemas
from protquant.errors import ProtquantError
from protquant.files import atomic_write, json_value, write_table
from protquant.files.plain_data import parse_json
from protquant.measuring.evaluate import evaluate
from protquant.quant import load_recipe
from protquant.reporting.progress import alive

__all__ = ["main", "run_job"]

log = logging.getLogger(__name__)
RESULT, TABLE, RESUME = "result.json", "table.csv", "resume"


def run_job(config: DictConfig, folder: Path, cache: Path | None = None) -> dict[str, Any]:
    """Evaluate one model under one recipe, write `result.json` to `folder`, and return the record.

    Parameters
    ----------
    cache : Path, optional
        Folder for finished rows and predictions of the float model, which jobs share; by default `resume` in `folder`.
    """
    recipe = load_recipe(config.quant)
    with alive(f"{config.model.name_or_path}, {recipe.name}"):
        result = evaluate(
            [config.model.name_or_path],
            [recipe],
            config.task.name,
            structures=_path(config.data.structures),
            heldout=_path(config.data.heldout),
            limit=config.data.limit,
            mask_every=config.task.get("mask_every"),
            calibration=_path(config.data.calibration),
            num_recycles=config.task.get("num_recycles"),
            chunk_size=config.task.get("chunk_size"),
            dtype=config.model.dtype.value,
            cache=cache or folder / RESUME,
        )
    # evaluate() always adds a row for the float model, as the reference of drift.
    record = next(record for record in result.records if record["recipe"] == recipe.name)
    settings = OmegaConf.to_container(config, resolve=True, enum_to_str=True)
    document = {"record": record, "settings": {"config": settings, "version": version("protquant")}, **result.to_dict()}
    atomic_write(folder / RESULT, json.dumps(json_value(document), indent=1))
    return record


def _path(given: str | None) -> Path | None:
    return None if given is None else Path(given)


def _job_number(path: Path) -> tuple[int, str]:
    """Return the number of a job's folder, so that 10 comes after 2."""
    number = path.parent.name.split("_", 1)[0]
    return int(number) if number.isdigit() else sys.maxsize, path.parent.name


def _add_to_table(folder: Path) -> Path:
    """Write the table of the sweep, with one row per job, from the results of the jobs."""
    documents = [parse_json(path.read_bytes()) for path in sorted(folder.glob(f"*/{RESULT}"), key=_job_number)]
    return write_table([document["record"] for document in documents], folder / TABLE)


@hydra.main(version_base="1.3", config_path="pkg://protquant.configs", config_name="sweep")
def _hydra_main(config: DictConfig) -> float | None:
    settings = HydraConfig.get()
    folder = Path(settings.runtime.output_dir)
    cache = Path(settings.sweep.dir) / RESUME if settings.mode == RunMode.MULTIRUN else None
    try:
        record = run_job(config, folder, cache)
    except ProtquantError as error:
        log.error("protquant-sweep: %s", error)
        sys.exit(2)
    for name, value in record.items():
        log.info("%s: %s", name, value)
    if settings.mode == RunMode.MULTIRUN:
        log.info("table: %s", _add_to_table(Path(settings.sweep.dir)))
    # The value that a Hydra sweeper maximizes.
    if "pseudo_perplexity" in record:
        return -float(record["pseudo_perplexity"])
    return record.get("tm_score", record.get("long P@L"))


def main() -> None:
    """Run the sweep command."""
    register_schemas()
    _hydra_main()
