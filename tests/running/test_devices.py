import pytest
import torch

from protquant.errors import ProtquantError
from protquant.running.devices import parse_dtype, pick_device


def test_number_types_are_called_by_their_names():
    assert [parse_dtype(name) for name in ("float32", "bfloat16", "float16")] == [
        torch.float32,
        torch.bfloat16,
        torch.float16,
    ]


@pytest.mark.parametrize("name", ["float64", "int8", "", "Float32"])
def test_other_number_types_are_refused_with_the_choice(name: str):
    with pytest.raises(ProtquantError, match="choose one of float32, bfloat16, float16"):
        parse_dtype(name)


def test_the_processor_is_used_where_it_is_asked_for(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device(cpu_only=True).type == "cpu"
    assert pick_device().type == "cuda"
