"""Pages of the documentation that are written from the package itself: causes, reference, notebooks."""
