"""The noise levels of one call of a host's sampler function.

With them come the host's own scalars at these levels, to the bit.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from modules import shared
from torch import Tensor

from ...clock.cells import sent
from ...clock.schedule import NoiseLevels, Schedule
from ...errors import TooFewSteps, Unsupported
from ...run.host import Descent
from ...samplers import lms
from ...samplers.row import Options, Sampler
from ...samplers.unipc import Marginals
from .own_scalars import lms_coefficients

Map = Callable[[Tensor], Tensor]
"""Maps values of any shape, on any device, one by one."""


class Maps(NamedTuple):
    """What is between a model's sigmas and timesteps; see :class:`clock.schedule.Schedule`."""

    sigma_to_t: Map
    t_to_sigma: Map
    told: Map | None = None


class Levels(NamedTuple):
    """The noise levels of one call, and what our sampler is called with.

    ``input``: the host's own scalar sigma → what its denoiser is called with, ``[B]``. ``unit``: a
    sigma map in the same unit. ``options``: those of our sampler.
    """

    descents: list[Descent]
    input: Map
    unit: Map
    options: dict[str, Any]


def levels_of(
    sampler: Sampler,
    model: Any,
    x: Tensor,
    options: Options,
    maps: Callable[[], Maps],
    sampling: ModuleType,
    timestep: Map | None = None,
) -> Levels:
    """The noise levels of a call of ``sampler`` with the host's ``options``.

    ``model``: its denoiser. ``maps()``: the model's own. ``sampling``: k-diffusion's samplers as
    the host has them. ``timestep``: sigma → the timestep that the model is told, where the host
    gives it sigmas also in the samplers that go by timesteps, and takes those of whole timesteps
    only. Raises :class:`Unsupported` for a schedule that no run can take, and :class:`TooFewSteps`
    for one of no step.
    """
    if sampler.scalars == "marginals":
        return _unipc(model, x, options, timestep)
    if sampler.levels == "timesteps":
        return _timesteps(model, x, options, timestep)
    return _sigmas(sampler, x, options, sampling, maps())


def _sigmas(sampler: Sampler, x: Tensor, options: Options, sampling: ModuleType, maps: Maps) -> Levels:
    """The levels of k-diffusion's samplers: sigmas, to the last of which all pixels step together.
    """
    given = options.get("sigmas")
    if given is not None:
        _check_steps(given)
    ways, ours = sampler.descents(options, x.device)
    for sigmas in ways:
        if not (sigmas[:-1] > 0).all() or not (sigmas.diff() <= 0).all():
            raise Unsupported("this schedule does not descend from step to step; choose another schedule type")
    if sampler.scalars == "linear multistep":
        ours["coefficients"] = lms_coefficients(given, ours.get("order", lms.ORDER))
    if "noise_sampler" in ours and ours["noise_sampler"] is None:
        # The host may leave it to the sampler function, which then takes the first random seed that
        # comes.
        extent = given[given > 0].min(), given.max()
        ours["noise_sampler"] = sampling.BrownianTreeNoiseSampler(x, *extent)
    ones = x.new_ones(len(x))
    found = [Descent(Schedule(sigmas[:-1], *maps), list(sigmas)) for sigmas in ways]
    return Levels(found, lambda sigma: sigma * ones, lambda map: map, ours)


def _check_steps(knots: Tensor) -> None:
    """Raise :class:`TooFewSteps` if there is no step from one of ``knots`` to the next."""
    if len(knots) < 2:
        raise TooFewSteps("there is no step to make")


def _timesteps(model: Any, x: Tensor, options: Options, timestep: Map | None) -> Levels:
    """The levels of DDIM and PLMS: ascending timesteps.

    All but the first are evaluated, and the first is stepped to.
    """
    ours = dict(options)
    timesteps = ours.pop("timesteps").cpu()
    _check_steps(timesteps)
    alphas_cumprod = model.inner_model.inner_model.alphas_cumprod
    levels = NoiseLevels(alphas_cumprod.cpu().double())
    schedule = _knots(timesteps.double().flip(0), levels.t_to_sigma, levels.sigma_to_t, timestep)

    # The host's own scalars, rounded as it rounds them (modules/sd_samplers_timesteps_impl.py).
    scale = x.new_ones(1, 1, 1, 1)
    alphas = alphas_cumprod[timesteps.to(alphas_cumprod.device)]
    ours["alphas"] = [a.item() * scale for a in alphas.flip(0)]
    if "eta" in ours:
        before, here = alphas[:-1].cpu().double().numpy(), alphas[1:].cpu()
        added = ours["eta"] * np.sqrt((1 - before) / (1 - here) * (1 - here / before))
        ours["added"] = [a.item() * scale for a in torch.as_tensor(added).flip(0)]
    ones = x.new_ones(len(x))
    inputs = _at_knots(schedule, [t.item() * ones for t in timesteps.flip(0)])
    return Levels([schedule], inputs, levels.sigma_to_t, ours)


