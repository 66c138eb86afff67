import os

from hypothesis import settings

# The same examples each run, so that a change is judged by what it changes; HYPOTHESIS_PROFILE=search draws new ones.
settings.register_profile("steady", derandomize=True, deadline=None)
settings.register_profile("search", max_examples=1000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "steady"))
