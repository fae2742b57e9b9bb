"""The embedded host against k-diffusion's own samplers, on tiny checkpoints, and its command
line."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import k_diffusion.sampling as k
import numpy as np
import pytest
import tiny_checkpoints
import torch
from k_diffusion.external import CompVisDenoiser, CompVisVDenoiser
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from asyndm_lib import cli
from asyndm_lib.errors import SettingsError, Unsupported
from asyndm_lib.hosts.standalone.embedded import SYNCHRONOUS, Embedded, Request
from asyndm_lib.hosts.standalone.ldm_checkpoint import Checkpoint, load
from asyndm_lib.hosts.standalone.text_encoders import encode, tokenize
from asyndm_lib.samplers.table import LABELS
from asyndm_lib.settings.settings import Settings

CPU = torch.device("cpu")
REQUEST = Request(
    prompt="a cat and a basketball",
    negative="a dog",
    seeds=(1,),
    sampler="Euler",
    schedule="automatic",
    steps=5,
    cfg=4.5,
    width=64,
    height=64,
)
ON = Settings(targets="cat, basketball")
SLOWED = "whole-picture-slowed"
KINDS = ["sd1", "sd1-v"]  # the third needs open_clip, which a WebUI brings
FUNCTIONS = {
    label: sampler.name
    for label, (sampler, _) in LABELS.items()
    if hasattr(k, sampler.name) and sampler.levels == "sigmas"
}
"""The functions that are k-diffusion's own, on a schedule that is given."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Both kinds of tiny checkpoints."""
    folder = tmp_path_factory.mktemp("tiny")
    for kind in KINDS:
        tiny_checkpoints.make(folder, kind)
    return folder


@pytest.fixture(scope="module")
def models(folder) -> dict[str, Checkpoint]:
    return {kind: load(folder / f"tiny-{kind}.safetensors", None, CPU) for kind in KINDS}


@pytest.fixture
def sd1(models) -> Embedded:
    return Embedded(models["sd1"])


class Reference:
    """k-diffusion's denoiser around the checkpoint's UNet, with guidance as in its own examples."""

    def __init__(self, kind: str, model: Checkpoint, folder: Path, request: Request):
        weights = load_file(folder / f"tiny-{kind}.safetensors")
        self.alphas_cumprod = weights["alphas_cumprod"]
        self.apply_model = lambda x, t, cond: model.diffusion_model(x, t, context=cond)
        self.denoiser = (CompVisVDenoiser if kind == "sd1-v" else CompVisDenoiser)(self)
        self._context = encode(model.text, [request.prompt, request.negative], CPU).repeat_interleave(
            len(request.seeds), dim=0
        )
        self._cfg, self._seeds, self.sampler = request.cfg, request.seeds, request.sampler
        self._random = [torch.Generator().manual_seed(seed) for seed in request.seeds]

    def noise(self, *_: object) -> Tensor:
        return torch.stack([torch.randn(4, 8, 8, generator=g) for g in self._random])

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        both = self.denoiser(torch.cat([x, x]), torch.cat([sigma, sigma]), cond=self._context)
        return self._guide(both)

    def at_timestep(self, x: Tensor, t: int) -> Tensor:
        """The eps of a variance-preserving ``x``."""
        both = self.apply_model(torch.cat([x, x]), torch.full((2 * len(x),), float(t)), self._context)
        if isinstance(self.denoiser, CompVisVDenoiser):
            a = self.alphas_cumprod[t]
            both = a.sqrt() * both + (1 - a).sqrt() * torch.cat([x, x])
        return self._guide(both)

    def _guide(self, both: Tensor) -> Tensor:
        cond, uncond = both.chunk(2)
        return uncond + (cond - uncond) * self._cfg

    @torch.no_grad()
    def sample(self, function: str, sigmas: Tensor) -> Tensor:
        x = self.noise() * sigmas[0]
        options = {"noise_sampler": self.noise} if "ancestral" in function else {}
        if "sde" in function:
            options["noise_sampler"] = k.BrownianTreeNoiseSampler(x, sigmas[-2], sigmas[0], seed=list(self._seeds))
        return getattr(k, function)(self, x, sigmas, disable=True, **options, **LABELS[self.sampler][1])


def sigmas_of(reference: Reference, schedule: str) -> Tensor:
    if schedule == "uniform" and LABELS[reference.sampler][0].discards:
        longer = reference.denoiser.get_sigmas(REQUEST.steps + 1)
        return longer[[*range(REQUEST.steps), -1]]
    if schedule == "uniform":
        return reference.denoiser.get_sigmas(REQUEST.steps)
    return getattr(k, f"get_sigmas_{schedule}")(REQUEST.steps, 0.0292, 14.6146)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sampler", FUNCTIONS)