def _unipc(model: Any, x: Tensor, options: Options, timestep: Map | None) -> Levels:
    """The levels of UniPC, which makes timesteps of its own.

    Of the host's only their number counts, and in img2img the last one, at which it begins.
    """
    uni_pc = _uni_pc()
    ours = dict(options)
    timesteps, img2img = ours.pop("timesteps"), ours.pop("is_img2img", False)
    opts, steps = shared.opts, len(timesteps)
    order = int(opts.uni_pc_order)  # a WebUI's page or API may have stored it as 3.0
    if steps == 0:
        raise TooFewSteps("there is no step to make")
    if order > steps:
        raise Unsupported(
            f"UniPC's order, {order}, is more than the number of its steps, {steps}; "
            "make more steps, or lower the order in Settings"
        )
    alphas_cumprod = model.inner_model.inner_model.alphas_cumprod
    own = uni_pc.NoiseScheduleVP("discrete", alphas_cumprod=alphas_cumprod)
    start = timesteps[-1] / 1000 + 1 / 1000 if img2img else own.T
    host = uni_pc.UniPC(None, own)
    times = host.get_time_steps(opts.uni_pc_skip_type, start, 1.0 / own.total_N, steps, x.device)
    rows = [time.expand(len(x)) for time in times]

    precise = uni_pc.NoiseScheduleVP("discrete", alphas_cumprod=alphas_cumprod.cpu().double())
    count = precise.total_N

    def to_sigma(t: Tensor) -> Tensor:
        return precise.marginal_lambda(((t + 1) / count).flatten()).neg().exp().reshape(t.shape)

    def to_t(sigma: Tensor) -> Tensor:
        lambdas = sigma.cpu().double().log().neg().flatten()
        return sent((precise.inverse_lambda(lambdas) * count - 1).reshape(sigma.shape), sigma.device)

    knots = (times.cpu().double() * count - 1).clamp(0, count - 1)
    schedule = _knots(knots, to_sigma, to_t, timestep)
    ours |= {
        "order": order,
        "variant": opts.uni_pc_variant,
        "lower_order_final": opts.uni_pc_lower_order_final,
        "marginals": [
            Marginals(*(f(row)[0] for f in (own.marginal_alpha, own.marginal_std, own.marginal_lambda))) for row in rows
        ],
    }
    inputs = _at_knots(schedule, [(row - 1.0 / own.total_N) * 1000.0 for row in rows])
    return Levels([schedule], inputs, to_t, ours)


def _uni_pc() -> ModuleType:
    """The host's UniPC, which not every host has, and not in one place."""
    try:
        from modules.uni_pc import uni_pc  # Forge Classic's
    except ModuleNotFoundError:
        from modules.models.diffusion.uni_pc import uni_pc
    return uni_pc


def _knots(timesteps: Tensor, to_sigma: Map, to_t: Map, timestep: Map | None) -> Descent:
    """A descent through ``timesteps``, the last of which is stepped to and not evaluated."""
    sigmas, told = to_sigma(timesteps), None
    if timestep is not None:
        # The sampler's noise levels may be others than the model's, as with zero terminal SNR.
        told = lambda sigma: timestep(to_sigma(to_t(sigma).cpu().double().round()))  # noqa: E731
    return Descent(Schedule(sigmas[:-1], to_t, to_sigma, told), list(sigmas))


def _at_knots(descent: Descent, inputs: list[Tensor]) -> Callable[[Tensor], Tensor]:
    """What a denoiser whose model is told timesteps is called with at the descent's sigmas."""
    sigmas = torch.stack(list(descent.scalars))
    return lambda sigma: inputs[int((sigmas - sigma).abs().argmin())]
