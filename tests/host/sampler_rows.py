"""The rows of every sampler: on every family of models, with its options, and over few and many
steps."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from family import HOST
from requests_table import BASE, CHECKPOINTS, KINDS, NO_STEP, SAMPLERS, SCHEDULES, SMALL, START, TOO_FEW, Row

STILL = {"targets": "cat", "concavity": 0.0}
"""The settings with which a run makes the host's own picture, bit for bit: its formulas, scalars
and random numbers."""

STATIC = {"targets": "cat", "mask_timing": "static"}
HIRES = {"enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "denoising_strength": 0.7, "steps": 5, **SMALL}
SDE = ("DPM++ SDE", "DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 3M SDE")
ANCESTRAL = ("Euler a", "DPM2 a", "DPM++ 2S a", "DPM fast", *SDE)
"""The samplers that the host hands its "eta for k-diffusion samplers", which is 1."""

STEPS = {"DPM fast": 20, **dict.fromkeys(("DDIM", "DDIM CFG++", "PLMS"), 12)}
"""The steps of samplers that need more. DPM fast makes one step of three evaluations, and the
others make fewer than a strength leaves; the first and the last do not lag."""

FEW: dict[tuple[str, int], dict[str, Any]] = {}
"""What comes of few steps of a sampler where not :data:`TOO_FEW` does."""
if "option uni_pc_order" not in HOST.lacks:  # its samplers of DDIM's kind go by timesteps, 999 to 0
    # For a single step the host makes a single timestep, from which these step nowhere.
    FEW |= {(sampler, 1): NO_STEP for sampler in ("DDIM", "DDIM CFG++", "PLMS")}
    # Thirds are no whole numbers, so it makes a fourth, and UniPC steps from the last one too.
    FEW["UniPC", 3] = {}

RISES = {"unchanged": True, "without": True, "messages": ("does not descend from step to step",)}


def rows() -> Iterator[Row]:
    yield from _families()
    yield from _step_counts()
    yield from _schedules()
    yield from _etas()
    yield from _churn()
    yield from _unipc()
    yield from _others()
    yield from _start_pictures()
    yield from _second_passes()


def still(row: Row) -> Row:
    """``row`` with concavity 0."""
    settings = {**(row.settings or {}), **STILL}
    return replace(row, name=f"still, {row.name}", settings=settings, unchanged=True)


def both(row: Row) -> Iterator[Row]:
    yield row
    yield still(row)


def _families() -> Iterator[Row]:
    eta = {"sampler_name": "DDIM", "eta": 1.0}
    for checkpoint in CHECKPOINTS:
        for sampler in SAMPLERS:
            request = {"sampler_name": sampler, "steps": STEPS.get(sampler, 6)}
            row = Row(f"{checkpoint} {sampler}", request, checkpoint=checkpoint)
            yield from both(row) if checkpoint in ("sd1", "sd1-v", "sdxl") else (row,)
        yield from both(Row(f"{checkpoint} DDIM eta 1", eta, checkpoint=checkpoint))
    for sampler in KINDS:
        yield still(Row(f"sd2-v {sampler}", {"sampler_name": sampler}, checkpoint="sd2-v"))
    for sampler in ("DDIM", "UniPC", "Restart", "LCM", "DPM++ SDE", "DPM++ 3M SDE"):
        yield Row(f"static, {sampler}", {"sampler_name": sampler}, STATIC)
        # The first pass leaves no trace in the second one.
        yield still(Row(f"static, {sampler}", {"sampler_name": sampler}, STATIC))


def _step_counts() -> Iterator[Row]:
    def row(sampler: str, steps: int, **more: Any) -> Row:
        # The host's UniPC wants at least as many steps as its order.
        ordered = sampler == "UniPC" and "option uni_pc_order" not in HOST.lacks
        options = {"uni_pc_order": min(steps, 3)} if ordered else {}
        return Row(
            f"{sampler} {steps} step{'s'[: steps > 1]}",
            {"sampler_name": sampler, "steps": steps, **more},
            options=options,
        )

    for sampler in SAMPLERS:
        # All pixels are together at both ends of the clock, and the first step has no mask yet.
        for steps in (1, 2, 3):
            if steps > 1 or sampler not in HOST.not_one_step:
                yield replace(row(sampler, steps), **FEW.get((sampler, steps), TOO_FEW))
        yield row(sampler, STEPS.get(sampler, 4))
    for sampler in (*KINDS, "DPM fast", "UniPC", "DPM++ 2M SDE"):
        yield row(sampler, 25)
    for steps in (19, 20, 36):  # from 20 on it rises once, from 36 on twice
        yield from both(row("Restart", steps, **SMALL))
    for sampler in ("Euler", "UniPC", "PLMS", "DPM++ 3M SDE"):
        yield row(sampler, 150, **SMALL)
    yield from both(row("Restart", 150, **SMALL))


def _schedules() -> Iterator[Row]:
    for schedule in SCHEDULES:
        for sampler in ("Euler", "DPM++ 2M"):
            row = Row(f"{sampler} {schedule}", {"sampler_name": sampler, "scheduler": schedule})
            yield replace(row, **RISES) if schedule in HOST.rising else row
    for sampler in ("DPM++ 2M SDE", "Heun", "LMS"):
        for schedule in ("karras", "sgm_uniform", "beta"):
            yield Row(f"{sampler} {schedule}", {"sampler_name": sampler, "scheduler": schedule, **SMALL})


def _etas() -> Iterator[Row]:
    def row(name: str, options: dict[str, Any] | None = None, **request: Any) -> Row:
        return Row(name, {**request, **SMALL}, options=options or {})

    for sampler in ANCESTRAL:
        steps = {"steps": STEPS.get(sampler, BASE["steps"])}
        yield from both(row(f"{sampler} eta 0.5", {"s_noise": 1.01}, sampler_name=sampler, eta=0.5, **steps))
        yield still(row(f"{sampler} eta 0", sampler_name=sampler, eta=0.0, **steps))
    for sampler in ("DDIM", "DDIM CFG++"):
        yield from both(row(f"{sampler} eta 0.5", sampler_name=sampler, eta=0.5))
        yield row(f"{sampler} eta of the options", {"eta_ddim": 1.0}, sampler_name=sampler)
    yield row("Euler a eta of the options", {"eta_ancestral": 0.5}, sampler_name="Euler a")


def _churn() -> Iterator[Row]:
    churn = {"s_churn": 3.0, "s_tmin": 0.5, "s_tmax": 5.0, "s_noise": 1.003}
    for sampler in ("Euler", "Heun", "DPM2"):
        yield Row(f"{sampler} s_churn", {"sampler_name": sampler, **SMALL}, options={"s_churn": 3.0})
        yield from both(Row(f"{sampler} s_churn within limits", {"sampler_name": sampler, **SMALL}, options=churn))


def _unipc() -> Iterator[Row]:
    for name, options in {
        **{f"order {order}": {"uni_pc_order": order} for order in (1, 2, 5)},
        **{variant: {"uni_pc_variant": variant} for variant in ("bh2", "vary_coeff")},
        **{f"{kind}": {"uni_pc_skip_type": kind} for kind in ("time_quadratic", "logSNR")},
        "full order to the end": {"uni_pc_lower_order_final": False},
        "order 5, full order, bh2": {"uni_pc_order": 5, "uni_pc_lower_order_final": False, "uni_pc_variant": "bh2"},
        "order 2, vary_coeff, full order": {
            "uni_pc_order": 2,
            "uni_pc_variant": "vary_coeff",
            "uni_pc_lower_order_final": False,
        },
    }.items():
        yield from both(Row(f"UniPC {name}", {"sampler_name": "UniPC", "steps": 8, **SMALL}, options=options))


def _others() -> Iterator[Row]:
    """The rows of host options and kinds of prompts that count steps, or touch noise levels."""

    def row(name: str, options: dict[str, Any] | None = None, settings: Any = None, **request: Any) -> Row:
        return Row(f"{name}, {request['sampler_name']}", {**SMALL, **request}, settings, options or {})

    for sampler in ("DPM++ 2M SDE", "DPM2", "PLMS", "UniPC"):
        discarding = {"always_discard_next_to_last_sigma": True}
        yield from both(row("always_discard_next_to_last_sigma", discarding, sampler_name=sampler))
    old = {"use_old_karras_scheduler_sigmas": True}
    for sampler in ("DPM++ SDE", "Heun"):
        yield row("use_old_karras_scheduler_sigmas", old, sampler_name=sampler, scheduler="karras")
    for sampler in (*KINDS, "Heun", "DPM++ SDE", "UniPC", "LCM"):
        quantizing = row("enable_quantization", {"enable_quantization": True}, sampler_name=sampler)
        yield from (quantizing,) if sampler in KINDS else both(quantizing)
    # Heun and its like count two steps for one.
    for sampler in ("Heun", "DPM++ SDE"):
        second = {"prompt": "a [cat:dog:0.5] in the sun", "steps": 10}
        # On Forge's tiny model Heun shows it little: 0.07 levels with a concavity of 0.5, 0.12 with
        # 1.
        yield row("editing, second word", None, {"targets": "dog", "concavity": 1.0}, **second, sampler_name=sampler)
        yield row("editing, static", None, STATIC, prompt="a [dog:cat:0.5] in the sun", sampler_name=sampler)
    for sampler in ("PLMS", "UniPC"):  # PLMS evaluates the first step twice
        yield row("editing by step", None, {"targets": "dog"}, prompt="a [cat:dog:2]", steps=8, sampler_name=sampler)
    yield from both(row("skip_early_cond", {"skip_early_cond": 0.4}, sampler_name="DDIM CFG++"))
    for sampler in ("Heun", "UniPC"):
        yield from both(row("NGMS", {"s_min_uncond": 4.0}, s_min_uncond=4.0, sampler_name=sampler))
    for sampler in ("DDIM CFG++", "LCM", "DPM++ 2M SDE"):
        yield row("AND, batch size 2", prompt="a cat AND a dog:0.6", batch_size=2, sampler_name=sampler)
    for sampler in ("DPM++ SDE", "Restart"):
        yield row("batch size 2, count 2", batch_size=2, n_iter=2, sampler_name=sampler)
    for sampler in ("DPM++ SDE", "Euler a", "LCM", "Restart"):
        yield from both(row("randn_source NV", {"randn_source": "NV"}, STATIC, sampler_name=sampler))


def _start_pictures() -> Iterator[Row]:
    for sampler in SAMPLERS:
        request = {**START, "sampler_name": sampler, "steps": STEPS.get(sampler, 8)}
        yield Row(f"img2img {sampler}", {**request, "denoising_strength": 0.6}, kind="img2img")
    for sampler in ("UniPC", "DPM fast", "Restart", "LCM", "DPM++ SDE"):
        request = {**START, "sampler_name": sampler, "steps": STEPS.get(sampler, 8)}
        yield still(Row(f"img2img {sampler}", {**request, "denoising_strength": 0.6}, kind="img2img"))
    for sampler in (*KINDS, "UniPC"):
        request = {**START, "sampler_name": sampler, "steps": 8}
        yield Row(f"img2img {sampler}, strength 1", {**request, "denoising_strength": 1.0}, kind="img2img")
    # The host's UniPC and DPM fast fail.
    nothing = {**START, "sampler_name": "PLMS", "denoising_strength": 0.05}
    message = ("There is no step to make",)
    yield Row("img2img PLMS, nothing to do", nothing, kind="img2img", unchanged=True, messages=message)


def _second_passes() -> Iterator[Row]:
    for sampler in SAMPLERS:
        yield Row(f"hires fix {sampler}", {**HIRES, "sampler_name": sampler, "steps": STEPS.get(sampler, 5)})
    for sampler in ("UniPC", "DPM fast", "DPM++ 2M SDE"):
        yield still(Row(f"hires fix {sampler}", {**HIRES, "sampler_name": sampler, "steps": STEPS.get(sampler, 5)}))
    for sampler in ("UniPC", "LCM", "Heun"):
        steps = {"steps": STEPS.get(sampler, 5)}
        yield Row(f"hires fix, then {sampler}", {**HIRES, **steps, "sampler_name": "Euler", "hr_sampler_name": sampler})
    yield Row("hires fix, Heun, then Euler", {**HIRES, "sampler_name": "Heun", "hr_sampler_name": "Euler"})
