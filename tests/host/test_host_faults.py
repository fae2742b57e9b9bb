"""A fault in AsynDM itself costs a person AsynDM, and never the picture."""

import pictures
import pytest
from family import A1111, HOST
from requests_table import BASE, switched_on

pytestmark = pytest.mark.usefixtures("nothing_left")

CALL = "hosts.a1111.call" if HOST is A1111 else "hosts.forge_family.call"
LEVELS = {"A1111": f"{CALL}:levels_of", "Forge Neo": "hosts.neo.call:Call._levels"}
ANY = {"targets": "cat"}
PLACES = {
    "reading the arguments": ("interface.arguments:of", 1, ANY),
    "the check": ("hosts.common.adapter:Adapter.check", 1, ANY),
    "reading the prompt": ("hosts.common.adapter:Adapter.prompt_targets", 1, ANY),
    "the film": ("interface.gallery:film", 1, ANY),
    "attaching": ("hosts.common.attaching:attach", 1, ANY),
    "the infotext": ("interface.infotext:write", 1, ANY),
    "the call": (f"{CALL}:Call.__init__", 1, ANY),
    "the levels": (LEVELS.get(HOST.name, f"{CALL}:Call._levels"), 1, ANY),
    "the run": ("run.run:Run.__init__", 1, ANY),
    "the hooks": ("models.parts.tabled_timesteps:TabledTimesteps.attach", 1, ANY),
    "the patches": (f"{CALL}:Call.patched", 1, ANY),
    "the first step": ("run.walk:Walk.begin", 1, ANY),
    "the first model call": ("run.model_call:ModelCall.rows", 1, ANY),
    "a later model call": ("run.model_call:ModelCall.rows", 3, ANY),
    "the layers": ("models.parts.tabled_timesteps:TabledTimesteps._spread", 5, ANY),
    "the token maps": ("models.parts.attention_sum:AttentionSum.add", 5, ANY),
    "a mask": ("masks.target_masks:LaggedMasks.after", 2, ANY),
    "a formula": ("run.step:Step.per_pixel", 3, ANY),
    "the last step": ("run.walk:Walk.end", 1, ANY),
    "what is told": ("run.run:Run._observe", 2, ANY),
}


@pytest.mark.parametrize("sampler", ["Euler a", "DPM++ 2M SDE", "DDIM"])
@pytest.mark.parametrize("where", PLACES)
def test_the_picture_is_the_hosts_own_and_one_message_says_why(where, sampler, host, reference):
    place, at, settings = PLACES[where]
    request = {**BASE, "sampler_name": sampler}
    host.post("/asyndm-probe/fault", {"place": place, "at": at})
    answer = host.make(switched_on(request, settings))
    assert answer.status == 200, answer.info
    (message,) = answer.messages
    assert "A fault in AsynDM itself (RuntimeError: the probe's fault in" in message
    assert "The picture was made without AsynDM" in message
    assert answer.pictures == reference(request).result().pictures


SHOWN = {
    "a step of the film": ("pictures.film:Film.__call__", 2, "Only what shows the masks is missing"),
    "drawing": ("interface.gallery:draw", 1, "The sheet of the masks is missing"),
    "showing": ("interface.gallery:show", 1, "The sheet of the masks is missing"),
    "the words chosen": ("interface.choices:note", 1, "Only what lagged is not told"),
}


@pytest.mark.parametrize("where", SHOWN)
def test_what_fails_beside_the_picture_costs_only_that(where, host):
    place, at, said = SHOWN[where]
    settings = {"targets": "" if where == "the words chosen" else "cat", "show_masks": True}
    whole = host.make(switched_on(BASE, settings))
    host.post("/asyndm-probe/fault", {"place": place, "at": at})
    answer = host.make(switched_on(BASE, settings))
    assert answer.status == 200, answer.info
    assert pictures.same_pixels(answer.pictures[0], whole.pictures[0])
    if where != "showing":  # the job's messages are sent by then
        (message,) = answer.messages
        assert said in message
    else:
        assert said in host.log(0)


@pytest.mark.parametrize("hook", ["marking:shield", "marking:unshield", "job:begin_batch", "preparation:end"])
def test_a_fault_in_a_further_hook_is_one_message(hook, host):
    host.post("/asyndm-probe/fault", {"place": f"interface.{hook}", "at": 1})
    answer = host.make(switched_on(BASE, ANY))
    assert answer.status == 200, answer.info
    (message,) = answer.messages
    assert "A fault in AsynDM itself" in message


def test_a_fault_in_the_check_of_a_request_costs_nothing(host):
    host.post("/asyndm-probe/fault", {"place": "interface.arguments:check", "at": 1})
    answer = host.make(switched_on(BASE, ANY))
    assert answer.status == 200, answer.info
    assert answer.messages == []


def test_a_fault_in_the_answer_about_a_prompt_names_itself(host):
    host.post("/asyndm-probe/fault", {"place": "hosts.common.text:Reader.typed_prompt", "at": 1})
    status, answer = host.call("/asyndm/v1/tokens", {"prompt": "a cat"})
    assert status == 500
    assert "a fault in AsynDM itself" in str(answer)
