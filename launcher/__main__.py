"""Start of the launcher, called by ./predictgbm."""

import sys

from commands import main

sys.exit(main())
