from protquant.quant.tuning.grids import LearnedClipping, LearnedRange
from protquant.quant.tuning.learner import Learner
from protquant.quant.tuning.scales import EquivalentScales, foldable_links
from protquant.quant.tuning.student import Student

__all__ = [
    "EquivalentScales",
    "LearnedClipping",
    "LearnedRange",
    "Learner",
    "Student",
    "foldable_links",
]
