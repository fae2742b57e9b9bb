"""Forge Neo's samplers on one sequence of sigmas, written from their papers.

``model(x, sigma)`` is the guided prediction, ``unconditional(x, prediction)`` its unconditional
part, and ``noise(x)`` the next random numbers. ``flow`` is for models of ``x = (1 - sigma) picture
+ sigma noise``. ``callback`` takes k-diffusion's dictionary where the host's function calls it, and
may write into its tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import scalar_samplers
import torch
from scalar_samplers import Callback, silent, told
from torch import Tensor

Model = Callable[[Tensor, Tensor], Tensor]
Noise = Callable[[Tensor], Tensor]


def in_signal_scale(
    model: Model, x: Tensor, sigmas: Tensor, sample: Callable, flow: bool, callback: Callback = silent
) -> Tensor:
    """``sample(model, x, sigmas, callback)`` of a model without a signal's scale, on ``x`` divided
    by its own."""
    if not flow:
        return sample(model, x, sigmas, callback)

    def scaled(y: Tensor, ratio: Tensor) -> Tensor:
        signal = 1 / (1 + ratio)
        return model(y * signal, ratio * signal)

    def heard(state: dict) -> None:
        signal = 1 / (1 + state["sigma"])
        x = state["x"] * signal
        callback({**state, "x": x})
        state["x"].copy_(x / signal)

    return sample(scaled, x / (1 - sigmas[0]), sigmas / (1 - sigmas), heard)  # which ends at a signal of 1


def _ancestral(sigma: Tensor, to: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    up = (eta * to * (1 - (to / sigma) ** 2).sqrt()).clamp(max=to)
    return (to**2 - up**2).sqrt(), up


def _flow_ancestral(x: Tensor, picture: Tensor, noise: Tensor, sigma: Tensor, to: Tensor, eta: float) -> Tensor:
    """The state after a step down by ``eta`` times more than to ``to``, with picture and noise then
    brought to ``to``."""
    down = to + eta * to * (to / sigma - 1)
    there = picture + (x - picture) * down / sigma
    scale = (1 - to) / (1 - down)
    return scale * there + (to**2 - (scale * down) ** 2).clamp(min=0).sqrt() * noise


def euler_ancestral(
    model: Model, x: Tensor, sigmas: Tensor, noise: Noise, eta: float = 1.0, callback: Callback = silent
) -> Tensor:
    """k-diffusion's Euler ancestral, but no noise is added where a step down ends at 0."""
    for sigma, to in pairwise(sigmas):
        picture = model(x, sigma)
        callback(told(x, picture, sigma))
        down, up = _ancestral(sigma, to, eta) if eta else (to, 0)
        added = noise(x) * up if to > 0 else 0
        x = picture if down == 0 else picture + (x - picture) * down / sigma + added
    return x


def euler_ancestral_flow(
    model: Model, x: Tensor, sigmas: Tensor, noise: Noise, eta: float = 1.0, callback: Callback = silent
) -> Tensor:
    for sigma, to in pairwise(sigmas):
        picture = model(x, sigma)
        callback(told(x, picture, sigma))
        x = picture if to == 0 else _flow_ancestral(x, picture, noise(x) if eta else 0 * x, sigma, to, eta)
    return x


def dpm_2_ancestral_flow(
    model: Model, x: Tensor, sigmas: Tensor, noise: Noise, eta: float = 1.0, callback: Callback = silent
) -> Tensor:
    """Forge's, for Flux: the slope in the middle, by log sigma, of the way down leads over it."""
    for sigma, to in pairwise(sigmas):
        picture = model(x, sigma)
        callback(told(x, picture, sigma))
        slope = (x - picture) / sigma
        if to == 0:
            x = x - sigma * slope
            continue
        down = to + eta * to * (to / sigma - 1)
        middle = (sigma * down).sqrt()
        x_2 = x + slope * (middle - sigma)
        x = x + (x_2 - model(x_2, middle)) / middle * (down - sigma)
        scale = (1 - to) / (1 - down)
        x = scale * x + (to**2 - (scale * down) ** 2).clamp(min=0).sqrt() * noise(x)
    return x


def dpmpp_2s_ancestral_rf(
    model: Model, x: Tensor, sigmas: Tensor, noise: Noise, eta: float = 1.0, callback: Callback = silent
) -> Tensor:
    """A step takes half its way in log SNR; the prediction there makes the whole step."""
    for sigma, to in pairwise(sigmas):
        picture = model(x, sigma)
        callback(told(x, picture, sigma))
        if to == 0:
            return x - (x - picture)
        if sigma == 1:
            middle = torch.full_like(sigma, 0.9999)
        else:
            down = to + eta * to * (to / sigma - 1)
            middle = torch.sigmoid((torch.logit(sigma) + torch.logit(down)) / 2)
        picture = model(picture + (x - picture) * middle / sigma, middle)
        x = _flow_ancestral(x, picture, noise(x) if eta else 0 * x, sigma, to, eta)
    return x


def lcm_flow(model: Model, x: Tensor, sigmas: Tensor, noise: Noise, callback: Callback = silent) -> Tensor:
    for sigma, to in pairwise(sigmas):
        picture = model(x, sigma)
        callback(told(x, picture, sigma))
        x = picture
        if to > 0:
            x = (1 - to) * x + to * noise(x)
    return x


