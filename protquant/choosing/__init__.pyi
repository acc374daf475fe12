from protquant.choosing.auto import auto
from protquant.choosing.sensitivity import Sensitivity, sensitivity
from protquant.choosing.sensitivity_plots import frontier_figure, sensitivity_figure

__all__ = ["Sensitivity", "auto", "frontier_figure", "sensitivity", "sensitivity_figure"]
