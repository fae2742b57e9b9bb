"""The engine of Forge and its relatives; see engine.py."""

from importlib.util import find_spec

import numpy as np
import torch
from modules import sd_models, shared

if find_spec("backend") is None:
    from ldm_patched.modules import model_management as memory_management
else:
    from backend import memory_management


def unet():
    return shared.sd_model.forge_objects.unet.model.diffusion_model


def _patchers():
    """The UNets with their patches that the host keeps."""
    names = ("forge_objects", "forge_objects_original", "forge_objects_after_applying_lora")
    # There is no model before the first picture.
    objects = [getattr(shared.sd_model, name, None) for name in names]
    patchers = [o.unet for o in objects if o is not None]
    loaded = [loaded.model for loaded in memory_management.current_loaded_models]
    # Some hold them by a weak reference.
    return patchers + [patcher for patcher in loaded if patcher is not None]


def loaded():
    """The modules of every model that the host keeps."""
    return list({id(patcher.model): patcher.model for patcher in _patchers()}.values())


def places():
    yield "sd_model", shared.sd_model
    for number, patcher in enumerate(_patchers()):
        yield f"patcher {number}", patcher


def patched_options():
    """The options through which extensions patch a model."""
    return [patcher.model_options for patcher in _patchers() if hasattr(patcher, "model_options")]


put_away = []  # the host's model, while it is to have none


def without_model(without):
    if without:
        put_away.append(sd_models.model_data.sd_model)
    nothing = getattr(sd_models, "FakeInitialModel", lambda: None)
    sd_models.model_data.sd_model = nothing() if without else put_away.pop()


def predictor(sampler):
    """The conversions of the model's noise levels: ``(sigma → timestep, timestep → sigma)``.

    They are not what some samplers have in between: LCM's knows every twentieth timestep only.
    Where the model is told the nearest level, they go on between two of them.
    """
    model = shared.sd_model.forge_objects.unet.model
    own = model.predictor if hasattr(model, "predictor") else model.model_sampling
    if own.timestep(own.sigmas[:1]).is_floating_point():
        return own.timestep, own.sigma
    logs = own.log_sigmas.double().numpy()

    def timestep(sigma):
        return torch.from_numpy(np.interp(sigma.double().log().numpy(), logs, np.arange(len(logs))))

    return timestep, own.sigma


class Transformer(torch.nn.Module):
    """The host's UNet, with as little of one to be seen as in a transformer."""

    def __init__(self, model):
        super().__init__()
        self.model = model
        self.dtype = getattr(model, "dtype", None)  # of which reForge asks it

    def forward(self, *args, **kwargs):
        return self.model(*args, **kwargs)


def as_transformer(on):
    model = shared.sd_model.forge_objects.unet.model
    model.diffusion_model = Transformer(model.diffusion_model) if on else model.diffusion_model.model


class Wrapper:
    """A wrapper of another extension, around each call of the model while it is ``on``."""

    def __init__(self):
        self.on, self.calls = False, 0

    def put(self, p):
        unet = p.sd_model.forge_objects.unet.clone()
        # Clones copy an object.
        unet.set_model_unet_function_wrapper(lambda apply, call: self.called(apply, call))
        p.sd_model.forge_objects.unet = unet

    def called(self, apply, call):
        self.calls += 1
        return apply(call["input"], call["timestep"], **call["c"])


wrapper = Wrapper()
get_free_memory = memory_management.get_free_memory


def little_memory(little):
    """Make the host believe that there is too little memory to join the parts of a batch."""
    memory_management.get_free_memory = _none if little else get_free_memory


def _none(*_, torch_free_too=False):
    return (0, 0) if torch_free_too else 0
