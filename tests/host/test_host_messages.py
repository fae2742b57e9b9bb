"""What cannot be done is said in one message, and the picture is the host's own, byte for byte.

What was done is said in one line.
"""

import re

import pictures
import pytest
from family import HOST
from requests_table import BASE, SMALL, arguments, plot, switched_on, with_arguments
from sampler_rows import HIRES

pytestmark = pytest.mark.usefixtures("nothing_left")

WITHOUT = "The picture was made without AsynDM"


def changed(**settings):
    """The script's arguments for the target "cat" and ``settings``."""
    return arguments({"targets": "cat", **settings})


BAD_ARGUMENTS = [
    *[(["on"], "'on'"), ([None], "None"), ([1], "not 1"), ([["x"]], "['x']")],
    (changed(targets=None), "Targets must be text, not None"),
    (changed(targets=7), "not 7"),
    (changed(targets=["cat"]), "not ['cat']"),
    (changed(targets={"cat": 1}), "not {'cat': 1}"),
    (changed(targets="cat:2"), "2 is not from 0 to 1"),
    (changed(targets="cat:-0.1"), "-0.1 is not from 0 to 1"),
    (changed(targets="cat:nan"), "nan is not from 0 to 1"),
    (changed(targets="cat:1e999"), "1e999 is not from 0 to 1"),
    (changed(targets="cat:x"), "'x' after the colon"),
    (changed(targets="cat:"), "'' after the colon"),
    (changed(targets="cat#0"), "occurrences count from #1"),
    (changed(targets="#0"), "occurrences count from #1"),
    (changed(targets="#1"), "names no word"),
    (changed(targets=":0.5"), "names no word"),
    (changed(targets="()"), "names no word"),
    (changed(targets="zebra"), '"zebra" not found'),
    (changed(targets="cat#2"), '"cat#2" not found'),
    (changed(targets="ca"), '"ca" not found'),
    (changed(targets="cat dog"), '"cat dog" not found'),
    (changed(targets="🦄"), '"🦄" not found'),
    (changed(targets="\x1b[31mcat"), "not found"),
    (changed(targets="\x07"), "not found"),
    (changed(targets="\u202ezebra"), "not found"),
    (changed(targets="<script>alert(1)</script>"), "not found"),
    (changed(targets="<|startoftext|>"), "not found"),
    (changed(targets="<|endoftext|>"), "not found"),
    (changed(targets="(" * 500 + "zebra"), "not found"),
    (changed(targets="((((zebra" + "]" * 500), "not found"),
    (changed(targets="zebra " * 600), "not found"),
    (changed(targets="z" * 3999), "not found"),
    (changed(targets="zebra, " * 60), '"zebra" not found'),
    (changed(targets=", ".join(f"z{n}" for n in range(500))), "500 targets"),
    (changed(targets="zebra " * 10_000), "60000 characters"),
    (changed(targets=":" + " " * 3000 + "("), "not found"),
    (changed(concavity="0.5"), "Concavity must be a number, not '0.5'"),
    (changed(concavity=None), "Concavity must be a number, not None"),
    (changed(concavity=True), "not True"),
    (changed(concavity=[0.5]), "not [0.5]"),
    (changed(concavity=-0.01), "-0.01"),
    (changed(concavity=1.01), "1.01"),
    (changed(concavity=1e308), "1e+308"),
    (changed(concavity=10**18), "1000000000000000000"),
    (changed(curve="cubic"), "'cubic'"),
    (changed(curve=0), "not 0"),
    (changed(curve=None), "not None"),
    (changed(mask_timing="never"), "'never'"),
    (changed(mask_timing=["fresh"]), "['fresh']"),
    (changed(threshold="1"), "'1'"),
    (changed(threshold=-1), "-1"),
    (changed(threshold=4.1), "4.1"),
    (changed(whole_picture="False"), "'False'"),
    (changed(whole_picture=0), "not 0"),
    (changed(whole_picture=None), "not None"),
]


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(("args", "said"), BAD_ARGUMENTS, ids=lambda value: f"{value!r:.60}")
def test_bad_arguments(args, said, host, reference):
    answer = host.make(with_arguments(BASE, args))

    assert answer.status == 200, answer.info
    assert answer.pictures == reference(BASE).result().pictures
    (message,) = answer.messages
    assert said in message
    assert WITHOUT in message
    assert len(message) < 1000, f"a message of {len(message)} characters"
    assert answer.seconds < 20


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("args", [[], [False], [False, None, "x", {}, [], 7, 8]], ids=repr)
def test_off_whatever_else_is_sent(args, host, reference):
    answer = host.make(with_arguments(BASE, args))
    assert answer.pictures == reference(BASE).result().pictures
    assert answer.messages == []


