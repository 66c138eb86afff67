"""Networks as pairs of pure functions, and the adapters for networks that other libraries wrote."""
