/* Marking target words on the page: by a key or a button in the prompt, and as chips in the accordion. */

(function(asyndm) {
    "use strict";

    const LOOK_MS = 200;
    const DEFAULT_HOTKEY = "Alt+M";
    const UNREACHABLE = "The prompt's tokens cannot be read now; marking works all the same";
    const ALONE = "No targets named: the mask lags alone";

    const within = selector => gradioApp().querySelector(selector);
    const hotkey = () => typeof opts === "undefined" ? DEFAULT_HOTKEY : opts.asyndm_hotkey ?? DEFAULT_HOTKEY;
    // The WebUI translates text nodes by itself, titles only of what it added.
    const translated = text => window.localization?.[text] ?? text;

    function element(tag, properties, ...pieces) {
        const made = Object.assign(document.createElement(tag), properties);
        made.append(...pieces);
        return made;
    }

    /** One prompt box of a tab. `title`: what its chips stand under, where there are several boxes. */
    class Box {
        constructor(selector, title) {
            this.selector = selector;
            this.title = title;
        }

        get textarea() {
            return within(`${this.selector} textarea`);
        }

        get prompt() {
            return this.textarea?.value ?? "";
        }
    }

    class Panel {
        constructor(tab) {
            this.tab = tab;
            this.boxes = [new Box(`#${tab}_prompt`, "Prompt")];
            if (tab === "txt2img") this.boxes.push(new Box("#hires_prompt", "Hires prompt"));
            this.lastBox = this.boxes[0];
            this.id = `script_${tab}_asyndm`;
        }

        get field() {
            return within(`#${this.id}_targets textarea`);
        }

        get steps() {
            return Number(within(`#${this.tab}_steps input[type=number]`)?.value);
        }

        /** The names of the chosen styles, whose texts join the prompt. */
        get styles() {
            return [...gradioApp().querySelectorAll(`#${this.tab}_styles .token > span`)].map(name => name.textContent.trim());
        }

        get wholePicture() {
            return within(`#${this.id}_whole_picture input`)?.checked ?? false;
        }

        /** Whether a mask by hand lags, beside which no word is chosen automatically. */
        get byHand() {
            return (within(`#${this.id}_region input:checked`)?.value ?? "words") !== "words";
        }

        get state() {
            const prompts = this.boxes.map(box => box.prompt);
            return JSON.stringify([hotkey(), this.field.value, this.steps, this.styles, this.wholePicture, this.byHand, ...prompts]);
        }

        /** The boxes that are worked on: the first, and others that are not empty. */
        get used() {
            return this.boxes.filter((box, n) => n === 0 || box.prompt.trim());
        }

        /**
         * Called several times a second: draws once the texts have come to rest, whoever wrote them (a person,
         * a pasted infotext, a style), so that typing itself costs nothing.
         */
        look() {
            this.root ??= within(`#${this.id}_words`);
            if (!this.root || !this.field) return;
            const state = this.state;
            const rests = state === this.seen;
            this.seen = state;
            if (rests && state !== this.drawn && this.root.offsetParent) this.draw();
        }

        draw() {
            this.seen = this.drawn = this.state;
            this.root.querySelector(".asyndm-hint").replaceChildren(...hint());
            this.drawChips();
            this.ask();
        }

        drawChips() {
            const used = this.used;
            const container = this.root.querySelector(".asyndm-words");
            while (container.children.length > used.length) container.lastChild.remove();
            used.forEach((box, n) => {
                const group = container.children[n] ?? container.appendChild(chipGroup());
                const [heading, bar] = group.children;
                heading.textContent = box.title;
                heading.hidden = used.length === 1;
                bar.setAttribute("aria-label", `${translated(box.title)}: ${translated("words of the prompt")}`);
                fill(bar, asyndm.chips(box.prompt, this.field.value));
            });
        }

        async ask() {
            this.asking?.abort();
            const asking = this.asking = new AbortController();
            const status = this.root.querySelector(".asyndm-status");
            status.setAttribute("aria-busy", "true");
            const {steps, styles} = this;
            const questions = this.used.map(box => ({prompt: box.prompt, targets: this.field.value, steps, styles}));
            let answers = null;
            try {
                answers = await Promise.all(questions.map(question => tokensOf(question, asking.signal)));
            } catch {
                // Said below, unless a newer question has taken its place.
            }
            if (asking.signal.aborted) return;
            status.setAttribute("aria-busy", "false");
            this.say(answers ? this.report(answers) : [notice(UNREACHABLE)]);
            if (answers) this.count(answers);
        }

        report(answers) {
            if (this.wholePicture) return [notice("The whole picture lags: target words play no part")];
            const several = answers.length > 1;
            return answers.flatMap((answer, n) => {
                const own = answer.error ? [notice(answer.error, "asyndm-missing")] :
                    asyndm.describe(answer).map(({found, pieces}) => notice(pieces, found ? "" : "asyndm-missing"));
                if (!own.length) own.push(notice(this.byHand ? ALONE : "No targets named: chosen automatically"));
                return several ? [element("span", {className: "asyndm-title"}, this.used[n].title), ...own] : own;
            });
        }

        /** Shows lines, if they are new: a screen reader reads every change. */
        say(lines) {
            const status = this.root?.querySelector(".asyndm-status");
            const text = lines.map(line => line.className + line.textContent).join("\n");
            if (!status || text === this.said) return;
            this.said = text;
            status.replaceChildren(...lines);
        }

        count(answers) {
            this.root.querySelectorAll(".asyndm-bar").forEach((bar, n) => {
                for (const chip of bar.children) {
                    const count = asyndm.tokenCount(answers[n], chip.dataset.word);
                    chip.title = count === null ? "" : `${count} ${translated(count === 1 ? "token" : "tokens")}`;
                }
            });
        }

        /** Make what stands from `start` to `end` in a box a target, or none where it is one. */
        toggle(box, start, end) {
            const result = asyndm.toggle(box.prompt, this.field.value, start, end);
            if (!result) {
                this.say([notice("Put the cursor on a word of the prompt, or select some words")]);
                return;
            }
            if (result.prompt !== box.prompt) write(box.textarea, result.prompt, result.start, result.end);
            if (result.field !== this.field.value) write(this.field, result.field, 0, 0);
            const accordion = `${this.id}_enabled`;
            if (result.marked && !within(`#${accordion}-visible-checkbox`)?.checked) inputAccordionChecked(accordion, true);
            if (this.root?.offsetParent) this.draw();
        }

        toggleAtCursor(box = this.lastBox) {
            const textarea = box.textarea;
            this.toggle(box, textarea.selectionStart, textarea.selectionEnd);
            textarea.focus();
        }
    }

    function notice(pieces, className = "") {
        return element("span", {className: `asyndm-notice ${className}`.trim()}, ...[pieces].flat());
    }

    function hint() {
        const key = hotkey().trim();
        const begin = key ? [key, " ", "or the button", " 🎯 "] : ["The button", " 🎯 "];
        return [...begin, "beside the prompt makes the word at its cursor a target, or none; so does a click on a word here"];
    }

    function chipGroup() {
        const bar = element("div", {className: "asyndm-bar"});
        bar.setAttribute("role", "toolbar");
        return element("div", {}, element("div", {className: "asyndm-title"}), bar);
    }

    /** Chips stay where they are, so that the one with the focus keeps it. */
    function fill(bar, chips) {
        while (bar.children.length > chips.length) bar.lastChild.remove();
        chips.forEach(({text, start, end, pressed}, n) => {
            const chip = bar.children[n] ?? bar.appendChild(element("button", {type: "button", className: "asyndm-chip", tabIndex: -1}));
            if (chip.dataset.word !== text) {
                chip.dataset.word = text;
                // A word of the prompt is not to be translated; the WebUI looks for whole texts.
                chip.textContent = translated(text) === text ? text : `${text}\u2060`;
                chip.title = "";
            }
            chip.dataset.start = start;
            chip.dataset.end = end;
            chip.setAttribute("aria-pressed", pressed);
        });
        if (bar.children.length && !bar.querySelector("[tabindex='0']")) bar.firstChild.tabIndex = 0;
    }

    /** One edit that the browser's own undo knows. */
    function write(textarea, text, start, end) {
        const old = textarea.value;
        const shorter = Math.min(old.length, text.length);
        let head = 0, tail = 0;
        while (head < shorter && old[head] === text[head]) head++;
        while (tail < shorter - head && old[old.length - 1 - tail] === text[text.length - 1 - tail]) tail++;

        const focused = document.activeElement;
        textarea.focus({preventScroll: true});
        textarea.setSelectionRange(head, old.length - tail);
        const inserted = text.slice(head, text.length - tail);
        // A hidden box takes no focus, and the command would go to another one.
        if (textarea.getRootNode().activeElement === textarea) {
            document.execCommand(inserted ? "insertText" : "delete", false, inserted);
        }
        if (textarea.value !== text) textarea.value = text;
        textarea.setSelectionRange(start, end);
        updateInput(textarea);
        focused?.focus({preventScroll: true});
    }

    async function tokensOf(question, signal) {
        const response = await fetch("./internal/asyndm-tokens", {method: "POST", body: JSON.stringify(question), signal});
        const answer = await response.json();
        // A prompt that the WebUI does not read (too long, too intricate): it says why.
        if (response.status === 422) return {error: answer.detail, targets: [], words: []};
        if (!response.ok) throw new Error(answer.detail);
        return answer;
    }

    const panels = ["txt2img", "img2img"].map(tab => new Panel(tab));

    function boxOf(target) {
        if (target?.tagName !== "TEXTAREA") return null;
        for (const panel of panels) {
            const box = panel.boxes.find(box => target.closest(box.selector));
            if (box) return {panel, box};
        }
        return null;
    }

    // Composed: a page may keep its app in a shadow root.
    const origin = event => event.composedPath()[0];

    function onKeydown(event) {
        const chip = origin(event).closest?.(".asyndm-chip");
        if (chip) moveAmongChips(event, chip);
        const at = boxOf(origin(event));
        if (!at) return;
        if (asyndm.isHotkey(event, hotkey())) {
            event.preventDefault();
            at.panel.toggleAtCursor(at.box);
        } else if ((event.ctrlKey || event.metaKey) && ["ArrowUp", "ArrowDown"].includes(event.key)) {
            selectTaggedWord(origin(event));
        }
    }

    /** The WebUI's Ctrl+Up takes "cat<asyn" for the word at the cursor, where it has nothing selected. */
    function selectTaggedWord(textarea) {
        if (textarea.selectionStart !== textarea.selectionEnd) return;
        const word = asyndm.taggedWord(textarea.value, textarea.selectionStart);
        if (word) textarea.setSelectionRange(word.start, word.end);
    }

    function moveAmongChips(event, chip) {
        const {previousElementSibling: previous, nextElementSibling: next, parentElement: bar} = chip;
        const to = {ArrowLeft: previous, ArrowRight: next, Home: bar.firstChild, End: bar.lastChild}[event.key];
        if (!to) return;
        event.preventDefault();
        to.focus();
    }

    function onFocus(event) {
        const at = boxOf(origin(event));
        if (at) at.panel.lastBox = at.box;
        const chip = origin(event).closest?.(".asyndm-chip");
        // A toolbar is one stop of the Tab key: the chip that had the focus last.
        chip?.parentElement.querySelectorAll("[tabindex='0']").forEach(other => other.tabIndex = -1);
        if (chip) chip.tabIndex = 0;
    }

    function onClick(event) {
        const clicked = origin(event);
        const chip = clicked.closest?.(".asyndm-chip");
        for (const panel of panels) {
            if (clicked.closest?.(`#${panel.tab}_asyndm_mark`)) panel.toggleAtCursor();
            if (chip && panel.root?.contains(chip)) {
                const bar = [...panel.root.querySelectorAll(".asyndm-bar")].indexOf(chip.parentElement);
                if (panel.state !== panel.drawn) panel.draw();
                panel.toggle(panel.used[bar], Number(chip.dataset.start), Number(chip.dataset.end));
            }
        }
    }

    onUiLoaded(function() {
        for (const {tab} of panels) {
            const button = within(`#${tab}_asyndm_mark`);
            button?.setAttribute("aria-label", button.title);
        }
        document.addEventListener("keydown", onKeydown, true);
        document.addEventListener("focusin", onFocus);
        document.addEventListener("click", onClick);
        setInterval(() => panels.forEach(panel => panel.look()), LOOK_MS);
    });
})(globalThis.asyndm ??= {});