def test_the_synchronous_picture_is_k_diffusions_own_to_the_bit(sampler, kind, models, folder):
    request = replace(REQUEST, sampler=sampler, schedule="uniform", seeds=(1, 2))
    reference = Reference(kind, models[kind], folder, request)
    expected = reference.sample(FUNCTIONS[sampler], sigmas_of(reference, "uniform"))
    assert torch.equal(Embedded(models[kind]).sample(request, SYNCHRONOUS), expected)


@pytest.mark.parametrize("schedule", ["karras", "exponential", "polyexponential"])
def test_schedules_are_k_diffusions(schedule, models, folder, sd1):
    request = replace(REQUEST, schedule=schedule)
    reference = Reference("sd1", models["sd1"], folder, request)
    expected = reference.sample("sample_euler", sigmas_of(reference, schedule))
    torch.testing.assert_close(sd1.sample(request, SYNCHRONOUS), expected, rtol=1e-3, atol=1e-3)


def test_automatic_is_what_it_is_in_the_webuis(sd1):
    of = {label: sampler.schedule for label, (sampler, _) in LABELS.items()}
    karras = {"DPM++ 2M", "DPM++ SDE", "DPM++ 2S a", "DPM2", "DPM2 a", "Restart"}
    assert {label for label in of if of[label] == "karras"} == karras
    exponential = {"DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 3M SDE"}
    assert {label for label in of if of[label] == "exponential"} == exponential
    discarding = {label for label, (sampler, _) in LABELS.items() if sampler.discards}
    assert discarding == {"DPM++ 3M SDE", "DPM2", "DPM2 a"}
    for sampler, schedule in {"DPM++ 2M": "karras", "DPM++ 2M SDE": "exponential", "Euler": "uniform"}.items():
        request = replace(REQUEST, sampler=sampler)
        expected = sd1.sample(replace(request, schedule=schedule), SYNCHRONOUS)
        assert torch.equal(sd1.sample(request, SYNCHRONOUS), expected)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sampler", [label for label, name in FUNCTIONS.items() if "sde" not in name])