def test_too_many_arguments_change_nothing(host):
    usual = host.make(switched_on(BASE))
    more = host.make(with_arguments(BASE, [*arguments(None), "more", None, {}] * 3))
    assert more.pictures == usual.pictures


def test_missing_arguments_have_their_defaults(host):
    usual = host.make(switched_on(BASE))
    fewer = host.make(with_arguments(BASE, [True, "cat"]))
    assert fewer.pictures == usual.pictures


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"targets": "zebra \ud83d"}, "half a character: 'zebra \\ud83d'"),
        ({"concavity": 10**400}, "longer than 64 bits"),
        ({"targets": float("nan")}, "not finite: nan"),
        ({"concavity": float("nan")}, "not finite: nan"),
        ({"concavity": float("inf")}, "not finite: inf"),
    ],
    ids=["half a character", "10**400", "nan for text", "nan", "inf"],
)
def test_what_the_host_cannot_send_back_is_refused(settings, said, host, reference):
    """The host's answer would repeat the request, and fail on it when the picture is made."""
    answer = host.make(with_arguments(BASE, changed(**settings)))
    assert answer.status == 422
    assert said in answer.info["detail"]
    assert host.make(BASE).pictures == reference(BASE).result().pictures


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("passes", [{}, HIRES], ids=["one pass", "hires fix"])
@pytest.mark.parametrize(("name", "said"), HOST.refused.items())
def test_unsupported_sampler(name, said, passes, host, reference):
    request = {**BASE, **passes, "sampler_name": name, "steps": 4}
    answer = host.make(switched_on(request))

    assert answer.status == 200
    assert answer.pictures == reference(request).result().pictures
    (message,) = answer.messages
    assert repr(name) in message
    assert said in message
    assert WITHOUT in message


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("name", ["k_euler", "DPM++ 2M Karras", "DDIM Karras"])
def test_other_names_of_samplers(name, host, reference):
    request = {key: value for key, value in BASE.items() if key != "scheduler"} | {"sampler_name": name}
    bare = reference(request).result()
    if bare.status != 200:
        pytest.skip(f"the host does not know the sampler {name!r}")
    answer = host.make(switched_on(request))
    assert answer.messages == []
    assert answer.pictures != bare.pictures


ODD_PROMPTS = [
    *("", " ", "AND", "cat AND", "AND cat AND AND", "((cat", "[cat", "cat]", "[cat:dog", "[cat:dog:0.5", "[|cat|]"),
    *(
        "(cat:)",
        "(cat:x)",
        "[cat::]",
        "[[cat:dog:0.3]|bird]",
        "[cat:dog:99]",
        "[cat:dog:-1]",
        "cat:0.5",
        "cat:-1 AND dog",
    ),
    *(
        "cat AND dog:0",
        "BREAK cat BREAK",
        "cat\x00\x1b",
        "cat " * 400,
        "(((((((((((((cat)))))))))))))",
        "<lora:none:1> cat",
    ),
    *("cat <lora:none:1>", "\\(cat\\)", "🙂 cat", "cat, " * 75, "<hypernet:none:1>cat"),
]


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("prompt", ODD_PROMPTS, ids=lambda prompt: f"{prompt!r:.40}")
def test_odd_prompt(prompt, host, reference):
    """The picture is made, with AsynDM or with a message."""
    if "<lora:" in prompt and "unknown LoRA" in HOST.lacks:
        pytest.skip(HOST.lacks["unknown LoRA"])
    request = {**BASE, "prompt": prompt}
    bare = reference(request)
    on, off = host.make(switched_on(request)), host.make(request)

    assert on.status == off.status == bare.result().status
    assert off.pictures == bare.result().pictures
    if on.status == 200:
        assert (on.pictures == off.pictures) == bool(on.messages)


