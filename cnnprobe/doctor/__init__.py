"""The doctor: observe, suspect, try, rank."""
