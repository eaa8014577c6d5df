#!/usr/bin/env python3
"""Measures Krait and llama.cpp on the same files, interleaved in short slices, and writes a table and a plot.

usage: bench/compare_llamacpp.py --python PEER/bin/python [--out FOLDER] [--quick]     after ./dev build; see bench/README.md
"""
import argparse
import itertools
import json
import os
import pathlib
import statistics
import sys
import tempfile
import time

import compare_report as report
from compare_engines import HOW_TO_GET_AVX2, Failure, Krait, LlamaBench, LlamaPython, Test
from compare_models import Models, divergence

ROOT = pathlib.Path(__file__).resolve().parent.parent
MODELS = ["mamba-130m", "mamba2-130m", "mamba-370m", "mamba2-370m", "mamba-1.4b", "mamba3-siso-187m"]
TYPES = ["BF16", "Q8_0", "Q4_K_M"]
TESTS = ["pp512", "pp2048", "tg128", "tg64x16"]
QUICK = {"models": MODELS[:2], "types": TYPES, "tests": ["pp512", "tg128", "tg64x16"], "minutes": 5, "slice": 1.5}
FULL = {"models": MODELS, "types": TYPES, "tests": TESTS, "minutes": 25, "slice": 2.5}
LEAST_ROUNDS, MOST_ROUNDS = 3, 9


def say(text):
    print(text, file=sys.stderr, flush=True)