@pytest.mark.usefixtures("quiet")
def test_a_tag_of_an_extra_network_does_not_shift_the_targets(host):
    """Tags are taken out of the prompt before it is tokenized."""
    plain = host.make(switched_on({**BASE, "prompt": "a house with a cat"}))
    tagged = host.make(switched_on({**BASE, "prompt": "a house <none:none:1>with a cat"}))
    assert pictures.same_pixels(plain.pictures[0], tagged.pictures[0])


def test_control_characters_in_a_target_do_not_matter(host):
    """The model's tokenizer drops them, in the prompt and in the targets."""
    plain, odd = (host.make(switched_on(BASE, {"targets": target})) for target in ("cat", "ca\x00t\x1b"))
    assert odd.messages == []
    assert pictures.same_pixels(plain.pictures[0], odd.pictures[0])


def test_a_character_that_some_tokenizers_drop(host, reference):
    """U+202E, which turns the writing around: without ftfy a tokenizer drops it, and the word is
    found."""
    target = "\u202ecat"
    (word,) = host.post("/asyndm/v1/tokens", {"prompt": target})["words"]
    dropped = word["tokens"] == 1
    answer = host.make(switched_on(BASE, {"targets": target}))
    expected = host.make(switched_on(BASE)) if dropped else reference(BASE).result()
    assert pictures.same_pixels(answer.pictures[0], expected.pictures[0])
    assert bool(answer.messages) != dropped


def test_a_target_in_the_negative_prompt_only_is_not_found(host, reference):
    request = {**BASE, "negative_prompt": "zebra"}
    answer = host.make(switched_on(request, {"targets": "zebra"}))
    assert answer.pictures == reference(request).result().pictures
    assert "not found" in answer.messages[0]


def test_one_message_for_many_pictures(host):
    answer = host.make(switched_on({**BASE, "n_iter": 3}, {"targets": "zebra"}))
    assert len(answer.messages) == 1


def slowed(answer) -> list[str]:
    """What the API's info says of each picture."""
    return answer.info["extra_generation_params"].get("AsynDM slowed", [])


FIGURES = r"\d+ % of the picture by up to \d\.\d of {} steps"


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("timing", ["lagged", "fresh", "static"])
def test_what_happened_is_said_once_and_in_each_infotext(timing, host):
    start = host.log_size()
    request = {**BASE, **SMALL, "batch_size": 2, "n_iter": 2, "steps": 8}
    answer = host.make(switched_on(request, {"targets": "cat", "mask_timing": timing}))
    assert answer.messages == []
    (line,) = [line for line in host.log(start).splitlines() if line.startswith("AsynDM slowed")]
    said = r'AsynDM slowed "cat" by up to \d\.\d of 8 steps, in \d+( to \d+)? % of each picture\.'
    assert re.fullmatch(said, line), line
    assert len(slowed(answer)) == 4
    for text, own, png in zip(answer.info["infotexts"][-4:], slowed(answer), answer.pictures[-4:], strict=True):
        assert re.fullmatch(FIGURES.format(8), own), own
        assert f"AsynDM slowed: {own}" in text
        assert f"AsynDM slowed: {own}" in pictures.infotext(png)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"targets": "cat", "concavity": 0.0}, "slowed nothing, as the concavity is 0."),
        ({"whole_picture": True}, "slowed the whole picture by up to 0.6 of 6 steps."),
        ({"targets": "cat, zebra"}, 'slowed "cat" by up to'),
        ({"targets": ""}, "chose and slowed "),
    ],
    ids=["concavity 0", "whole picture", "one of two", "chosen"],
)
def test_each_kind_of_line(settings, said, host):
    start = host.log_size()
    host.make(switched_on({**BASE, **SMALL}, settings))
    assert f"\nAsynDM {said}" in host.log(start)


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(
    ("second", "said"),
    [
        ({}, r"of 8 steps, in \d+ % of the picture; in the second pass it slowed \"cat\" by up to \d\.\d of \d steps"),
        ({"second_pass": "off"}, r"of 8 steps, in \d+ % of the picture, in the first pass alone\."),
    ],
    ids=["both", "first alone"],
)
def test_each_pass_is_told(second, said, host):
    start = host.log_size()
    answer = host.make(switched_on({**BASE, **HIRES, "steps": 8}, {"targets": "cat", **second}))
    assert answer.messages == []
    assert re.search(said, host.log(start)), host.log(start)
    (text,) = slowed(answer)
    assert text.endswith("in the second pass") != bool(second)


