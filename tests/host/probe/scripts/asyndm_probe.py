"""Test-only extension: what AsynDM left behind in the host, and accidents on demand, under
/asyndm-probe/."""

import collections
import functools
import gc
import importlib
import inspect
import sys
from importlib.util import find_spec

import engine
import gradio as gr
import modules.scripts as scripts
import own_samplers
import torch
from fastapi import Body, FastAPI
from modules import (
    launch_utils,
    prompt_parser,
    script_callbacks,
    sd_samplers_cfg_denoiser,
    sd_samplers_common,
    sd_samplers_timesteps_impl,
    shared,
)

PACKAGE = "asyndm_lib"
HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks", "_state_dict_hooks")


class Accident(Exception):
    """Raised inside the UNet when armed to."""


class _Armed:
    """An accident: at the ``at``-th call of the UNet from now ``what`` happens once, "raise",
    "interrupt" or "skip"."""

    def __init__(self):
        self.what, self.at, self.calls, self.rows, self.handle = "nothing", 0, 0, [], None

    def arm(self, what, at):
        self.disarm()
        self.what, self.at, self.calls, self.rows = what, at, 0, []
        self.handle = engine.unet().register_forward_pre_hook(self.called)

    def disarm(self):
        if self.handle is not None:
            self.handle.remove()
        self.handle = None

    def called(self, module, args):
        self.rows.append(len(args[0]))
        self.calls += 1
        if self.calls != self.at:
            return
        if self.what == "raise":
            raise Accident("the probe's accident inside the UNet")
        if self.what == "interrupt":
            shared.state.interrupt()
        elif self.what == "skip":
            shared.state.skip()


class _Faults:
    """A fault of the extension's own, once."""

    def __init__(self):
        self.undo = lambda: None

    def arm(self, place, at):
        self.undo()
        module, _, path = place.partition(":")
        module = sys.modules[f"{PACKAGE}.{module}"]
        owner, _, name = path.rpartition(".")
        owner = getattr(module, owner) if owner else module
        usual, calls = vars(owner)[name], []
        # In a file of the extension, by which a fault is known as its own.
        scope = {}
        text = "def fail(text):\n    raise RuntimeError(text)"
        exec(compile(text, module.__file__, "exec"), scope)

        @functools.wraps(usual)
        def failing(*args, **kwargs):
            calls.append(1)
            if len(calls) == at:
                self.undo()
                scope["fail"](f"the probe's fault in {place}")
            return usual(*args, **kwargs)

        self.undo = lambda: setattr(owner, name, usual)
        setattr(owner, name, failing)


armed = _Armed()
faults = _Faults()
# Since the last look: they die with their job, and a patch on them unseen.
samplers = collections.deque(maxlen=32)
slowed = {"concavity": 0.0}
kept = None  # the jobs since then, as sd-webui-incantations keeps those with its PAG


class Probe(scripts.Script):
    def title(self):
        return "AsynDM probe"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def process_before_every_sampling(self, p, *args, **kwargs):
        if kept is not None:
            kept.append(p)
        if p.sampler not in samplers:
            samplers.append(p.sampler)
        if slowed["concavity"]:
            slow(p.sampler, slowed["concavity"])
        if engine.wrapper is not None and engine.wrapper.on:
            engine.wrapper.put(p)


def slow(sampler, k):
    """Give the host's own sampler the schedule of AsynDM's whole picture: every pixel on one
    quadratic clock."""
    if sampler.funcname is getattr(sd_samplers_timesteps_impl, "unipc", None):
        return  # see slow_time_steps()
    if hasattr(sampler, "get_sigmas"):
        usual = sampler.get_sigmas
        to_t, to_sigma = engine.predictor(sampler)

        def get_sigmas(p, steps):
            sigmas = usual(p, steps)
            # What a timestep does not say of a sigma: the host may know whole ones only.
            timesteps = to_t(sigmas[:-1])
            beside = sigmas[:-1].log() - to_sigma(timesteps).log()
            slower = to_sigma(along_the_clock(timesteps, k)) * along_the_clock(beside, k).exp()
            return torch.cat([slower.to(sigmas), sigmas[-1:]])

        sampler.get_sigmas = get_sigmas
    else:
        usual_timesteps = sampler.get_timesteps

        def get_timesteps(p, steps):
            timesteps = usual_timesteps(p, steps)
            evaluated = along_the_clock(timesteps[1:].flip(0).double(), k)
            assert (evaluated - evaluated.round()).abs().max() < 1e-6, "DDIM's timesteps are whole numbers"
            return torch.cat([timesteps[:1], evaluated.round().to(timesteps).flip(0)])

        sampler.get_timesteps = get_timesteps


def along_the_clock(timesteps, k):
    last = len(timesteps) - 1
    progress = [i - k * i * (1 - i / last) for i in range(last + 1)]
    low = [min(int(u), last - 1) for u in progress]
    timesteps = timesteps if timesteps.is_floating_point() else timesteps.double()
    return torch.stack([torch.lerp(timesteps[n], timesteps[n + 1], u - n) for n, u in zip(low, progress, strict=True)])


def slow_time_steps(self, usual, *args, **kwargs):
    """The schedule of UniPC, which makes its own."""
    times = usual(self, *args, **kwargs)
    k = slowed["concavity"]
    return torch.cat([along_the_clock(times[:-1], k), times[-1:]]) if k else times


for place, module in (("modules.models", "modules.models.diffusion.uni_pc"), ("modules.uni_pc", "modules.uni_pc")):
    if find_spec(place) is None:
        continue  # with neither UniPC goes by sigmas
    uni_pc = importlib.import_module(f"{module}.uni_pc")
    uni_pc.UniPC.get_time_steps = functools.partialmethod(slow_time_steps, uni_pc.UniPC.get_time_steps)


