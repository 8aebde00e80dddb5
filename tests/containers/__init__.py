"""The compose deployment on a real container engine: `python -m tests.containers --help`."""
