import assert from "node:assert/strict";
import {readFileSync} from "node:fs";
import {test} from "node:test";

import "../../javascript/asyndm-prompt.js";

const {scan, occurrences, chips, toggle, taggedWord, entries, parseEntry} = globalThis.asyndm;

/** "a ‸cat‸" is the prompt with "cat" selected, "a c‸at" the one with the cursor in it. */
function at(marked) {
    const [before, inside, after] = marked.split("‸");
    return after === undefined ? [before + inside, before.length, before.length] :
        [before + inside + after, before.length, before.length + inside.length];
}

function press(marked, field = "") {
    const [prompt, start, end] = at(marked);
    const result = toggle(prompt, field, start, end);
    return result && {prompt: result.prompt, field: result.field};
}

const pressed = (prompt, field = "") => chips(prompt, field).filter(chip => chip.pressed).map(chip => chip.text);
const stripped = prompt => prompt.replace(/<(\w+):([^>]+)>/g, "");

const MARKED = [
    ["a c‸at and a dog", "a cat<asyn:cat> and a dog"],
    ["a cat‸ and a dog", "a cat<asyn:cat> and a dog"],
    ["a ‸cat", "a cat<asyn:cat>"],
    ["cat‸, dog", "cat<asyn:cat>, dog"],
    ["a ‸red heart‸ here", "a red heart<asyn:red heart> here"],
    ["a r‸ed hea‸rt here", "a red heart<asyn:red heart> here"],
    ["a ‸red\nheart‸ here", "a red\nheart<asyn:red heart> here"],
    ["‸cat, red heart‸", "cat<asyn:cat>, red heart<asyn:red heart>"],
    ["a dog and a d‸og", "a dog and a dog<asyn:dog#2>"],
    ["a d‸og and a dog", "a dog<asyn:dog#1> and a dog"],
    ["a dog<asyn:dog#1> and a d‸og", "a dog<asyn:dog#1> and a dog<asyn:dog#2>"],
    ["a Dog and a d‸og", "a Dog and a dog<asyn:dog#2>"],
    ["a dog's bone and a d‸og", "a dog's bone and a dog<asyn:dog#2>"],
    ["red-haired, r‸ed", "red-haired, red<asyn:red>"],
    ["red, red-haired, r‸ed", "red, red-haired, red<asyn:red#2>"],
    ["a dog AND a d‸og :1.2", "a dog AND a dog<asyn:dog#2> :1.2"],
    ["a d‸og:1.2 AND a cat", "a dog<asyn:dog>:1.2 AND a cat"],
    ["(c‸at:1.3), dog", "(cat:1.3)<asyn:cat>, dog"],
    ["((a c‸at)), dog", "((a cat))<asyn:cat>, dog"],
    ["[cat:d‸og:0.5] x", "[cat:dog:0.5]<asyn:dog> x"],
    ["[cat|d‸og]", "[cat|dog]<asyn:dog>"],
    ["‸(cat and dog:1.2)‸", "(cat and dog:1.2)<asyn:cat and dog>"],
    ["‸(red:1.2) heart‸", "(red:1.2)<asyn:red> heart<asyn:heart>"],
    ["a (c‸at", "a (cat<asyn:cat>"],
    ["\\(c‸at\\)", "\\(cat<asyn:cat>\\)"],
    ["c‸at<lora:x:1>", "cat<asyn:cat><lora:x:1>"],
    ["‸red <lora:x:1>heart‸", "red <lora:x:1>heart<asyn:red heart>"],
    ["‸red BREAK heart‸", "red<asyn:red> BREAK heart<asyn:heart>"],
    ["long_h‸air", "long_hair<asyn:long_hair>"],
    ["1g‸irl", "1girl<asyn:1girl>"],
    ["ein Bä‸r", "ein Bär<asyn:Bär>"],
    ["ein Bär‸", "ein Bär<asyn:Bär>"],
    ["日本‸", "日本<asyn:日本>"],
    ["‸猫，犬‸", "猫<asyn:猫>，犬<asyn:犬>"],
    ["‸猫、犬：鳥‸", "猫<asyn:猫>、犬<asyn:犬>：鳥<asyn:鳥>"],
    ["a ❤️‸ x", "a ❤️<asyn:❤️> x"],
    ["<script>alert‸</script>", "<script>alert<asyn:alert></script>"],
];

for (const [before, after] of MARKED) {
    test(`marking ${JSON.stringify(before)}`, () => {
        const [plain, start, end] = at(before);
        const result = toggle(plain, "", start, end);
        assert.equal(result.prompt, after);
        assert.equal(result.marked, true);
        assert.equal(stripped(result.prompt), stripped(plain), "the host encodes what it did before");
        const again = toggle(result.prompt, "", result.start, result.end);
        assert.equal(again.prompt, plain, "again, and it is none");
        assert.equal(again.marked, false);
    });
}

