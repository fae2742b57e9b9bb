"""DPM-Solver++(3M) SDE in half log SNR."""

from __future__ import annotations

from torch import Tensor

from ...run.host import NoiseSampler
from ...run.run import Run
from ..dpmpp_3m_sde import multistep_3m_sde
from ..half_log_snr import half_log_snr, signal
from ..row import Sampler


def dpmpp_3m_sde(
    run: Run, x: Tensor, *, noise_sampler: NoiseSampler, eta: float = 1.0, s_noise: float = 1.0, flow: bool = False
) -> Tensor:
    """DPM-Solver++(3M) SDE of Lu et al. (2022) and Crowson. A flow begins below sigma 1."""

    def first_order(
        x: Tensor, denoised: Tensor, h: Tensor, h_eta: Tensor, sigma: Tensor, to: Tensor, lambda_t: Tensor
    ) -> tuple[Tensor, Tensor]:
        alpha_t = signal(to, lambda_t)
        return to / sigma * (-h * eta).exp() * x + alpha_t * (-h_eta).expm1().neg() * denoised, alpha_t

    noisy = eta > 0 and s_noise > 0
    level = lambda sigma: half_log_snr(sigma, flow)  # noqa: E731
    return multistep_3m_sde(run, x, level, first_order, noise_sampler if noisy else None, eta, s_noise)


ROWS = (
    Sampler(
        "sample_dpmpp_3m_sde",
        dpmpp_3m_sde,
        {"DPM++ 3M SDE": {}},
        ("neo",),
        noise="Brownian",
        begins_below_all_noise=True,
    ),
)
