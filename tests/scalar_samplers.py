"""The WebUI's own samplers on one sequence of sigmas, written from their papers: what k-diffusion
does not have.

``model(x, sigma)`` is the guided prediction, ``noise(x)`` the next random numbers. ``callback``
takes k-diffusion's dictionary where the host's function calls it, and may write into its tensors.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from scipy.integrate import quad
from torch import Tensor

Model = Callable[[Tensor, Tensor], Tensor]
Noise = Callable[[Tensor], Tensor]
Callback = Callable[[dict], None]


def silent(state: dict) -> None:
    """The callback of nobody."""


def told(x: Tensor, denoised: Tensor | None, sigma: Tensor | float = 0) -> dict:
    return {"x": x, "denoised": denoised, "sigma": sigma}



def restart(
    model: Model,
    x: Tensor,
    descents: Sequence[Tensor],
    noise: Noise,
    s_noise: float = 1.0,
    callback: Callback = silent,
) -> Tensor:
    """Heun's steps down every descent, noise up between them (Xu et al. 2023, algorithm 1)."""
    end = None
    for sigmas in descents:
        if end is not None and end < sigmas[0]:
            x = x + noise(x) * s_noise * (sigmas[0] ** 2 - end**2) ** 0.5
        for sigma, to in pairwise(sigmas):
            picture = model(x, sigma)
            slope = (x - picture) / sigma
            callback(told(x, picture, sigma))
            ahead = x + slope * (to - sigma)
            if to > 0:
                slope = (slope + (ahead - model(ahead, to)) / to) / 2
            x = x + slope * (to - sigma)
        end = sigmas[-1]
    return x


def lcm(model: Model, x: Tensor, sigmas: Tensor, noise: Noise, callback: Callback = silent) -> Tensor:
    for sigma, to in pairwise(sigmas):
        picture = model(x, sigma)
        callback(told(x, picture, sigma))
        x = picture
        if to > 0:
            x = x + to * noise(x)
    return x


def heunpp2(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    noise: Noise,
    ahead: Tensor | None = None,
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = math.inf,
    s_noise: float = 1.0,
    callback: Callback = silent,
) -> Tensor:
    """Heun++ as Carzit wrote it. ``ahead`` holds the levels that it then believed the second next
    to be."""
    n = len(sigmas) - 1
    ahead = sigmas[2:-1] if ahead is None else ahead
    for i, (sigma, to) in enumerate(pairwise(sigmas)):
        gamma = min(s_churn / n, 2**0.5 - 1) if s_tmin <= sigma <= s_tmax else 0.0
        added, hat = noise(x) * s_noise, sigma * (gamma + 1)
        x = x + added * (hat**2 - sigma**2) ** 0.5 if gamma > 0 else x
        picture = model(x, hat)
        slope = (x - picture) / hat
        callback(told(x, picture, sigma))
        if i < n - 1:
            x_2 = x + slope * (to - hat)
            slope_2 = (x_2 - model(x_2, to)) / to
            if i == n - 2:
                share = to / (2 * sigmas[0])
                slope = (1 - share) * slope + share * slope_2
            else:
                after = ahead[i]
                x_3 = x_2 + slope_2 * (after - to)
                slope_3 = (x_3 - model(x_3, after)) / after
                shares = to / (3 * sigmas[0]), after / (3 * sigmas[0])
                slope = (1 - sum(shares)) * slope + shares[0] * slope_2 + shares[1] * slope_3
        x = x + slope * (to - hat)
    return x


def lms(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    noise: Noise,
    order: int = 4,
    callback: Callback = silent,
    lags: Sequence[bool] | None = None,
) -> Tensor:
    """Adams and Bashforth's method. ``lags``: which steps extrapolate no further than three of even
    steps do."""
    past: list[Tensor] = []
    for i, (sigma, to) in enumerate(pairwise(sigmas)):
        picture = model(x, sigma)
        past = [(x - picture) / sigma, *past[: order - 1]]
        callback(told(x, picture, sigma))
        most = 44 / 12 if lags is not None and lags[i] else math.inf
        x = x + adams_bashforth(past, sigmas[: i + 1].flip(0)[:order], to, most)
    return x


