"""The parts of the benchmark of overhead."""
