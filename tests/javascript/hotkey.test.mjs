import assert from "node:assert/strict";
import {test} from "node:test";

import "../../javascript/asyndm-hotkey.js";

const {isHotkey} = globalThis.asyndm;
const NONE = {altKey: false, ctrlKey: false, shiftKey: false, metaKey: false};

test("keys", () => {
    const altM = {...NONE, altKey: true, key: "m", code: "KeyM"};
    assert.ok(isHotkey(altM, "Alt+M"));
    assert.ok(isHotkey(altM, " alt + m "));
    assert.ok(isHotkey({...altM, key: "µ"}, "Alt+M"), "on a Mac");
    assert.ok(isHotkey({...NONE, key: "F8", code: "F8"}, "F8"));
    assert.ok(isHotkey({...NONE, ctrlKey: true, shiftKey: true, key: "K", code: "KeyK"}, "Ctrl+Shift+K"));

    assert.ok(!isHotkey({...altM, ctrlKey: true}, "Alt+M"), "AltGr");
    assert.ok(!isHotkey({...NONE, key: "m", code: "KeyM"}, "Alt+M"));
    for (const hotkey of ["", "Alt+", "+", "Hyper+M", "Alt+T"]) assert.ok(!isHotkey(altM, hotkey), hotkey);
});