test("nothing to mark", () => {
    for (const prompt of ["‸", "  ‸  ", "a  ‸  b", "<lora:c‸at:1>", "(cat:1.‸3)", "# a c‸at", "a ‸, ‸ b", "a BRE‸AK b", "cat AN‸D dog"]) {
        assert.equal(press(prompt), null, prompt);
    }
});

test("one of several that a tag names together", () => {
    assert.deepEqual(press("a d‸og<asyn:dog:0.3> and a dog"), {prompt: "a dog and a dog<asyn:dog#2:0.3>", field: ""});
    assert.deepEqual(press("a dog, a d‸og, a dog", "cat, dog"), {prompt: "a dog, a dog, a dog", field: "cat, dog#1, dog#3"});
    assert.deepEqual(press("a cat, a d‸og <asyn:cat, dog:0.5>"), {prompt: "a cat, a dog <asyn:cat>", field: ""});
});

test("words that the field names", () => {
    assert.deepEqual(press("a c‸at", "dog, cat:0.5"), {prompt: "a cat", field: "dog"});
    assert.deepEqual(press("a r‸ed heart", "red heart"), {prompt: "a red heart", field: ""});
    assert.deepEqual(press("a c‸at<asyn:cat>", "(cat:1.3)"), {prompt: "a cat", field: ""});
});

test("inside a tag, or behind it", () => {
    assert.deepEqual(press("a cat<asyn:c‸at>, b"), {prompt: "a cat, b", field: ""});
    assert.deepEqual(press("a cat <asyn:c‸at>, b"), {prompt: "a cat, b", field: ""});
    assert.deepEqual(press("a cat <asyn:c‸at> b"), {prompt: "a cat b", field: ""});
    assert.deepEqual(press("a cat<asyn:cat>‸, b"), {prompt: "a cat, b", field: ""});
});

test("a phrase over one of its words, and back", () => {
    assert.equal(press("a ‸red<asyn:red> heart‸").prompt, "a red<asyn:red> heart<asyn:red heart>");
    assert.equal(press("a ‸red<asyn:red> heart<asyn:red heart>‸").prompt, "a red heart");
});

test("the selection stays on the words", () => {
    const {prompt, start, end} = toggle("a dog<asyn:dog#1> and a dog!", "", 24, 27);
    assert.equal(prompt, "a dog<asyn:dog#1> and a dog<asyn:dog#2>!");
    assert.equal(prompt.slice(start, end), "dog");
});

test("chips", () => {
    const texts = (prompt, field) => chips(prompt, field).map(chip => chip.text);
    assert.deepEqual(texts("a (cat:1.3), [b:c:0.5] BREAK <lora:x:1> d AND e:1.2 AND # f\ng:1", ""), [..."a", "cat", ..."bcdeg"]);
    assert.deepEqual(texts("a red heart<asyn:red heart>", ""), ["a", "red heart"]);
    assert.deepEqual(texts("", "cat"), []);
    assert.deepEqual(pressed("dog, dog<asyn:dog#2>, cat", "cat"), ["dog", "cat"]);
    assert.deepEqual(pressed("dog, dog", "dog"), ["dog", "dog"]);
    assert.deepEqual(pressed("(red:1.2) heart, red", "red heart"), ["red heart"]);
    assert.deepEqual(pressed("red, heart", "red heart"), []);
    assert.deepEqual(pressed("a cat AND dog", "cat dog"), []);
    assert.deepEqual(pressed("a cat", "zebra, cat#2, , #1, :0.5"), []);
});

test("a target list's entries", () => {
    assert.deepEqual(entries("cat, red heart:0.5,\ndog#2, (a, b:1.2), (c, d"), ["cat", "red heart:0.5", "dog#2", "(a, b:1.2)", "(c", "d"]);
    assert.deepEqual(parseEntry("((red  heart:1.2)) #2 :0.5"), {text: "red heart", occurrence: 2, concavity: 0.5, ending: ":0.5"});
    assert.deepEqual(parseEntry("[cat]"), {text: "cat", occurrence: null, concavity: null, ending: ""});
});

test("a name in quotes keeps them where the list is written anew", () => {
    assert.deepEqual(press("1girl, (dog, c‸at) and dog, cat", '"dog, cat"'), {prompt: "1girl, (dog, cat) and dog, cat", field: '"dog, cat"#2'});
    assert.deepEqual(press("d‸og, dog", '"dog":0.5'), {prompt: "dog, dog", field: "dog#2:0.5"});
});

