#!/usr/bin/env python3
"""The server under faults: killed, without Redis, on a full disk, with damaged files, with hostile and vanishing clients. Prints a table;
exit code 1 if a bar is missed.

  python3 bench/serve_faults.py [--krait build/krait] [--model MODEL] [--only kills,redis,full,corrupt,hostile,slow,aborts]
                                [--kills 50] [--requests 100000] [--aborts 10000] [--seed 1]

"full" mounts a small tmpfs and "slow" makes a network that it can cut, which want root; the parts with Redis want redis-server. What cannot be done is said and skipped.
"""
import argparse
import collections
import concurrent.futures
import http.client
import json
import os
import pathlib
import random
import shutil
import statistics
import subprocess
import tempfile
import threading
import time

from serve_crowd import aborts, hostile, slow
from serve_lib import Plain, Redis, Server, ask, metric, missed, say

WORDS = "the night was dark and a man came down from the hill with his old dog to see what the sea had brought".split()


def events(text):
    """(id, data) of a stream."""
    out = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line and not line.startswith(":"))
        if "data" in fields and fields["data"] != "[DONE]":
            out.append((fields.get("id"), json.loads(fields["data"])))
    return out


class Talk:
    """A conversation: turns that follow from its name alone, and what was acknowledged of them."""

    def __init__(self, name, long=False):
        self.name, self.long = name, long
        self.by_response = name.endswith("r")  # goes on by previous_response_id
        self.turns = []                        # [response id or None, text]
        self.unsure = False                    # the connection broke within a turn
        self.problems = []

    def body(self, model, t):
        rng = random.Random(f"{self.name}/{t}")
        prompt = " ".join(rng.choice(WORDS) for _ in range(rng.choice([1, 4, 12, 40])))
        n = rng.choice([40, 80]) if self.long else rng.choice([1, 3, 6, 12])
        body = {"seed": t, "temperature": rng.choice([0, 0.7, 1]), "stream": rng.random() < 0.4}
        if not self.by_response:
            return "/generate", {**body, "prompt": prompt, "max_tokens": n, "conversation_id": self.name}
        before = {"previous_response_id": self.turns[-1][0]} if self.turns else {"conversation": self.name}
        return "/v1/responses", {**body, "model": model, "input": prompt, "max_output_tokens": n, **before}

    def say(self, server):
        """Adds a turn. Its status; 0 if the connection broke; an error within a stream counts as its status."""
        path, body = self.body(server.model, len(self.turns))
        status, headers, text = ask(server, "POST", path, body)
        self.headers = headers
        if status == 200:
            status = self.hear(text, body["stream"])
        self.unsure = self.unsure or status == 0
        return status

    def hear(self, text, stream):
        if not stream:
            j = json.loads(text)
            if self.by_response:
                self.turns.append([j["id"], j["output"][0]["content"][0]["text"]])
            else:
                self.turns.append([None, j["text"]])
            return 200
        try:
            heard = events(text)
        except ValueError:
            return 0
        if not heard:
            return 0
        last_id, last = heard[-1]
        if "error" in last:
            self.headers = {"retry-after": "in stream"}
            return 503 if last["error"]["code"] == "store_unavailable" else 500
        if self.by_response:
            if "response" not in last or last["response"]["status"] == "in_progress":
                return 0
            self.turns.append([last["response"]["id"], last["response"]["output"][0]["content"][0]["text"]])
        else:
            if "finish_reason" not in last:
                return 0
            self.turns.append([last_id.rsplit(":", 1)[0], last["text"]])
        return 200

    def check(self, server):
        """Everything acknowledged is there, nothing else but perhaps the turn whose connection broke. Status."""
        status, _, text = ask(server, "GET", f"/v1/states/{self.name}")
        if status not in (200, 404):
            return status
        there = [] if status == 404 else [[t["response_id"], t["assistant"]] for t in json.loads(text)["history"]]
        n = len(self.turns)
        if len(there) != n and not (self.unsure and len(there) == n + 1):
            self.problems.append(f"{self.name}: {n} turns acknowledged, {len(there)} there")
        for i, (mine, has) in enumerate(zip(self.turns, there)):
            if (mine[0] or has[0]) != has[0] or mine[1] != has[1]:
                self.problems.append(f"{self.name}: turn {i} is {has}, acknowledged was {mine}")
        self.turns = there
        self.unsure = False
        return 200


