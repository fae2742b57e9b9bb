/* What the WebUI answers about a prompt's tokens, in words. Every piece of a text becomes a text node of its own, so
   that the WebUI's localization finds "token" and "chunk" by themselves. */

(function(asyndm) {
    "use strict";

    /** Per target {found, pieces}: "cat" → token 2; "sandwich" → tokens 5-6, chunk 1; "cat" not found in the prompt;
        did you mean "cats"? */
    function describe({targets}) {
        const every = targets.flatMap(target => target.occurrences);
        const chunks = every.some(({tokens}) => tokens.some(token => token.chunk));
        const parts = every.some(({part}) => part);
        return targets.map(target => {
            const name = `"${target.text}${target.occurrence === null ? "" : `#${target.occurrence}`}"`;
            if (!target.found) return {found: false, pieces: [name, " ", "not found in the prompt", ...meant(target)]};
            if (target.unread) return {found: false, pieces: [name, " ", "stands where the model reads no more"]};
            const several = target.occurrences.reduce((count, {tokens}) => count + tokens.length, 0) > 1;
            const places = target.occurrences.map(occurrence => placeOf(occurrence, chunks, parts));
            return {
                found: true,
                pieces: [name, " → ", several ? "tokens" : "token", " ", ...places.flatMap((place, n) => n ? ["; ", ...place] : place)],
            };
        });
    }

    function meant({nearest = []}) {
        if (!nearest.length) return [];
        return ["; ", "did you mean", " ", ...nearest.flatMap((word, n) => n ? [" ", "or", " ", `"${word}"`] : [`"${word}"`]), "?"];
    }

    function placeOf({part, tokens}, chunks, parts) {
        const pieces = [];
        for (const {chunk, first, last} of ranges(tokens)) {
            if (pieces.length) pieces.push(", ");
            pieces.push(first === last ? `${first}` : `${first}-${last}`);
            if (chunks) pieces.push(", ", "chunk", ` ${chunk + 1}`);
        }
        if (parts) pieces.push(", ", "part", ` ${part + 1}`);
        return pieces;
    }

    function ranges(tokens) {
        const found = [];
        for (const {chunk, index} of tokens) {
            const before = found[found.length - 1];
            if (before?.chunk === chunk && before.last === index - 1) {
                before.last = index;
            } else {
                found.push({chunk, first: index, last: index});
            }
        }
        return found;
    }

    /** How many tokens a chip's words have, or null where the answer does not tell. */
    function tokenCount({words}, text) {
        const counts = new Map(words.map(word => [word.text, word.tokens]));
        const own = counts.get(text) ?? text.split(" ").reduce((sum, word) => sum + (counts.get(word) ?? NaN), 0);
        return Number.isNaN(own) ? null : own;
    }

    Object.assign(asyndm, {describe, tokenCount});
})(globalThis.asyndm ??= {});
