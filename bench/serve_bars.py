#!/usr/bin/env python3
"""Figures of the server: turns of a long conversation, equality of answers, load. Prints a table.

  python3 bench/serve_bars.py [--krait build/krait] [--model MODEL] [--only turns,equality,load,share,idle] [--turns 1000]
                              [--requests 200] [--minutes 10] [--streams 32] [--rounds 9]
"""
import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import tempfile
import threading
import time

from serve_lib import Redis, Server, metric

WORDS = "the night was dark and a man came down from the hill with his old dog to see what the sea had brought".split()


def say(name, value, bar=""):
    print(f"{name:58} {value:>22}   {bar}", flush=True)


def words(rng, n):
    return " ".join(rng.choice(WORDS) for _ in range(n))


def median_ms(seconds):
    return statistics.median(seconds) * 1e3


def early_and_late(name, times, bar):
    early, late = median_ms(times[1:21]), median_ms(times[-20:])
    say(f"{name}: first token, turns 2-21", f"{early:.1f} ms")
    say(f"{name}: first token, last 20 of {len(times)} turns", f"{late:.1f} ms = {late / early:.2f}x", bar)


def beside_each_other(name, turn, begin, n):
    """Turns of the long conversation and turns 2 to 21 of new ones, by turns: a busy machine is as busy for both."""
    late, early = [], []
    for k in range(10):
        new = begin(f"new{k}")
        new(0)
        for i in range(20):
            late.append(turn(n + 20 * k + i))
            early.append(new(1 + i))
    for what, q in ("median", 0.5), ("quartile", 0.25):
        x, y = (sorted(v)[int(q * len(v))] * 1e3 for v in (late, early))
        say(f"{name}: turns {n}-{n + 200} beside turns 2-21, {what}", f"{x:.2f}, {y:.2f} ms = {x / y:.2f}x", "<= 1.2x")


def turns(a):
    """1,000 turns: by conversation, by previous response, by plain history."""
    with tempfile.TemporaryDirectory() as folder:
        s = Server(a.krait, a.model, "--state-dir", folder, "--checkpoint-every", 100000)
        rng = random.Random(1)

        def by_conversation(name):
            return lambda i: s.stream("/generate", prompt=words(rng, 12), conversation_id=name, max_tokens=8, seed=i)[0]

        def by_response(_):
            previous = {}

            def turn(i):
                first, lines = s.stream("/v1/responses", model=s.model, input=words(rng, 12), max_output_tokens=8, seed=i, **previous)
                previous["previous_response_id"] = json.loads(lines[-1])["response"]["id"]
                return first
            return turn

        for name, begin in ("conversation_id", by_conversation), ("previous_response_id", by_response):
            turn = begin("long")
            times = [turn(i) for i in range(a.turns)]
            early_and_late(name, times, "<= 1.2x")
            beside_each_other(name, turn, begin, a.turns)
        times, messages, extra, worst = [], [], 0, 0
        before = None
        for i in range(a.turns):
            messages.append({"role": "user", "content": words(rng, 12)})
            first, lines = s.stream("/v1/chat/completions", model=s.model, messages=messages, max_tokens=8, seed=i,
                                    stream_options={"include_usage": True})
            times.append(first)
            usage = json.loads(lines[-2])["usage"]
            text = "".join(c["choices"][0]["delta"].get("content") or "" for c in map(json.loads, lines[:-2]) if c["choices"])
            read = usage["prompt_tokens"] - usage["prompt_tokens_details"]["cached_tokens"]
            if before is not None:
                new = usage["prompt_tokens"] - before  # answer and message, as the history has them
                extra = max(extra, read - new)
                worst = max(worst, read)
            before = usage["prompt_tokens"]
            messages.append({"role": "assistant", "content": text})
        early_and_late("plain history", times, "")
        say("plain history: most tokens read in a turn", f"{worst}", "new tokens only")
        say("plain history: most beyond answer + message", f"{extra}", "<= 0")
        s.stop()


def make_requests(n):
    rng = random.Random(7)
    out = []
    for i in range(n):
        out.append({"prompt": words(rng, rng.choice([2, 8, 30, 120, 500])), "max_tokens": rng.choice([4, 16, 40]), "seed": i,
                    "temperature": rng.choice([0, 0.7, 1.0]), "top_p": 0.9, "top_k": rng.choice([0, 20])})
    return out