def problems_of(talks):
    out = [p for t in talks for p in t.problems]
    for p in out[:5]:
        print("   ", p)
    return len(out)


def equal_to_undisturbed(a, talks):
    """Answers of a server that nothing happens to, given the same turns."""
    s = Server(a.krait, a.model, "--queue", 1000)

    def again(talk):
        other = Talk(talk.name, talk.long)
        while len(other.turns) < len(talk.turns):
            if other.say(s) != 200:
                return False
        return [t[1] for t in other.turns] == [t[1] for t in talk.turns]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        equal = list(pool.map(again, talks))
    s.stop()
    return equal


def report_equal(a, name, talks):
    equal = equal_to_undisturbed(a, talks)
    turns = sum(len(t.turns) for t in talks)
    say(f"{name}: equal to an undisturbed server", f"{sum(equal)}/{len(talks)} ({turns} turns)", "all", all(equal))


def patiently(f, patience=40):
    """Calls `f` until it gives 200: a lease of a server that was killed lasts 15 s."""
    until = time.monotonic() + patience
    while (status := f()) != 200 and time.monotonic() < until:
        time.sleep(0.1)
    return status


def have_redis(what):
    if shutil.which("redis-server"):
        return True
    say(what, "skipped", "redis-server is not installed")
    return False


# ---- kill -9

def kill_part(a, name, kills, options):
    rng = random.Random(a.seed)
    s = Server(a.krait, a.model, *options, "--queue", 1000)
    talks, lock, end = [], threading.Lock(), threading.Event()
    gate = threading.RLock()  # the server is there

    def client(number):
        """Adds turns to one of its four conversations at a time; one that has all of its turns makes room for another."""
        mine, begun, at = random.Random(number), 0, {}
        while not end.is_set():
            while len(at) < 4:
                talk = Talk(f"{number}-{begun}-{'gr'[begun % 2]}", long=begun % 5 == 4)
                begun += 1
                at[talk] = mine.choice([1, 3, 8, 15])
                with lock:
                    talks.append(talk)
            talk = mine.choice(list(at))
            if talk.unsure:
                with gate:
                    talk.check(s)
                continue
            status = talk.say(s)
            if status not in (200, 0, 409, 503):
                talk.problems.append(f"{talk.name}: status {status}")
            if status != 200:
                time.sleep(0.05)
            if len(talk.turns) >= at[talk]:
                del at[talk]

    clients = [threading.Thread(target=client, args=(i,)) for i in range(6)]
    for c in clients:
        c.start()
    restarts, checked = [], 0
    for k in range(kills):
        time.sleep(rng.uniform(0, 1.5))
        with gate:
            s.kill()
            if k % 5 == 4:  # while it starts
                s.launch()
                time.sleep(rng.uniform(0, 0.15))
                s.kill()
            begin = time.perf_counter()
            s.start()
            restarts.append(time.perf_counter() - begin)
            time.sleep(0.05)  # clients notice that their connections broke
            with lock:
                quiet = [t for t in talks if t.turns and not t.unsure][-60:]
            for t in quiet:
                n, copy = len(t.turns), Talk(t.name, t.long)
                copy.turns, copy.unsure = [list(x) for x in t.turns], True  # it may be adding a turn
                if patiently(lambda c=copy: c.check(s)) != 200:
                    copy.problems.append(f"{t.name}: not answered")
                t.problems += copy.problems
                checked += n
    end.set()
    for c in clients:
        c.join()
    talks = [t for t in talks if t.turns or t.unsure]
    bad = [t.name for t in talks if patiently(lambda t=t: t.check(s)) != 200]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        last = list(pool.map(lambda t: patiently(lambda: t.say(s)), talks))
    for t in talks:
        t.check(s)
    s.stop()
    turns = sum(len(t.turns) for t in talks)
    say(f"{name}: conversations, turns acknowledged", f"{len(talks)}, {turns}")
    say(f"{name}: turns looked at after the {kills} restarts", f"{checked}")
    n = problems_of(talks) + len(bad)
    say(f"{name}: turns lost, changed, or half there", f"{n}", "0", n == 0)
    say(f"{name}: conversations that go on", f"{last.count(200)}/{len(last)}", "all", set(last) == {200})
    say(f"{name}: serves again after, median and most", f"{statistics.median(restarts) * 1e3:.0f}, {max(restarts) * 1e3:.0f} ms")
    report_equal(a, name, talks)


