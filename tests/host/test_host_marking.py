"""Marking target words on the page, and their tags' way through the WebUI."""

from __future__ import annotations

import base64
import statistics

import pytest
from family import HOST, REFORGE
from pictures import same_pixels
from requests_table import BASE, LORA, PROMPT, switched_on
from webui_page import Page, opened

pytestmark = pytest.mark.usefixtures("nothing_left", "quiet")

QUESTION = "/internal/asyndm-tokens"
KEY = "Alt+m"
HIRES = "#hires_prompt textarea"
WITH_HIRES_PROMPT = (
    "a dog\nNegative prompt: ugly\nSteps: 2, Sampler: Euler, Schedule type: Automatic, CFG scale: 5, Seed: 1, "
    "Size: 64x64, Denoising strength: 0.7, Hires upscale: 2, Hires steps: 1, Hires upscaler: Latent, "
    'Hires prompt: "a small cat, a dog"'
)


class Marking:
    """A prompt box of the page, the chips and the line below them."""

    def __init__(self, of: Page, tab: str = "txt2img", box: str = ""):
        self.of, self.page, self.tab = of, of.page, tab
        self.box = self.page.locator(box or f"#{tab}_prompt textarea")
        self.field = of.element("targets", tab, "textarea")
        self.chips = of.element("words", tab, ".asyndm-chip")
        self.status = of.element("words", tab, ".asyndm-status")
        self.button = self.page.locator(f"#{tab}_asyndm_mark")

    def put(self, marked: str) -> None:
        """Fill in a prompt; ‸ marks the cursor, two of them a selection."""
        before, *inside = marked.split("‸")
        self.box.fill("".join([before, *inside]))
        ends = [len(before), len(before) + len(inside[0] if len(inside) > 1 else "")]
        self.box.evaluate("(box, ends) => { box.focus(); box.setSelectionRange(...ends) }", ends)

    @property
    def prompt(self) -> str:
        return self.box.input_value()

    @property
    def pressed(self) -> list[str]:
        return self.of.element("words", self.tab, ".asyndm-chip[aria-pressed=true]").all_inner_texts()

    def chip(self, text: str):
        return self.page.locator(f'#script_{self.tab}_asyndm_words .asyndm-chip[data-word="{text}"]')

    def says(self, text: str) -> None:
        """Wait until the line below the chips says ``text``."""
        status = f"document.querySelector('#script_{self.tab}_asyndm_words .asyndm-status')"
        self.page.wait_for_function(f"text => {status}.innerText.includes(text)", arg=text)

    def shows(self, *pressed: str) -> None:
        """Wait until these chips are the pressed ones."""
        self.page.wait_for_function(
            f"texts => JSON.stringify([...document.querySelectorAll('#script_{self.tab}_asyndm_words "
            ".asyndm-chip[aria-pressed=true]')].map(chip => chip.textContent)) === JSON.stringify(texts)",
            arg=list(pressed),
        )

    def shot(self, name: str) -> None:
        self.of.element("enabled", self.tab).scroll_into_view_if_needed()
        self.of.shot(name)


@pytest.mark.parametrize("tab", ["txt2img", "img2img"])
def test_by_key(tab, page):
    page.open_tab(tab)
    marking = Marking(page, tab)
    marking.put("a small c‸at and a dog, a cat")
    marking.page.keyboard.press(KEY)
    assert marking.prompt == "a small cat<asyn:cat#1> and a dog, a cat"
    assert page.switch(tab).is_checked(), "a target is of no use while AsynDM is off"
    marking.shows("cat")
    marking.says('"cat#1" → token 3')
    marking.shot(f"marked-{tab}")
    marking.page.keyboard.press(KEY)
    assert marking.prompt == "a small cat and a dog, a cat"
    marking.shows()
    marking.says("No targets named: chosen automatically")


def test_the_second_of_two_and_both(page):
    marking = Marking(page)
    marking.put("a dog and a d‸og")
    marking.page.keyboard.press(KEY)
    assert marking.prompt == "a dog and a dog<asyn:dog#2>"
    marking.says('"dog#2" → token 5')
    marking.put("a d‸og and a dog<asyn:dog#2>")
    marking.page.keyboard.press(KEY)
    assert marking.prompt == "a dog<asyn:dog#1> and a dog<asyn:dog#2>"
    marking.shows("dog", "dog")


def test_a_phrase_by_the_button(page):
    marking = Marking(page)
    marking.put("a ‸red heart‸ in a (garden:1.3)")
    marking.button.click()
    assert marking.prompt == "a red heart<asyn:red heart> in a (garden:1.3)"
    marking.shows("red heart")
    marking.says('"red heart" → tokens 2-3')
    assert marking.box.evaluate("box => document.activeElement === box"), "typing goes on in the prompt"
    marking.put("a red heart<asyn:red heart> in a (gard‸en:1.3)")
    marking.button.click()
    assert marking.prompt == "a red heart<asyn:red heart> in a (garden:1.3)<asyn:garden>"
    marking.shot("phrase")
    marking.button.click()
    assert marking.prompt == "a red heart<asyn:red heart> in a (garden:1.3)"


