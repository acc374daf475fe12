"""Messages to the user during a run: progress, notes, a log of events, facts about the machine."""

from protquant.lazy_package import make_lazy

make_lazy(__name__)