def kills(a):
    with tempfile.TemporaryDirectory() as folder:
        kill_part(a, "kill -9, disk", a.kills, ["--state-dir", folder])
    if not have_redis("kill -9 with Redis"):
        return
    for name, disk in (("kill -9, disk and Redis", True), ("kill -9, Redis", False)):
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as redis_folder:
            redis = Redis(redis_folder)
            kill_part(a, name, max(1, a.kills // 5), ["--redis", redis.url, *(["--state-dir", folder] if disk else [])])
            redis.stop()


# ---- Redis comes and goes

def outage(name, server, talks, begin, finish, seconds):
    """What clients see between begin() and finish(), and that everything goes on behind it."""
    plain = [Plain(server), Plain(server)]
    seen, end = [], threading.Event()

    def looker(path):
        while not end.is_set():
            ask(server, "GET", path)
            time.sleep(0.05)

    def client(mine):
        while not end.is_set():
            for t in mine:
                if t.unsure:
                    t.problems.append(f"{t.name}: the connection broke")
                at = time.monotonic()
                status = t.say(server)
                seen.append((at, time.monotonic() - at, status, "retry-after" in t.headers))
                if status != 200:
                    time.sleep(0.02)
    clients = [threading.Thread(target=client, args=(talks[i::4],)) for i in range(4)]
    clients += [threading.Thread(target=looker, args=(p,)) for p in ("/metrics", "/v1/states", "/v1/states/x")]
    for c in clients:
        c.start()
    time.sleep(1)
    begin()
    down = time.monotonic()
    time.sleep(seconds)
    up = time.monotonic()
    finish()
    time.sleep(2.5)
    end.set()
    for c in clients + plain:
        c.join() if c in clients else c.stop()
    count = collections.Counter(x[2] for x in seen)
    fine = set(count) <= {200, 409, 503}
    say(f"{name}: turns by status", " ".join(f"{k}: {v}" for k, v in sorted(count.items())), "200, 503", fine)
    refused = [x for x in seen if x[2] == 503]
    say(f"{name}: 503 with Retry-After", f"{sum(x[3] for x in refused)}/{len(refused)}", "all, some", bool(refused) and all(x[3] for x in refused))
    say(f"{name}: longest until a 503", f"{max((x[1] for x in refused), default=0):.2f} s")
    during = [x for p in plain for x in p.seen if down <= x[0] <= up]
    good = sum(x[2] == 200 for x in during)
    say(f"{name}: served meanwhile without a conversation", f"{good}/{len(during)}", "all, some", bool(during) and good == len(during))
    say(f"{name}: the slowest of them", f"{max((x[1] for x in during), default=0):.2f} s")


def redis(a):
    if not have_redis("Redis stopped"):
        return
    cases = [("Redis stopped, back empty; disk", True, [], "stop"), ("Redis stopped, back empty", False, [], "stop"),
             ("Redis killed, back with its file; disk", True, ["--appendonly", "yes", "--appendfsync", "always"], "kill"),
             ("Redis killed, back with its file", False, ["--appendonly", "yes", "--appendfsync", "always"], "kill"),
             ("Redis hangs; disk", True, [], "hang"), ("Redis hangs", False, [], "hang")]
    for name, disk, options, how in cases:
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as redis_folder:
            r = Redis(redis_folder, *options)
            s = Server(a.krait, a.model, "--redis", r.url, "--state-memory", 8, *(["--state-dir", folder] if disk else []))
            talks = [Talk(f"{i}-{'gr'[i % 2]}") for i in range(12)]
            for t in talks:
                patiently(lambda t=t: t.say(s))

            def begin():
                r.hang(True) if how == "hang" else r.stop(kill=how == "kill")

            def finish():
                r.hang(False) if how == "hang" else r.start()
            outage(name, s, talks, begin, finish, 16 if how == "hang" else 4)
            status = [patiently(lambda t=t: t.check(s)) for t in talks]
            last = [patiently(lambda t=t: t.say(s)) for t in talks]
            status += [patiently(lambda t=t: t.check(s)) for t in talks]
            n = problems_of(talks) + len([x for x in status if x != 200])
            say(f"{name}: turns lost, changed, or there against a 503", f"{n}", "0", n == 0)
            say(f"{name}: conversations that go on", f"{last.count(200)}/{len(last)}", "all", set(last) == {200})
            s.stop()
            r.stop()
            report_equal(a, name, talks)


# ---- a full disk

def full(a):
    with tempfile.TemporaryDirectory() as folder:
        try:
            mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", folder], capture_output=True, check=False).returncode == 0
        except FileNotFoundError:
            mounted = False
        if not mounted:
            return say("disk full", "skipped", "a tmpfs cannot be mounted: wants root")
        try:
            full_disk(a, folder)
        finally:
            subprocess.run(["umount", "-l", folder], check=False)


def full_disk(a, folder):
    s = Server(a.krait, a.model, "--state-dir", os.path.join(folder, "states"))
    talks = [Talk(f"{i}-{'gr'[i % 2]}") for i in range(16)]
    statuses = [t.say(s) for t in talks for _ in range(8)]  # states alone are more than the disk has
    say("disk full of states: turns kept", f"{statuses.count(200)}/{len(statuses)}", "all", set(statuses) == {200})
    ballast, stop = pathlib.Path(folder) / "ballast", threading.Event()

    def fill():
        with open(ballast, "ab", buffering=0) as f:
            while not stop.is_set():
                try:
                    f.write(bytes(4096))
                except OSError:
                    time.sleep(0.001)
    filler = threading.Thread(target=fill)

    def begin():
        filler.start()

    def finish():
        stop.set()
        filler.join()
        ballast.unlink()
    outage("disk full", s, talks, begin, finish, 6)
    status = [t.check(s) for t in talks]
    last = [t.say(s) for t in talks]
    say("disk full: conversations that go on when there is space again", f"{last.count(200)}/{len(last)}", "all", set(last) == {200})
    s.kill()
    s.start()
    status += [t.check(s) for t in talks]
    last = [t.say(s) for t in talks]
    n = problems_of(talks) + len([x for x in status if x != 200])
    say("disk full: turns lost, changed, or there against a 503, also after kill -9", f"{n}", "0", n == 0)
    s.stop()
    report_equal(a, "disk full", talks)


# ---- damaged files

def flip(path, rng, at=None):
    data = bytearray(path.read_bytes())
    at = rng.randrange(len(data)) if at is None else at
    data[at] ^= 1 << rng.randrange(8)
    path.write_bytes(data)


def spoil_states(files, rng):
    """Each in one of these ways; also with the content of another."""
    ways = [lambda p: flip(p, rng), lambda p: p.write_bytes(p.read_bytes()[:rng.randrange(p.stat().st_size)]), lambda p: p.write_bytes(b""),
            lambda p: p.write_bytes(rng.randbytes(5000)), lambda p: p.write_bytes(files[(files.index(p) + 1) % len(files)].read_bytes()),
            lambda p: p.write_bytes(p.read_bytes() + b"x")]
    for i, p in enumerate(files):
        ways[i % len(ways)](p)


def corrupt(a):
    rng = random.Random(a.seed)
    with tempfile.TemporaryDirectory() as folder:
        s = Server(a.krait, a.model, "--state-dir", folder)
        talks = [Talk(f"{i}-{'gr'[i % 2]}") for i in range(24)]
        for t in talks:
            for _ in range(4):
                t.say(s)
            t.check(s)
        s.stop()
        states = sorted(pathlib.Path(folder).rglob("*.blob"))
        spoil_states(states, rng)
        s.start()
        missing = collections.Counter()
        for t in talks:
            path, body = t.body(s.model, len(t.turns))
            _, _, text = ask(s, "POST", path, {**body, "stream": False})
            t.hear(text, False)
            j = json.loads(text)
            missing[j["krait"]["cache_miss"] if t.by_response else j["cache_miss"]] += 1
            t.check(s)
        found = metric(s, "mamba_store_corrupt_entries")
        say("damaged states: told as the reason of a miss", " ".join(f"{k}: {v}" for k, v in missing.items()), "corrupt: all", set(missing) == {"corrupt"})
        say("damaged states: counted", f"{found:.0f} of {len(states)}", "all", found == len(states))
        n = problems_of(talks)
        say("damaged states: turns lost or changed", f"{n}", "0", n == 0)
        s.stop()
        report_equal(a, "damaged states", talks)
        corrupt_logs(a, s, talks, pathlib.Path(folder), rng)
    if have_redis("damaged logs with Redis"):
        corrupt_with_redis(a, rng)


def corrupt_logs(a, s, talks, folder, rng):
    logs = {p.stem: p for p in folder.rglob("*.log")}
    for i, t in enumerate(talks):
        p = logs[t.name]
        if i % 3 == 0:
            flip(p, rng, p.stat().st_size - 1 - rng.randrange(20))  # the last turn
        elif i % 3 == 1:
            flip(p, rng)
        else:
            p.write_bytes(p.read_bytes()[:-rng.randrange(1, 30)] + (rng.randbytes(40) if i % 2 else b""))
    s.start()
    kept = lost = wrong = 0
    for t in talks:
        status, _, text = ask(s, "GET", f"/v1/states/{t.name}")
        there = [[h["response_id"], h["assistant"]] for h in json.loads(text)["history"]] if status == 200 else []
        wrong += there != t.turns[:len(there)] or status not in (200, 404)
        kept += len(there)
        lost += len(t.turns) - len(there)
        t.turns = there
    say("damaged logs: turns whole, turns not used", f"{kept}, {lost}")
    say("damaged logs: conversations with other turns than there were", f"{wrong}", "0", wrong == 0)
    found = metric(s, "mamba_store_corrupt_entries")
    say("damaged logs: counted; those merely cut off are no damage", f"{found:.0f} of {len(talks)}", ">= 2/3", found * 3 >= len(talks) * 2)
    last = [t.say(s) for t in talks]
    say("damaged logs: conversations that go on", f"{last.count(200)}/{len(last)}", "all", set(last) == {200})
    s.stop()
    s.start()
    for t in talks:
        t.check(s)
    n = problems_of(talks)
    say("damaged logs: turns lost after that, over a restart", f"{n}", "0", n == 0)
    again = metric(s, "mamba_store_corrupt_entries")
    say("damaged logs: damage left", f"{again:.0f}", "0", again == 0)
    s.stop()
    report_equal(a, "damaged logs", talks)


def corrupt_with_redis(a, rng):
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as redis_folder:
        r = Redis(redis_folder)
        s = Server(a.krait, a.model, "--state-dir", folder, "--redis", r.url)
        talks = [Talk(f"{i}-{'gr'[i % 2]}") for i in range(12)]
        for t in talks:
            for _ in range(4):
                t.say(s)
        s.stop()
        for p in [*pathlib.Path(folder).rglob("*.log"), *pathlib.Path(folder).rglob("*.blob")]:
            flip(p, rng)
        s.start()
        for t in talks:
            t.check(s)
        last = [t.say(s) for t in talks]
        s.stop()
        r.stop()  # and what was damaged is whole again on the disk alone
        s.command = [x for x in s.command if x not in ("--redis", r.url)]
        s.start()
        for t in talks:
            t.check(s)
        n = problems_of(talks)
        say("damaged files, whole in Redis: turns lost or changed", f"{n}", "0", n == 0 and set(last) == {200})
        s.stop()
        report_equal(a, "damaged files, whole in Redis", talks)


def main():
    parts = {"kills": kills, "redis": redis, "full": full, "corrupt": corrupt, "hostile": hostile, "slow": slow, "aborts": aborts}
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--krait", default="build/krait")
    p.add_argument("--model", default="")
    p.add_argument("--only", default=",".join(parts))
    p.add_argument("--kills", type=int, default=50)
    p.add_argument("--requests", type=int, default=100_000)
    p.add_argument("--aborts", type=int, default=10_000)
    p.add_argument("--processes", type=int, default=3)
    p.add_argument("--seed", type=int, default=1)
    a = p.parse_args()
    a.krait = os.path.abspath(a.krait)
    for name in a.only.split(","):
        parts[name](a)
    if missed:
        raise SystemExit(f"{len(missed)} bars missed")


if __name__ == "__main__":
    main()
