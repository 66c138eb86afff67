"""Runs the matrix and prints it."""

from .table import markdown, run

print(markdown(run()))
