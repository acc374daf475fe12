"""Memory of folding, predicted before it is allocated."""

from protquant.running.memory.amounts import format_bytes, parse_bytes
from protquant.running.memory.before_loading import folding_skeleton, memory_budget
from protquant.running.memory.budget import MemoryBudget, plan_memory
from protquant.running.memory.plan import MemoryPlan, memory_terms
from protquant.running.memory.process import available_bytes, is_out_of_memory, resident_bytes
from protquant.running.memory.setup import Runs, Setup
from protquant.running.memory.terms import Term

__all__ = [
    "MemoryBudget",
    "MemoryPlan",
    "Runs",
    "Setup",
    "Term",
    "available_bytes",
    "folding_skeleton",
    "format_bytes",
    "is_out_of_memory",
    "memory_budget",
    "memory_terms",
    "parse_bytes",
    "plan_memory",
    "resident_bytes",
]
