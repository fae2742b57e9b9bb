"""Test-only extension: Forge takes its configurations from beside the models, cut down to the tiny models' size."""

import backend.loader
from modules.paths import models_path

backend.loader.dir_path = models_path
