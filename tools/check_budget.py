#!/usr/bin/env python3
"""File budget (docs/design.md §6): 400 lines are wanted, 800 fail; no line is over 120 columns, but for
raw strings (regular expressions are kept whole)."""
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
KINDS = {".h", ".cc", ".cu", ".cuh", ".py", ".sh", ".cmake"}
WANTED, MOST, COLUMNS = 400, 800, 120


def files():
    try:
        listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True)
        return [ROOT / f for f in listed.stdout.splitlines()]
    except (OSError, subprocess.CalledProcessError):  # not a checkout
        return [f for d in ("src", "apps", "tests", "bench", "tools") for f in (ROOT / d).rglob("*")]


def main():
    bad = 0
    for file in sorted(files()):
        if file.suffix not in KINDS or not file.is_file():
            continue
        lines = file.read_text().splitlines()
        name = file.relative_to(ROOT)
        if len(lines) > MOST:
            print(f"budget: {name} has {len(lines)} lines, at most {MOST} are allowed", file=sys.stderr)
            bad += 1
        elif len(lines) > WANTED:
            print(f"budget: note: {name} has {len(lines)} lines, {WANTED} are wanted")
        for number, line in enumerate(lines, 1):
            if len(line) > COLUMNS and file.suffix != ".py" and 'R"' not in line:
                print(f"budget: {name}:{number} has {len(line)} columns, at most {COLUMNS} are allowed", file=sys.stderr)
                bad += 1
    if bad == 0:
        print("budget: ok")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
