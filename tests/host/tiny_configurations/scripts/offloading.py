"""A test-only extension: Forge keeps the weights of a checkpoint that is named "offloaded" away
from where it computes, and fetches those of a layer when it comes to it.

On a CPU it does so under no flag, for nothing would be won. Here it goes the way of a GPU without
room for any layer.
"""

from importlib.util import find_spec

from modules import sd_models

NO_ROOM = {"model_gpu_memory_when_using_cpu_swap": 0, "lowvram_model_memory": 0.1}
"""What a model may take of the GPU's memory, as Forge and Forge Neo say that it has none."""


def offloading(load):
    room = next(name for name in NO_ROOM if name in load.__code__.co_varnames)

    def model_load(self, *args, **settings):
        asked = sd_models.model_data.forge_loading_parameters.get("checkpoint_info")
        if asked is None or "offloaded" not in asked.name:
            return load(self, *args, **settings)
        return load(self, NO_ROOM[room], *args[1:], **{k: v for k, v in settings.items() if k != room})

    return model_load


if find_spec("backend") is not None:
    from backend.memory_management import LoadedModel

    LoadedModel.model_load = offloading(LoadedModel.model_load)