def test_no_word_at_the_cursor(page):
    marking = Marking(page)
    page.open()
    marking.put("a cat  ‸  , a dog")
    marking.button.click()
    assert marking.prompt == "a cat    , a dog"
    marking.says("Put the cursor on a word")


def test_undo_and_the_cursor(page):
    marking = Marking(page)
    marking.box.click()
    marking.page.keyboard.type("a cat")
    marking.page.keyboard.press(KEY)
    marking.page.keyboard.press("Control+z")
    assert marking.prompt == "a cat"
    marking.page.keyboard.press(KEY)
    assert marking.prompt == "a cat<asyn:cat>"
    marking.page.keyboard.press("End")
    marking.page.keyboard.type(", b")
    assert marking.prompt == "a cat<asyn:cat>, b"


def test_the_hosts_own_keys_leave_tags_whole(page):
    marking = Marking(page)
    marking.put("a c‸at<asyn:cat>, a dog")
    for _ in range(2):
        marking.page.keyboard.press("Control+ArrowUp")
    assert marking.prompt == "a (cat:1.2)<asyn:cat>, a dog"
    marking.put("a cat<asyn:c‸at:0.5>")
    marking.page.keyboard.press("Control+ArrowUp")
    assert marking.prompt == "a cat<asyn:cat:0.55>"
    marking.put("a c‸at<asyn:cat>, a dog")
    marking.page.keyboard.press("Alt+ArrowRight")
    assert marking.prompt == " a dog,a cat<asyn:cat>"


def test_the_hires_prompt(page):
    page.paste(WITH_HIRES_PROMPT)
    marking = Marking(page, box=HIRES)
    marking.box.wait_for()
    marking.put("a small c‸at, a dog")
    marking.page.keyboard.press(KEY)
    assert marking.prompt == "a small cat<asyn:cat>, a dog"
    assert Marking(page).prompt == "a dog"
    marking.shows("cat")
    assert marking.chips.all_inner_texts() == ["a", "dog", "a", "small", "cat", "a", "dog"]
    marking.says('"cat" → token 3')
    titles = marking.status.locator(".asyndm-title")
    assert titles.all_inner_texts() == ["Prompt", "Hires prompt"]
    marking.says("No targets named: chosen automatically")  # in the prompt itself
    marking.chip("dog").nth(1).click()
    assert marking.prompt == "a small cat<asyn:cat>, a dog<asyn:dog>"
    marking.put("a small cat<asyn:cat>, a dog<asyn:dog>‸")
    marking.button.click()
    assert marking.prompt == "a small cat<asyn:cat>, a dog"
    marking.shot("hires-prompt")


def test_chips_tags_and_field_agree(page):
    marking = Marking(page)
    page.open()
    marking.put("a cat and a red heart")
    marking.chip("heart").click()
    assert marking.prompt == "a cat and a red heart<asyn:heart>"
    marking.shows("heart")
    marking.field.fill("cat:0.5, red heart")
    marking.shows("cat", "red heart")
    marking.chip("cat").click()
    marking.shows("red heart")
    assert marking.field.input_value() == "red heart"
    marking.chip("red heart").click()
    marking.shows()
    assert (marking.prompt, marking.field.input_value()) == ("a cat and a red heart", "")
    marking.put("a cat<asyn:cat>‸")
    marking.shows("cat")
    marking.put("a cat‸")
    marking.shows()
    marking.says("chosen automatically")
    page.page.wait_for_selector('#txt2img_script_container .asyndm-chip[data-word="cat"][title="1 token"]')


def test_the_field_reaches_the_host(page, host):
    """What a chip takes out of the field is out for the host too."""
    marking = Marking(page)
    page.paste(host.make(BASE).infotext)
    page.open()
    marking.field.fill("cat, heart")
    marking.shows("cat", "heart")
    marking.chip("cat").click()
    page.page.evaluate("scrollTo(0, 0)")
    page.generate()
    assert "AsynDM targets: heart" in page.infotext()


