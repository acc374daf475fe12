"""`protquant-sweep`: the same evaluation as `protquant evaluate`, composed by Hydra, for multiruns.

    protquant-sweep -m model=demo quant=fp32,w8a8-uniform,w8a8-pwlq
    protquant-sweep -m 'quant=glob(*)' data.limit=10

Every job writes `result.json` to its own folder; jobs of a sweep also share one table, `table.csv`, in the sweep's
folder, to which each job adds its row. Each job also folds with the float model, which the drift is measured against.
"""

import json
import logging
import sys
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig

from protquant.configs.schema import register_schemas
from protquant.errors import ProtquantError
from protquant.pipelines.evaluate import evaluate
from protquant.proteins import atomic_write, json_value, write_table
from protquant.quant import load_recipe

__all__ = ["main", "run_job"]

log = logging.getLogger(__name__)
RESULT, TABLE = "result.json", "table.csv"


def run_job(config: DictConfig, folder: Path) -> dict[str, Any]:
    """Evaluate one model under one recipe, write `result.json` to `folder`, and return the record."""
    recipe = load_recipe(config.quant)
    result = evaluate(
        [config.model.name_or_path],
        [recipe],
        config.task.name,
        structures=None if config.data.structures is None else Path(config.data.structures),
        limit=config.data.limit,
        calibration=None if config.data.calibration is None else Path(config.data.calibration),
        num_recycles=config.task.get("num_recycles"),
        chunk_size=config.task.get("chunk_size"),
        dtype=config.model.dtype.value,
    )
    # evaluate() always runs the float model as well, which the drift is measured against.
    record = next(record for record in result.records if record["recipe"] == recipe.name)
    document = {"record": record, **result.to_dict()}
    atomic_write(folder / RESULT, json.dumps(json_value(document), indent=1))
    return record


def _job_number(path: Path) -> tuple[int, str]:
    """Job folders start with the number of the job: 10 comes after 2."""
    number = path.parent.name.split("_", 1)[0]
    return int(number) if number.isdigit() else sys.maxsize, path.parent.name


def _add_to_table(folder: Path) -> Path:
    """One row per job of the sweep, from what the jobs wrote."""
    documents = [
        json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob(f"*/{RESULT}"), key=_job_number)
    ]
    return write_table([document["record"] for document in documents], folder / TABLE)


@hydra.main(version_base="1.3", config_path="pkg://protquant.configs", config_name="sweep")
def _hydra_main(config: DictConfig) -> float | None:
    settings = HydraConfig.get()
    folder = Path(settings.runtime.output_dir)
    try:
        record = run_job(config, folder)
    except ProtquantError as error:
        log.error("protquant-sweep: %s", error)
        sys.exit(2)
    for name, value in record.items():
        log.info("%s: %s", name, value)
    if settings.mode == RunMode.MULTIRUN:
        log.info("table: %s", _add_to_table(Path(settings.sweep.dir)))
    # What a Hydra sweeper maximizes.
    return record.get("tm_score", record.get("long P@L"))


def main() -> None:
    """Run the sweep command."""
    register_schemas()
    _hydra_main()
