#!/usr/bin/env python3
"""Fails when a file includes a layer that the table "Arrows" of docs/design.md does not allow it."""
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
SRC = ROOT / "src" / "krait"


def read_table():
    """{layer: set of layers it may include}, from rows "| no. | layer | may use | must not know |"."""
    allowed = {}
    inside = False
    for line in (ROOT / "docs" / "design.md").read_text().splitlines():
        inside = inside or line.startswith("### Arrows")
        if inside and line.startswith("**"):
            break
        cells = [c.strip() for c in line.strip("|").split("|")]
        if inside and len(cells) == 4 and cells[0].isdigit() and cells[1] != "apps, tests, bench":
            allowed[cells[1]] = {u.strip() for u in cells[2].split(",")} - {"std"}
    return allowed


def layer_of(path, layers):
    parts = path.split("/")
    for depth in (2, 1):
        name = "/".join(parts[:depth])
        if name in layers:
            return name
    if parts[0] == "backends":
        return "backends/*"
    return parts[0]


def main():
    allowed = read_table()
    errors = []
    for file in sorted(SRC.rglob("*")):
        if file.suffix not in (".h", ".cc", ".cu", ".cuh"):
            continue
        here = file.relative_to(SRC).as_posix()
        layer = layer_of(here, allowed)
        if layer not in allowed:
            errors.append(f"{here}: layer '{layer}' is not in the table of docs/design.md")
            continue
        for number, line in enumerate(file.read_text().splitlines(), 1):
            match = re.match(r'\s*#\s*include\s+[<"]krait/([^">]+)[">]', line)
            if not match:
                continue
            target = match.group(1)
            other = layer_of(target, allowed)
            where = f"{here}:{number}"
            same = other == layer
            if layer == "mixers" and same and "/" in here[len("mixers/"):] and "/" in target[len("mixers/"):]:
                if here.split("/")[1] != target.split("/")[1]:
                    errors.append(f"{where}: a mixer includes another mixer ({target})")
            elif layer == "backends/*" and same and here.split("/")[1] != target.split("/")[1]:
                errors.append(f"{where}: a backend includes another backend ({target})")
            elif not same and other != "core" and other not in allowed[layer]:
                errors.append(f"{where}: {layer} may not include {other} ({target})")
    for e in errors:
        print(f"layers: {e}", file=sys.stderr)
    if not errors:
        print(f"layers: ok ({len(allowed)} layers)")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
