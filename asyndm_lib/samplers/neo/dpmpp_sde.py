"""DPM-Solver++ (stochastic) in half log SNR."""

from __future__ import annotations

from torch import Tensor

from ...run.host import NoiseSampler
from ...run.run import Run
from ..ancestral import ancestral_step
from ..half_log_snr import half_log_snr, sigma_at, signal
from ..row import Sampler


def dpmpp_sde(
    run: Run,
    x: Tensor,
    *,
    noise_sampler: NoiseSampler,
    eta: float = 1.0,
    s_noise: float = 1.0,
    r: float = 1 / 2,
    flow: bool = False,
) -> Tensor:
    """DPM-Solver++ (stochastic) of Lu et al. (2022).

    ``r``: where the second evaluation of a step stands. A flow begins below sigma 1.
    """

    def lambda_mid(sigma: Tensor, sigma_next: Tensor) -> Tensor:
        lambda_s = half_log_snr(sigma, flow)
        return lambda_s + r * (half_log_snr(sigma_next, flow) - lambda_s)

    def middle(sigma: Tensor, sigma_next: Tensor) -> Tensor:
        return sigma_at(lambda_mid(sigma, sigma_next), flow)

    def noised_step(
        x: Tensor, denoised: Tensor, noise: Tensor | None, sigma: Tensor, lambda_s: Tensor, to: Tensor, lambda_t: Tensor
    ) -> Tensor:
        alpha_s, alpha_t = signal(sigma, lambda_s), signal(to, lambda_t)
        sigma_down, sigma_up = ancestral_step(lambda_s.neg().exp(), lambda_t.neg().exp(), eta)
        h = sigma_down.log().neg() - lambda_s
        x = (alpha_t / alpha_s) * (-h).exp() * x - alpha_t * (-h).expm1() * denoised
        return x if noise is None else x + alpha_t * noise * s_noise * sigma_up

    fac = 1 / (2 * r)
    noisy = eta > 0 and s_noise > 0
    for step in run:
        denoised = step.predict(x)
        step.callback(x, denoised)
        sigma, sigma_next = step.sigma, step.advance()
        if sigma_next.scalar == 0:
            x = denoised
            continue

        # Step 1
        sigma_mid = step.between(middle, sigma, sigma_next)
        noise = noise_sampler(sigma.scalar, sigma_mid.scalar) if noisy else None

        def first(sigma: Tensor, sigma_next: Tensor) -> Tensor:
            lambda_s, lambda_t = half_log_snr(sigma, flow), lambda_mid(sigma, sigma_next)
            return noised_step(x, denoised, noise, sigma, lambda_s, sigma_at(lambda_t, flow), lambda_t)

        x_2 = step.per_pixel(first, sigma, sigma_next)
        denoised_2 = step.predict(x_2, sigma_mid)

        # Step 2
        noise = noise_sampler(sigma.scalar, sigma_next.scalar) if noisy else None
        denoised_d = (1 - fac) * denoised + fac * denoised_2

        def second(sigma: Tensor, sigma_next: Tensor) -> Tensor:
            lambda_s, lambda_t = half_log_snr(sigma, flow), half_log_snr(sigma_next, flow)
            return noised_step(x, denoised_d, noise, sigma, lambda_s, sigma_next, lambda_t)

        x = step.per_pixel(second, sigma, sigma_next)
    return x


ROWS = (
    Sampler("sample_dpmpp_sde", dpmpp_sde, {"DPM++ SDE": {}}, ("neo",), noise="Brownian", begins_below_all_noise=True),
)
