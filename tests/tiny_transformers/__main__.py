import sys
from importlib import import_module
from pathlib import Path

host, *folders = sys.argv[1:]
sys.argv = sys.argv[:1]  # the WebUI's modules read it
import_module(f"{__package__}.{host}").make(*(Path(folder).resolve() for folder in folders))
