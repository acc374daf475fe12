"""What the system tells of this process."""

import sys
from pathlib import Path

import numpy as np
import pytest

from protquant.running.memory.process import resident_bytes_of_files


@pytest.mark.skipif(sys.platform != "linux", reason="which pages of a file are mapped is Linux's to tell")
def test_of_mapped_files_those_pages_count_that_were_looked_at(tmp_path: Path):
    path = tmp_path / "codes.of_this_test"
    np.zeros(2**22, dtype=np.uint8).tofile(path)
    assert resident_bytes_of_files(tmp_path.resolve(), ".of_this_test") == 0
    mapped = np.memmap(path, mode="r")
    assert resident_bytes_of_files(tmp_path.resolve(), ".of_this_test") < 2**20
    assert mapped.sum() == 0
    assert resident_bytes_of_files(tmp_path.resolve(), ".of_this_test") == 2**22
