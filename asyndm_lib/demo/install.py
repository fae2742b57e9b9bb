"""The ``install-model`` command: a copy of the embedded model where a WebUI looks for
checkpoints."""

from __future__ import annotations

import shutil
from pathlib import Path

import yaml

from ..errors import AsynDMError

NAME = "asyndm-emoji"


def install(model: Path, webui: Path) -> Path:
    """Copy ``model`` with its YAML and tokenizer into the ``webui`` folder, and return the new
    checkpoint.

    The copy's YAML names the tokenizer's folder by its absolute path, since a WebUI reads a
    relative one from its own working directory. An earlier copy is replaced. Raises
    :class:`AsynDMError` that names the wrong folder.
    """
    if not (webui / "webui.py").is_file():
        raise AsynDMError(f"{webui} is not a WebUI's folder: it holds no webui.py")
    if not model.is_file():
        raise AsynDMError(f"there is no checkpoint {model}")
    target = (webui / "models" / "Stable-diffusion" / f"{NAME}.safetensors").resolve()
    tokenizer = target.with_name(f"{NAME}-tokenizer")
    config = yaml.safe_load(model.with_suffix(".yaml").read_text(encoding="utf-8"))
    encoder = config["model"]["params"]["cond_stage_config"]["params"]
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(model.parent / encoder["version"], tokenizer, dirs_exist_ok=True)
        encoder["version"] = str(tokenizer)
        # The WebUI must never see the checkpoint without its YAML.
        target.with_suffix(".yaml").write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
        shutil.copyfile(model, target)
    except OSError as error:
        raise AsynDMError(f"the model cannot be written to {target.parent}: {error.strerror or error}") from error
    return target
