"""The embedded host with a flow's transformer: a tiny one, and its evaluation."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import k_diffusion.sampling as k
import pytest
import tiny_checkpoints
import torch
from safetensors.torch import save_file
from stand_ins import hooks_on
from torch import Tensor

from asyndm_lib import cli
from asyndm_lib.demo import EMBEDDED, TRANSFORMER
from asyndm_lib.demo.training import transformer as training
from asyndm_lib.demo.training.denoiser import mute_padding
from asyndm_lib.demo.training.export import load_model
from asyndm_lib.demo.training.sampling import prompt_ids
from asyndm_lib.errors import SettingsError, Unsupported
from asyndm_lib.evaluation import lead, localisation
from asyndm_lib.evaluation.engine import Batches
from asyndm_lib.evaluation.methods import DM, FLOW_USERS, FRESH, TEXT_AT_MEAN, Way
from asyndm_lib.evaluation.prompts import Prompt
from asyndm_lib.evaluation.text_level import text_at_mean
from asyndm_lib.hosts.standalone.embedded import SYNCHRONOUS, Embedded, Request
from asyndm_lib.hosts.standalone.flow import FlowDenoiser
from asyndm_lib.hosts.standalone.ldm_checkpoint import Checkpoint, load
from asyndm_lib.hosts.standalone.mmdit import MMDiT
from asyndm_lib.hosts.standalone.text_encoders import encode, pooled
from asyndm_lib.settings.settings import Settings

CPU = torch.device("cpu")
SIZES = {"depth": 3, "hidden_size": 32, "head_size": 16, "context_size": tiny_checkpoints.TEXT_WIDTH,
         "pooled_size": tiny_checkpoints.TEXT_WIDTH, "in_channels": 4, "qk_norm": "rms", "pos_embed_max_size": 16}
REQUEST = Request("a cat and a basketball", "a dog", (1, 2), "Euler", "automatic", 6, 4.5, 64, 64)
ON = Settings(targets="cat, basketball", mask_timing="fresh", concavity=0.7)
EULER = Way("Euler", "Euler", "automatic", 6, 4.5)


def config(**changes: object) -> dict:
    part = {"target": "asyndm_lib.hosts.standalone.mmdit.MMDiT", "params": SIZES}
    params = {"shift": 2.0, "shares": "tiny-sd1.safetensors", "transformer_config": part} | changes
    return {"model": {"target": "asyndm_lib.hosts.standalone.flow.FlowDenoiser", "params": params}}


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tiny")
    tiny_checkpoints.make(folder, "sd1")
    torch.manual_seed(0)
    weights = {f"model.diffusion_model.{name}": value for name, value in MMDiT(**SIZES).state_dict().items()}
    save_file(weights, folder / "flow.safetensors")
    (folder / "flow.yaml").write_text(json.dumps(config()))
    return folder / "flow.safetensors"


@pytest.fixture(scope="module")
def checkpoint(path) -> Checkpoint:
    return load(path, None, CPU)


@pytest.fixture
def host(checkpoint) -> Embedded:
    return Embedded(checkpoint)


def test_all_but_the_transformer_is_that_of_the_checkpoint_it_names(checkpoint, path):
    own = load(path.with_name("tiny-sd1.safetensors"), None, CPU)
    assert checkpoint.flow
    assert checkpoint.shift == 2
    assert (checkpoint.scale, checkpoint.shrink, checkpoint.multiple) == (own.scale, own.shrink, 2 * own.shrink)
    latent = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(checkpoint.autoencoder(latent), own.autoencoder(latent))
    assert torch.equal(encode(checkpoint.text, ["a cat"], CPU), encode(own.text, ["a cat"], CPU))


@pytest.mark.parametrize(("change", "named"), [
    ({"transformer_config": {"target": "os.system", "params": {}}}, "os.system"),
    ({"transformer_config": {"target": "asyndm_lib.hosts.standalone.mmdit.MMDiT", "params": {"depth": 3}}}, "MMDiT"),
    ({"shares": "absent.safetensors"}, "absent.safetensors"),
    ({"shift": -1}, "shift"),
    ({"transformer_config": {"target": "asyndm_lib.hosts.standalone.mmdit.MMDiT", "params": SIZES | {"depth": 4}}},
     "do not fit"),
    ({"transformer_config": {"target": "asyndm_lib.hosts.standalone.mmdit.MMDiT",
                             "params": SIZES | {"hidden_size": 64}}}, "do not fit"),
])
def test_what_is_wrong_in_its_yaml_is_named(path, tmp_path, change, named):
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(json.dumps(config(**change)))
    with pytest.raises(Unsupported, match=named):
        load(path, wrong, CPU)


def reference(checkpoint: Checkpoint, request: Request, function: str, sigmas: Tensor, noise: Tensor) -> Tensor:
    """k-diffusion's own loop over the flow, with guidance as in its own examples."""

    class Model:
        @staticmethod
        def apply_model(x: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
            return checkpoint.diffusion_model(x, t, **cond)

    texts = [request.prompt, request.negative]
    context = encode(checkpoint.text, texts, CPU)
    told = {"context": context, "y": pooled(checkpoint.text, texts, context)}
    told = {name: value.repeat_interleave(len(noise), 0) for name, value in told.items()}
    denoiser = FlowDenoiser(Model, checkpoint.shift)

    def guided(x: Tensor, sigma: Tensor) -> Tensor:
        cond, uncond = denoiser(torch.cat([x, x]), torch.cat([sigma, sigma]), **told).chunk(2)
        return uncond + (cond - uncond) * request.cfg

    with torch.no_grad():
        return getattr(k, function)(guided, noise * sigmas[0], sigmas, disable=True)


def noise_of(seeds: tuple[int, ...]) -> Tensor:
    return torch.stack([torch.randn(4, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in seeds])


@pytest.mark.parametrize(("sampler", "function"), [("Euler", "sample_euler"), ("DPM++ 2M", "sample_dpmpp_2m"),
                                                   ("Heun", "sample_heun")])
def test_the_synchronous_picture_is_k_diffusions_own_to_the_bit(sampler, function, checkpoint, host):
    request = replace(REQUEST, sampler=sampler)
    t = torch.linspace(1, 0, 7, dtype=torch.float64)
    sigmas = (2 * t / (1 + t)).float()
    expected = reference(checkpoint, request, function, sigmas, noise_of(request.seeds))
    assert torch.equal(host.sample(request, SYNCHRONOUS), expected)


def test_with_every_cell_lagging_alike_it_is_the_picture_of_that_schedule(checkpoint, host):
    seen: list[Tensor] = []
    settings = Settings(whole_picture=True, concavity=0.8)
    out = host.sample(REQUEST, settings, observers=[lambda step: seen.append(step.sigma.map)])
    sigmas = torch.stack([sigma[0, 0, 0, 0] for sigma in seen] + [torch.tensor(0.0)])
    assert sigmas[0] == 1
    assert sigmas[3] > 1.05 * (2 * 0.5 / 1.5)
    expected = reference(checkpoint, REQUEST, "sample_euler", sigmas, noise_of(REQUEST.seeds))
    torch.testing.assert_close(out, expected, rtol=1e-3, atol=1e-3)


def test_targets_lag_by_whole_patches_and_no_hook_stays(checkpoint, host):
    maps: list[Tensor] = []
    out = host.sample(REQUEST, ON, observers=[lambda step: maps.append(step.sigma.map)])
    assert out.isfinite().all()
    assert not torch.equal(out, host.sample(REQUEST, SYNCHRONOUS))
    assert any(map.unique().numel() > 1 for map in maps)
    for map in maps:
        assert torch.equal(map, map[..., ::2, ::2].repeat_interleave(2, -1).repeat_interleave(2, -2))
    assert hooks_on(checkpoint.diffusion_model) == 0


def test_every_sampler_that_is_offered_makes_a_picture(host):
    with pytest.raises(SettingsError, match="it has") as refused:
        host.sampler("Heun++")
    offered = str(refused.value).split("it has ")[1].split(", ")
    assert {"Euler", "Euler a", "DPM++ 2M", "DPM++ SDE"} <= set(offered)
    for label in offered:
        request = replace(REQUEST, sampler=label, seeds=(1,))
        host.check(request)
        assert host.sample(request, ON).isfinite().all(), label
    for label in ("DDIM", "PLMS"):
        assert label not in offered
        with pytest.raises(SettingsError, match="not for rectified flow"):
            host.check(replace(REQUEST, sampler=label))


def test_what_only_a_flow_has_is_no_sampler_of_a_unet(path):
    with pytest.raises(SettingsError, match="'ER SDE' is not for tiny-sd1"):
        Embedded(load(path.with_name("tiny-sd1.safetensors"), None, CPU)).check(replace(REQUEST, sampler="ER SDE"))


def test_what_ancestral_samplers_add_is_a_flow_s(host):
    """On a flow k-diffusion's own Euler a would add so much noise that the picture drowns."""
    sampler, options = host.sampler("Euler a")
    assert options["flow"]
    assert host.sampler("Euler")[1] == {}
    assert sampler.name == "sample_euler_ancestral"


def test_an_automatic_schedule_is_even_for_a_flow(host):
    even = host.sample(replace(REQUEST, sampler="DPM++ 2M", schedule="uniform"), SYNCHRONOUS)
    assert torch.equal(host.sample(replace(REQUEST, sampler="DPM++ 2M"), SYNCHRONOUS), even)
    karras = host.sample(replace(REQUEST, sampler="DPM++ 2M", schedule="karras"), SYNCHRONOUS)
    assert not torch.equal(karras, even)


def test_the_pooled_text_is_the_end_token_of_the_first_chunk(checkpoint):
    texts = ["a cat", " ".join(["cat"] * 90)]
    context = encode(checkpoint.text, texts, CPU)
    vectors = pooled(checkpoint.text, texts, context)
    assert torch.equal(vectors[0], context[0, 1 + len(checkpoint.text.ids("a cat"))])
    assert torch.equal(vectors[1], context[1, 76])


# Evaluation

CAT, STAR = Prompt("a cat and a basketball", "cat, basketball"), Prompt("a dog left of a star", "dog, star")


@pytest.mark.parametrize("method", [DM, FRESH], ids=lambda method: method.name)
def test_a_batch_holds_the_pictures_of_the_embedded_host(checkpoint, host, method):
    batches = Batches(checkpoint)
    made = batches.make([CAT, STAR], batches.noise([3, 4], 64, 64), EULER, method)
    for row, (prompt, seed) in enumerate(((CAT, 3), (STAR, 4))):
        settings = method.settings if method is DM else replace(method.settings, targets=prompt.targets)
        own = host.sample(replace(REQUEST, prompt=prompt.text, negative="", seeds=(seed,)), settings)
        assert torch.allclose(made[row], own[0], atol=1e-4)


def test_the_fast_layers_compute_what_its_own_do(checkpoint):
    model = checkpoint.diffusion_model
    x, y = noise_of((1, 2)), torch.randn(2, tiny_checkpoints.TEXT_WIDTH)
    told = torch.tensor([400.0, 900.0]), torch.randn(2, 7, tiny_checkpoints.TEXT_WIDTH), y
    from asyndm_lib.evaluation import engine

    with torch.no_grad(), engine._fast_layers(model):
        fast = model(x, *told)
    with torch.no_grad():
        torch.testing.assert_close(fast, model(x, *told))


def test_the_text_at_the_mean_level_is_told_the_mean_of_the_picture_s_embeddings(checkpoint):
    model = checkpoint.diffusion_model
    told: list[Tensor] = []
    hooks = [block.context_block.adaLN_modulation.register_forward_pre_hook(lambda _, args: told.append(args[0]))
             for block in model.joint_blocks]
    sigma = torch.tensor(0.4)
    pixels = torch.full((2, 1, 8, 8), 0.4)
    pixels[0, :, :4] = 0.8
    x, y = noise_of((1, 2)), torch.randn(2, tiny_checkpoints.TEXT_WIDTH)
    context = torch.randn(2, 7, tiny_checkpoints.TEXT_WIDTH)
    with torch.no_grad():
        plain = model(x, torch.full((2,), 400.0), context, y)
        own = told.pop()
        told.clear()
        # Hooks run in order of registration: those that look come after.
        for hook in hooks:
            hook.remove()
        with text_at_mean(model, pixels, sigma):
            hooks = [block.context_block.adaLN_modulation.register_forward_pre_hook(
                lambda _, args: told.append(args[0])) for block in model.joint_blocks]
            mixed = model(x, torch.full((2,), 400.0), context, y)
        for hook in hooks:
            hook.remove()
        embedded = model.t_embedder(torch.tensor([400.0, 800.0]), torch.float32)
        assert torch.equal(model(x, torch.full((2,), 400.0), context, y), plain)
    assert len(told) == 3
    for text in told:
        torch.testing.assert_close(text[0], own[0] + embedded.mean(0) - embedded[0])
        torch.testing.assert_close(text[1], own[1])
    assert not torch.allclose(mixed[0], plain[0])
    torch.testing.assert_close(mixed[1], plain[1])
    assert hooks_on(model) == 0


def test_pictures_with_the_text_at_the_mean_level_are_others(checkpoint):
    batches = Batches(checkpoint)
    fresh, mean = (batches.make([CAT], batches.noise([3], 64, 64), EULER, method) for method in (FRESH, TEXT_AT_MEAN))
    assert not torch.equal(fresh, mean)
    assert mean.isfinite().all()
    assert hooks_on(checkpoint.diffusion_model) == 0


def test_the_ways_of_flows_are_offered_to_flows(checkpoint):
    for way in FLOW_USERS:
        Batches(checkpoint).check(Request("", "", (), way.sampler, way.schedule, way.steps, way.cfg, 64, 64, way.eta))


# Token maps and the lead


def test_a_map_on_its_object_fits_and_one_elsewhere_does_not():
    own = torch.zeros(4, 4)
    own[:2, :2] = 1
    inside, outside = torch.where(own > 0, 3.0, 1.0), torch.where(own > 0, 1.0, 3.0)
    good, bad = localisation.fit([inside, inside], own), localisation.fit([inside, outside], own)
    assert (good.ratio, good.lowest, good.held, good.spilt) == (3, 3, 1, 0)
    assert bad.lowest == pytest.approx(1 / 3)
    assert (bad.ratio, bad.held, bad.spilt) == (pytest.approx(5 / 3), 0.5, 0.5)


def test_maps_of_every_rule_and_run_of_blocks_are_read(checkpoint):
    model = checkpoint.diffusion_model
    readers = localisation.Readers(model, (4, 4))
    weights = torch.zeros(2, 77, 2)
    weights[:, 2, 0] = weights[:, 5, 1] = 1
    x, y = noise_of((1, 2)), torch.randn(2, tiny_checkpoints.TEXT_WIDTH)
    with torch.no_grad(), readers.attached(), readers.record([(0, 0), (1, 0)], weights):
        model(x, torch.full((2,), 400.0), torch.randn(2, 77, tiny_checkpoints.TEXT_WIDTH), y)
        maps = readers.take()
    assert {tuple(map.shape) for map in maps.values()} == {(2, 2, 4, 4)}
    assert len(maps) == 2 * 2  # rules × blocks but the last
    assert [str(source) for source in readers.sources()] == [
        "attention, block 0", "attention, block 1", "attention, blocks 0-1",
        "output, block 0", "output, block 1", "output, blocks 0-1",
    ]
    assert not torch.equal(maps["attention", 0], maps["attention", 1])
    assert hooks_on(model) == 0


@pytest.fixture
def predictor(checkpoint):
    random = torch.Generator().manual_seed(0)
    targets = torch.zeros(2, 1, 4, 4, dtype=torch.bool)
    targets[:, :, :2] = True
    drawn = lead.Scenes(noise_of((1, 2)), targets, ["a cat", "a dog"], torch.randn(2, 4, 8, 8, generator=random))
    return lead.Predictor(Batches(checkpoint), drawn)


def test_without_a_lead_the_figures_are_those_of_one_level(checkpoint, predictor):
    batches, drawn = predictor._batches, predictor._drawn
    x = 0.3 * drawn.latents + 0.7 * drawn.noise
    predicted = batches.denoised(x, torch.tensor(0.7), batches.conditioning(drawn.captions))
    expected = (predicted - drawn.latents)[..., :4, :].square().mean()
    error, guidance, other = predictor.figures(700, 0, "")
    assert error == pytest.approx(float(expected), rel=1e-4)
    assert guidance > 0
    assert other != error
    assert hooks_on(checkpoint.diffusion_model) == 0


@pytest.mark.parametrize("text", lead.TEXTS)
def test_a_lead_changes_the_prediction_of_the_targets(checkpoint, predictor, text):
    assert predictor.figures(700, 200, text) != predictor.figures(700, 0, "")
    assert hooks_on(checkpoint.diffusion_model) == 0


def test_leads_are_multiples_of_what_is_without_one(predictor):
    found = list(lead.measured("m", [predictor], lead.TEXTS))
    assert len(found) == len(lead.TIMESTEPS) * len(lead.LEADS) * 3
    alone, ahead = predictor.figures(900, 0, ""), predictor.figures(900, 50, lead.TEXTS[0])
    assert found[0].error == pytest.approx(ahead[0] / alone[0])
    assert found[0].gain == pytest.approx((ahead[2] / ahead[0]) / (alone[2] / alone[0]))
    assert "900 | 50" in lead.markdown(found)


def test_the_results_of_a_lead_are_read_as_they_were_written(tmp_path):
    found = [lead.Lead("unet", 900, 50, "", 1.5, 2.5, 1.25)]
    lead.save(tmp_path / "lead.json", found, 8)
    assert lead.load_results(tmp_path / "lead.json") == found


# Training


def settings(tmp_path: Path, **changes: object) -> training.Settings:
    sizes = {"depth": 2, "hidden_size": 32, "head_size": 16}
    return training.Settings(tmp_path / "data.pt", tmp_path / "out.safetensors", TRANSFORMER.parent, iterations=2,
                             batch=4, compile=False, device="cpu", **{**sizes, **changes})


def data(tmp_path: Path) -> None:
    from asyndm_lib.demo.training import captions, scenes

    random = torch.Generator().manual_seed(0)
    ids = torch.full((6, captions.MAX_TOKENS), load_model(TRANSFORMER.parent, CPU).encode.eos)
    content = {"latents": torch.randn(6, 4, 32, 32, generator=random).half(),
               "masks": torch.zeros(6, scenes.SLOTS, 16, 16).byte(), "ids": ids, "groups": torch.full_like(ids, -1),
               "lengths": torch.zeros(6, dtype=torch.int64)}
    torch.save(content, tmp_path / "data.pt")


def test_training_writes_a_checkpoint_and_goes_on_from_it(tmp_path, capsys):
    data(tmp_path)
    first = settings(tmp_path)
    training.train(first)
    model = training.build(first)
    training.load(model, first.output)
    assert all(value.isfinite().all() for value in model.state_dict().values())
    training.train(replace(first, resume=first.output, output=tmp_path / "second.safetensors"))
    assert (tmp_path / "second.safetensors").is_file()
    assert "2 iterations" in capsys.readouterr().out


def test_what_a_block_adds_is_nothing_before_training(tmp_path):
    model = training.build(settings(tmp_path))
    with torch.no_grad():
        out = model(torch.randn(1, 4, 8, 8), torch.tensor([500.0]), torch.randn(1, 77, 128), torch.randn(1, 128))
    assert torch.equal(out, torch.zeros_like(out))


def test_training_reads_the_texts_that_the_host_reads():
    parts = load_model(TRANSFORMER.parent, CPU)
    ids = prompt_ids(["a cat and a basketball"], parts.encode, "cpu")
    length = torch.tensor([int((ids[0] == parts.encode.eos).nonzero()[0]) - 1])
    with torch.no_grad():
        context, vector = training.text_of(parts.text, ids, length)
    own = load(EMBEDDED["unet"], None, CPU)
    expected = encode(own.text, ["a cat and a basketball"], CPU)
    torch.testing.assert_close(context, expected, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(vector, pooled(own.text, ["a cat and a basketball"], expected), rtol=1e-3, atol=1e-3)
    assert torch.equal(mute_padding(context, length)[0, : length + 1], context[0, : length + 1])


# The embedded transformer itself


def test_the_embedded_transformer_draws_what_it_is_told(tmp_path, capsys):
    """The real weights: the counter names both things."""
    from asyndm_lib.evaluation import counter as counting

    assert TRANSFORMER.stat().st_size <= 20_000_000
    batches = Batches(load(TRANSFORMER, None, CPU))
    prompt = Prompt("a cat and a basketball", "cat, basketball", (("cat", 1), ("basketball", 1)))
    latents = batches.make([prompt], batches.noise([1], 256, 256), Way("Euler", "Euler", "automatic", 14, 4.5), FRESH)
    (found,) = counting.find(counting.load(CPU), torch.cat(list(batches.pictures(latents))))
    assert prompt.shown(found).right == 2


def test_generate_takes_the_transformer(tmp_path, capsys):
    out = tmp_path / "sheet.png"
    command = ["generate", "a cat", "--model", "transformer", "--steps", "3", "--width", "128", "--height", "128"]
    assert cli.main([*command, "--out", str(out), "--device", "cpu"]) == 0
    assert out.is_file()
    assert cli.main([*command, "--normalisation", "by level", "--out", str(out)]) == 0
    assert capsys.readouterr().err.count("warning: normalisation by level changes nothing") == 1
    assert cli.main([*command, "--sampler", "DDIM", "--out", str(out)]) == 2
    assert "not for rectified flow" in capsys.readouterr().err
