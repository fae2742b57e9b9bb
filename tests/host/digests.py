"""Compare the pictures of two runs of the host suite, recorded with ``ASYNDM_DIGESTS``.

    python tests/host/digests.py BASE NEW

An answer is compared with the one to the same request, from the same server in the same test, as
often as it was asked there. Exits with 1 if any differs, or is there in one file only.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

Key = tuple[str, str, str, str, int]
COMPARED = ("status", "pictures", "infotext")


def read(path: str) -> dict[Key, dict[str, Any]]:
    """Its lines by test, server, kind, request and occurrence."""
    lines, seen = {}, Counter()
    for text in Path(path).read_text().splitlines():
        line = json.loads(text)
        asked = (line["test"], line["server"], line["kind"], line["request"])
        lines[(*asked, seen[asked])] = line
        seen[asked] += 1
    return lines


def main(base_path: str, new_path: str) -> int:
    base, new = read(base_path), read(new_path)
    both = [key for key in base if key in new]
    different = {key: [part for part in COMPARED if base[key][part] != new[key][part]] for key in both}
    different = {key: parts for key, parts in different.items() if parts}
    missing, added = [key for key in base if key not in new], [key for key in new if key not in base]
    for heading, keys in (("different", different), ("only in BASE", missing), ("only in NEW", added)):
        for (test, server), count in Counter(key[:2] for key in keys).items():
            parts = sorted({part for key in different if key[:2] == (test, server) for part in different[key]})
            print(f"{heading}: {test} [{server}]: {count}", *(parts if keys is different else ()))
    print(
        f"{len(both)} compared: {len(both) - len(different)} equal, {len(different)} different; "
        f"{len(missing)} only in BASE, {len(added)} only in NEW"
    )
    return int(bool(different or missing or added))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