_ADAMS_BASHFORTH = {1: (1.0,), 2: (1.5, -0.5), 3: (23 / 12, -16 / 12, 5 / 12), 4: (55 / 24, -59 / 24, 37 / 24, -9 / 24)}


def ipndm(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    noise: Noise,
    callback: Callback = silent,
    lags: Sequence[bool] | None = None,
) -> Tensor:
    """The iPNDM of Zhang and Chen (2023), eq. 40 on. The callback is shown the first latent in
    every step, as in Forge. ``lags``: which steps go by Adams and Bashforth's weights for any
    steps."""
    past: list[Tensor] = []
    first = x
    for i, (sigma, to) in enumerate(pairwise(sigmas)):
        picture = model(x, sigma)
        callback(told(first, picture, sigma))
        past = [(x - picture) / sigma, *past[:3]]
        if lags is not None and lags[i]:
            x = x + adams_bashforth(past, sigmas[max(i - 3, 0) : i + 1].flip(0), to)
            continue
        x = x + (to - sigma) * sum(w * d for w, d in zip(_ADAMS_BASHFORTH[len(past)], past, strict=True))
    return x


def adams_bashforth(
    slopes: Sequence[Tensor], levels: Sequence[Tensor], to: Tensor, most: float = 44 / 12
) -> Tensor:
    """The integral to ``to`` of the polynomial through the newest of ``slopes`` at ``levels``: as
    many as amount to no more than ``most`` steps (at first: three of even steps)."""
    nodes, end = np.array([level.double().item() for level in levels]), to.double().item()
    for count in range(len(slopes), 0, -1):
        known = nodes[:count]
        if len(set(known.tolist())) < count:
            continue
        weights = []
        for j in range(count):
            others = np.delete(known, j)
            area = np.polynomial.Polynomial(np.atleast_1d(np.poly(others))[::-1]).integ()
            weights.append((area(end) - area(known[0])) / np.prod(known[j] - others))
        if np.abs(weights).sum() <= most * abs(end - nodes[0]):
            return sum(weight * d for weight, d in zip(weights, slopes, strict=False))
    return (end - nodes[0]) * slopes[0]


def ipndm_v(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    noise: Noise,
    callback: Callback = silent,
    lags: Sequence[bool] | None = None,
) -> Tensor:
    """The iPNDM-v of diff-sampler, by differences of the slopes. The oldest has a weight of that
    code's own. ``lags``: as in :func:`ipndm`."""
    past: list[Tensor] = []
    s, first = sigmas, x
    for i, (sigma, to) in enumerate(pairwise(sigmas)):
        picture = model(x, sigma)
        callback(told(first, picture, sigma))
        past = [(x - picture) / sigma, *past[:3]]
        if lags is not None and lags[i]:
            x = x + adams_bashforth(past, s[max(i - 3, 0) : i + 1].flip(0), to)
            continue
        h = to - sigma
        if i == 0 or s[i - 1] == sigma:
            x = x + h * past[0]
            continue
        h_1 = sigma - s[i - 1]
        change = past[0] - past[1]
        slope = past[0] + h / h_1 / 2 * change
        if i > 1:
            h_2 = s[i - 1] - s[i - 2]
            change_1 = past[1] - past[2]
            second = change - h_1 / h_2 * change_1
            slope = slope + (1 - h**2 / (3 * h_1 * (h_1 + h_2))) / 2 * second
        if i > 2:
            h_3 = s[i - 2] - s[i - 3]
            r = h_1 * (h_1 + h_2) / (h_2 * (h_2 + h_3))
            third = second - r * (past[1] - (1 + h_2 / h_3) * past[2] + h_1 / h_2 * past[3])
            a, b, c = h + h_1, h + h_1 + h_2, h_1 + h_2 + h_3
            factor = ((1 - h / (3 * a)) / 2 + (1 - h / (2 * a)) * h / (6 * b)) * (h * a * b) / (h_1 * (h_1 + h_2) * c)
            slope = slope + factor * third
        x = x + h * slope
    return x


