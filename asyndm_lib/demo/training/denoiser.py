"""Stage 3: train UNet and text encoder together on the latents of scenes, with noun maps pulled
onto their objects.

Three things make the token maps localise as those of large models do:

* the text encoder has one layer, so that a word's meaning stays at its token;
* from the end-of-text token on, each caption's context is that of another caption, so that
  nothing can be learnt from those positions;
* an extra loss asks that a noun's map be ``ratio`` times as high inside its object as outside,
  and no more.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from . import sampling
from .captions import MAX_TOKENS
from .dataset import Data
from .networks import TIMESTEPS, Autoencoder, TextEncoder, alphas_cumprod, build_unet, read_config, unet_with_maps
from .scenes import SLOTS
from .training import Average, StageTimer, contact_sheet, learning_rate, load_weights, save_weights
from .vocabulary import CONTEXT_LENGTH, WordEncoder

SAMPLES = ("a cat and a basketball", "two roses and a bus", "a fox left of a gift", "a red heart and a blue square",
           "three butterflies on a blue background", "a photo of a sandwich", "a dog above a rocket, green background",
           "an owl, a banana and a yellow circle")


@dataclass
class Settings:
    """The options of the denoiser's training."""

    data: Path
    output: Path
    config: Path
    tokenizer: Path
    resume: Path | None = None
    seconds: float | None = None
    iterations: int | None = None
    wait: bool = False  # wait for the data file after compiling
    batch: int = 512
    rate: float = 6e-4
    decay_from: float = 1.0
    map_weight: float = 0.01
    map_ratio: float = 6.0
    caption_dropout: float = 0.1
    lead: float = 0.0  # spread of the half-Gaussian lead of a part of each picture, in timesteps
    one_level: float = 0.25  # with a lead: share of the pictures that are at one level
    keep_every: float = 60.0  # seconds after which the averaged weights are written too
    compile: bool = True
    autoencoder: Path | None = None  # only for the sheet
    sheet: Path | None = None
    seed: int = 0
    device: str = "cuda"


def full_ids(ids: torch.Tensor, encode: WordEncoder) -> torch.Tensor:
    """The caption tokens with start token and padding, ``[n, 77]``."""
    return F.pad(F.pad(ids, (1, 0), value=encode.bos), (0, CONTEXT_LENGTH - 1 - ids.shape[1]), value=encode.eos)


