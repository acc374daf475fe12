"""What a person is told while something runs: progress, notes, the log of events, the machine."""

from protquant.lazy_package import make_lazy

make_lazy(__name__)
