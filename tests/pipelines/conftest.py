"""The small folding model, loaded."""

from pathlib import Path

import pytest

from protquant.checkpoints import load
from protquant.models import ESMFold


@pytest.fixture(scope="session")
def esmfold(esmfold_checkpoint: Path) -> ESMFold:
    model = load(esmfold_checkpoint)
    assert isinstance(model, ESMFold)
    return model
