"""What cannot be done is said in one message, and the picture is the host's own, byte for byte."""

import pictures
import pytest
from family import HOST
from requests_table import BASE, arguments, switched_on, with_arguments
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
