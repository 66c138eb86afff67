"""Thin scripts on top of cnnprobe: diagnose, train, demo."""