test("the weight of an AND part is no face", () => {
    assert.deepEqual(occurrences(scan("a :3 AND b :3"), ":3"), []);
    assert.equal(occurrences(scan("a :3, b :3"), ":3").length, 1);
});

test("nested brackets take time by their number", () => {
    for (const [opening, closing] of [["(", ")"], ["(", ":1)"], ["[(", ")]"], ["( ", "#1)"]]) {
        const entry = opening.repeat(20_000) + "cat" + closing.repeat(20_000);
        const start = performance.now();
        entries(entry).forEach(parseEntry);
        assert.ok(performance.now() - start < 500, opening);
    }
});

test("an entry that cannot be read is no target, and stays where it is", () => {
    assert.deepEqual(["cat:", "#2", "cat#0", "cat:2", "()"].map(parseEntry), [null, null, null, null, null]);
    assert.deepEqual(pressed("a cat, a dog", "cat:, dog, cat#0"), ["dog"]);
    assert.deepEqual(press("a cat, a d‸og", "cat:, dog, cat#0"), {prompt: "a cat, a dog", field: "cat:, cat#0"});
    assert.deepEqual(press("a cat, a d‸og<asyn:cat:, dog>"), {prompt: "a cat, a dog<asyn:cat:>", field: ""});
    assert.deepEqual(press("a c‸at", "cat:"), {prompt: "a cat<asyn:cat>", field: "cat:"});
});

const TABLE = JSON.parse(readFileSync(new URL("../target_grammar.json", import.meta.url), "utf8"));

/** What entries mean, each target once; null where one cannot be read, for which the server refuses them all. */
function meaning(typed) {
    const read = typed.map(parseEntry);
    if (read.includes(null)) return null;
    const targets = read.map(({text, occurrence, concavity}) => [text, occurrence, concavity]);
    return [...new Map(targets.map(target => [JSON.stringify(target), target])).values()];
}

for (const {list, targets, error, why} of TABLE.lists) {
    test(`the target list ${JSON.stringify(list)} ${targets ? "is read as by the server" : "is refused"}`, () => {
        assert.deepEqual(meaning(entries(list)), error ? null : targets, why);
    });
}

for (const {prompt, targets, error, why} of TABLE.prompts) {
    test(`the tags in ${JSON.stringify(prompt)} ${targets ? "are read as by the server" : "are refused"}`, () => {
        assert.deepEqual(meaning(scan(prompt).tags.flatMap(tag => tag.entries)), error ? null : targets, why);
    });
}

for (const {prompt, target, found, why} of TABLE.places) {
    test(`${JSON.stringify(target)} is found ${found} times in ${JSON.stringify(prompt)}, as by the server`, () => {
        assert.equal(occurrences(scan(prompt), target).length, found, why);
    });
}

test("the table holds every case once, and each with an outcome", () => {
    assert.ok(TABLE.lists.length >= 60);
    for (const [key, cases] of [["list", TABLE.lists], ["prompt", TABLE.prompts]]) {
        assert.equal(new Set(cases.map(entry => entry[key])).size, cases.length);
        assert.ok(cases.every(({targets, error}) => Boolean(targets) !== Boolean(error)));
    }
});

test("tags of a long prompt are found at once", () => {
    for (const piece of ["<asyn:", "<asyn", "<a:", "<asyn:>"]) {
        for (const end of ["", ">", "<asyn:>"]) {
            const start = performance.now();
            scan(piece.repeat(100_000) + end);
            assert.ok(performance.now() - start < 3000, piece + end);
        }
    }
});

test("the word that a tag follows", () => {
    const word = marked => { const [prompt, start] = at(marked); return taggedWord(prompt, start); };
    assert.deepEqual([word("a c‸at<asyn:cat>").start, word("a cat‸<asyn:cat>").end], [2, 5]);
    for (const prompt of ["a c‸at", "‸a cat<asyn:cat>", "(c‸at:1.1)<asyn:cat>", "(c‸at<asyn:cat>:1.1)"]) {
        assert.equal(word(prompt), undefined, prompt);
    }
});

test("500 words", () => {
    const prompt = Array.from({length: 500}, (_, n) => `word${n % 50}`).join(", ");
    const start = performance.now();
    chips(prompt, "word1, word2, word3");
    toggle(prompt, "word1", 100, 100);
    assert.ok(performance.now() - start < 200);
});

test("hostile prompts end soon", () => {
    for (const piece of ["(", "[", "<", "<asyn:", "\\", ":", "#", "(a:", "<a:(", "a'", "❤️\u200d", "AND "]) {
        const prompt = piece.repeat(5000);
        const start = performance.now();
        chips(prompt, "");
        toggle(prompt, piece.repeat(50), 0, prompt.length);
        assert.ok(performance.now() - start < 3000, piece);
    }
});
