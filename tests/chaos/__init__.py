"""Long runs against real processes with faults at random: `python -m tests.chaos --help`."""
