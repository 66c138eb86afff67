"""Single measurements of a problem, one kind a file."""