def er_sde(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    noise: Noise,
    flow: bool = False,
    s_noise: float = 1.0,
    callback: Callback = silent,
) -> Tensor:
    """The algorithm 3 of Cui et al. (2023), on ``x`` over its signal. Integrals are sums from the
    left over 200 points."""

    def scale(level: float) -> float:
        return level * (math.exp(level**0.3) + 10)

    def sample(model: Model, y: Tensor, levels: Tensor, callback: Callback) -> Tensor:
        pictures: list[Tensor] = []
        slopes: list[Tensor] = []
        for i, (now, to) in enumerate(pairwise(levels)):
            pictures.append(model(y, now))
            callback(told(y, pictures[-1], now))
            if to == 0:
                return pictures[-1]
            start, end = now.item(), to.item()
            ratio, width = scale(end) / scale(start), (start - end) / 200
            points = [end + n * width for n in range(200)]
            y = ratio * y + (1 - ratio) * pictures[-1]
            if i > 0:
                slopes.append((pictures[-1] - pictures[-2]) / (now - levels[i - 1]))
                area = sum(width / scale(point) for point in points)
                y = y + (end - start + scale(end) * area) * slopes[-1]
            if i > 1:
                bend = 2 * (slopes[-1] - slopes[-2]) / (now - levels[i - 2])
                area = sum(width * (point - start) / scale(point) for point in points)
                y = y + ((end - start) ** 2 / 2 + scale(end) * area) * bend
            if s_noise:
                y = y + s_noise * math.sqrt(end**2 - (ratio * start) ** 2) * noise(y)
        return y

    return in_signal_scale(model, x, sigmas, sample, flow, callback)


def res_multistep(model: Model, x: Tensor, sigmas: Tensor, noise: Noise, callback: Callback = silent) -> Tensor:
    """The eq. 12 of Zhang et al. (2023), with the point before the step as its second one."""
    pictures: list[Tensor] = []
    for i, (sigma, to) in enumerate(pairwise(sigmas)):
        pictures.append(model(x, sigma))
        callback(told(x, pictures[-1], sigma))
        if i == 0 or to == 0:
            x = pictures[-1] + (x - pictures[-1]) * to / sigma
        else:
            h = (sigma / to).log()
            phi_1 = (1 - (-h).exp()) / h
            phi_2 = (1 - phi_1) / h
            older = phi_2 * h / (sigma / sigmas[i - 1]).log()
            x = (-h).exp() * x + h * ((phi_1 - older) * pictures[-1] + older * pictures[-2])
        if to > 0:
            noise(x)
    return x


def kohaku_lonyu_yog(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    noise: Noise,
    eta: float = 1.0,
    s_churn: float = 0.0,
    s_noise: float = 1.0,
    callback: Callback = silent,
) -> Tensor:
    count = len(sigmas) - 1
    for i, (sigma, to) in enumerate(pairwise(sigmas)):
        hat = sigma * (1 + min(s_churn / count, 2**0.5 - 1))
        x = x + s_noise * noise(x) * (hat**2 - sigma**2).sqrt()
        picture = model(x, hat)
        slope = (x - picture) / hat
        callback(told(x, picture, sigma))
        down, up = _ancestral(sigma, to, eta)
        if i > count / 2:
            x = x + slope * (down - sigma)
            continue
        mirrored = (-x - model(-x, hat)) / hat
        ahead = x + (slope + mirrored) / 2 * (down - sigma)
        x = x + (slope + (ahead - model(ahead, hat)) / hat) / 2 * (down - sigma) + s_noise * up * noise(x)
    return x


def euler_ancestral_cfgpp(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    noise: Noise,
    unconditional: Callable,
    eta: float = 1.0,
    flow: bool = False,
    callback: Callback = silent,
) -> Tensor:
    """The algorithm 2 of Chung et al. (2024): to the guided picture, and away from it by the
    unconditional noise."""
    for sigma, to in pairwise(sigmas):
        picture = model(x, sigma)
        without = unconditional(x, picture)
        callback(told(x, picture, sigma))
        if to == 0:
            return picture
        signal, signal_to = (1 - sigma, 1 - to) if flow else (1, 1)
        away = (x - signal * without) / sigma
        down, up = _ancestral(sigma / signal, to / signal_to, eta) if eta else (to / signal_to, 0)
        if eta and sigma == 1 and flow:
            down, up = 0, to / signal_to  # from no signal at all the host's formula has no ratio
        x = signal_to * (picture + down * away + (up * noise(x) if eta else 0))
    return x


def dpmpp_2m_cfgpp(
    model: Model, x: Tensor, sigmas: Tensor, noise: Noise, unconditional: Callable, callback: Callback = silent
) -> Tensor:
    past: list[Tensor] = []
    for i, (sigma, to) in enumerate(pairwise(sigmas)):
        picture = model(x, sigma)
        past.append(unconditional(x, picture))
        callback(told(x, picture, sigma))
        ratio = to / sigma
        slope = 0
        if i > 0 and to > 0:
            r = (sigmas[i - 1] / sigma).log() / (sigma / to).log()
            slope = (picture - past[-2]) / (2 * r)
        x = picture + ratio * (x - past[-1]) + (1 - ratio) * slope
    return x


def unipc(
    model: Model, x: Tensor, sigmas: Tensor, noise: Noise, variant: str = "bh1", callback: Callback = silent
) -> Tensor:
    """UniPC of Zhao et al. (2023), of the third order and lower in the end, in variance-preserving
    scale."""

    def noise_in(x: Tensor, sigma: Tensor) -> Tensor:
        scaled = x * (1 + sigma**2).sqrt()
        return (scaled - model(scaled, sigma)) / sigma

    order = min(3, len(sigmas) - 2)
    start = x / (1 + sigmas[0] ** 2).sqrt()
    x = scalar_samplers.unipc(
        noise_in, start, sigmas, noise, order, variant, callback=callback, tells_first=True
    )
    return x * (1 + sigmas[-1] ** 2).sqrt()
