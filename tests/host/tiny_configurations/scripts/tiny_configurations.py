"""Test-only extension: Forge takes its configurations from beside the models, cut down to the tiny models' size."""

import backend.loader
from modules.paths import models_path

if hasattr(backend.loader, "HF"):
    backend.loader.HF = f"{models_path}/huggingface"
else:
    backend.loader.dir_path = models_path
