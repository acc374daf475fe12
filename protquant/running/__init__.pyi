from protquant.running.devices import pick_device
from protquant.running.peak_memory import PeakMemory, peak_memory

__all__ = ["PeakMemory", "peak_memory", "pick_device"]