SHORT = {
    "3 steps": ({"steps": 3}, {}, 3),
    "2 steps, fresh": ({"steps": 2}, {"mask_timing": "fresh"}, 2),
    "2 steps, static": ({"steps": 2}, {"mask_timing": "static"}, 2),
    "1 step, LCM": ({"steps": 1, "sampler_name": "LCM"}, {}, 1),
    "whole picture": ({"steps": 2}, {"whole_picture": True}, 2),
}


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("case", SHORT)
def test_too_few_steps_are_said_and_the_picture_is_the_hosts_own(case, host, reference):
    request, settings, steps = SHORT[case]
    request = {**BASE, **SMALL, **request, "n_iter": 2}
    answer = host.make(switched_on(request, {"targets": "cat", **settings}))
    assert all(map(pictures.same_pixels, answer.pictures, reference(request).result().pictures))
    (message,) = answer.messages
    assert f"{steps} step" in message
    assert "none in which" in message
    assert WITHOUT in message
    assert slowed(answer) == ["nothing (made without AsynDM)"] * 2
    for text in answer.info["infotexts"][-2:]:
        assert "AsynDM slowed: nothing (made without AsynDM)" in text
        assert "AsynDM targets" not in text


@pytest.mark.usefixtures("quiet")
def test_img2img_at_a_low_strength_says_that_it_has_too_few_steps(host, start_picture):
    request = {**BASE, "init_images": [start_picture], "denoising_strength": 0.1, "steps": 20}
    host.make(BASE)  # the start picture's encoding depends on the random numbers that the job before leaves
    answer = host.make(switched_on(request), "img2img")
    host.make(BASE)
    bare = host.make(request, "img2img")
    (message,) = answer.messages
    assert "3 steps leave none in which regions could differ" in message
    assert "a low denoising strength" in message
    assert pictures.same_pixels(answer.pictures[0], bare.pictures[0])


@pytest.mark.usefixtures("quiet")
def test_few_steps_are_made_and_said(host, reference):
    start = host.log_size()
    request = {**BASE, **SMALL, "steps": 4}
    answer = host.make(switched_on(request))
    assert answer.messages == []
    assert "(regions could differ in 1 of the steps only)" in host.log(start)
    assert not pictures.same_pixels(answer.pictures[0], reference(request).result().pictures[0])


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(("prompt", "target"), [("two cats", "cat"), ("a cat", "cats"), ("a red heart", "red hearts")])
def test_the_nearest_words_are_offered(prompt, target, host):
    meant = prompt.partition(" ")[2]
    answer = host.make(switched_on({**BASE, **SMALL, "prompt": prompt}, {"targets": target}))
    (message,) = answer.messages
    assert f'"{target}" not found in the prompt (did you mean "{meant}"?)' in message
    (told,) = host.post("/asyndm/v1/tokens", {"prompt": prompt, "targets": target})["targets"]
    assert told["nearest"] == [meant]


@pytest.mark.usefixtures("quiet")
def test_a_plot_says_it_for_its_first_picture_and_in_each_infotext(host):
    script = next(s for s in host.get("/sdapi/v1/script-info") if s["name"] == "x/y/z plot" and not s["is_img2img"])
    labels = script["args"][0]["choices"]
    asked = plot(labels, switched_on({**BASE, **SMALL}), x=("[AsynDM] Concavity", "0, 0.5, 1"))
    answer = host.make(asked)
    texts = answer.info["infotexts"][-3:]
    assert ["AsynDM slowed: nothing" in text for text in texts] == [True, False, False]
    figures = [re.search(FIGURES.format(6), text) for text in texts[1:]]
    assert all(figures)
    assert figures[0][0] != figures[1][0]
