"""``python -m asyndm_lib``: the command line without a WebUI."""

import sys

from .demo.cli import main

sys.exit(main())