def test_what_is_found_where(page):
    marking = Marking(page)
    page.open()
    filler = ", ".join(["a quiet summer garden"] * 17)
    marking.put(f"a cat, {filler}, a sandwich AND a dog‸")
    marking.field.fill("cat, sandwich, dog, zebra, dog#3")
    marking.says('"cat" → token 2, chunk 1, part 1')
    marking.says('"dog" → token 2, chunk 1, part 2')
    missing = marking.status.locator(".asyndm-missing")
    unknown, third = missing.all_inner_texts()
    assert unknown == '"zebra" not found in the prompt'
    assert third == '"dog#3" not found in the prompt; did you mean "dog"?'
    red, green, blue = missing.first.evaluate("e => getComputedStyle(e).color.match(/\\d+/g).map(Number)")[:3]
    assert red > 150 > max(green, blue)
    marking.shot("not-found")
    marking.field.fill("cat:7")
    marking.says("is not from 0 to 1")
    assert marking.status.get_attribute("aria-live") == "polite"


def test_the_whole_picture_needs_no_targets(page):
    marking = Marking(page)
    page.open()
    marking.put("a cat‸")
    marking.says("No targets named")
    page.open_advanced()
    whole = page.element("whole_picture", inside="input")
    whole.check()
    marking.says("The whole picture lags: target words play no part")
    whole.uncheck()
    marking.says("No targets named")


def test_without_an_answer(page):
    marking = Marking(page)
    page.page.route(f"**{QUESTION}", lambda route: route.abort())
    page.open()
    marking.put("a c‸at")
    marking.says("The prompt's tokens cannot be read now; marking works all the same")
    marking.page.keyboard.press(KEY)
    marking.shows("cat")
    page.page.unroute(f"**{QUESTION}")
    marking.put("a small cat<asyn:cat>‸")
    marking.says('"cat" → token 3')


def test_another_key(page):
    marking = Marking(page)
    page.page.evaluate("opts.asyndm_hotkey = 'Ctrl+Shift+Y'")
    marking.put("a c‸at")
    marking.page.keyboard.press(KEY)
    assert marking.prompt == "a cat"
    marking.page.keyboard.press("Control+Shift+y")
    assert marking.prompt == "a cat<asyn:cat>"
    page.page.wait_for_function("() => document.querySelector('.asyndm-hint').innerText.includes('Ctrl+Shift+Y')")


def test_by_keyboard_alone(page):
    marking = Marking(page)
    page.open()
    marking.put("a cat and a dog‸")
    marking.chip("dog").wait_for()
    marking.field.focus()
    for key in ("Tab", "ArrowRight", "Space"):
        marking.page.keyboard.press(key)
    assert marking.prompt == "a cat<asyn:cat> and a dog"
    focused = "() => [document.activeElement.textContent, document.activeElement.getAttribute('aria-pressed')]"
    assert marking.page.evaluate(focused) == ["cat", "true"]
    outline = marking.chip("cat").evaluate("e => getComputedStyle(e).outlineStyle")
    assert outline == "solid"
    marking.shot("keyboard")
    for key in ("End", "Enter"):
        marking.page.keyboard.press(key)
    assert marking.prompt == "a cat<asyn:cat> and a dog<asyn:dog>"
    for key in ("Home", "ArrowRight", "Space"):
        marking.page.keyboard.press(key)
    assert marking.prompt == "a cat and a dog<asyn:dog>"
    assert marking.button.get_attribute("aria-label")


def test_hostile_words_stay_text(page):
    marking = Marking(page)
    dialogs = []
    page.page.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    page.open()
    hostile = '<img src=x onerror="alert(1)"> <script>alert(2)</script> "><svg/onload=alert(3)> cat'
    marking.put(f"{hostile}‸")
    marking.field.fill('<img src=x onerror=alert(4)>, "><svg/onload=alert(5)>, zebra<b>')
    marking.says('"zebra<b>" not found')
    marking.page.keyboard.press(KEY)
    assert not dialogs
    made = "words => [...words.querySelectorAll('*')].map(e => e.tagName)"
    assert set(page.element("words").evaluate(made)) == {"DIV", "BUTTON", "SPAN"}
    marking.shot("hostile")


def test_localization(browser, host, shots):
    words = {"token": "Token", "tokens": "Tokens", "cat": "Katze", "Prompt": "Eingabe"}
    page = opened(browser, host, shots, localization=words)
    marking = Marking(page)
    page.open()
    marking.put("a cat and a dog‸")
    marking.field.fill("dog")
    marking.says('"dog" → Token 5')
    assert [text.strip("\u2060") for text in marking.chips.all_inner_texts()] == ["a", "cat", "and", "a", "dog"]
    page.page.wait_for_function("() => document.querySelector('.asyndm-chip').title === '1 Token'")
    page.page.close()


