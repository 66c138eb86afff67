"""Training a problem as its owner configured it: one step, one evaluation, the whole run."""
