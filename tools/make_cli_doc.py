#!/usr/bin/env python3
"""docs/cli.md from the program's own --help texts.  tools/make_cli_doc.py [--check]  (after ./dev build)"""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
KRAIT = ROOT / "build" / "krait"
INTRO = """# Command line

Made by `tools/make_cli_doc.py` from the program's own `--help`; `./dev test` checks that it is current.

Exit codes: 0 ok, 1 failed, 2 wrong usage, 3 bad model or data, 130 ended by Ctrl-C, 143 by SIGTERM. Progress bars go to stderr and only to a terminal (`train` tells its
steps anywhere); `--json` prints one JSON document on stdout.
"""


def help_of(*command):
    text = subprocess.run([KRAIT, *command, "--help"], capture_output=True, text=True, check=True).stdout
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


def commands(text):
    """Names under the heading "Subcommands:" of a help text."""
    _, _, below = text.partition("ubcommands:\n")
    return re.findall(r"^  ([a-z][a-z0-9-]*)", below, flags=re.M)


def document():
    top = help_of()
    parts = [INTRO, "```\n" + top + "\n```\n"]
    for name in commands(top):
        text = help_of(name)
        parts.append(f"## krait {name}\n```\n{text}\n```\n")
        for sub in commands(text):
            parts.append(f"### krait {name} {sub}\n```\n{help_of(name, sub)}\n```\n")
    return "\n".join(parts)


def main():
    path = ROOT / "docs" / "cli.md"
    text = document()
    if sys.argv[1:] == ["--check"]:
        if not path.exists() or path.read_text() != text:
            sys.exit("cli: docs/cli.md is not what --help says; run tools/make_cli_doc.py")
        print("cli: docs/cli.md is current")
    else:
        path.write_text(text)


if __name__ == "__main__":
    main()
