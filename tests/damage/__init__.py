"""Files of a storage node, damaged in every place: `python -m tests.damage --help`."""