def test_lagging_pixels_go_as_k_diffusion_does_on_their_own_sigmas(sampler, kind, models, folder):
    """With every pixel lagging alike there is one schedule, which k-diffusion can follow by
    itself."""
    request = replace(REQUEST, sampler=sampler)
    seen = []
    settings = Settings(whole_picture=True, concavity=0.8)
    out = Embedded(models[kind]).sample(request, settings, observers=[lambda step: seen.append(step.sigma.map)])
    sigmas = torch.stack([sigma[0, 0, 0, 0] for sigma in seen] + [torch.tensor(0.0)])
    assert all(sigma.unique().numel() == 1 for sigma in seen)
    assert sigmas[2] > sigmas_of(Reference(kind, models[kind], folder, request), "uniform")[2] * 1.1
    expected = Reference(kind, models[kind], folder, request).sample(FUNCTIONS[sampler], sigmas)
    torch.testing.assert_close(out, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_ddim_is_that_of_the_paper_on_the_webuis_timesteps(eta, kind, models, folder):
    request = replace(REQUEST, sampler="DDIM", eta=eta)
    reference = Reference(kind, models[kind], folder, request)
    timesteps = [801, 601, 401, 201, 1]
    x = reference.noise()
    with torch.no_grad():
        for t, t_next in itertools.pairwise(timesteps):
            a, a_next = reference.alphas_cumprod[t], reference.alphas_cumprod[t_next]
            eps, noise = reference.at_timestep(x, t), reference.noise()
            denoised = (x - (1 - a).sqrt() * eps) / a.sqrt()
            added = eta * ((1 - a_next) / (1 - a) * (1 - a / a_next)).sqrt()
            x = a_next.sqrt() * denoised + (1 - a_next - added**2).sqrt() * eps + added * noise
    torch.testing.assert_close(Embedded(models[kind]).sample(request, SYNCHRONOUS), x, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("sampler", "timing", "kind"),
    [(sampler, "lagged", kind) for sampler in LABELS for kind in KINDS]
    + [("DPM++ 2M", timing, "sd1") for timing in ("fresh", "static")],
)
def test_asyndm_changes_the_picture_and_nothing_is_left_behind(sampler, timing, kind, models):
    steps = 12 if sampler == "DPM fast" else 5  # which makes several evaluations a step
    request, host = replace(REQUEST, sampler=sampler, steps=steps), Embedded(models[kind])
    plain = host.sample(request, SYNCHRONOUS)
    asynchronous = host.sample(request, replace(ON, mask_timing=timing))
    assert asynchronous.isfinite().all()
    assert (asynchronous - plain).abs().max() > 0.01
    assert_clean(host)
    assert torch.equal(host.sample(request, SYNCHRONOUS), plain)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_behind_by_an_interrupted_run(error, sd1):
    def progress(steps: Iterable[int]) -> Iterable[int]:
        yield 0
        raise error

    with pytest.raises(error):
        sd1.sample(REQUEST, ON, progress)
    assert_clean(sd1)


def assert_clean(host: Embedded) -> None:
    assert not any(module._forward_hooks for module in host._model.diffusion_model.modules())
    assert "get_scalings" not in vars(host._denoiser)


def test_a_word_that_is_not_in_the_prompt_changes_no_bit(sd1):
    bird = Settings(targets="bird")
    assert [str(target) for target in sd1.targets(REQUEST, bird).missing()] == ["bird"]
    assert torch.equal(sd1.sample(REQUEST, bird), sd1.sample(REQUEST, SYNCHRONOUS))


@pytest.mark.parametrize("sampler", ["Euler a", "DPM++ SDE", "Heun", "UniPC"])
def test_a_batch_holds_each_seeds_own_picture_with_its_own_mask(sampler, sd1):
    def sample(*seeds: int) -> tuple[Tensor, Tensor]:
        masks = []
        out = sd1.sample(
            replace(REQUEST, seeds=seeds, sampler=sampler),
            ON,
            observers=[lambda step: masks.append(step.mask and step.mask.related)],
        )
        return out, torch.stack(masks[:-1])

    both, masks = sample(3, 4)
    assert not torch.equal(masks[:, 0], masks[:, 1])
    for n, seed in enumerate((3, 4)):
        alone, own = sample(seed)
        assert torch.equal(masks[:, n], own[:, 0])
        torch.testing.assert_close(both[n], alone[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("sampler", ["DPM++ 2M SDE", "Restart", "LCM", "DPM fast"])
def test_one_seed_gives_one_picture(sampler, sd1):
    request = replace(REQUEST, sampler=sampler)
    first, again = (sd1.sample(request, ON) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, sd1.sample(replace(request, seeds=(2,)), ON))


def test_sizes(sd1):
    wide = replace(REQUEST, width=128, seeds=(1, 2))
    sd1.check(wide)
    latents = sd1.sample(wide, ON)
    assert latents.shape == (2, 4, 8, 16)
    assert sd1.decode(latents).shape == (2, 64, 128, 3)
    for changes in ({"width": 72}, {"height": 0}):
        with pytest.raises(SettingsError, match=r"(72|0) does not fit tiny-sd1.*multiple of 64"):
            sd1.check(replace(REQUEST, **changes))


def test_a_prompt_of_several_chunks(sd1, models):
    text = models["sd1"].text
    long = "a " * 80 + "cat"
    assert tokenize(text, long)[-1] == replace(tokenize(text, "cat")[0], position=77 + 1 + 5)
    context = encode(text, [long, ""], CPU)
    assert context.shape == (2, 154, tiny_checkpoints.TEXT_WIDTH)
    torch.testing.assert_close(context[1, 77:], context[1, :77])
    request = replace(REQUEST, prompt=long)
    assert not torch.equal(sd1.sample(request, Settings(targets="cat")), sd1.sample(request, SYNCHRONOUS))


def test_the_prompt_is_taken_literally(models):
    text = models["sd1"].text
    assert len(tokenize(text, "(cat:1.3)")) > 1
    assert tokenize(text, "Cat,  CAT")[0].key == tokenize(text, "cat")[0].key


def test_a_text_folder_beside_the_yaml_and_a_ckpt(folder, tmp_path, models):
    shutil.copytree(folder / "tiny-text", tmp_path / "words")
    config = json.loads((folder / "tiny-sd1.yaml").read_text())
    config["model"]["params"]["cond_stage_config"]["params"]["version"] = "words"
    (tmp_path / "other.yaml").write_text(json.dumps(config))
    torch.save({"state_dict": load_file(folder / "tiny-sd1.safetensors")}, tmp_path / "other.ckpt")
    model = load(tmp_path / "other.ckpt", None, CPU)
    assert torch.equal(encode(model.text, ["a cat"], CPU), encode(models["sd1"].text, ["a cat"], CPU))


class Trap:
    """A class that leaves a file where it is unpickled."""

    def __init__(self, where: Path):
        self._where = str(where)

    def __reduce__(self):
        return Path.touch, (Path(self._where),)


def test_a_ckpt_that_holds_code_is_not_run(folder, tmp_path):
    torch.save({"state_dict": {}, "trap": Trap(tmp_path / "sprung")}, tmp_path / "bad.ckpt")
    with pytest.raises(Unsupported, match=r"bad\.ckpt holds more than weights"):
        load(tmp_path / "bad.ckpt", folder / "tiny-sd1.yaml", CPU)
    assert not (tmp_path / "sprung").exists()


def params(config: dict, *parts: str) -> dict:
    """The ``params`` of a part of a configuration."""
    found = config["model"]["params"]
    for part in parts:
        found = found[part]["params"]
    return found


YAMLS = {
    "not YAML": (lambda c: "{", "is not a YAML"),
    "code": (lambda c: "!!python/object/apply:os.system [exit]", "is not a YAML"),
    "no model": (lambda c: {}, "model is None"),
    "unknown class": (lambda c: params(c)["unet_config"].update(target="os.system"), "'os.system'"),
    "unknown autoencoder": (lambda c: params(c)["first_stage_config"].update(target="ldm.VQ"), "'ldm.VQ'"),
    "unknown text encoder": (lambda c: params(c)["cond_stage_config"].update(target="T5"), "'T5'"),
    "hub name": (lambda c: params(c, "cond_stage_config").update(version="openai/no-such"), "'openai/no-such'"),
    "unknown argument": (lambda c: params(c, "unet_config").update(sparkle=1), "sparkle"),
    "other width": (lambda c: params(c, "unet_config").update(model_channels=64), "do not fit"),
    "more layers": (lambda c: params(c, "unet_config").update(num_res_blocks=3), "do"),
    "parameterization": (lambda c: params(c).update(parameterization="x0"), "'x0'"),
    "scale": (lambda c: params(c).update(scale_factor="big"), "'big'"),
}


@pytest.mark.parametrize("case", YAMLS)
def test_yamls_that_are_wrong(case, folder, tmp_path, capsys):
    change, words = YAMLS[case]
    config = json.loads((folder / "tiny-sd1.yaml").read_text())
    changed = change(config)
    path = tmp_path / "bad.yaml"
    path.write_text(changed if isinstance(changed, str) else json.dumps(config if changed is None else changed))
    line = failing(capsys, ["--checkpoint", str(folder / "tiny-sd1.safetensors"), "--config", str(path)])
    assert words in line


def failing(capsys, arguments: list[str], prompt: str = "a cat", targets: str | None = "cat") -> str:
    """The one line that ``generate`` writes when it refuses its arguments."""
    chosen = [] if targets is None else ["--targets", targets]
    assert cli.main(["generate", prompt, *chosen, *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert said.err.startswith("asyndm: error: ")
    return said.err


MASK = Path(__file__).parents[1] / "docs" / "marking.png"
"""Some picture."""

ERRORS = {
    "sampler": (["--sampler", "Oiler"], "'Oiler'"),
    "schedule": (["--schedule", "cosinus"], "'cosinus'"),
    "steps": (["--steps", "0"], "'0'"),
    "no number": (["--steps", "many"], "'many'"),
    "seed": (["--seed", "-1"], "'-1'"),
    "batch": (["--batch", "0"], "'0'"),
    "cfg": (["--cfg", "nan"], "'nan'"),
    "eta": (["--eta", "2"], "'2'"),
    "eta of a sampler without": (["--eta", "1", "--sampler", "Euler"], "'Euler' has no eta"),
    "a word as it is not written": (["--targets", "cats"], "'cats' not found in 'a cat' (did you mean \"cat\"?)"),
    "one step of DDIM": (["--sampler", "DDIM", "--steps", "1"], "at least 2 steps"),
    "two steps of UniPC": (["--sampler", "UniPC", "--steps", "2"], "UniPC needs at least 3 steps, not 2"),
    "schedule of DDIM": (["--sampler", "DDIM", "--schedule", "karras"], "'karras'"),
    "no multiple of 8": (["--width", "100"], "100 does not fit"),
    "not fit for the UNet": (["--height", "72"], "multiple of 64"),
    "too large": (["--width", "999999"], "'999999'"),
    "device": (["--device", "abacus"], "'abacus'"),
    "absent GPU": (["--device", "cuda:99"], "'cuda:99'"),
    "concavity": (["--concavity", "1.5"], "1.5"),
    "concavity not a number": (["--concavity", "much"], "'much'"),
    "threshold": (["--threshold", "-1"], "-1"),
    "curve": (["--curve", "cubic"], "'cubic'"),
    "mask timing": (["--mask-timing", "late"], "'late'"),
    "checkpoint": (["--checkpoint", "nowhere.safetensors"], "nowhere.safetensors"),
    "config": (["--config", "nowhere.yaml"], "nowhere.yaml"),
    "mask": (["--mask", "nowhere.png"], "--mask nowhere.png: No such file"),
    "mask that is no picture": (["--mask", __file__], "no PNG picture"),
    "mask and whole picture": (["--mask", str(MASK), "--whole-picture"], "--whole-picture do not go together"),
    "format": (["--out", "sheet.xyz"], ".xyz"),
    "unknown option": (["--sparkle"], "--sparkle"),
}
TARGETS = {
    "occurrence 0": ("cat#0", "'cat#0'"),
    "its own concavity": ("cat:2", "2"),
    "not in the prompt": ("dog, bus", "'dog', 'bus'"),
    "third of one": ("cat#3", "'cat#3'"),
    "part of a word": ("ca", "'ca'"),
}


@pytest.mark.parametrize("case", ERRORS)
def test_wrong_arguments(case, folder, tmp_path, capsys):
    arguments, words = ERRORS[case]
    defaults = ["--checkpoint", str(folder / "tiny-sd1.safetensors"), "--width", "64", "--height", "64"]
    assert words in failing(capsys, [*defaults, "--out", str(tmp_path / "sheet.png"), *arguments])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("case", TARGETS)
def test_wrong_targets(case, folder, tmp_path, capsys):
    targets, words = TARGETS[case]
    defaults = ["--checkpoint", str(folder / "tiny-sd1.safetensors"), "--out", str(tmp_path / "sheet.png")]
    assert words in failing(capsys, defaults, targets=targets)


@pytest.mark.parametrize("targets", ["", " , ", None])
def test_without_targets_the_words_are_chosen(targets, folder, tmp_path, capsys):
    out = tmp_path / "sheet.png"
    named = [] if targets is None else ["--targets", targets]
    size = ["--width", "64", "--height", "64", "--steps", "4", "--batch", "2"]
    model = ["--checkpoint", str(folder / "tiny-sd1.safetensors"), "--out", str(out)]
    assert cli.main(["generate", "a photo of a cat", *named, *size, *model]) == 0
    said = capsys.readouterr().out
    assert "seed 1: chose cat\nseed 2: chose cat\n" in said
    assert out.exists()


def test_a_prompt_that_names_nothing(folder, tmp_path, capsys):
    model = ["--checkpoint", str(folder / "tiny-sd1.safetensors"), "--out", str(tmp_path / "sheet.png")]
    for prompt in ("", "of the", "..., !!", "best quality, 8k"):
        assert "names a thing" in failing(capsys, model, prompt=prompt, targets=None)


def test_unusable_prompts(folder, tmp_path, capsys):
    defaults = ["--checkpoint", str(folder / "tiny-sd1.safetensors"), "--out", str(tmp_path / "sheet.png")]
    assert "10000 tokens" in failing(capsys, defaults, prompt="cat " * 10000)
    assert "'cat' not found in '🐱🏀'" in failing(capsys, defaults, prompt="🐱🏀")


def test_paths_that_cannot_be_written(folder, tmp_path, capsys):
    (tmp_path / "file").touch()
    checkpoint = ["--checkpoint", str(folder / "tiny-sd1.safetensors")]
    for path in (tmp_path / "file" / "sheet.png", tmp_path / "folder.png"):
        (tmp_path / "folder.png").mkdir(exist_ok=True)
        assert str(path.parent if path.parent.is_file() else path) in failing(capsys, [*checkpoint, "--out", str(path)])
    images = ["--images", str(tmp_path / "file")]
    assert str(tmp_path / "file") in failing(capsys, [*checkpoint, *images, "--out", str(tmp_path / "sheet.png")])


def test_files_that_are_no_checkpoints(folder, tmp_path, capsys):
    config = ["--config", str(folder / "tiny-sd1.yaml")]
    for name in ("bad.safetensors", "bad.ckpt"):
        (tmp_path / name).write_text("not weights")
        assert name in failing(capsys, ["--checkpoint", str(tmp_path / name), *config])
    half = load_file(folder / "tiny-sd1.safetensors")
    torch.save({n: w for n, w in half.items() if not n.startswith("first_stage")}, tmp_path / "half.ckpt")
    assert "first_stage_model" in failing(capsys, ["--checkpoint", str(tmp_path / "half.ckpt"), *config])


@pytest.mark.parametrize("package", ["k_diffusion", "transformers", "tqdm"])
def test_a_missing_package(package, monkeypatch, capsys, folder):
    for name in [name for name in sys.modules if name.startswith(("asyndm_lib.hosts.", "asyndm_lib.demo.generate"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    line = failing(capsys, ["--checkpoint", str(folder / "tiny-sd1.safetensors")])
    assert repr(package) in line


def test_ctrl_c(folder, tmp_path, monkeypatch, capsys):
    def interrupted(*arguments: object) -> Tensor:
        raise KeyboardInterrupt

    monkeypatch.setattr(Embedded, "sample", interrupted)
    checkpoint = ["--checkpoint", str(folder / "tiny-sd1.safetensors"), "--out", str(tmp_path / "sheet.png")]
    assert cli.main(["generate", "a cat", "--targets", "cat", *checkpoint]) == 130
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("extra", "warned"),
    [
        ([], ""),
        (["--targets", "cat", "--with-words", "intersection"], ""),
        (["--targets", "unicorn"], "so the mask alone counts: 'unicorn'"),
    ],
)
def test_a_mask_by_hand(extra, warned, folder, tmp_path, capsys):
    half = Image.new("L", (50, 20))
    half.paste(255, (0, 0, 25, 20))
    half.save(tmp_path / "mask.png")
    checkpoint = ["--checkpoint", str(folder / "tiny-sd1.safetensors"), "--width", "64", "--height", "64"]
    arguments = [*checkpoint, "--mask", str(tmp_path / "mask.png"), "--steps", "4", "--images", str(tmp_path)]
    assert cli.main(["generate", "a cat", *arguments, "--out", str(tmp_path / "sheet.png"), *extra]) == 0
    said = capsys.readouterr()
    assert said.out == f"{tmp_path / 'sheet.png'}\n"
    assert warned in said.err
    names = ("ordinary", "whole-picture-slowed", "asyndm")
    made = [Image.open(tmp_path / f"seed-1-{name}.png").tobytes() for name in names]
    assert len(set(made)) == 3


def test_a_mask_that_covers_no_cell_is_refused_before_the_first_picture(folder, tmp_path, capsys, monkeypatch):
    Image.fromarray(np.pad(np.uint8([[255]]), 99)).save(tmp_path / "mask.png")
    monkeypatch.setattr(Embedded, "sample", None)
    model = ["--checkpoint", str(folder / "tiny-sd1.safetensors"), "--width", "64", "--height", "64"]
    mask = ["--mask", str(tmp_path / "mask.png"), "--out", str(tmp_path / "sheet.png")]
    assert "the mask is empty" in failing(capsys, [*model, *mask])


@pytest.mark.parametrize(
    ("more", "steps", "warned"),
    [
        (["--targets", "cat"], 3, "3 steps leave none in which regions could differ; at least 4 are needed"),
        (["--targets", "cat"], 4, ""),
        (["--targets", "cat", "--mask-timing", "fresh"], 3, ""),
        (["--whole-picture"], 2, "2 steps leave none in which anything could lag; at least 3 are needed"),
    ],
)
def test_too_few_steps_are_said(more, steps, warned, folder, tmp_path, capsys):
    model = ["--checkpoint", str(folder / "tiny-sd1.safetensors"), "--width", "64", "--height", "64"]
    given = [*model, "--sampler", "Euler", "--steps", str(steps), "--out", str(tmp_path / "sheet.png"), *more]
    assert cli.main(["generate", "a cat and a dog", *given]) == 0
    said = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    assert [warned in line for line in said] == ([True] if warned else [])


def test_an_empty_mask(folder, tmp_path, capsys):
    Image.new("L", (8, 8)).save(tmp_path / "mask.png")
    model = ["--checkpoint", str(folder / "tiny-sd1.safetensors"), "--out", str(tmp_path / "sheet.png")]
    assert "nothing is painted" in failing(capsys, [*model, "--mask", str(tmp_path / "mask.png")])


@pytest.mark.parametrize("extra", [["--targets", "cat, unicorn", "--batch", "2"], ["--whole-picture", "--steps", "1"]])
def test_the_sheet(extra, folder, tmp_path, capsys):
    out, images = tmp_path / "new" / "sheet.png", tmp_path / "single"
    checkpoint = ["--checkpoint", str(folder / "tiny-sd1.safetensors"), "--width", "64", "--height", "128"]
    arguments = [*checkpoint, "--steps", "3", "--out", str(out), "--images", str(images), *extra]
    assert cli.main(["generate", "a cat, 🐱 and a (dog)", *arguments]) == 0
    said = capsys.readouterr()
    assert said.out == f"{out}\n"
    assert ("not in the prompt, ignored: 'unicorn'" in said.err) == ("--batch" in extra)
    sheet = np.asarray(Image.open(out))
    assert sheet.shape[1:] == (1280, 3)
    assert sheet.shape[0] > (2800 if "--batch" in extra else 1400)
    written = sorted(path.name for path in images.iterdir())
    if "--batch" in extra:
        assert written == [f"seed-{seed}-{name}.png" for seed in (1, 2) for name in ("asyndm", "ordinary", SLOWED)]
        # Three pictures, masks and timesteps differ from the paper's white all over the sheet.
        assert all((band != 255).any(axis=(1, 2)).mean() > 0.5 for band in np.array_split(sheet, 10))
    else:
        assert written == ["seed-1-ordinary.png", f"seed-1-{SLOWED}.png"]
    assert {Image.open(images / name).size for name in written} == {(64, 128)}


@pytest.mark.parametrize("sampler", LABELS)
def test_every_sampler_makes_a_sheet_by_its_label(sampler, folder, tmp_path, capsys):
    checkpoint = ["--checkpoint", str(folder / "tiny-sd1.safetensors"), "--width", "64", "--height", "64"]
    files = ["--out", str(tmp_path / "sheet.png"), "--images", str(tmp_path)]
    # DPM fast makes several evaluations a step, and pixels lag between the first step and the last
    # alone.
    steps = ["--sampler", sampler, "--steps", "10" if sampler == "DPM fast" else "4", "--mask-timing", "fresh"]
    assert cli.main(["generate", "a cat", "--targets", "cat", *steps, *checkpoint, *files]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'sheet.png'}\n"
    pictures = [(tmp_path / f"seed-1-{name}.png").read_bytes() for name in ("ordinary", SLOWED, "asyndm")]
    assert len(set(pictures)) == 3


@pytest.mark.parametrize("sampler", LABELS)
def test_what_a_sampler_cannot_do_is_said_by_its_name(sampler, sd1):
    least = {"UniPC": 3, "DDIM": 2, "DDIM CFG++": 2, "PLMS": 2}.get(sampler, 1)
    request = replace(REQUEST, sampler=sampler, steps=least)
    sd1.check(request)
    assert sd1.sample(request, ON).isfinite().all()
    if least > 1:
        with pytest.raises(SettingsError, match=re.escape(f"{sampler} needs at least {least} steps, not {least - 1}")):
            sd1.check(replace(request, steps=least - 1))
    scheduled = replace(request, schedule="karras")
    if sampler not in ("DPM fast", "DDIM", "DDIM CFG++", "PLMS", "UniPC"):
        sd1.check(scheduled)
        return
    with pytest.raises(SettingsError, match=re.escape(f"{sampler} has noise levels of its own: the schedule 'karras'")):
        sd1.check(scheduled)


def test_install_model(folder, tmp_path, monkeypatch, capsys):
    config = json.loads((folder / "tiny-sd1.yaml").read_text())
    params(config, "cond_stage_config")["version"] = "tiny-text"
    (tmp_path / "model.yaml").write_text(json.dumps(config))
    shutil.copytree(folder / "tiny-text", tmp_path / "tiny-text")
    shutil.copy(folder / "tiny-sd1.safetensors", tmp_path / "model.safetensors")
    monkeypatch.setattr(cli, "MODEL", tmp_path / "model.safetensors")
    webui = tmp_path / "webui"
    webui.mkdir()
    assert cli.main(["install-model", str(webui)]) == 2
    assert f"{webui} is not a WebUI's folder" in capsys.readouterr().err
    (webui / "webui.py").touch()
    for _ in range(2):  # again over the first one
        assert cli.main(["install-model", str(webui)]) == 0
    path = webui / "models" / "Stable-diffusion" / "asyndm-emoji.safetensors"
    assert capsys.readouterr().out == f"{path}\n" * 2
    for name in ("tiny-text", "model.safetensors", "model.yaml"):  # the copy needs none of them
        (tmp_path / name).rename(tmp_path / f"moved {name}")
    assert load(path, None, CPU).parameterization == "eps"


def test_the_command_itself():
    def run(*arguments: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "asyndm_lib", *arguments]
        return subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True)

    wrong = run("generate", "a cat", "--targets", "dog:x")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert wrong.stderr.count("\n") == 1
    assert "'x' after the colon" in wrong.stderr
    help = run("generate", "--help")
    assert help.returncode == 0
    for option in ("--targets", "--concavity", "--mask-timing", "--whole-picture", "--checkpoint", "--images"):
        assert option in help.stdout


OTHER_FILES = {
    "LoRA": (["lora_unet_down_blocks_0_attentions_0.lora_down.weight", "lora_te_text_model.alpha"], "is a LoRA"),
    "LoRA of PEFT": (["unet.down_blocks.0.attentions.0.to_q.lora_A.weight"], "is a LoRA"),
    "LyCORIS": (["lycoris_blocks_0.lokr_w1"], "is a LoRA"),
    "SDXL": (["conditioner.embedders.0.x", "model.diffusion_model.x"], "is a Stable Diffusion XL checkpoint"),
    "SD3": (["model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight"], "is a Stable Diffusion 3 checkpoint"),
    "Flux": (["model.diffusion_model.double_blocks.0.img_attn.qkv.weight"], "is a Flux checkpoint"),
    "ControlNet": (["control_model.time_embed.0.weight"], "is a ControlNet"),
    "diffusers": (["down_blocks.0.resnets.0.conv1.weight"], "is a part of a model in the form of diffusers"),
    "VAE": (["first_stage_model.encoder.conv_in.weight", "first_stage_model.decoder.conv_in.weight"], "is a VAE alone"),
    "text encoder": (["text_model.encoder.layers.0.mlp.fc1.weight"], "is a text encoder alone"),
    "textual inversion": (["emb_params"], "is a textual inversion"),
    "something": (["layers.0.weight"], "is no checkpoint of a model that draws"),
}


@pytest.mark.parametrize("ending", ["safetensors", "ckpt"])
@pytest.mark.parametrize("case", OTHER_FILES)
def test_another_kind_of_file_is_named(case, ending, folder, tmp_path):
    names, said = OTHER_FILES[case]
    path = tmp_path / f"other.{ending}"
    weights = {name: torch.zeros(2) for name in names}
    save_file(weights, path) if ending == "safetensors" else torch.save({"state_dict": weights}, path)
    with pytest.raises(Unsupported, match=rf"other\.{ending} {said}"):
        load(path, folder / "tiny-sd1.yaml", CPU)
    if ending == "safetensors":  # whose names are known before its YAML is asked for
        with pytest.raises(Unsupported, match=said):
            load(path, None, CPU)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "is a pointer of Git LFS"),
        (b"\n<!DOCTYPE html><html></html>", "is a web page"),
        (b"PK\x03\x04", "cannot be read"),
        (b"\xff" * 64, "cannot be read"),
        (b"\x10" + bytes(7) + b"{]" + bytes(14), "cannot be read as a checkpoint: its head is damaged"),
        (b"\x10" + bytes(7) + b'{"a": [1, 2, 3]}', "cannot be read as a checkpoint: its head is damaged"),
        (b"\x08" + bytes(7), "is cut short: 8 of at least 16 bytes"),
    ],
)
def test_what_a_damaged_file_is_stands_in_the_message(content, said, folder, tmp_path):
    for name in ("bad.safetensors", "bad.ckpt"):
        (tmp_path / name).write_bytes(content)
    with pytest.raises(Unsupported, match=rf"bad\.safetensors {said}"):
        load(tmp_path / "bad.safetensors", folder / "tiny-sd1.yaml", CPU)
    with pytest.raises(Unsupported, match=r"bad\.ckpt "):
        load(tmp_path / "bad.ckpt", folder / "tiny-sd1.yaml", CPU)


def test_a_file_that_is_cut_short_says_how_much_is_there(folder, tmp_path):
    whole = (folder / "tiny-sd1.safetensors").read_bytes()
    path = tmp_path / "cut.safetensors"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Unsupported, match=rf"is cut short: {len(whole) // 2:,} of at least {len(whole):,} bytes"):
        load(path, folder / "tiny-sd1.yaml", CPU)
    torch.save(load_file(folder / "tiny-sd1.safetensors"), tmp_path / "whole.ckpt")
    whole = (tmp_path / "whole.ckpt").read_bytes()
    (tmp_path / "cut.ckpt").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(Unsupported, match=r"cut\.ckpt cannot be read as a checkpoint \(it may be cut short"):
        load(tmp_path / "cut.ckpt", folder / "tiny-sd1.yaml", CPU)
    with pytest.raises(Unsupported, match="is a folder"):
        load(folder, folder / "tiny-sd1.yaml", CPU)