def modules_of_models():
    for number, model in enumerate(engine.loaded()):
        yield from ((f"{number}.{name}", module) for name, module in model.named_modules())


def ours(value):
    """Whether ``value`` is code of the extension; functools.wraps hides its name but not its
    file."""
    if inspect.ismethod(value):
        value = value.__func__
    if isinstance(value, functools.partial):
        return ours(value.func)
    return inspect.isfunction(value) and PACKAGE in value.__code__.co_filename


def places():
    """Everything whose attributes a patch might sit on."""
    for name, module in modules_of_models():
        yield f"model {name}", module
    yield from engine.places()
    yield "state", shared.state
    for sampler in samplers:
        yield "sampler", sampler
        yield "denoiser", sampler.model_wrap_cfg
        yield "model_wrap", sampler.model_wrap_cfg.inner_model
    yield from (("sampling", engine.sampling), ("external", engine.external))
    yield from (("prompt_parser", prompt_parser), ("cfg_denoiser", sd_samplers_cfg_denoiser), ("torch", torch))
    yield "samplers_common", sd_samplers_common


def patches():
    found, classes = [], set()
    for name, place in places():
        found += [f"{name}.{key}" for key, value in vars(place).items() if ours(value)]
        classes.update(type(place).__mro__)
    found += [f"{c.__name__}.{key}" for c in classes for key, value in vars(c).items() if ours(value)]
    for options in engine.patched_options():
        found += [f"options.{key}" for key, value in options.items() if ours(value)]
    return found


def is_ours(kind):
    return str(kind.__module__).startswith(PACKAGE)


def objects():
    """The number of living objects of each of the extension's classes, and of all tensors."""
    gc.collect()
    kinds = collections.Counter(map(type, gc.get_objects()))
    tensors = sum(count for kind, count in kinds.items() if issubclass(kind, torch.Tensor))
    return {k.__qualname__: n for k, n in kinds.items() if is_ours(k)}, tensors


def hooks():
    """The hooks on the models, the extension's own and others'."""
    found = {True: [], False: []}
    for name, module in modules_of_models():
        for kind in HOOKS:
            for hook in getattr(module, kind).values():
                found[ours(hook) or is_ours(type(hook))].append(f"{name}.{kind}")
    return {"hooks": found[True], "others": found[False]}


def left():
    armed.disarm()
    hooked, patched = hooks(), patches()
    samplers.clear()
    living, tensors = objects()
    return {**hooked, "patches": patched, "objects": living, "tensors": tensors}


def add_routes(_: gr.Blocks, app: FastAPI):
    gc.collect()
    gc.freeze()  # the host's own objects need no counting, and there are many

    app.add_api_route("/asyndm-probe/left", left, methods=["GET"])
    app.add_api_route("/asyndm-probe/hooks", hooks, methods=["GET"])

    @app.get("/asyndm-probe/version")
    def version():
        return {"tag": launch_utils.git_tag(), "torch": torch.__version__}

    @app.get("/asyndm-probe/rows")
    def rows():
        return {"rows": armed.rows}

    @app.post("/asyndm-probe/arm")
    def arm(what: str = Body(...), at: int = Body(...)):
        armed.arm(what, at)
        return {}

    @app.post("/asyndm-probe/sample")
    def sample(asked: dict = Body(...)):  # noqa: B008
        return own_samplers.sample(**asked)

    @app.post("/asyndm-probe/keep")
    def keep(on: bool = Body(..., embed=True)):
        global kept
        kept = [] if on else None
        return {}

    @app.post("/asyndm-probe/slow")
    def set_slow(concavity: float = Body(..., embed=True)):
        slowed["concavity"] = concavity
        return {}

    if engine.FORGE:

        @app.post("/asyndm-probe/memory")
        def memory(little: bool = Body(..., embed=True)):
            engine.little_memory(little)
            return {}

        @app.post("/asyndm-probe/transformer")
        def transformer(on: bool = Body(..., embed=True)):
            engine.as_transformer(on)
            return {}

        @app.post("/asyndm-probe/wrapper")
        def wrapper(on: bool = Body(..., embed=True)):
            engine.wrapper.on = on
            return {"calls": engine.wrapper.calls}

    @app.post("/asyndm-probe/collector")
    def set_collector(on: bool = Body(..., embed=True)):
        """The extension's objects that live by now; then the garbage collector is on or off."""
        kinds = collections.Counter(type(one).__qualname__ for one in gc.get_objects() if is_ours(type(one)))
        if on:
            gc.enable()
        else:
            gc.collect()
            gc.disable()
        return kinds

    @app.post("/asyndm-probe/fault")
    def set_fault(place: str = Body(...), at: int = Body(...)):
        """The ``at``-th call from now of ``place``, ``module:attribute`` of ours, fails."""
        faults.arm(place, at)
        return {}

    @app.post("/asyndm-probe/ahead")
    def set_ahead(rows: int = Body(..., embed=True)):
        """How many rows of tables are made together, of steps to come too."""
        sys.modules["asyndm_lib.models.parts.level_tables"].AHEAD = rows
        return {}

    @app.post("/asyndm-probe/reload")
    def reload():
        """Reload the page's scripts, as its "Reload UI" does."""
        shared.state.request_restart()
        return {}

    @app.post("/asyndm-probe/without-model")
    def set_without_model(without: bool = Body(..., embed=True)):
        engine.without_model(without)
        return {}


script_callbacks.on_app_started(add_routes)
