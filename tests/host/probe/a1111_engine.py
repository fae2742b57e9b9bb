"""The engine of AUTOMATIC1111's WebUI; see engine.py."""

from modules import sd_hijack, sd_models, shared


def unet():
    return shared.sd_model.model.diffusion_model


def loaded():
    """The UNets of every model that the host keeps: a refiner's run had two."""
    models = {id(model): model for model in (shared.sd_model, *sd_models.model_data.loaded_sd_models)}
    return [model.model.diffusion_model for model in models.values() if model.model is not None]


def places():
    yield "sd_model", shared.sd_model
    yield "model_hijack", sd_hijack.model_hijack


def patched_options():
    """The options through which extensions patch a model."""
    return []


put_away = []  # the host's model, while it is to have none


def without_model(without):
    if without:
        put_away.append(sd_models.model_data.sd_model)
    sd_models.model_data.sd_model = None if without else put_away.pop()


def predictor(sampler):
    """The conversions of the model's noise levels: ``(sigma → timestep, timestep → sigma)``."""
    return sampler.model_wrap.sigma_to_t, sampler.model_wrap.t_to_sigma
