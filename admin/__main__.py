"""`python -m admin` is the `quorate` command; the supervisor starts processes this way."""

import sys

from admin.cli import main

sys.exit(main())