def in_parallel(jobs, threads):
    results, it, lock = [None] * len(jobs), iter(range(len(jobs))), threading.Lock()

    def work():
        while True:
            with lock:
                i = next(it, None)
            if i is None:
                return
            results[i] = jobs[i]()
    pool = [threading.Thread(target=work) for _ in range(threads)]
    for t in pool:
        t.start()
    for t in pool:
        t.join()
    return results


def equality(a):
    """Every request is a conversation of two turns; the second answer says whether everything before was the same."""
    asks = make_requests(a.requests)

    def two_turns(first, second, i, name):
        one = first().post("/generate", **asks[i], conversation_id=f"{name}{i}")
        two = second().post("/generate", **{**asks[i], "prompt": " And then", "max_tokens": 12}, conversation_id=f"{name}{i}")
        return one["text"], two["text"]

    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as redis_folder:
        redis = Redis(redis_folder)
        s = Server(a.krait, a.model, "--state-dir", folder, "--redis", redis.url, "--queue", 1000, "--slots", 16, "--max-wait", 600)
        alone = [two_turns(lambda: s, lambda: s, i, "alone") for i in range(a.requests)]
        batch = in_parallel([lambda i=i: two_turns(lambda: s, lambda: s, i, "batch") for i in range(a.requests)], 64)
        say("equal in a full batch", f"{sum(x == y for x, y in zip(alone, batch))}/{a.requests}", "all")

        def first(i, name):
            return s.post("/generate", **asks[i], conversation_id=f"{name}{i}")["text"]

        def second(server, i, name):
            return server.post("/generate", **{**asks[i], "prompt": " And then", "max_tokens": 12}, conversation_id=f"{name}{i}")["text"]
        ones = in_parallel([lambda i=i: first(i, "again") for i in range(a.requests)], 64)
        shared = in_parallel([lambda i=i: first(i, "shared") for i in range(a.requests)], 64)
        s.stop()
        s.start()
        twos = in_parallel([lambda i=i: second(s, i, "again") for i in range(a.requests)], 64)
        say("equal across a restart", f"{sum((x, y) == z for x, y, z in zip(ones, twos, alone))}/{a.requests}", "all")
        other = Server(a.krait, a.model, "--redis", redis.url, "--queue", 1000, "--max-wait", 600)
        twos = in_parallel([lambda i=i: second(other, i, "shared") for i in range(a.requests)], 64)
        say("equal on a second replica, through Redis", f"{sum((x, y) == z for x, y, z in zip(shared, twos, alone))}/{a.requests}", "all")
        other.stop()
        s.stop()
        redis.stop()


def bench_serve(a, s, *options):
    out = subprocess.run([a.krait, "bench", "serve", f"http://127.0.0.1:{s.port}", "--model", s.model, "--json", *map(str, options)],
                         capture_output=True, text=True)
    return json.loads(out.stdout)


def decode_speed(a, repeats):
    """tokens/s of `krait bench` with as many sequences as there are streams."""
    out = subprocess.run([a.krait, "bench", *([a.model] if a.model else []), "-p", "0", "-n", "64", "-b", str(a.streams), "-r", str(repeats),
                          "--json"], capture_output=True, text=True, check=True)
    return next(r["tokens_per_second"] for r in json.loads(out.stdout)["rows"] if r["test"] == f"tg64x{a.streams}")


def share(a):
    """The share of `load`, where a machine's speed changes from second to second: the server for 1.3 s, then `krait bench` while the server
    and its client are stopped, and so on."""
    s = Server(a.krait, a.model, "--slots", a.streams, "--queue", 1000)
    client = subprocess.Popen([a.krait, "bench", "serve", f"http://127.0.0.1:{s.port}", "--model", s.model, "--streams", str(a.streams),
                               "--duration", "3600", "--prompts", "8,32", "--answers", "64,256"], stdout=subprocess.DEVNULL)
    time.sleep(2)

    def signal_both(which):
        for p in client, s.process:
            p.send_signal(which)

    def tokens():
        return time.monotonic(), metric(s, "mamba_tokens_generated_total"), metric(s, "mamba_prompt_tokens_total")
    served, prompts, bench = [], [], []
    try:
        for _ in range(a.rounds):
            signal_both(signal.SIGSTOP)
            bench.append(decode_speed(a, 1))
            signal_both(signal.SIGCONT)
            time.sleep(0.1)
            before = tokens()
            time.sleep(1.3)
            after = tokens()
            served.append((after[1] - before[1]) / (after[0] - before[0]))
            prompts.append((after[2] - before[2]) / (after[0] - before[0]))
        signal_both(signal.SIGSTOP)
        bench.append(decode_speed(a, 1))
    finally:
        signal_both(signal.SIGCONT)
        client.kill()
        client.wait()
        s.stop()
    served, prompts, bench = map(statistics.mean, (served, prompts, bench))
    say("by turns: tokens/s of the server, of `krait bench`", f"{served:.0f}, {bench:.0f}")
    say("share", f"{100 * served / bench:.0f} %", ">= 85 %")
    say("share, with the tokens of prompts that the server read", f"{100 * (served + prompts) / bench:.0f} %")


