"""What is fuzzed: one target for each parser of files that others wrote.

A target takes any bytes, puts them where the parser looks for them, and lets the parser read them. That must give a
value or a `ProtquantError` that names the file; anything else is a finding. Documents that are signed by a hash of
their own content are signed anew, or no change would get behind the signature.
"""

import atexit
import gzip
import hashlib
import io
import json
import shutil
import struct
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import gemmi
import torch
from biotite.structure.io.pdbx import BinaryCIFFile, CIFFile, compress
from mutations import mutate, mutate_json

from protquant.checkpoints import load, open_checkpoint, save_model, save_quantized
from protquant.checkpoints.native import _content_hash
from protquant.checkpoints.partial import CallFolder
from protquant.choosing.sensitivity import _check_table
from protquant.errors import ProtquantError
from protquant.files import Manifest
from protquant.files.run_store import RunStore
from protquant.measuring.method_grid import load_method_grid
from protquant.models import ESM2, ESM2Config, ESMFold, ESMFoldConfig, StructureModuleConfig, TrunkConfig
from protquant.preparing import quantize
from protquant.preparing.statistics_cache import DiskCache
from protquant.proteins import read_fasta
from protquant.quant import Recipe, load_recipe
from protquant.quant.observers import Observer
from protquant.structures import load_structure
from protquant.structures.collection import shipped_folder

__all__ = ["REGRESSIONS", "TARGETS", "Target", "sign_config", "sign_scheme", "tiny_checkpoints"]

HERE = Path(__file__).parent
REGRESSIONS = HERE / "regressions"
"""Inputs that once were findings, in one folder for each target."""
CONFIGS = HERE.parents[1] / "configs"


@dataclass(frozen=True)
class Target:
    """A parser.

    Attributes
    ----------
    name : str
        On the command line.
    file : str
        Name of the file that is parsed, which every message must hold.
    parse : callable
        Takes the path of the file, which has been written.
    seeds : callable
        Valid inputs.
    mutate : callable
        Makes other inputs of valid ones.
    """

    name: str
    file: str
    parse: Callable[[Path], object]
    seeds: Callable[[], list[bytes]]
    mutate: Callable[[bytes, Random], bytes] = mutate
    place: Callable[[], Path] = lambda: work_folder()  # noqa: PLW0108 (defined below)
    wrap: Callable[[bytes], bytes] = lambda data: data

    def check(self, data: bytes) -> bool:
        """Return whether the parser took `data`; raise if it neither took nor properly refused them."""
        path = self.place() / self.file
        path.write_bytes(self.wrap(data))
        try:
            self.parse(path)
        except ProtquantError as error:
            if self.file not in str(error) and str(path.parent) not in str(error):
                raise AssertionError(f"the message does not name {path}: {error}") from error
            return False
        return True

    def kept(self) -> list[Path]:
        """Return the files of inputs that were findings once."""
        return sorted((REGRESSIONS / self.name).glob("*"))