def mute_padding(context: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
    """The context in which each caption's rows from its end on are those of the next caption."""
    place = torch.arange(CONTEXT_LENGTH, device=context.device)[None]
    own_end = lengths[:, None] + 1
    other_end = own_end.roll(1, 0)
    source = torch.maximum(place, other_end).unsqueeze(-1).expand_as(context)
    return torch.where((place >= own_end).unsqueeze(-1), context.roll(1, 0).gather(1, source), context)


def two_levels(t: torch.Tensor, side: int, spread: float, alone: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Other timesteps ``[n]``, behind ``t [n]`` by a half-Gaussian of ``spread``, and where they
    hold, bool ``[n, 1, side, side]``.

    The regions say nothing of the picture: half of them are boxes, half blobs (a blurred field of
    noise above a random quantile), anywhere and of any size. In a share ``alone`` of the pictures
    there is none.
    """
    n, device = len(t), t.device
    lag = (torch.randn(n, device=device).abs() * spread).round().long()
    behind = torch.minimum(t + lag, torch.full_like(t, TIMESTEPS - 1))
    place = torch.arange(side, device=device)
    ends = torch.rand(n, 2, 2, device=device).sort(dim=2).values * (side + 1)
    rows, columns = ((place >= ends[:, axis, :1].floor()) & (place < ends[:, axis, 1:].ceil()) for axis in (0, 1))
    boxes = rows[:, :, None] & columns[:, None, :]
    field = F.interpolate(torch.randn(n, 1, 6, 6, device=device), size=(side, side), mode="bicubic")[:, 0]
    order = field.flatten(1).argsort(dim=1).argsort(dim=1).view(n, side, side)
    blobs = order < torch.rand(n, 1, 1, device=device) * side * side
    chosen = torch.where(torch.rand(n, 1, 1, device=device) < 0.5, boxes, blobs)
    return behind, (chosen & (torch.rand(n, 1, 1, device=device) >= alone))[:, None]


def map_loss(maps: torch.Tensor, masks: torch.Tensor, groups: torch.Tensor, weight: torch.Tensor,
             ratio: float) -> tuple[torch.Tensor, torch.Tensor]:
    """How far noun maps fall short of being ``ratio`` times as high inside their objects as
    outside.

    The second value is the mean logarithm of that ratio. ``maps [n, pixels, tokens]``, ``masks [n,
    groups, pixels]`` in [0, 1], ``groups [n, tokens]``, ``weight [n]``.
    """
    area = masks.sum(-1, keepdim=True)
    inside = torch.bmm(masks, maps)  # [n, groups, tokens]
    outside = (maps.sum(1, keepdim=True) - inside).clamp(min=0)
    log_ratio = (inside / area.clamp(min=0.1) + 1e-6).log() - (
        outside / (masks.shape[-1] - area).clamp(min=0.1) + 1e-6).log()
    named = F.one_hot(groups.clamp(min=0), masks.shape[1]).transpose(1, 2) * (groups >= 0).unsqueeze(1) * (area > 0.5)
    share = named * weight[:, None, None]
    total = share.sum().clamp(min=1)
    return (F.relu(math.log(ratio) - log_ratio) * share).sum() / total, (log_ratio * share).sum() / total


def train(settings: Settings) -> None:
    """Run the stage and write ``output``: averaged ``unet.*`` and ``text.*`` weights."""
    device = torch.device(settings.device)
    torch.manual_seed(settings.seed)
    torch.backends.cudnn.benchmark = True
    torch.set_float32_matmul_precision("high")
    config = read_config(settings.config)
    encode = WordEncoder(settings.tokenizer)
    unet = build_unet(config["unet_config"]["params"])
    text = TextEncoder(read_text_config(settings.tokenizer))
    if settings.resume:
        load_weights({"unet": unet, "text": text}, settings.resume)
    unet.to(device, memory_format=torch.channels_last)
    text.to(device)
    both = nn.ModuleList([unet, text])
    optimiser = torch.optim.AdamW(both.parameters(), lr=settings.rate, betas=(0.9, 0.99), weight_decay=0.01,
                                  fused=device.type == "cuda")
    alphas = alphas_cumprod().to(device)

    def loss_of(latents: torch.Tensor, masks: torch.Tensor, ids: torch.Tensor, groups: torch.Tensor,
                lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        t = torch.randint(0, TIMESTEPS, (len(latents),), device=latents.device)
        others, inside = (t, None) if not settings.lead else two_levels(
            t, latents.shape[-1], settings.lead, settings.one_level)
        at = t[:, None, None, None] if inside is None else torch.where(inside, others[:, None, None, None],
                                                                       t[:, None, None, None])
        alpha = alphas[at]
        noise = torch.randn(latents.shape, device=latents.device)
        noised = alpha.sqrt() * latents.float() + (1 - alpha).sqrt() * noise
        context = mute_padding(text(ids).float(), lengths)
        predicted, maps = unet_with_maps(unet, noised.contiguous(memory_format=torch.channels_last), t, context, inside,
                                         others)
        mse = F.mse_loss(predicted.float(), noise)
        weight = ((900 - t.float()) / 200).clamp(0, 1)
        fine = masks.float() / 255
        pull, log_ratio = map_loss(maps[16].float(), fine.flatten(2), groups, weight, settings.map_ratio)
        coarse, _ = map_loss(maps[8].float(), F.avg_pool2d(fine, 2).flatten(2), groups, weight, settings.map_ratio)
        return mse + settings.map_weight * (pull + 0.3 * coarse), mse, pull, log_ratio

    step = torch.compile(loss_of, dynamic=False) if settings.compile else loss_of

    def iterate(batch: tuple[torch.Tensor, ...]) -> torch.Tensor:
        with torch.autocast(device.type, torch.bfloat16):
            loss, *parts = step(*batch)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(both.parameters(), 1.0)
        optimiser.step()
        return torch.stack(parts).detach()

    if settings.compile:
        began = time.monotonic()
        for group in optimiser.param_groups:
            group["lr"] = 0.0
        for _ in range(2):
            iterate(empty_batch(settings.batch, encode, device))
        optimiser.state.clear()
        print(f"compiled in {time.monotonic() - began:.0f} s", flush=True)
    while settings.wait and not settings.data.exists():
        time.sleep(0.5)
    data = Data.load(settings.data, device)
    made_of = {} if data.encoder is None else {"encoder": data.encoder}
    average = Average(both, 0.999)
    timer = StageTimer(settings.seconds, settings.iterations)
    seen: list[torch.Tensor] = []
    kept = 0.0
    while timer.progress < 1:
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(settings.rate, timer.count, timer.progress, settings.decay_from)
        seen.append(iterate(draw_batch(data, settings, encode)))
        average.update()
        timer.count += 1
        if timer.elapsed - kept > settings.keep_every:  # a stop loses no more; --resume goes on from it
            kept = timer.elapsed
            average.swap()
            save_weights({"unet": unet, "text": text}, settings.output, **made_of)
            average.swap()
        if timer.count % 250 == 0:
            mse, pull, log_ratio = torch.stack(seen).mean(0).tolist()
            print(f"unet {timer.count} {timer.elapsed:.0f} s loss {mse:.4f} map loss {pull:.3f} "
                  f"inside/outside {math.exp(log_ratio):.2f}", flush=True)
            seen.clear()
    average.swap()
    save_weights({"unet": unet, "text": text}, settings.output, **made_of)
    print(f"unet done: {timer.count} iterations, {timer.elapsed:.0f} s", flush=True)
    if settings.sheet and settings.autoencoder:
        vae = Autoencoder(config["first_stage_config"]["params"])
        scale = float(load_weights({"vae": vae}, settings.autoencoder)["scale_factor"])
        vae.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            model = sampling.Model(unet, text, vae, scale, encode)
            prompts = [prompt for prompt in SAMPLES for _ in range(3)]
            pictures = sampling.generate(model, prompts, steps=30, guidance=4.5, seed=1).pictures
        contact_sheet(pictures, 6, settings.sheet)


def read_text_config(tokenizer: Path) -> dict:
    """The ``config.json`` of the tokenizer's folder."""
    import json

    return json.loads((Path(tokenizer) / "config.json").read_text(encoding="utf-8"))


def empty_batch(n: int, encode: WordEncoder, device: torch.device) -> tuple[torch.Tensor, ...]:
    """A batch of the right shapes that means nothing, for compiling."""
    ids = full_ids(torch.full((n, MAX_TOKENS), encode.eos, device=device), encode)
    return (torch.randn(n, 4, 32, 32, device=device).half(), torch.zeros(n, SLOTS, 16, 16, device=device).byte(),
            ids, torch.full_like(ids, -1), torch.zeros(n, dtype=torch.int64, device=device))


def draw_batch(data: Data, settings: Settings, encode: WordEncoder) -> tuple[torch.Tensor, ...]:
    """A batch of random scenes. Some captions are dropped for classifier-free guidance."""
    device = data.latents.device
    rows = torch.randint(0, len(data.latents), (settings.batch,), device=device)
    dropped = torch.rand(settings.batch, device=device) < settings.caption_dropout
    ids = full_ids(data.ids[rows].masked_fill(dropped[:, None], encode.eos), encode)
    groups = data.groups[rows].masked_fill(dropped[:, None], -1)
    groups = F.pad(F.pad(groups, (1, 0), value=-1), (0, CONTEXT_LENGTH - 1 - groups.shape[1]), value=-1)
    return data.latents[rows], data.masks[rows], ids, groups, data.lengths[rows].masked_fill(dropped, 0)