@pytest.mark.parametrize(
    ("name", "query", "width"), [("dark", "?__theme=dark", 1280), ("narrow", "?__theme=light", 420)]
)
def test_themes_and_narrow_windows(name, query, width, browser, host, shots):
    page = opened(browser, host, shots, query, width)
    marking = Marking(page)
    page.open()
    marking.put("a cat<asyn:cat> and a dog with " + "a red heart<asyn:red heart>, " * 6 + "x" * 200 + "‸")
    marking.field.fill("zebra, " + "y" * 150)
    marking.says('"zebra" not found')
    marking.shot(f"chips-{name}")
    outer = page.element("enabled").bounding_box()
    for box in [e.bounding_box() for e in (*marking.chips.all(), marking.status)]:
        assert outer["x"] <= box["x"]
        assert box["x"] + box["width"] <= outer["x"] + outer["width"]
    assert page.element("words").evaluate("e => e.scrollWidth <= e.clientWidth + 1")
    page.page.close()


def test_typing_in_a_prompt_of_500_words_is_smooth(page):
    """Typing is hardly slower than without the chips (with room for a busy machine), and not every
    key asks the host."""
    marking = Marking(page)
    questions = []
    page.page.on("request", lambda request: questions.append(request.url) if QUESTION in request.url else None)
    page.page.evaluate(
        """() => {
            window.keyTimes = [];
            addEventListener("keydown", () => {
                const start = performance.now();
                setTimeout(() => window.keyTimes.push(performance.now() - start));
            }, true);
        }"""
    )
    words = " ".join(f"word{n % 97}" for n in range(500))
    times = {}
    for state in ("closed", "open"):
        if state == "open":
            page.open()
        marking.put(f"{words} ‸, the end")
        marking.page.wait_for_timeout(1500)
        page.page.evaluate("window.keyTimes.length = 0")
        questions.clear()
        marking.page.keyboard.type("red, cat and a small dog in the garden", delay=30)
        asked = len(questions)
        times[state] = page.page.evaluate("window.keyTimes")
    for state, of in times.items():
        print(f"AsynDM {state}: {statistics.median(of):.0f} ms a key, at most {max(of):.0f}")
    assert statistics.median(times["open"]) < 2 * statistics.median(times["closed"]) + 20
    assert asked <= 3
    page.page.wait_for_function("() => document.querySelectorAll('.asyndm-chip').length === 500 + 9 + 2")
    assert len(questions) <= asked + 1


def test_a_picture_with_marks(page, host):
    page.paste(host.make(BASE).infotext)
    marking = Marking(page)
    marking.box.evaluate("box => { box.focus(); box.setSelectionRange(3, 3) }")
    marking.page.keyboard.press(KEY)
    tagged = PROMPT.replace("cat", "cat<asyn:cat>")
    assert marking.prompt == tagged
    page.page.evaluate("scrollTo(0, 0)")
    page.generate()
    assert page.infotext().splitlines()[0].strip() == tagged
    shown = page.page.evaluate(
        """async () => {
            const bytes = await (await fetch(document.querySelector("#txt2img_gallery img").src)).arrayBuffer();
            return btoa(String.fromCharCode(...new Uint8Array(bytes)));
        }"""
    )
    expected = host.make(switched_on(BASE, {"targets": "cat"}))
    assert same_pixels(base64.b64decode(shown), expected.pictures[0])
    page.shot("picture-with-marks")


TWO_DOGS = "a dog and a dog{tag}, with a red heart"


@pytest.mark.parametrize("lora", ["", f" <lora:{LORA}:0.5>"], ids=["alone", "beside a LoRA"])
@pytest.mark.parametrize("comment", ["", "# a zebra\n"], ids=["no comment", "comment"])
def test_a_tag_is_not_cut_off_as_a_comment(lora, comment, host):
    """The WebUI hides what stands between # and the end of the line."""
    prompt = comment + TWO_DOGS + lora
    typed = prompt.format(tag="<asyn:dog#2>")
    by_tag = host.make(switched_on({**BASE, "prompt": typed}, {"targets": ""}))
    by_field = host.make(switched_on({**BASE, "prompt": prompt.format(tag="")}, {"targets": "dog#2"}))
    assert by_tag.messages == by_field.messages == []
    assert by_tag.pictures[0] != host.make({**BASE, "prompt": prompt.format(tag="")}).pictures[0]
    assert same_pixels(by_tag.pictures[0], by_field.pictures[0])
    if HOST is not REFORGE:  # it cuts the prompt that it writes at every #
        assert by_tag.infotext.startswith(typed.removeprefix(comment))


def test_while_off_a_tag_changes_nothing(host):
    off = host.make({**BASE, "prompt": TWO_DOGS.format(tag="<asyn:dog#2>")})
    assert same_pixels(off.pictures[0], host.make({**BASE, "prompt": TWO_DOGS.format(tag="")}).pictures[0])


def test_the_token_counter_counts_on_behind_a_tag(page):
    marking = Marking(page)
    marking.put("a dog and a dog<asyn:dog#2>, with a red heart‸")
    page.page.wait_for_function("() => document.querySelector('#txt2img_token_counter').innerText.includes('10/75')")