@cache
def work_folder() -> Path:
    """Return a folder that is removed when the process ends."""
    folder = Path(tempfile.mkdtemp(prefix="protquant-fuzz-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def tiny_checkpoints() -> Path:
    """Return a folder of the smallest encoder in every layout: `native`, `quantized`, `hub` and `fair.pt`.

    Beside them there is a folding model, `folding`.
    """
    folder = work_folder() / "checkpoints"
    folder.mkdir()
    torch.manual_seed(0)
    model = ESM2(ESM2Config(num_layers=1, dim=8, num_heads=2, ffn_dim=16)).eval()
    save_model(model, folder / "native")
    kinds = {
        "linear_weight": {"format": "uniform", "bits": 4, "granularity": "channel", "symmetric": False},
        "linear_input": {"format": "uniform", "bits": 8},
        "norm_gain": {"format": "piecewise_linear", "bits": 4, "breakpoint": "numeric"},
    }
    quantized, report = quantize(model, Recipe("tiny", kinds=kinds), ["GIVEQCCTSICS"], cache=False)
    save_quantized(quantized, report, folder / "quantized")
    module = StructureModuleConfig(single_dim=16, pair_dim=8, ipa_dim=4, num_heads=2, resnet_dim=8, num_layers=1)
    trunk = TrunkConfig(1, 16, 8, 8, 4, position_bins=4, max_recycles=1, structure_module=module)
    save_model(ESMFold(ESMFoldConfig(model.config, trunk, plddt_hidden_dim=8)).eval(), folder / "folding")
    _save_as_transformers(folder / "hub")
    _save_as_fair_esm(folder / "fair.pt")
    return folder


def _save_as_transformers(folder: Path) -> None:
    from transformers import EsmConfig, EsmForMaskedLM  # noqa: PLC0415 (takes seconds, and few targets need it)

    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    fixed = {"vocab_size": 33, "mask_token_id": 32, "pad_token_id": 1, "token_dropout": True}
    config = EsmConfig(**sizes, **fixed, position_embedding_type="rotary", emb_layer_norm_before=False)
    EsmForMaskedLM(config).save_pretrained(folder)


def _save_as_fair_esm(path: Path) -> None:
    from esm.model.esm2 import ESM2 as FairESM2  # noqa: PLC0415, N811

    state = FairESM2(num_layers=1, embed_dim=8, attention_heads=2).state_dict()
    names = {name: name if name.startswith("contact") else f"encoder.sentence_encoder.{name}" for name in state}
    torch.save({"cfg": {"model": {"token_dropout": True}}, "model": {names[key]: state[key] for key in state}}, path)


def _copy_of(layout: str) -> Callable[[], Path]:
    @cache
    def place() -> Path:
        folder = Path(tempfile.mkdtemp(prefix=f"{layout}-", dir=work_folder()))
        return Path(shutil.copytree(tiny_checkpoints() / layout, folder, dirs_exist_ok=True))

    return place


def _stored(layout: str, file: str) -> Callable[[], list[bytes]]:
    return lambda: [(tiny_checkpoints() / layout / file).read_bytes()]


def sign_config(data: bytes) -> bytes:
    """Sign the `config.json` of protquant's own layout, where it is a JSON object."""
    try:
        content = json.loads(data)
        content.pop("sha256", None)
        return json.dumps({**content, "sha256": _content_hash(content)}).encode()
    except (ValueError, TypeError, AttributeError, RecursionError):
        return data


def sign_scheme(data: bytes) -> bytes:
    """Sign a `scheme.json`, whatever is behind its first line."""
    _, _, body = data.partition(b"\n")
    return f'{{"sha256": "{hashlib.sha256(body).hexdigest()}",\n'.encode() + body


def mutate_scheme(data: bytes, random: Random) -> bytes:
    """Change one value of a `scheme.json` but for its signature."""
    head, _, body = data.partition(b"\n")
    return head + b"\n" + mutate_json(b"{" + body, random)[1:]


def mutate_safetensors(data: bytes, random: Random) -> bytes:
    """Change one value of the header, or any byte."""
    if random.random() < 0.3 or len(data) < 8:
        return mutate(data, random)
    (length,) = struct.unpack("<Q", data[:8])
    header = mutate_json(data[8 : 8 + length], random)
    length = random.choice((len(header), len(header), len(header), length, 2**63, 0))
    return struct.pack("<Q", length) + header + data[8 + length :]


def _sign_weights(folder: Path) -> None:
    """Sign `config.json` for the weights that are in the folder."""
    content = json.loads((tiny_checkpoints() / "native" / "config.json").read_bytes())
    content["weights"]["sha256"] = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
    (folder / "config.json").write_bytes(sign_config(json.dumps(content).encode()))


def _load_weights(path: Path) -> object:
    _sign_weights(path.parent)
    return load(path.parent)


def _chain() -> str:
    """The first 12 residues of a shipped chain, of which the last six are another chain."""
    text = gzip.decompress((shipped_folder() / "1ahsA.pdb.gz").read_bytes()).decode()
    atoms = [line for line in text.splitlines() if line.startswith("ATOM")]
    numbers = list(dict.fromkeys(line[22:27] for line in atoms))[:12]
    lines = [
        f"{line[:21]}{'A' if line[22:27] in numbers[:6] else 'B'}{line[22:]}"
        for line in atoms
        if line[22:27] in numbers
    ]
    return "\n".join(["HEADER    TEST", *lines[:45], "TER", *lines[45:], "TER", "END", ""])


def _pdb_seeds() -> list[bytes]:
    chain = _chain()
    models = f"MODEL        1\n{chain[:1200]}\nENDMDL\nMODEL        2\n{chain[:1200]}\nENDMDL\n"
    altloc = chain.replace(" CA  ", " CA A", 2).replace("ATOM  ", "HETATM", 9)
    return [text.encode() for text in (chain, models, altloc)] + [gzip.compress(chain.encode(), mtime=0)]


@cache
def _cif() -> str:
    structure = gemmi.read_pdb_string(_chain())
    structure.setup_entities()
    structure.assign_label_seq_id()
    return structure.make_mmcif_document().as_string()


def _bcif_seeds() -> list[bytes]:
    block = CIFFile.read(io.StringIO(_cif())).block
    file = BinaryCIFFile()
    file["x"] = compress(_binary(block))
    stream = io.BytesIO()
    file.write(stream)
    return [stream.getvalue()]


def _binary(block: Any) -> Any:
    from biotite.structure.io.pdbx import BinaryCIFBlock, BinaryCIFCategory, BinaryCIFColumn  # noqa: PLC0415

    table = block["atom_site"]
    columns = {name: BinaryCIFColumn(table[name].as_array()) for name in table}
    return BinaryCIFBlock({"atom_site": BinaryCIFCategory(columns)})


def _recipe_seeds() -> list[bytes]:
    return [path.read_bytes() for path in sorted((CONFIGS / "quant").glob("*.yaml"))]


def _read_grid(path: Path) -> object:
    grid = load_method_grid(path)
    return [grid.cells(part, 8) for part in ("language", "folding")]


def _manifest_seeds() -> list[bytes]:
    entry = {
        "name": "a",
        "header": "a b",
        "fingerprint": "f",
        "status": "done",
        "files": {"a.pdb": {"size": 1, "sha256": "x"}},
        "error": None,
        "row": {"length": 3, "ptm": 0.5},
    }
    failed = {**entry, "name": "b", "status": "failed", "files": {}, "error": "too long"}
    lines = [json.dumps(each) for each in ({"protquant_manifest": 1, "partition": "1/2"}, entry, failed)]
    return ["\n".join(lines).encode() + b"\n"]


def _statistics() -> tuple[DiskCache, Path]:
    cache = DiskCache(work_folder())
    path = cache._path(_KEY)
    path.parent.mkdir(exist_ok=True)  # whichever test comes first
    return cache, path


def _statistics_seeds() -> list[bytes]:
    observer = Observer("site")
    observer.update(torch.randn(3, 4))
    observer.end_sequence()
    cache, path = _statistics()
    cache.put(_KEY, {"site": observer.statistics(), "other": observer.statistics()})
    return [path.read_bytes()]


def _read_statistics(path: Path) -> object:
    known = _statistics()[0].get(_KEY)  # a damaged file is reported, and nothing is raised
    assert known is None or set(known) <= {"site", "other"}
    return known


def _read_calls(path: Path) -> object:
    return CallFolder(path.parent).get("block", 0)


def _calls_seeds() -> list[bytes]:
    folder = work_folder() / "calls"
    CallFolder(folder).put("block", 0, [(torch.zeros(2, 3), 1.5, None), (torch.ones(1), "x", True)])
    return [(folder / "block.0.safetensors").read_bytes()]


@cache
def _index_place() -> Path:
    folder = _copy_of("hub")()
    (folder / "model.safetensors").rename(folder / "part.safetensors")
    return folder


def _index_seeds() -> list[bytes]:
    from safetensors import safe_open  # noqa: PLC0415

    with safe_open(tiny_checkpoints() / "hub" / "model.safetensors", framework="pt") as stream:
        names = list(stream.keys())
    return [json.dumps({"metadata": {}, "weight_map": dict.fromkeys(names, "part.safetensors")}).encode()]


def _folder_of(path: Path) -> object:
    return open_checkpoint(path.parent)


_FASTA = b">a first\nMKTAYIAKQR\nQISFVKSHFS\n>b|protein\nGIVEQCC:FVNQHLC\n;comment\n>c\nmktx*\n"
_CSV = b'id,sequence\na,MKTAYIAKQR\n"b, second","GIVEQCC:FVNQHLC"\n'
_KEY = "0" * 64
_SENSITIVITIES = b"""group,block,part,sites,elements,format,config,bits,settings,logit_kl,key
a,a,lm,2,64,4 bits,"{""format"": ""uniform"", ""bits"": 4}",4.0,s,0.5,k
"""
_ROWS = b'{"status": "done", "targets": [{"target": "a", "tm_score": NaN}], "key": "abc"}\n'
_TABLE = b"recipe,status,tm_score,key\nw8,done,0.5,abc\nw4,failed,,def\n"
TARGETS = {
    target.name: target
    for target in (
        Target("fasta", "x.fasta", read_fasta, lambda: [_FASTA, gzip.compress(_FASTA, mtime=0)]),
        Target("csv", "x.csv", read_fasta, lambda: [_CSV]),
        Target("pdb", "x.pdb", load_structure, _pdb_seeds),
        Target("mmcif", "x.cif", load_structure, lambda: [_cif().encode()]),
        Target("bcif", "x.bcif", load_structure, _bcif_seeds),
        Target("recipe", "x.yaml", load_recipe, _recipe_seeds),
        Target("method_grid", "grid.yaml", _read_grid, lambda: [(CONFIGS / "methods.yaml").read_bytes()]),
        Target("manifest", "manifest.jsonl", lambda path: Manifest.load(path.parent), _manifest_seeds),
        Target("table", "table.csv", lambda path: RunStore(path, ("done",)), lambda: [_TABLE]),
        Target("rows", "rows.jsonl", lambda path: RunStore(path, ("done",)), lambda: [_ROWS], mutate_json),
        Target(
            "statistics", f"{_KEY}.safetensors", _read_statistics, _statistics_seeds, mutate_safetensors,
            lambda: _statistics()[1].parent,
        ),
        Target("sensitivities", "rows.csv", lambda path: _check_table(RunStore(path), "s"), lambda: [_SENSITIVITIES]),
        Target("calls", "block.0.safetensors", _read_calls, _calls_seeds, mutate_safetensors),
        Target(
            "config", "config.json", _folder_of, _stored("native", "config.json"), mutate_json, _copy_of("native"),
            sign_config,
        ),
        Target(
            "safetensors", "model.safetensors", _load_weights, _stored("native", "model.safetensors"),
            mutate_safetensors, _copy_of("native"),
        ),
        Target(
            "scheme", "scheme.json", lambda path: load(path.parent), _stored("quantized", "scheme.json"),
            mutate_scheme, _copy_of("quantized"), sign_scheme,
        ),
        Target("hub_config", "config.json", _folder_of, _stored("hub", "config.json"), mutate_json, _copy_of("hub")),
        Target("index", "model.safetensors.index.json", _folder_of, _index_seeds, mutate_json, _index_place),
        Target("fair_esm", "fair.pt", load, lambda: [(tiny_checkpoints() / "fair.pt").read_bytes()]),
    )
}  # fmt: skip