def deis(model: Model, x: Tensor, sigmas: Tensor, noise: Noise, callback: Callback = silent) -> Tensor:
    """The DEIS of Zhang and Chen (2023), eq. 14 and 15 (tAB) of order 2, in the time of EDM's VP
    process (Karras et al. 2022)."""
    low, high, start = np.log(0.002**2 + 1), np.log(80.0**2 + 1), 1e-3
    beta_d = 2 * (low / start - high) / (start - 1)
    beta_min = high - 0.5 * beta_d

    def time(sigma: float) -> float:
        return (np.sqrt(beta_min**2 + 2 * beta_d * np.log(sigma**2 + 1)) - beta_min) / beta_d

    past: list[Tensor] = []
    first = x
    for i, (sigma, to) in enumerate(pairwise(sigmas)):
        picture = model(x, sigma)
        callback(told(first, picture, sigma))
        past = [(x - picture) / sigma, *past[:2]]
        levels = [level.double().item() for level in sigmas[max(i - 2, 0) : i + 1].flip(0)]
        if i == 0 or to == 0 or len(set(levels)) < len(levels):
            x = x + (to - sigma) * past[0]
            continue
        times = [time(level) for level in levels]

        def polynomial(sigma: float, j: int, times: list[float] = times) -> float:
            others = [t for k, t in enumerate(times) if k != j]
            return math.prod((time(sigma) - t) / (times[j] - t) for t in others)

        for j, d in enumerate(past):
            of = quad(polynomial, levels[0], to.double().item(), (j,), epsabs=1e-14, epsrel=1e-13, limit=200)
            x = x + of[0] * d
    return x


def ddpm(model: Model, x: Tensor, sigmas: Tensor, noise: Noise, callback: Callback = silent) -> Tensor:
    """The DDPM of Ho et al. (2020), algorithm 2, from any level to any other. ``x`` is the picture
    and its noise."""
    for sigma, to in pairwise(sigmas):
        a, a_next = 1 / (1 + sigma**2), 1 / (1 + to**2)
        alpha = a / a_next
        picture = model(x, sigma)
        callback(told(x, picture, sigma))
        eps = (x - picture) / sigma
        x = (x * a.sqrt() - (1 - alpha) / (1 - a).sqrt() * eps) / alpha.sqrt()
        if to > 0:
            x = x + ((1 - alpha) * (1 - a_next) / (1 - a)).sqrt() * noise(x)
            x = x / a_next.sqrt()
    return x


def ddim(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    noise: Noise,
    eta: float = 0.0,
    unconditional: Callable | None = None,
    callback: Callback = silent,
) -> Tensor:
    """The DDIM of Song et al. (2021), eq. 12. With ``unconditional`` it is CFG++ (Chung et al.
    2024, algorithm 2)."""
    alphas = 1 / (1 + sigmas**2)
    for sigma, a, a_next in zip(sigmas[:-1], alphas[:-1], alphas[1:], strict=True):
        eps = model(x, sigma)
        picture = (x - (1 - a).sqrt() * eps) / a.sqrt()
        std = eta * ((1 - a_next) / (1 - a)).sqrt() * (1 - a / a_next).sqrt()
        again = eps if unconditional is None else unconditional(x, eps)
        x = a_next.sqrt() * picture + (1 - a_next - std**2).sqrt() * again + std * noise(x)
        callback(told(x, picture))
    return x


def plms(model: Model, x: Tensor, sigmas: Tensor, noise: Noise, callback: Callback = silent) -> Tensor:
    """The PLMS of Liu et al. (2022), eq. 11 and 12. The first step is a second-order one."""
    alphas = 1 / (1 + sigmas**2)

    def transfer(x: Tensor, eps: Tensor, i: int) -> tuple[Tensor, Tensor]:
        picture = (x - (1 - alphas[i]).sqrt() * eps) / alphas[i].sqrt()
        return alphas[i + 1].sqrt() * picture + (1 - alphas[i + 1]).sqrt() * eps, picture

    past: list[Tensor] = []
    for i, sigma in enumerate(sigmas[:-1]):
        eps = model(x, sigma)
        past = [*past, eps]
        if i == 0:
            eps = (eps + model(transfer(x, eps, 0)[0], sigmas[1])) / 2
        elif i == 1:
            eps = (3 * past[1] - past[0]) / 2
        elif i == 2:
            eps = (23 * past[2] - 16 * past[1] + 5 * past[0]) / 12
        else:
            eps = (55 * past[-1] - 59 * past[-2] + 37 * past[-3] - 9 * past[-4]) / 24
        x, picture = transfer(x, eps, i)
        callback(told(x, picture))
    return x


