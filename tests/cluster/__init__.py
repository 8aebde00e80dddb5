"""Whole clusters of real processes, driven by real clients and broken on purpose."""
