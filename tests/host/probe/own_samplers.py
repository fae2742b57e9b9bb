"""The host's own sampler functions on one sequence of noise levels, with a model and random numbers
that are given."""

import types
from importlib.util import find_spec

import engine
import torch
from engine import sampling
from modules import sd_samplers_extra, sd_samplers_timesteps_impl, shared

FUNCTIONS = {"restart_sampler": sd_samplers_extra.restart_sampler}
for name in ("ddim", "ddim_cfgpp", "plms", "unipc"):
    if hasattr(sd_samplers_timesteps_impl, name):
        FUNCTIONS[name] = getattr(sd_samplers_timesteps_impl, name)

if engine.NEO:
    FUNCTIONS["sample_unipc"] = sd_samplers_extra.sample_unipc
else:
    from modules import sd_samplers_lcm

    FUNCTIONS["sample_lcm"] = sd_samplers_lcm.sample_lcm

if find_spec("backend") is not None and not engine.NEO:
    from backend.modules import k_diffusion_extra

    FUNCTIONS["sample_ddpm"] = k_diffusion_extra.sample_ddpm


class Torch:
    """A stand-in for k-diffusion's torch, with the given random numbers and the t of DPM fast."""

    def __init__(self, noise, times):
        self._noise, self._times = iter(noise), times

    def __getattr__(self, name):
        return getattr(torch, name)

    def randn_like(self, x):
        return next(self._noise)

    def linspace(self, *args, **kwargs):
        return torch.linspace(*args, **kwargs) if self._times is None else self._times


class Model:
    """A model that treats every pixel on its own. ``sigma_of`` turns what it is called with into
    sigma."""

    cond_scale_miltiplier, need_last_noise_uncond, last_noise_uncond = 1.0, False, None

    def __init__(self, sigma_of, alphas_cumprod=None, flow=False):
        self._sigma_of = sigma_of
        of = types.SimpleNamespace(alphas_cumprod=alphas_cumprod)
        self.inner_model = types.SimpleNamespace(inner_model=of, predictor=Predictor(flow))

    def __call__(self, x, t, model_options=None):
        out = self._guided(x, t)
        for function in (model_options or {}).get("sampler_post_cfg_function", []):
            function({"denoised": out, "uncond_denoised": self.last_noise_uncond})
        return out

    def _guided(self, x, t):
        sigma = self._sigma_of(t)[:, None, None, None]
        out = torch.tanh(x / (1 + sigma)) + 0.1 * torch.sin(3 * x / (sigma**2 + 1) ** 0.5)
        self.last_noise_uncond = 0.8 * out + 0.1 * torch.cos(x)
        return out


class Predictor:
    """The part of a model that Forge Neo's functions ask: whether it is a flow, and how noise is
    added."""

    def __init__(self, flow):
        self.prediction_type = "const" if flow else "epsilon"

    def noise_scaling(self, sigma, noise, picture):
        return sigma * noise + (1.0 - sigma if self.prediction_type == "const" else 1.0) * picture

    def percent_to_sigma(self, percent):
        return 1.0 - percent


def sample(name, x, noise, pixels, options):
    """The function ``name`` from ``x`` through its descents, for each of ``pixels``, each with the
    sigma at its end."""
    x, noise = torch.tensor(x), [torch.tensor(numbers) for numbers in noise]
    return [_sample(name, x, noise, [torch.tensor(way) for way in ways], dict(options)).tolist() for ways in pixels]


def _sample(name, x, noise, ways, options):
    function = FUNCTIONS.get(name) or getattr(sampling, name)
    usual = sampling.torch, sampling.get_sigmas_karras
    of_options = ("order", "variant", "lower_order_final") if name == "unipc" and not engine.NEO else ()
    unipc = {f"uni_pc_{key}": options.pop(key) for key in of_options if key in options}
    usual_options = {key: getattr(shared.opts, key) for key in unipc}
    hijack = Torch(noise, -ways[0].log() if name == "sample_dpm_fast" else None)
    try:
        sampling.torch = hijack
        shared.opts.data.update(unipc)
        if options.pop("brownian", False):
            options["noise_sampler"] = lambda *_: hijack.randn_like(x)
        if name in ("ddim", "ddim_cfgpp", "plms", "unipc"):
            model, options["timesteps"] = _on_a_table(ways[0], name)
            options |= {"extra_args": {}, "callback": lambda state: None}
        else:
            model = Model(lambda sigma: sigma, flow=options.pop("flow", False))
            options |= _schedule(name, ways)
            options["extra_args"] = {}
        return function(model, x, disable=True, **options)
    finally:
        sampling.torch, sampling.get_sigmas_karras = usual
        shared.opts.data.update(usual_options)


def _on_a_table(sigmas, name):
    """A model whose noise levels are ``sigmas`` and no others, and its timesteps."""
    table = sigmas.flip(0)
    count = len(table)

    def sigma_of(t):
        return table[(t * count / 1000 if name == "unipc" else t).round().long()]

    timesteps = torch.arange(count)
    return Model(sigma_of, 1 / (1 + table**2)), timesteps[1:] if name == "unipc" else timesteps


def _schedule(name, ways):
    if name == "sample_dpm_fast":
        return {"sigma_max": ways[0][0].item(), "sigma_min": ways[0][-1].item()}
    if name != "restart_sampler" or len(ways) == 1:
        return {"sigmas": ways[0]}
    first, again, last = ways
    # It asks for the levels of the way back, and leaves out the 0 at their end.
    sampling.get_sigmas_karras = lambda *_, **__: torch.cat([again, torch.zeros(1)])
    return {
        "sigmas": torch.cat([first, last[1:]]),
        "restart_list": {first[-1].item(): [len(again), 1, first[0].item()]},
    }