def unipc(
    model: Model,
    x: Tensor,
    sigmas: Tensor,
    noise: Noise,
    order: int = 3,
    variant: str = "bh1",
    lower_order_final: bool = True,
    callback: Callback = silent,
    tells_first: bool = False,
) -> Tensor:
    """The UniPC of Zhao et al. (2023), algorithms 5 to 8 (data prediction). ``tells_first``:
    whether the callback hears of every evaluation, as in Forge Neo, not of every update."""
    n = len(sigmas) - 1
    sigma = sigmas.double().numpy()
    scale = 1 / np.sqrt(1 + sigma**2)
    std, lam = sigma * scale, -np.log(sigma)

    def picture(x: Tensor, i: int) -> Tensor:
        return (x - std[i] * model(x, sigmas[i])) / scale[i]

    def phi(k: int, h: float) -> float:
        """h·φ_k(h) with h = -(step)."""
        value = math.expm1(h)
        for j in range(1, k):
            value = value / h - 1 / math.factorial(j)
        return value

    def combined(weights: Sequence[float], slopes: Sequence[Tensor]) -> Tensor:
        return sum(weight * slope for weight, slope in zip(weights, slopes, strict=True))

    def update(x: Tensor, goal: int, p: int, newest: Tensor | None) -> Tensor:
        here = goal - 1
        step = lam[goal] - lam[here]
        h = -step
        r = np.array([(lam[here - m] - lam[here]) / step for m in range(1, p)] + [1.0])
        base = std[goal] / std[here] * x - scale[goal] * math.expm1(h) * pictures[here]
        slopes = [(pictures[here - m] - pictures[here]) / r[m - 1] for m in range(1, p)]
        if variant == "vary_coeff":
            c = np.array([[r[i] ** k / math.factorial(k + 1) for k in range(p)] for i in range(p)])
            if newest is None:
                inverse = np.linalg.inv(c[:-1, :-1]) if p > 1 else []
                for k in range(p - 1):
                    base = base - scale[goal] * phi(k + 2, h) * combined(inverse[k], slopes)
                return base
            inverse = np.linalg.inv(c)
            for k in range(p - 1):
                base = base - scale[goal] * phi(k + 2, h) * combined(inverse[k][:-1], slopes)
            last = inverse[max(p - 2, 0)][-1]
            return base - scale[goal] * phi(p + 1, h) * last * (newest - pictures[here])
        b_h = h if variant == "bh1" else math.expm1(h)
        matrix = np.array([r**i for i in range(p)])
        vector = np.array([phi(i + 1, h) * math.factorial(i) / b_h for i in range(1, p + 1)])
        if newest is None:
            weights = np.array([0.5]) if p == 2 else np.linalg.solve(matrix[:-1, :-1], vector[:-1])
        else:
            weights = np.array([0.5]) if p == 1 else np.linalg.solve(matrix, vector)
            slopes = [*slopes, newest - pictures[here]]
        return base - scale[goal] * b_h * combined(weights, slopes)

    pictures: list[Tensor] = [picture(x, 0)]
    if tells_first:
        callback(told(x, pictures[0]))
    for goal in range(1, n + 1):
        p = min(order, goal) if goal < order or not lower_order_final else min(order, n + 1 - goal)
        ahead = update(x, goal, p, None)
        if goal == n:
            callback(told(ahead, pictures[-1] if tells_first else None))
            return ahead
        newest = picture(ahead, goal)
        x = update(x, goal, p, newest)
        if not tells_first or goal < n - 1:
            callback(told(x, newest))
        pictures.append(newest)
    return x
