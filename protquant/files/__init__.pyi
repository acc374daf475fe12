from protquant.files.fingerprints import fingerprint, json_value, weights_fingerprint
from protquant.files.manifest import MANIFEST_NAME, Manifest
from protquant.files.manifest_entry import ManifestEntry, OutputFile
from protquant.files.outputs import OutputError, atomic_write, only_writer, prepare_folder
from protquant.files.table import write_table

__all__ = [
    "MANIFEST_NAME",
    "Manifest",
    "ManifestEntry",
    "OutputError",
    "OutputFile",
    "atomic_write",
    "fingerprint",
    "json_value",
    "only_writer",
    "prepare_folder",
    "weights_fingerprint",
    "write_table",
]