class Load:
    """How much of the CPUs' time others took: a measure of how far the figures can be trusted."""

    def __init__(self):
        self.start = self.now()

    @staticmethod
    def now():
        ticks = [int(x) for x in pathlib.Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
        t = os.times()
        busy = (sum(ticks) - ticks[3] - ticks[4]) / os.sysconf("SC_CLK_TCK")  # all but idle and iowait; stolen time is busy
        return busy, sum(ticks) / os.sysconf("SC_CLK_TCK"), t.user + t.system + t.children_user + t.children_system

    def of_others(self, running):
        """`running`: pids of children that have not ended, whose time os.times() does not have."""
        own = 0.0
        for pid in running:
            fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            own += (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
        busy, total, waited = (b - a for a, b in zip(self.start, self.now()))
        return max(0.0, busy - waited - own) / total


def cell_seconds(size, test, roof, slice_seconds, has_peer):
    """A guess of one round of a cell from the bytes of the 16 bit weights, for the estimate before any is measured:
    llama.cpp at 30 % of the f32 peak or of the bandwidth, Krait at three times that, run twice (it warms up)."""
    if test.prompt:
        rate = 0.3e9 * roof["f32_gflops"] / size
    else:
        rate = 0.3e9 * roof["read_gb_per_s"] / size * (1.5 if test.batch > 1 else 1)
    one = test.fitting(rate, slice_seconds) * test.batch / rate
    return one * (1 + 2 / 3 if has_peer else 2 / 3) + 0.5 + size / 5e9


class Comparison:
    def __init__(self, a, krait, peer, models):
        self.a, self.krait, self.peer, self.models = a, krait, peer, models
        self.tests = [Test(t) for t in a.tests]
        self.rows, self.files, self.failed = [], [], 0

    def cells(self):
        return len(self.a.models) * len(self.a.types) * len(self.tests)

    def estimate(self, roof):
        total = 0
        for model in self.a.models:
            size = self.models.base(model).stat().st_size
            for test in self.tests:
                one = cell_seconds(size, test, roof, self.a.slice, self.models.has_peer(model))
                total += len(self.a.types) * (2 + (self.a.rounds or LEAST_ROUNDS) * one)
        return total

    def run(self):
        self.begun = time.monotonic()
        for model in self.a.models:
            for kind in self.a.types:
                self.measure_file(model, kind)
            if self.a.cache is None:
                self.models.forget(model)

    def measure_file(self, model, kind):
        name, has_peer = self.models.name(model), self.models.has_peer(model)
        try:
            file = self.models.file(model, kind)
        except Failure as e:
            return self.not_measured(name, kind, f"no file: {e}")
        entry = {"model": name, "type": kind, "file": file.name, "bytes": file.stat().st_size,
                 "made_by": self.models.made_by(kind), "kl": None}
        self.files.append(entry)
        say(f"== {name} {kind}: {file.name}, {entry['bytes'] / 1e6:.0f} MB, made by {entry['made_by']}")
        broken = {}
        for engine in (self.krait, self.peer) if has_peer else (self.krait,):
            try:
                engine.load(file)
            except Failure as e:
                broken[engine] = str(e)
        if has_peer and not broken and isinstance(self.peer, LlamaPython):
            try:
                entry["kl"] = divergence(self.krait, self.peer, file)
                say(f"   mean KL of llama.cpp's logits from Krait's: {entry['kl']:.1e}")
                if not entry["kl"] <= report.SAME:  # a NaN, too
                    say(f"   that is more than {report.SAME:g}: the two do not compute the same model")
                    self.failed += 1
            except Failure as e:
                broken[self.krait] = str(e)
        for test in self.tests:
            self.rows.append({"model": name, "type": kind, **self.measure_cell(test, has_peer, broken)})
            say("   " + report.line(self.rows[-1]))

    def not_measured(self, name, kind, why):
        say(f"== {name} {kind}: {why}")
        self.failed += 1
        for test in self.tests:
            self.rows.append({"model": name, "type": kind, **empty_row(test), "note": why})

    def measure_cell(self, test, has_peer, broken):
        row, notes = empty_row(test), []
        engines = {"krait": self.krait, "llama": self.peer} if has_peer else {"krait": self.krait}
        rates = {}
        for side, engine in list(engines.items()):  # short, uncounted: warms files and threads up, tells the speed
            try:
                if engine in broken:
                    raise Failure(broken[engine])
                rates[side] = engine.measure(test, test.probe())
                if side == "krait":
                    rates[side] = rates[side][0]
            except Failure as e:
                notes.append(f"{side}: {e}")
                self.failed += 1
                del engines[side]
        row["note"] = "; ".join(notes)
        if not engines:
            return row
        row["count"] = test.fitting(min(rates.values()), self.a.slice)
        bound, took, rounds = None, [], self.a.rounds or LEAST_ROUNDS
        while len(took) < rounds:
            start = time.monotonic()
            order = list(engines) if len(took) % 2 == 0 else list(engines)[::-1]  # A B B A: a drift cancels
            try:
                bound = self.measure_round(row, order, test, bound)
            except Failure as e:
                row["note"] = str(e)
                self.failed += 1
                break
            took.append(time.monotonic() - start)
            if not self.a.rounds:
                rounds = min(MOST_ROUNDS, max(LEAST_ROUNDS, int(self.share() / statistics.median(took))))
        return summarize(row, bound)

    def measure_round(self, row, order, test, bound):
        now = {}
        for side in order:
            if side == "llama":
                now[side] = self.peer.measure(test, row["count"])
            else:
                now[side], share = self.krait.measure(test, row["count"], bound is None)
                bound = bound or now[side] / share
        for side in now:  # a round counts whole or not at all
            row[side].append(now[side])
        return bound

    def share(self):
        """Seconds for each of the cells that are left."""
        left = 60 * self.a.minutes - (time.monotonic() - self.begun)
        return left / max(1, self.cells() - len(self.rows))


def empty_row(test):
    return {"test": test.name, "full": test.count, "count": None, "krait": [], "llama": [], "krait_median": None,
            "llama_median": None, "ratio": None, "ratio_least": None, "ratio_most": None, "roofline_share": None, "note": ""}


def summarize(row, bound):
    for side in ("krait", "llama"):
        if row[side]:
            row[side + "_median"] = statistics.median(row[side])
    if row["krait"] and bound:
        row["roofline_share"] = row["krait_median"] / bound
    if row["krait"] and row["llama"]:
        ratios = [k / l for k, l in zip(row["krait"], row["llama"])]
        row.update(ratio=statistics.median(ratios), ratio_least=min(ratios), ratio_most=max(ratios))
    return row


def check_cpu(a, peer):
    """A peer that uses other instructions than asked for would make the comparison mean something else."""
    system = peer.facts["system"]
    if not system:
        return "The instructions llama-bench was built for are not known."
    wide = "AVX512 = 1" in system
    if a.cpu == "avx2" and wide:
        raise Failure("--cpu avx2 needs a llama.cpp without AVX-512, this one has it; " + HOW_TO_GET_AVX2)
    if a.cpu == "auto" and not wide and " avx512" in pathlib.Path("/proc/cpuinfo").read_text():
        return "llama.cpp was built without AVX-512, which this CPU has: this is not its best."
    return ""


def parse():
    p = argparse.ArgumentParser(description=__doc__.split("\n")[0], allow_abbrev=False)
    p.add_argument("--python", help="interpreter that has llama-cpp-python (default: this one)")
    p.add_argument("--llama-bench", help="a llama-bench program instead; llama-batched-bench and llama-quantize beside it")
    p.add_argument("--krait", default=ROOT / "build" / "krait", type=pathlib.Path, help="the program (default: build/krait)")
    p.add_argument("--krait-args", default="", help="more arguments of `krait bench` and `krait logits`, as '--compute bf16'")
    p.add_argument("--cpu", default="auto", choices=["auto", "avx512", "avx2", "scalar"],
                   help="Krait's kernels; avx2: the peer must be such a build")
    p.add_argument("--quick", action="store_true", help=f"{', '.join(QUICK['models'])}; {', '.join(QUICK['tests'])}; 5 minutes")
    p.add_argument("--models", help=f"presets or paths of checkpoints (default {','.join(MODELS)})")
    p.add_argument("--types", help=f"(default {','.join(TYPES)})")
    p.add_argument("--tests", help=f"(default {','.join(TESTS)})")
    p.add_argument("--quantizer", default="auto", choices=["auto", "krait", "llama.cpp"], help="auto: krait, if it has the verb")
    p.add_argument("--cache", type=pathlib.Path, help="folder that keeps the files (default: a temporary one)")
    p.add_argument("--out", type=pathlib.Path, help="folder for results.json, table.md and ratio.svg")
    p.add_argument("--cores", help="CPUs both are pinned to, as 0,1 (default: all this process may use)")
    p.add_argument("--threads", type=int, help="(default: as many as cores)")
    p.add_argument("--minutes", type=float, help="budget of the measurements, from which the rounds follow (25; --quick: 5)")
    p.add_argument("--rounds", type=int, help=f"rounds of every cell instead of {LEAST_ROUNDS} to {MOST_ROUNDS} by the budget")
    p.add_argument("--slice", type=float, help="seconds of a slice (2.5; --quick: 1.5): tests that take longer are cut short")
    p.add_argument("--prepare", action="store_true", help="make the files (in --cache), say how long it will take, and end")
    a = p.parse_args()
    if a.python and a.llama_bench:
        p.error("--python and --llama-bench exclude each other")
    if a.prepare and not a.cache:
        p.error("--prepare needs --cache")
    for key, value in (QUICK if a.quick else FULL).items():
        given = getattr(a, key)
        if isinstance(value, list):
            given = [x for x in given.split(",") if x] if given is not None else value
        setattr(a, key, value if given is None else given)
    for key in ("models", "types", "tests"):
        if not getattr(a, key):
            p.error(f"--{key} names none")
    for key in ("threads", "rounds", "minutes", "slice"):
        if getattr(a, key) is not None and getattr(a, key) <= 0:
            p.error(f"--{key} is {getattr(a, key)}, expected more than 0")
    return a


def prepare(a):
    """Pins this process, and with it all it starts."""
    if a.cores is not None:
        try:
            os.sched_setaffinity(0, {int(c) for c in a.cores.split(",")})
        except (ValueError, OSError, OverflowError) as e:
            have = ",".join(str(c) for c in sorted(os.sched_getaffinity(0)))
            raise Failure(f"--cores {a.cores}: expected some of {have} ({e})") from e
    names = {}
    for model in a.models:
        other = names.setdefault(pathlib.Path(model).name.removesuffix(".gguf"), model)
        if other != model:
            raise Failure(f"--models {other} and {model} have the same name, and their files would be the same")
    cores = sorted(os.sched_getaffinity(0))
    a.threads = a.threads or len(cores)
    if not a.krait.exists():
        raise Failure(f"there is no {a.krait}: ./dev build")
    for t in a.tests:
        Test(t)
    arguments = a.krait_args.split() + ([] if a.cpu == "auto" else ["--kernels", f"cpu-{a.cpu}"])
    krait = Krait(a.krait, a.threads, arguments)
    peer = (LlamaBench(a.llama_bench, a.threads, sys.argv[0]) if a.llama_bench else
            LlamaPython(a.python or sys.executable, a.threads, sys.argv[0]))
    return cores, krait, peer


def compare(a, scratch):
    cores, krait, peer = prepare(a)
    notes = [n for n in [check_cpu(a, peer)] if n]
    c = Comparison(a, krait, peer, Models(a.cache or scratch, krait, peer, a.quantizer))
    before = krait.roofline()
    say(report.roofline_line("machine before", before))
    guess = c.estimate(before) / 60
    say(f"{c.cells()} cells, at least {a.rounds or LEAST_ROUNDS} rounds of each: about {guess:.0f} minutes by the machine's "
        f"figures" + ("" if a.rounds else f"; what remains of {a.minutes:g} minutes goes into more rounds"))
    if a.prepare:
        for model, kind in itertools.product(a.models, a.types):
            say(f"{c.models.file(model, kind)}")
        return 0
    load = Load()
    try:
        c.run()
    except KeyboardInterrupt:
        notes.append("Ended by Ctrl-C before the end.")
    others = load.of_others([peer.process.pid] if isinstance(peer, LlamaPython) else [])
    peer.close()
    after = krait.roofline()
    say(report.roofline_line("machine after", after))
    results = {"date": time.strftime("%Y-%m-%d"), "cores": cores, "threads": a.threads, "cpu_option": a.cpu,
               "krait": krait.facts, "krait_arguments": krait.arguments, "llama": peer.facts,
               "minutes": (time.monotonic() - c.begun) / 60,
               "roofline_before": before, "roofline_after": after, "load_of_others": others, "notes": notes,
               "files": c.files, "rows": c.rows}
    print(report.markdown(results))
    if a.out:
        a.out.mkdir(parents=True, exist_ok=True)
        (a.out / "results.json").write_text(json.dumps(results, indent=1) + "\n")
        (a.out / "table.md").write_text(report.markdown(results))
        (a.out / "ratio.svg").write_text(report.svg(results))
        say(f"wrote results.json, table.md and ratio.svg in {a.out}")
    return 1 if c.failed or len(c.rows) < c.cells() else 0


def main():
    try:
        a = parse()
        with tempfile.TemporaryDirectory(prefix="krait-compare-") as scratch:
            return compare(a, scratch)
    except Failure as e:
        print(f"compare: {e}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