def load(a):
    before = decode_speed(a, 3)
    s = Server(a.krait, a.model, "--slots", a.streams, "--queue", 1000)
    idle = s.processor_seconds()
    r = bench_serve(a, s, "--streams", a.streams, "--duration", a.minutes * 60, "--prompts", "8,32", "--answers", "64,256")
    server, client, span = s.processor_seconds() - idle, r["client_cpu_seconds"], r["seconds"]
    say(f"{a.streams} streams for {a.minutes:g} min: requests, failed", f"{r['requests']}, {r['failed']}", "0 failed")
    after = decode_speed(a, 3)
    bench = statistics.mean([before, after])
    say("tokens/s of the server, of `krait bench`", f"{r['tokens_per_second']:.0f}, {bench:.0f}")
    say("share", f"{100 * r['tokens_per_second'] / bench:.0f} %", ">= 85 %")
    cpus = len(os.sched_getaffinity(0))
    say(f"of {cpus} CPUs: server, load client", f"{100 * server / span / cpus:.0f} %, {100 * client / span / cpus:.0f} %", "the client shares them")
    say("share of what the client left", f"{100 * r['tokens_per_second'] / bench / (1 - client / span / cpus):.0f} %")
    stop = threading.Event()

    def long_prompts():
        rng = random.Random(3)
        while not stop.is_set():
            s.post("/v1/completions", model=s.model, prompt=[rng.randrange(1, 256) for _ in range(4096)], max_tokens=1)
            time.sleep(0.2)
    t = threading.Thread(target=long_prompts)
    t.start()
    r = bench_serve(a, s, "--streams", 8, "--duration", 30, "--prompts", "16", "--answers", "128")
    stop.set()
    t.join()
    b = r["between_tokens_ms"]
    say("between tokens while 4k prompts arrive: p50, p99", f"{b['p50']:.1f}, {b['p99']:.1f} ms = {b['p99'] / b['p50']:.1f}x", "<= 4x")
    free, slots = metric(s, "mamba_state_slots_free"), metric(s, "mamba_state_slots")
    say("slots free afterwards", f"{free:.0f} of {slots:.0f}", "all")
    s.stop()


def idle(a):
    """1,000 clients that wait for a slot with their stream open."""
    import socket
    s = Server(a.krait, a.model, "--slots", 1, "--queue", 2000, "--max-wait", 600)
    body = json.dumps({"prompt": "x", "max_tokens": 1000000, "ignore_eos": True, "stream": True})
    head = f"POST /generate HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()

    def open_one():
        c = socket.create_connection(("127.0.0.1", s.port))
        c.sendall(head)
        return c
    first = open_one()
    time.sleep(1)
    before = s.resident()
    waiting = [open_one() for _ in range(1000)]
    time.sleep(3)
    say("1,000 idle connections", f"{s.resident() - before:.1f} MiB", "<= 30 MB")
    for c in [first, *waiting]:
        c.close()
    time.sleep(2)
    say("slots free after they went", f"{metric(s, 'mamba_state_slots_free'):.0f} of 1, {metric(s, 'mamba_queue_requests'):.0f} waiting", "1, 0")
    s.stop()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--krait", default="build/krait")
    p.add_argument("--model", default="")
    p.add_argument("--only", default="turns,equality,load,share,idle")
    p.add_argument("--turns", type=int, default=1000)
    p.add_argument("--requests", type=int, default=200)
    p.add_argument("--minutes", type=float, default=10)
    p.add_argument("--streams", type=int, default=32)
    p.add_argument("--rounds", type=int, default=9)
    a = p.parse_args()
    a.krait = os.path.abspath(a.krait)
    for name in a.only.split(","):
        {"turns": turns, "equality": equality, "load": load, "share": share, "idle": idle}[name](a)


if __name__ == "__main__":
    main()
