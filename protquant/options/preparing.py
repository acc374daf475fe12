"""Options of the functions that write checkpoints."""

from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Union

from protquant.options.groups import Calibration, Device, Model, Overwrite, Seed
from protquant.options.option import Argument, Option

if TYPE_CHECKING:
    import protquant.quant

__all__ = ["ImportOptions", "QuantizeOptions"]


@dataclass(frozen=True)
class QuantizeOptions(Device, Calibration):
    """Options of `quantize_checkpoint`."""

    model: Model
    output: Annotated[Path, Option("Folder to make.", ("-o",))]
    quant: Annotated[
        Union[str, Path, "protquant.quant.Recipe"],
        Option("Recipe: a name of `protquant recipes`, or a YAML file.", ("-q",), taken_as=str),
    ]
    _: KW_ONLY
    state: Annotated[
        Path | None, Option("File to which recipes that train save their progress, and from which they resume.")
    ] = None
    seed: Seed = 0
    overwrite: Overwrite = False


@dataclass(frozen=True)
class ImportOptions:
    """Options of `import_checkpoint`."""

    source: Annotated[str, Argument("Hugging Face folder or hub name, fair-esm `.pt` file, or released name.")]
    output_folder: Annotated[Path, Argument("Folder to make.", metavar="OUTPUT")]
    overwrite: Overwrite = False
    _: KW_ONLY
    dtype: Annotated[
        Any, Option("`torch.dtype` in which the weights are stored.", none="`torch.float32`", python_only=True)
    ] = None
