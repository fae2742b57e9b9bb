import assert from "node:assert/strict";
import {test} from "node:test";

import "../../javascript/asyndm-tokens.js";

const {describe, tokenCount} = globalThis.asyndm;

const place = (indexes, chunk = 0, part = 0) => ({part, tokens: indexes.map(index => ({chunk, index}))});
const target = (text, occurrences, occurrence = null) => ({text, occurrence, occurrences, found: occurrences.length > 0});
const lines = (...targets) => describe({targets}).map(line => line.pieces.join(""));

test("where targets stand", () => {
    assert.deepEqual(lines(target("cat", [place([2])]), target("sandwich", [place([5, 6])])), [
        '"cat" → token 2',
        '"sandwich" → tokens 5-6',
    ]);
    assert.deepEqual(lines(target("dog", [place([2]), place([7])])), ['"dog" → tokens 2; 7']);
    assert.deepEqual(lines(target("dog", [place([7])], 2)), ['"dog#2" → token 7']);
    assert.deepEqual(lines(target("cat", [place([2])]), target("elf", [place([3, 4], 1)])), [
        '"cat" → token 2, chunk 1',
        '"elf" → tokens 3-4, chunk 2',
    ]);
    assert.deepEqual(lines(target("cat", [place([2], 0, 1)])), ['"cat" → token 2, part 2']);
    const broken = {part: 0, tokens: [{chunk: 0, index: 75}, {chunk: 1, index: 1}]};
    assert.deepEqual(lines(target("elf", [broken])), ['"elf" → tokens 75, chunk 1, 1, chunk 2']);
});

test("what is not found", () => {
    const [line] = describe({targets: [target("<b>", [])]});
    assert.equal(line.found, false);
    assert.deepEqual(line.pieces, ['"<b>"', " ", "not found in the prompt"]);
});

test("what may have been meant", () => {
    const found = nearest => describe({targets: [{...target("cat", []), nearest}]})[0].pieces.join("");
    assert.equal(found(["cats"]), '"cat" not found in the prompt; did you mean "cats"?');
    assert.equal(found(["cats", "bobcat"]), '"cat" not found in the prompt; did you mean "cats" or "bobcat"?');
    assert.equal(found([]), '"cat" not found in the prompt');
});

test("what is not read", () => {
    const [line] = describe({targets: [{...target("dog", []), found: true, unread: true}]});
    assert.equal(line.found, false);
    assert.deepEqual(line.pieces, ['"dog"', " ", "stands where the model reads no more"]);
});

test("tokens of a chip", () => {
    const answer = {words: [{text: "red", tokens: 1}, {text: "axolotl", tokens: 3}]};
    assert.equal(tokenCount(answer, "axolotl"), 3);
    assert.equal(tokenCount(answer, "red axolotl"), 4);
    assert.equal(tokenCount(answer, "blue axolotl"), null);
});
