"""Probes: pure functions of arrays that return small records of readings. They measure; the doctor judges."""
