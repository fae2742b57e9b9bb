"""What the method costs: a whole sampling loop with everything on, against the plain loop, on one GPU.

    python tests/benchmarks/sampling_loop.py --batch 1 8 --steps 20

A full-size Stable Diffusion 1.5 UNet with random weights (speed does not depend on them), half
precision under autocast as the WebUIs run it, PyTorch's scaled-dot-product attention, CFG on, 512×512,
two targets, fresh masks at every step. Plain and per-pixel runs are interleaved; medians are reported.
Needs ldm (stable-diffusion-sdkit) beside torch.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from ldm.modules.attention import CrossAttention
from ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import Tensor

sys.path[:0] = [str(Path(__file__).parents[2]), str(Path(__file__).parents[1])]

from stand_ins import LEVELS, uniform_sigmas, words  # noqa: E402

from asyndm_lib.host import Descent, Host  # noqa: E402
from asyndm_lib.prompts import PromptTargets  # noqa: E402
from asyndm_lib.run import Rows, Run  # noqa: E402
from asyndm_lib.samplers import SAMPLERS  # noqa: E402
from asyndm_lib.schedule import Schedule  # noqa: E402
from asyndm_lib.settings import Settings  # noqa: E402
from asyndm_lib.targets import parse_targets  # noqa: E402

SD15 = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "attention_resolutions": [4, 2, 1],
    "num_res_blocks": 2,
    "channel_mult": [1, 2, 4, 4],
    "num_heads": 8,
    "use_spatial_transformer": True,
    "transformer_depth": 1,
    "context_dim": 768,
    "use_checkpoint": False,
    "legacy": False,
}
PROMPT = "a cat and a dog"


def attention(self: CrossAttention, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
    context = x if context is None else context
    projected = self.to_q(x), self.to_k(context), self.to_v(context)
    q, k, v = (t.unflatten(-1, (self.heads, -1)).transpose(1, 2) for t in projected)
    out = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    return self.to_out(out.transpose(1, 2).flatten(2))


class Bench:
    def __init__(self, batch: int, steps: int, device: str):
        CrossAttention.forward = attention
        torch.manual_seed(0)
        self.unet = UNetModel(**SD15).to(device).half().eval()
        self.unet.dtype = torch.float16
        self.batch = batch
        self.sigmas = uniform_sigmas(steps, torch.float32)
        # Sigma → timestep beforehand: the loops compared shall wait for nothing but the model.
        self.timesteps = {float(s): LEVELS.sigma_to_t(s.double()).float().to(device) for s in self.sigmas[:-1]}
        self.ones = torch.ones(2 * batch, device=device)
        self.x = torch.randn(batch, 4, 64, 64, device=device) * self.sigmas[0]
        self.context = torch.randn(2 * batch, 77, 768, device=device).half()
        self.evaluations = 0

    def predict(self, x: Tensor, sigma: Tensor, rows: Callable = contextlib.nullcontext) -> Tensor:
        """The guided denoised latent, at one sigma or, inside ``rows``, at each row's own."""
        both = torch.cat([x, x])
        with rows(len(both)) as here:
            s = (sigma * self.ones).view(-1, 1, 1, 1)
            if isinstance(here, Rows):
                s = torch.where(here.lagging, here.sigma, s)
            t = self.timesteps[float(sigma)] * self.ones
            eps = self.unet(both / (s**2 + 1) ** 0.5, t, context=self.context).float()
        cond, uncond = (both - s * eps).chunk(2)
        self.evaluations += 1
        return uncond + 5 * (cond - uncond)

    def plain(self) -> None:
        x = self.x
        for sigma, to in zip(self.sigmas[:-1], self.sigmas[1:], strict=True):
            denoised = self.predict(x, sigma)
            x = x + (x - denoised) / sigma * (to - sigma)

    def asyndm(self, sampler: str = "sample_euler") -> None:
        self.evaluations = 0
        host = Host(
            unet=self.unet,
            descents=[Descent(Schedule(self.sigmas[:-1], LEVELS.sigma_to_t, LEVELS.t_to_sigma), list(self.sigmas))],
            predict=lambda x, sigma: self.predict(x, sigma, run.rows),
            rows=[(image, 0) for image in range(self.batch)] + [(image, None) for image in range(self.batch)],
            step=lambda: self.evaluations,
            unconditional=lambda: self.x,
            randn_like=torch.zeros_like,
            callback=None,
            progress=iter,
            rehearsal=contextlib.nullcontext,
        )
        targets = PromptTargets(parse_targets("cat, dog"), [[[(10**6, PROMPT)]]] * self.batch, words)
        with Run(host, Settings(targets="cat, dog", mask_timing="fresh"), targets, self.x) as run:
            run.sample(SAMPLERS[sampler], self.x)


def timed(loop: Callable[[], None]) -> tuple[float, int]:
    """Seconds, and peak bytes above what is allocated at the start."""
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before, start = torch.cuda.memory_allocated(), time.perf_counter()
    loop()
    torch.cuda.synchronize()
    return time.perf_counter() - start, torch.cuda.max_memory_allocated() - before


def launches(loop: Callable[[], None]) -> tuple[int, int]:
    """Kernel launches, and waits of the CPU for the device."""
    with torch.profiler.profile() as profile:
        loop()
        torch.cuda.synchronize()
    names = [event.name for event in profile.events()]
    kernels = sum(name.startswith(("cudaLaunchKernel", "cuLaunchKernel")) for name in names)
    return kernels, sum(name.endswith("Synchronize") for name in names)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, SD 1.5, 64x64, {args.steps} steps Euler, CFG")
    for batch in args.batch:
        bench = Bench(batch, args.steps, "cuda")
        with torch.no_grad(), torch.autocast("cuda", dtype=torch.float16):
            bench.plain()
            bench.asyndm()
            plain, ours = [], []
            for _ in range(args.rounds):
                plain.append(timed(bench.plain))
                ours.append(timed(bench.asyndm))
            counts = launches(bench.plain), launches(bench.asyndm)
        times = [statistics.median(t for t, _ in runs) for runs in (plain, ours)]
        memory = [max(m for _, m in runs) for runs in (plain, ours)]
        print(
            f"batch {batch}: time {times[0]:.3f} -> {times[1]:.3f} s ({times[1] / times[0]:.3f} x), "
            f"peak {memory[0] / 2**20:.0f} -> {memory[1] / 2**20:.0f} MiB ({memory[1] / memory[0]:.3f} x), "
            f"launches a step {counts[0][0] / args.steps:.0f} -> {counts[1][0] / args.steps:.0f}, "
            f"waits in the loop {counts[0][1]} -> {counts[1][1]}"
        )


if __name__ == "__main__":
    main()
