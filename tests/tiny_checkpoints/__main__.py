import sys
from pathlib import Path

from . import KINDS, make

for kind in KINDS:
    print(make(Path(sys.argv[1]), kind))
