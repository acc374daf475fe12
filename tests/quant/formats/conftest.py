"""Property tests of formats have no deadline: how long a search takes says more of the machine than of the format."""

from hypothesis import settings

settings.register_profile("formats", deadline=None)
settings.load_profile("formats")
