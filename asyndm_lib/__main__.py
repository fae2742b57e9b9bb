"""``python -m asyndm_lib``: the command line without a WebUI."""

import sys

from .cli import main

sys.exit(main())
