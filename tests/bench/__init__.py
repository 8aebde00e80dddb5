"""Benchmarks: ratios from one run, never a timed test. `python -m tests.bench --help`."""
