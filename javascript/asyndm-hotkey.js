/* A key such as "Alt+M", as a person writes it. */

(function(asyndm) {
    "use strict";

    const MODIFIERS = {alt: "altKey", option: "altKey", ctrl: "ctrlKey", control: "ctrlKey", shift: "shiftKey",
        meta: "metaKey", cmd: "metaKey", win: "metaKey"};
    const FLAGS = ["altKey", "ctrlKey", "shiftKey", "metaKey"];

    /** Whether a keydown event is the key that `hotkey` names; an empty one names none. */
    function isHotkey(event, hotkey) {
        const names = hotkey.split("+").map(name => name.trim().toLowerCase());
        const key = names.pop();
        const flags = names.map(name => MODIFIERS[name]);
        if (!key || flags.includes(undefined)) return false;
        if (FLAGS.some(flag => event[flag] !== flags.includes(flag))) return false;
        // With Option a Mac types another character: there the key is told by its place.
        return event.key.toLowerCase() === key || (event.altKey && event.code === `Key${key.toUpperCase()}`);
    }

    Object.assign(asyndm, {isHotkey});
})(globalThis.asyndm ??= {});
