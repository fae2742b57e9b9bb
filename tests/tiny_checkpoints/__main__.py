import sys
from pathlib import Path

from . import KINDS, forge, make

folder, *webui = map(Path, sys.argv[1:])
if webui:
    for kind in forge.known(webui[0]):
        print(forge.make(folder, kind, webui[0]))
    forge.configurations(webui[0], folder.parent)
else:
    for kind in KINDS:
        print(make(folder, kind))
