"""Without named targets the extension chooses by itself, says what, and chooses the same again."""

import pictures
import pytest
from requests_table import BASE, FILLER, SMALL, switched_on

pytestmark = pytest.mark.usefixtures("nothing_left", "quiet")

NONE = {"targets": ""}
MATRIX = {"script_name": "prompt matrix", "script_args": [False, False, "positive", "comma", 0]}
HIRES = {**BASE, **SMALL, "enable_hr": True, "hr_scale": 2, "hr_upscaler": "Latent", "denoising_strength": 0.7}
NOTHING = ["", "of the", "(((best quality))), 8k", "...", "<none:none:1>"]


def chosen(answer) -> list[str]:
    return answer.info["extra_generation_params"].get("AsynDM chosen", [])


def chosen_in(text: str) -> str | None:
    line = text.splitlines()[-1]
    if "AsynDM chosen: " not in line:
        return None
    rest = line.split("AsynDM chosen: ", 1)[1]
    return rest[1:].split('"', 1)[0] if rest.startswith('"') else rest.split(",", 1)[0]


@pytest.mark.parametrize("targets", ["", " ,\n , "])
@pytest.mark.parametrize("timing", ["lagged", "fresh", "static"])
def test_what_was_chosen_is_said_everywhere(targets, timing, host, reference):
    start = host.log_size()
    answer = host.make(switched_on(BASE, {"targets": targets, "mask_timing": timing}))

    assert answer.messages == []
    [words] = chosen(answer)
    assert set(words.split(", ")) <= {"cat", "dog", "heart"}
    assert chosen_in(answer.infotext) == chosen_in(pictures.infotext(answer.pictures[0])) == words
    assert "\nAsynDM chose and slowed " in host.log(start)
    assert all(f'"{word}"' in host.log(start) for word in words.split(", "))
    assert not pictures.same_pixels(answer.pictures[0], reference(BASE).result().pictures[0])


@pytest.mark.parametrize("sampler", ["Euler", "DPM++ 2M", "Heun", "DDIM", "Restart"])
def test_the_same_request_makes_the_same_file_and_that_of_the_words_named(sampler, host):
    request = {**BASE, "sampler_name": sampler}
    first, again = (host.make(switched_on(request, NONE)) for _ in range(2))
    assert first.pictures == again.pictures
    [words] = chosen(first)
    named = host.make(switched_on(request, {"targets": words}))
    assert chosen(named) == []
    # Words that were dropped may have had a part in the first steps.
    assert pictures.distance(first.pictures[0], named.pictures[0]) < (0.01 if words == "cat, dog, heart" else 255)


def test_an_infotext_sent_back_makes_the_same_file(host):
    first = host.make(switched_on(BASE, {**NONE, "concavity": 0.7}))
    text = pictures.infotext(first.pictures[0])
    again = host.make({"infotext": text})
    assert pictures.infotext(again.pictures[0]) == text
    assert again.pictures == first.pictures
    assert "AsynDM targets" not in text


def test_only_being_on_is_written_with_the_defaults(host):
    assert "AsynDM: on" in host.make(switched_on(BASE, NONE)).infotext


def test_off_is_as_ever(host, reference):
    host.make(switched_on(BASE, NONE))
    answer = host.make(BASE)
    assert answer.pictures == reference(BASE).result().pictures
    assert chosen(answer) == []


@pytest.mark.parametrize("prompt", NOTHING)
@pytest.mark.parametrize("timing", ["lagged", "static"])
def test_a_prompt_that_names_nothing_is_the_hosts_own(timing, prompt, host, reference):
    request = {**BASE, "prompt": prompt}
    answer = host.make(switched_on(request, {**NONE, "mask_timing": timing}))
    assert answer.pictures == reference(request).result().pictures
    [message] = answer.messages
    assert "no word of the prompt names a thing. The picture was made without AsynDM" in message


@pytest.mark.parametrize("size", [1, 2, 4])
def test_each_picture_of_a_batch_has_its_own(size, host):
    request = {**BASE, "prompt": "a house|with a cat|of 8k", "batch_size": size, **MATRIX}
    answer = host.make(switched_on(request, NONE))
    assert answer.messages == []
    alone = [
        host.make(switched_on({**BASE, "prompt": prompt}, NONE))
        for prompt in ("a house", "a house, with a cat", "a house, of 8k", "a house, with a cat, of 8k")
    ]
    texts = [chosen_in(pictures.infotext(png)) for png in answer.pictures[-4:]]
    assert texts == [chosen(single)[0] for single in alone]
    assert "cat" in texts[1]
    distances = [pictures.distance(a, b.pictures[0]) for a, b in zip(answer.pictures[-4:], alone, strict=True)]
    assert max(distances) < 2.0, distances


def test_pictures_of_a_batch_that_name_nothing_are_the_hosts_own(host):
    request = {**BASE, "prompt": "8k|a cat", "batch_size": 2, **MATRIX}
    on, off = host.make(switched_on(request, NONE)), host.make(request)
    same = [pictures.same_pixels(a, b) for a, b in zip(on.pictures[-2:], off.pictures[-2:], strict=True)]
    assert same == [True, False]
    assert ["some prompts" in message for message in on.messages] == [True]
    assert [chosen_in(pictures.infotext(png)) for png in on.pictures[-2:]] == [None, "cat"]


def test_batch_count(host):
    answer = host.make(switched_on({**BASE, "n_iter": 2, "batch_size": 2}, NONE))
    assert [chosen_in(text) for text in answer.info["infotexts"][-4:]] == chosen(answer)
    assert len(chosen(answer)) == 4


@pytest.mark.parametrize("prompt", ["", "a house with a tree"])
def test_hires_fix(prompt, host):
    request = {**HIRES, "hr_prompt": prompt}
    answer, again = (host.make(switched_on(request, NONE)) for _ in range(2))
    assert answer.messages == []
    assert answer.pictures == again.pictures
    [words] = chosen(answer)
    assert ("house" in words or "tree" in words) == bool(prompt)


def test_a_tag_names_targets_for_its_picture_alone(host):
    request = {**BASE, "prompt": "a <asyn:cat>cat and a dog"}
    assert chosen(host.make(switched_on(request, NONE))) == []


@pytest.mark.parametrize(
    "prompt",
    [
        *("a [cat:dog:0.5] AND a house", "a cat BREAK a dog", "((cat:1.2)), [dog]", "[cat|dog]", f"{FILLER}, a cat"),
        *("x" * 2000, "猫とボール", "🐱 🏀", "قطة وكلب", "cat " * 400, ", ".join(f"thing{n}" for n in range(300))),
    ],
    ids=lambda prompt: f"{prompt:.20}",
)
def test_odd_prompts(prompt, host):
    answer = host.make(switched_on({**BASE, "prompt": prompt}, NONE))
    assert answer.status == 200, answer.info
    assert answer.messages == []
    assert chosen(answer)[0]
    assert answer.seconds < 30


def test_img2img(host, start_picture):
    request = {**BASE, "init_images": [start_picture], "denoising_strength": 0.7}
    answer = host.make(switched_on(request, NONE), "img2img")
    assert chosen(answer)[0]
    assert answer.messages == []
