"""Library by feature by check: what taps read, and that they change nothing.

A library is a module with `CASES`, a function that makes a `Case` for each feature that it has. The command
`python -m tests.tracing.matrix` prints the table that `docs/taps.md` shows.
"""
