"""Forge and its relatives: the rows of what they have beside A1111, and how they join the rows of a
call."""

import pictures
import pytest
from family import CLASSIC, HOST
from forge_rows import CONTROL_UNIT, rows
from materials import CONTROL
from requests_table import BASE, Row, switched_on
from row_check import check
from sampler_rows import HIRES

pytestmark = [
    pytest.mark.skipif(not HOST.forge, reason=f"{HOST.name} has no built-in extensions of Forge"),
    pytest.mark.usefixtures("nothing_left", "quiet"),
]


UNKNOWN = "of this kind (here Transformer) are not supported; use a checkpoint of one of these: "


@pytest.fixture(scope="module", autouse=True)
def _control_model(host):
    """ControlNet knows its models by a name with a hash."""
    models = host.get("/controlnet/model_list")["model_list"]
    CONTROL_UNIT["model"] = next(name for name in models if name.startswith(CONTROL))


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.name)
def test_row(row: Row, host, reference):
    check(row, host, reference)


@pytest.fixture
def little_memory(host):
    host.make(BASE)  # its model is loaded before
    host.post("/asyndm-probe/memory", {"little": True})
    yield
    host.post("/asyndm-probe/memory", {"little": False})


@pytest.mark.parametrize("prompt", ["a cat and a dog", "a cat AND a dog:0.6"])
@pytest.mark.parametrize("sampler", ["Euler", "DDIM"])
def test_every_part_in_a_call_of_its_own(sampler, prompt, host, little_memory):
    """Parts run in calls of their own where there is little memory."""
    request = {**BASE, "prompt": prompt, "sampler_name": sampler, "batch_size": 2}
    apart = made(host, request)
    host.post("/asyndm-probe/memory", {"little": False})
    joined = made(host, request)
    assert set(apart[1]) == {2}
    first, *others = joined[1]
    # Forge Classic leaves the negative prompt out of the first call.
    assert first == 2 * ((1 if HOST is CLASSIC else 2) + prompt.count("AND"))
    assert set(others) == {2 * (2 + prompt.count("AND"))}
    near = max(map(pictures.distance, apart[0], joined[0]))
    far = min(map(pictures.distance, joined[0], host.make(request).pictures[-2:]))
    print(f"apart to joined: {near}, to the usual picture: {far}")
    assert near < 0.01 < far


def made(host, request):
    host.post("/asyndm-probe/arm", {"what": "nothing", "at": 0})
    answer = host.make(switched_on(request))
    assert answer.messages == []
    return answer.pictures[-2:], host.get("/asyndm-probe/rows")["rows"]


@pytest.fixture
def transformer(host):
    host.make(BASE)  # its model is loaded before
    host.post("/asyndm-probe/transformer", {"on": True})
    yield
    host.post("/asyndm-probe/transformer", {"on": False})


@pytest.mark.parametrize("passes", [{}, HIRES], ids=["one pass", "hires fix"])
@pytest.mark.parametrize("settings", [{"targets": "cat"}, {"whole_picture": True}, {}], ids=repr)
def test_a_transformer_model_makes_its_own_picture(settings, passes, host, transformer, reference):
    """It is of no family that is known."""
    request = {**BASE, **passes}
    answer = host.make(switched_on(request, settings))
    assert answer.pictures == reference(request).result().pictures
    (message,) = answer.messages
    assert UNKNOWN in message
    assert "Stable Diffusion 1, 2 or XL" in message
    assert ". The picture was made without AsynDM" in message


def test_a_transformer_model_has_no_words_to_mark(host, transformer):
    status, answer = host.call("/asyndm/v1/tokens", {"prompt": "a cat"})
    assert status == 503
    assert UNKNOWN in answer["detail"]


@pytest.fixture
def wrapped(host):
    """``wrapped(on)``: the number of its calls so far; ``on`` puts another extension's wrapper
    around the model."""
    yield lambda on: host.post("/asyndm-probe/wrapper", {"on": on})["calls"]
    host.post("/asyndm-probe/wrapper", {"on": False})


@pytest.mark.parametrize("sampler", ["Euler", "DDIM"])
def test_a_wrapper_of_another_extension_is_called(sampler, host, wrapped):
    request = switched_on({**BASE, "sampler_name": sampler})
    usual = host.make(request)
    before = wrapped(True)
    answer = host.make(request)
    assert wrapped(False) - before == BASE["steps"]
    assert answer.messages == []
    assert pictures.same_pixels(answer.pictures[0], usual.pictures[0])
