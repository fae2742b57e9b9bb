"""The training of the embedded transformer: a rectified flow on the latents of scenes.

Autoencoder and text encoder are the embedded model's, as they are. As in Stable Diffusion 3 the
times are logit-normal, and the pooled text is dropped more often than the caption. Token maps have
no part in the loss.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from ...errors import AsynDMError
from ...hosts.standalone.mmdit import MMDiT
from . import dataset, denoiser
from .export import PREFIXES, load_model
from .networks import TextEncoder, read_config
from .training import Average, StageTimer, encoder_digest, fill, learning_rate, read_weights

PREFIX = "model.diffusion_model."
"""Where a checkpoint of Stable Diffusion 3 keeps the transformer's weights."""

EVERY = 250
"""Iterations between two lines of progress."""


@dataclass
class Settings:
    """The options of the transformer's training."""

    data: Path  # of the stage "latents"
    output: Path
    model: Path
    resume: Path | None = None
    seconds: float | None = None
    iterations: int | None = None
    wait: bool = False  # wait for the data file after compiling
    batch: int = 512
    rate: float = 1e-3
    decay_from: float = 0.5
    average: float = 0.9995
    noisy: float = 0.0  # mean of the times before their sigmoid: above 0, more noise
    caption_dropout: float = 0.1
    pooled_dropout: float = 0.464
    compile: bool = True
    depth: int | None = None  # by default as transformer.yaml has it
    hidden_size: int | None = None
    head_size: int | None = None
    seed: int = 0
    device: str = "cuda"


def build(settings: Settings) -> MMDiT:
    """The transformer of transformer.yaml, or with other sizes, before any training.

    What a block adds is zero at first (Peebles & Xie 2023).
    """
    sizes = dict(read_config(settings.model / "transformer.yaml")["transformer_config"]["params"])
    given = {name: getattr(settings, name) for name in ("depth", "hidden_size", "head_size")}
    model = MMDiT(**{**sizes, **{name: value for name, value in given.items() if value}})
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    for part in (model.t_embedder, model.y_embedder):
        for layer in (part.mlp[0], part.mlp[2]):
            nn.init.normal_(layer.weight, std=0.02)
    streams = [stream for block in model.joint_blocks for stream in (block.x_block, block.context_block)]
    for layer in (*(stream.adaLN_modulation[1] for stream in streams), model.final_layer.adaLN_modulation[1],
                  model.final_layer.linear):
        nn.init.zeros_(layer.weight)
    return model


def text_of(encoder: TextEncoder, ids: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The context ``[n, 77, width]`` and the pooled text ``[n, width]``, which is the end token's.

    ``lengths`` are those of the captions, without start and end.
    """
    context = encoder(ids)
    return context, context[torch.arange(len(ids), device=ids.device), lengths + 1]


def train(settings: Settings) -> None:
    """Run the stage and write ``output``: the averaged weights under a checkpoint's names."""
    device = torch.device(settings.device)
    torch.manual_seed(settings.seed)
    torch.set_float32_matmul_precision("high")
    parts = load_model(settings.model, device)
    encode, text = parts.encode, parts.text
    model = build(settings)
    if settings.resume:
        load(model, settings.resume)
    model.to(device)
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.rate, betas=(0.9, 0.99), weight_decay=0.01,
                                  fused=device.type == "cuda")

    def loss_of(latents: torch.Tensor, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        sigma = (torch.randn(len(latents), device=latents.device) + settings.noisy).sigmoid()
        noise, clean = torch.randn(latents.shape, device=latents.device), latents.float()
        noised = torch.lerp(clean, noise, sigma.view(-1, 1, 1, 1))
        context, pooled = text_of(text, ids, lengths)
        pooled = pooled * (torch.rand(len(ids), 1, device=ids.device) >= settings.pooled_dropout)
        velocity = model(noised, 1000 * sigma, denoiser.mute_padding(context, lengths), pooled)
        return F.mse_loss(velocity.float(), noise - clean)

    step = torch.compile(loss_of, dynamic=False) if settings.compile else loss_of

    def iterate(batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
        latents, _, ids, _, lengths = batch
        with torch.autocast(device.type, torch.bfloat16):
            loss = step(latents, ids, lengths)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        return loss.detach()

    if settings.compile:
        began = time.monotonic()
        for group in optimiser.param_groups:
            group["lr"] = 0.0
        for _ in range(2):
            iterate(denoiser.empty_batch(settings.batch, encode, device))
        optimiser.state.clear()
        print(f"compiled in {time.monotonic() - began:.0f} s", flush=True)
    while settings.wait and not settings.data.exists():
        time.sleep(0.5)
    data = dataset.Data.load(settings.data, device)
    refuse_others_latents(data, settings)
    average, timer = Average(model, settings.average), StageTimer(settings.seconds, settings.iterations)
    seen: list[torch.Tensor] = []
    while timer.progress < 1:
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(settings.rate, timer.count, timer.progress, settings.decay_from, warmup=500)
        seen.append(iterate(denoiser.draw_batch(data, settings, encode)))
        average.update()
        timer.count += 1
        if timer.count % EVERY == 0:
            print(f"transformer {timer.count} {timer.elapsed:.0f} s loss {torch.stack(seen).mean():.4f}", flush=True)
            seen.clear()
    average.swap()
    save(model, settings.output)
    print(f"transformer done: {timer.count} iterations, {timer.elapsed:.0f} s", flush=True)


def refuse_others_latents(data: dataset.Data, settings: Settings) -> None:
    """Raise :class:`AsynDMError` if the data is of another encoder than that of the model."""
    if data.encoder is None:
        return
    checkpoint = read_weights(settings.model / "emoji.safetensors")
    own = {f"vae.{key.removeprefix(PREFIXES['vae'])}": value for key, value in checkpoint.items()}
    if not torch.equal(data.encoder.cpu(), encoder_digest(own)):
        raise AsynDMError(f"--data {settings.data} is of another encoder than that of the model in {settings.model}")


def save(model: MMDiT, path: Path) -> None:
    """Write the weights in half precision. Raises :class:`AsynDMError` if one is not finite."""
    from safetensors.torch import save_file

    weights = {PREFIX + name: value.detach().cpu().half().contiguous() for name, value in model.state_dict().items()}
    wrong = [name for name, value in weights.items() if not torch.isfinite(value).all()]
    if wrong:
        raise AsynDMError(f"{wrong[0]} is not finite: train again, at a lower --rate")
    partial = path.with_suffix(".part")
    save_file(weights, partial, metadata={"format": "pt"})
    partial.replace(path)


def load(model: MMDiT, path: Path) -> None:
    """Fill ``model`` from a file of :func:`save`. Raises :class:`AsynDMError` for any other."""
    fill(model, read_weights(path), PREFIX, path)
