/* The words of a prompt, its targets and its <asyn:cat> tags: text in, text out, nothing of the page. */

(function(asyndm) {
    "use strict";

    const WORD = "[\\p{L}\\p{M}\\p{N}_]+(?:['’-][\\p{L}\\p{M}\\p{N}_]+)*" +
        "|\\p{Extended_Pictographic}[\\p{Extended_Pictographic}\\p{EMod}\\u200d\\ufe0f]*";
    const WEIGHT = ":\\s*[-+]?[\\d.]+\\s*";
    const NETWORK = "<(?<network>[\\p{L}\\p{N}_]+):(?<args>[^>]+)>";
    const PLAIN = "(?<comment>#[^\\n]*)|\\\\[\\\\()[\\]]?|(?<divider>\\b(?:BREAK|AND)\\b)" +
        `|(?<word>${WORD})|(?<bracket>[()[\\]])|(?<other>\\S)`;
    const patterns = weight => [`${NETWORK}|${weight}|${PLAIN}`, `${weight}|${PLAIN}`].map(pattern => new RegExp(pattern, "gsu"));
    // An AND part may end with its weight. A target, ":3", has none.
    const PROMPT = patterns(`${WEIGHT}(?=[)\\]]|$|\\bAND\\b)`);
    const TARGET = patterns(`${WEIGHT}(?=[)\\]])`);
    // As CLIP's tokenizer cuts a text before it looks for tokens, and each mark by itself.
    const UNITS = /'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]/gu;
    // Where no target begins or ends: inside a word as it is written, as in asyndm_lib/prompt/token_search.py.
    const IN_WORD = "[\\p{L}\\p{N}\\p{M}]";
    const JOINED = new RegExp(`(?<=${IN_WORD})(?!'(?:s|d|m|ll|re|ve)(?!${IN_WORD}))(?=[-_'‐‑]?${IN_WORD})` +
        `|(?<=${IN_WORD}[-_'‐‑])(?=${IN_WORD})|(?<=\\S)(?=[\\p{M}\\p{EMod}\\u200d])|(?<=\\u200d)(?=\\S)`, "uy");
    const [BEGINS_IN_WORD, ENDS_IN_WORD] = [`^${IN_WORD}`, `${IN_WORD}$`].map(pattern => new RegExp(pattern, "u"));
    const PARTNERS = {"(": ")", "[": "]"};
    const BETWEEN_PHRASES = ",，、:：|<>@#＃";

    // The grammar of target lists and tags is that of asyndm_lib/prompt/target_list.py, down to what is a blank and
    // what a number; tests/target_grammar.json holds both to it.
    const BLANK = "[\\t-\\r\\x1c- \\x85\\xa0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]";
    const DIVIDERS = ",\n，、";
    const PIECES = new RegExp(`\\\\.|(?!${BLANK}).|\\n`, "gsu");
    const QUOTATION = new RegExp(`"[^"]*"(?=${BLANK}*(?:[${DIVIDERS}:：#＃)\\]]|$))`, "yu");
    const [ONE_BLANK, BLANKS] = [new RegExp(BLANK), new RegExp(`${BLANK}+`, "g")];
    const OCCURRENCE = new RegExp(`[#＃]${BLANK}*(\\p{Nd}+)$`, "u");
    const EMPHASIS = new RegExp(`:${BLANK}*[-+]?[.\\p{Nd}]+${BLANK}*$`, "u");
    const DIGITS = "\\d(?:_?\\d)*";
    const NUMBER = new RegExp(`^[-+]?(?:${DIGITS}(?:\\.(?:${DIGITS})?)?|\\.${DIGITS})(?:e[-+]?${DIGITS})?$`, "i");
    const LAST_OCCURRENCE = 999999999;

    /**
     * The words of a prompt, the units in which targets are looked for, its tags and its closed brackets.
     * A word's `phrase` is a number that it shares with the words that one target can hold together with it.
     * `bare` is the units' text, with a blank where something else stands between them; a unit is `at` a place in it,
     * and `parted` from the unit before if that blank makes two words of their letters.
     */
    function scan(prompt, patterns = PROMPT) {
        const words = [], units = [], tags = [], brackets = [], open = [];
        let phrase = 0, part = 0, bare = "", reach = 0;

        for (const match of pieces(prompt, patterns)) {
            const {network, args, comment, divider, word, bracket, other} = match.groups;
            const start = match.index, end = start + match[0].length;

            if (network) {
                if (start === reach) reach = end; // the WebUI takes it out
                if (network === "asyn") tags.push({start, end, entries: entries(args)});
            } else if (word) {
                const first = units.length;
                addUnits(word, start);
                words.push({start, end, first, last: units.length - 1, phrase});
            } else if (other) {
                if (BETWEEN_PHRASES.includes(other)) phrase++;
                addUnits(other, start);
            } else if (!comment) {
                phrase++;
                if (divider === "AND") part++;
                if (bracket && PARTNERS[bracket]) {
                    open.push({start, closing: PARTNERS[bracket]});
                } else if (bracket && open.length && open[open.length - 1].closing === bracket) {
                    brackets.push({start: open.pop().start, end});
                }
            }
        }
        return {prompt, words, units, bare, tags, brackets, found: new Map()};

        function addUnits(text, at) {
            for (const unit of text.matchAll(UNITS)) {
                const start = at + unit.index, key = unit[0].toLowerCase().replace("’", "'");
                const apart = start !== reach, before = units[units.length - 1]?.key ?? "";
                if (apart) bare += " ";
                const parted = apart && ENDS_IN_WORD.test(before) && BEGINS_IN_WORD.test(key);
                units.push({key, start, part, parted, at: bare.length});
                bare += key;
                reach = start + unit[0].length;
            }
        }
    }

    /** The pieces of a prompt, as matches of its pattern. */
    function* pieces(prompt, [withNetworks, withoutNetworks]) {
        // Behind the last ">" no tag can begin; to look for one takes the square of the prompt's length.
        const lastEnd = prompt.lastIndexOf(">");
        for (let at = 0, match; ; at = match.index + match[0].length) {
            const pattern = at < lastEnd ? withNetworks : withoutNetworks;
            pattern.lastIndex = at;
            match = pattern.exec(prompt);
            if (!match) return;
            yield match;
        }
    }

    /** The entries of a target list as typed, divided by the commas of any keyboard and the line ends, outside brackets and quotes. */
    function entries(list) {
        const closings = partners(list);
        const found = [];
        let start = 0, end = -1;
        for (let at = 0; at <= list.length; at++) {
            if (at > end && closings.has(at)) {
                end = closings.get(at);
            } else if (at > end && (at === list.length || DIVIDERS.includes(list[at]))) {
                const entry = stripped(list.slice(start, at));
                if (entry) found.push(entry);
                start = at + 1;
            }
        }
        return found;
    }

    /**
     * The place of each opening bracket or quote that is closed → where it is closed. An escaped bracket is an ordinary
     * character, and so is one in quotes. Quotes stand around a whole entry, but for its brackets and numbers.
     */
    function partners(text) {
        const open = [], found = new Map();
        let begins = true, resume = 0;
        for (const {0: piece, index} of text.matchAll(PIECES)) {
            if (index < resume) continue;
            QUOTATION.lastIndex = index;
            const quotation = begins && piece === '"' && text.match(QUOTATION);
            if (quotation) {
                resume = index + quotation[0].length;
                found.set(index, resume - 1);
            } else if (PARTNERS[piece]) {
                open.push({index, closing: PARTNERS[piece]});
            } else if (open.length && open[open.length - 1].closing === piece) {
                found.set(open.pop().index, index);
            }
            begins = DIVIDERS.includes(piece) || (begins && piece in PARTNERS);
        }
        return found;
    }

    /**
     * An entry's words, which occurrence of them (null: all), and its own concavity (null: none).
     * `ending` is the concavity as typed, ":0.5" or "".
     * Null for an entry that cannot be read: it is no target, and the server says why.
     */
    function parseEntry(entry) {
        const closings = partners(entry);
        let start = 0, end = entry.length; // what is left of the entry
        let ending = "", concavity = null, occurrence = null;
        const colon = behind(/[:：]([^:：()[\]]*)$/);
        if (colon) {
            const read = number(colon.match[1]);
            if (read >= 0 && read <= 1) {
                [ending, concavity] = [colon.match[0], read];
                narrow(start, colon.at);
            } else if (colon.at > 0 || !stripped(colon.match[1])) { // ":3" and ":D" are faces
                return null;
            }
        }
        // Emphasis may stand around the number as well as before it: (cat#2:1.3), (cat:1.3)#2.
        for (;;) {
            const sign = occurrence === null && behind(OCCURRENCE);
            if (sign) {
                occurrence = Math.min(number(sign.match[1]), LAST_OCCURRENCE);
                narrow(start, sign.at);
            }
            if (closings.get(start) !== end - 1) break;
            const quoted = entry[start] === '"';
            narrow(start + 1, end - 1);
            if (quoted) break;
            const weight = behind(EMPHASIS);
            if (weight) narrow(start, weight.at);
        }
        if (start === end || occurrence === 0) return null;
        return {text: entry.slice(start, end).replace(BLANKS, " "), occurrence, concavity, ending};

        /** What of a pattern stands at the end, behind the brackets or quotes that what is left begins with. */
        function behind(pattern) {
            const from = (closings.get(start) ?? start - 1) + 1;
            const match = entry.slice(from, end).match(pattern);
            return match && {match, at: from + match.index};
        }

        function narrow(first, stop) {
            [start, end] = [first, stop];
            while (start < end && ONE_BLANK.test(entry[start])) start++;
            while (start < end && ONE_BLANK.test(entry[end - 1])) end--;
        }
    }

    /** How a target list names words: in quotes where they would be read otherwise. */
    function written(text) {
        const read = entries(text).length === 1 && parseEntry(text);
        return read && read.text === text && !read.ending && read.occurrence === null ? text : `"${text}"`;
    }

    function stripped(text) {
        let start = 0, end = text.length;
        while (start < end && ONE_BLANK.test(text[start])) start++;
        while (start < end && ONE_BLANK.test(text[end - 1])) end--;
        return text.slice(start, end);
    }

    /** A number as Python reads it, in digits of any script; NaN for all else. */
    function number(typed) {
        const ascii = stripped(typed).replace(/\p{Nd}/gu, valueOf);
        return NUMBER.test(ascii) ? Number(ascii.replaceAll("_", "")) : NaN;
    }

    /** A digit's value. Digits stand in rows of ten in Unicode, from 0 to 9. */
    function valueOf(digit) {
        const code = digit.codePointAt(0);
        let first = code;
        while (/\p{Nd}/u.test(String.fromCodePoint(first - 1))) first--;
        return (code - first) % 10;
    }

    /** Where the words of `text` stand among a prompt's units: [{first, last}...]. */
    function occurrences(scanned, text) {
        const {found} = scanned;
        if (!found.has(text)) found.set(text, search(scanned, scan(text, TARGET)));
        return found.get(text);
    }

    function search({units, bare}, sought) {
        const size = sought.units.length;
        const found = [];
        for (let first = 0; size && first + size <= units.length; first++) {
            const last = first + size - 1;
            const alike = ({key, parted}, n) => units[first + n].key === key && (!n || units[first + n].parted === parted);
            if (units[first].part === units[last].part && sought.units.every(alike) && edge(first) && edge(last + 1)) {
                found.push({first, last});
                first = last;
            }
        }
        return found;

        function edge(at) {
            if (at === 0 || at === units.length) return true;
            JOINED.lastIndex = units[at].at;
            return !JOINED.test(bare);
        }
    }

    /** Every target that the tags and the field name, with the places that it means. */
    function targets(scanned, field) {
        const named = [
            ...scanned.tags.flatMap((tag, at) => tag.entries.map(entry => ({tag: at, entry}))),
            ...entries(field).map(entry => ({tag: null, entry})),
        ];
        return named.flatMap(({tag, entry}) => {
            const read = parseEntry(entry);
            if (!read) return [];
            const target = {tag, entry, ...read};
            const places = occurrences(scanned, target.text).map((place, n) => ({...place, number: n + 1}));
            const meant = places.filter(({number}) => target.occurrence === null || target.occurrence === number);
            return {...target, places: meant};
        });
    }

    /** The prompt's words as chips: {text, start, end, pressed}; the words of one target are one chip. */
    function chips(prompt, field) {
        const scanned = scan(prompt);
        const {words, units} = scanned;
        const covering = new Array(units.length);
        for (const place of targets(scanned, field).flatMap(target => target.places)) {
            for (let unit = place.first; unit <= place.last; unit++) {
                const other = covering[unit];
                if (!other || other.last - other.first < place.last - place.first) covering[unit] = place;
            }
        }
        const placeOf = word => covering.slice(word.first, word.last + 1).find(place => place);

        const found = [];
        for (let at = 0; at < words.length; at++) {
            const place = placeOf(words[at]);
            let end = at;
            while (place && end + 1 < words.length && placeOf(words[end + 1]) === place) end++;
            const [start, stop] = [words[at].start, words[end].end];
            found.push({
                text: words.slice(at, end + 1).map(word => prompt.slice(word.start, word.end)).join(" "),
                start, end: stop, first: words[at].first, last: words[end].last, pressed: Boolean(place),
            });
            at = end;
        }
        return found;
    }

    /**
     * Make what is selected in a prompt (or the word at the cursor) a target, or none where it is one.
     * Gives the new {prompt, field, start, end, marked}, or null where there is no word.
     */
    function toggle(prompt, field, start, end) {
        const scanned = scan(prompt);
        const edits = [];
        let list = field;

        const around = start === end && scanned.tags.find(tag => tag.start < start && start <= tag.end);
        const phrases = around ? [] : selected(scanned, start, end);
        if (!around && !phrases.length) return null;

        const named = targets(scanned, field);
        const covered = unit => named.some(({places}) => places.some(place => place.first <= unit && unit <= place.last));
        const marked = !around && !phrases.every(phrase => unitsOf(phrase).every(covered));
        if (around) {
            edits.push(removal(prompt, around));
        } else if (marked) {
            for (const phrase of phrases) {
                const exists = named.some(target => target.places.some(place => same(place, phrase)));
                if (!exists) edits.push(insertion(scanned, phrase, nameOf(scanned, phrase)));
            }
        } else {
            unmark();
        }
        return {...apply(prompt, edits, start, end), field: list, marked};

        function unmark() {
            const fewer = scanned.tags.map(tag => [...tag.entries]);
            const kept = entries(field);
            for (const target of named) {
                const left = target.places.filter(place => !phrases.some(phrase => overlap(place, phrase)));
                if (left.length === target.places.length) continue;
                const names = left.map(place => `${written(target.text)}#${place.number}${target.ending}`);
                if (target.tag === null) {
                    kept.splice(kept.indexOf(target.entry), 1, ...names);
                } else {
                    fewer[target.tag].splice(fewer[target.tag].indexOf(target.entry), 1);
                    left.forEach((place, n) => edits.push(insertion(scanned, place, names[n])));
                }
            }
            scanned.tags.forEach((tag, n) => {
                if (!fewer[n].length) {
                    edits.push(removal(prompt, tag));
                } else if (fewer[n].length < tag.entries.length) {
                    edits.push({at: tag.start, end: tag.end, text: `<asyn:${fewer[n].join(", ")}>`});
                }
            });
            if (kept.join() !== entries(field).join()) list = kept.join(", ");
        }
    }

    const overlap = (a, b) => a.first <= b.last && b.first <= a.last;
    const same = (a, b) => a.first === b.first && a.last === b.last;
    const unitsOf = ({first, last}) => Array.from({length: last - first + 1}, (_, n) => first + n);

    /** The phrases that a selection touches, as {first, last} units and their {start, end} in the prompt. */
    function selected({words}, start, end) {
        let touched = words.filter(word => start === end ?
            word.start <= start && start <= word.end :
            word.start < end && start < word.end);
        if (start === end) touched = touched.slice(-1);
        const phrases = [];
        for (const word of touched) {
            const before = phrases[phrases.length - 1];
            if (before?.phrase === word.phrase) {
                Object.assign(before, {last: word.last, end: word.end});
            } else {
                phrases.push({...word});
            }
        }
        return phrases;
    }

    /** How a tag names a phrase of the prompt: "dog", or "dog#2" where there are several. */
    function nameOf(scanned, phrase) {
        let text = scanned.prompt.slice(phrase.start, phrase.end);
        text = text.replace(/<\w+:[^>]+>/g, "").replace(/\s+/g, " ");
        const places = occurrences(scanned, text);
        const number = places.findIndex(place => same(place, phrase)) + 1;
        return places.length > 1 && number ? `${text}#${number}` : text;
    }

    /** A tag directly behind the words, or behind the brackets in which they stand, and behind the tags there. */
    function insertion({prompt, words, tags, brackets}, place, name) {
        const word = words.find(word => place.last <= word.last);
        const outermost = brackets
            .filter(pair => pair.start < word.start && word.end < pair.end)
            .reduce((outer, pair) => Math.max(outer, pair.end), word.end);
        let at = outermost;
        for (const tag of tags) {
            if (tag.start === at) at = tag.end;
        }
        return {at, end: at, text: `<asyn:${name}>`};
    }

    /** Without a tag, and without the blank that was typed before it. */
    function removal(prompt, {start, end}) {
        const blank = prompt[start - 1] === " " && /^([\s,.;:)\]]|$)/.test(prompt.slice(end));
        return {at: blank ? start - 1 : start, end, text: ""};
    }

    function apply(prompt, edits, start, end) {
        // From the back, so that what stands before keeps its place; at one place the last one comes first.
        for (const edit of edits.map((edit, n) => ({...edit, n})).sort((a, b) => b.at - a.at || b.n - a.n)) {
            prompt = prompt.slice(0, edit.at) + edit.text + prompt.slice(edit.end);
            [start, end] = [start, end].map(at => at < edit.end || at === edit.at ? Math.min(at, edit.at) :
                at + edit.text.length - (edit.end - edit.at));
        }
        return {prompt, start, end};
    }

    /** The word that a cursor is in or beside and that a tag follows directly, outside brackets; or undefined. */
    function taggedWord(prompt, at) {
        const {words, tags, brackets} = scan(prompt);
        return words.find(word => word.start <= at && at <= word.end &&
            tags.some(tag => tag.start === word.end) &&
            !brackets.some(pair => pair.start < word.start && word.end < pair.end));
    }

    Object.assign(asyndm, {scan, occurrences, chips, toggle, taggedWord, entries, parseEntry});
})(globalThis.asyndm ??= {});
