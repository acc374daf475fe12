"""A BinaryCIF file says how large its columns are; that is checked before it is unpacked."""

from collections.abc import Callable
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from biotite.structure.io.pdbx import (
    BinaryCIFBlock,
    BinaryCIFCategory,
    BinaryCIFColumn,
    BinaryCIFFile,
    CIFFile,
    compress,
)

from protquant.errors import ProtquantError
from protquant.structures import load_structure


@pytest.fixture
def document(cif_text: str) -> Any:
    table = CIFFile.read(StringIO(cif_text)).block["atom_site"]
    columns = {name: BinaryCIFColumn(table[name].as_array()) for name in table}
    file = BinaryCIFFile()
    file["x"] = compress(BinaryCIFBlock({"atom_site": BinaryCIFCategory(columns)}))
    stream = BytesIO()
    file.write(stream)
    return msgpack.unpackb(stream.getvalue())


def of_kind(document: Any, kind: str, change: Callable[[dict[str, Any]], None]) -> None:
    """Change the encodings of that kind, which are the last ones of their columns."""
    found = 0
    for column in document["dataBlocks"][0]["categories"][0]["columns"]:
        for encoding in column["data"]["encoding"]:
            for each in [encoding, *encoding.get("dataEncoding", [])]:
                if each["kind"] == kind:
                    change(each)
                    found += 1
    assert found


def test_a_column_with_more_values_than_bytes_is_refused(document: Any, tmp_path: Path):
    path = tmp_path / "x.bcif"
    path.write_bytes(msgpack.packb(document))
    assert len(load_structure(path)) == 40
    of_kind(document, "RunLength", lambda encoding: encoding.update(srcSize=10**9))
    path.write_bytes(msgpack.packb(document))
    with pytest.raises(ProtquantError, match=r"x\.bcif: column \w+ is said to have 1000000000 values"):
        load_structure(path)


def test_a_text_as_long_as_a_book_is_refused(document: Any, tmp_path: Path):
    def lengthen(encoding: dict[str, Any]) -> None:
        offsets = np.array([0, 10**6], dtype="<i4").tobytes()
        encoding.update(stringData="x" * 10**6, offsets=offsets, offsetEncoding=[{"kind": "ByteArray", "type": 3}])

    of_kind(document, "StringArray", lengthen)
    path = tmp_path / "x.bcif"
    path.write_bytes(msgpack.packb(document))
    with pytest.raises(ProtquantError, match=r"x\.bcif: column \w+ has a string of 1000000 characters"):
        load_structure(path)
