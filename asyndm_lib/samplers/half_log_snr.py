"""Noise levels as half log SNRs, by which a sampler holds for models of either kind.

``x = signal · picture + sigma · noise``. The signal is 1; that of a flow (Liu et al. 2023) is ``1 -
sigma``. All functions hold element by element.
"""

from __future__ import annotations

from torch import Tensor


def half_log_snr(sigma: Tensor, flow: bool) -> Tensor:
    """``log(signal / sigma)``; at a flow's ``sigma`` 1 it is minus infinity."""
    return sigma.logit().neg() if flow else sigma.log().neg()


def sigma_at(half_log_snr: Tensor, flow: bool) -> Tensor:
    """The inverse of :func:`half_log_snr`."""
    return half_log_snr.neg().sigmoid() if flow else half_log_snr.neg().exp()


def signal(sigma: Tensor, half_log_snr: Tensor) -> Tensor:
    """The signal beside ``sigma``, rounded as the hosts' samplers round it."""
    return sigma * half_log_snr.exp()
