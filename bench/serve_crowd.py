"""Hostile, slow and vanishing clients: parts of serve_faults.py. Standard library only."""
import collections
import concurrent.futures
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

from serve_fuzz import Wire, bodies, due, frame, fuzz, trickle
from serve_lib import Plain, Server, ask, metric, popen, report_settled, say

KEPT = 600  # seconds that events of streams are kept


class Resident:
    """Resident memory of a server, looked at every few seconds."""

    def __init__(self, server, every=5):
        self.server, self.every, self.begin, self.seen, self.end = server, every, time.monotonic(), [], threading.Event()
        self.thread = threading.Thread(target=self.work, daemon=True)
        self.thread.start()

    def work(self):
        while not self.end.is_set():
            self.seen.append((self.age(), self.server.resident()))
            self.end.wait(self.every)

    def age(self):
        return time.monotonic() - self.begin

    def most(self, since=0, until=1e9):
        return max((m for t, m in self.seen if since <= t <= until), default=0)

    def stop(self):
        self.end.set()
        self.thread.join()


# ---- requests that should not be

def hostile(a):
    s = Server(a.krait, a.model, "--max-body", 1, "--state-memory", 16, "--state-ttl", 20, "--queue", 100, "--log-level", "warning")
    wrong = [(path, status) for path, body in bodies(s.model) if not due(path, status := ask(s, "POST", path, body)[0])]
    say("hostile requests: what they are made from is answered", f"{len(bodies(s.model)) - len(wrong)}/{len(bodies(s.model))} {wrong or ''}", "all", not wrong)
    memory = Resident(s)
    total = collections.Counter()
    kinds, outcomes, wrong, slowest, rounds = collections.Counter(), collections.Counter(), [], 0, 0
    plain = Plain(s)
    with concurrent.futures.ProcessPoolExecutor(a.processes) as pool:
        # As many as are wanted, and then on until what is kept for a while has been given up for half of that while.
        while total["sent"] < a.requests or a.requests >= 100_000 and memory.age() < 1.5 * KEPT:
            n = max(1, min(a.requests, 3000) // a.processes)
            parts = [pool.submit(fuzz, s.port, s.model, f"{a.seed}/{rounds}/{i}", n) for i in range(a.processes)]
            rounds += 1
            for part in parts:
                k, o, w, slow = part.result()
                kinds += k
                outcomes += o
                wrong += w
                slowest = max(slowest, slow)
            total["sent"] = sum(kinds.values())
    took = memory.age()
    plain.stop()
    memory.stop()
    for kind, n in sorted(kinds.items()):
        say(f"hostile requests: {kind}", f"{n}")
    say("hostile requests: all, a second", f"{total['sent']}, {total['sent'] / took:.0f}", f">= {a.requests}", total["sent"] >= a.requests)
    for outcome, n in sorted(outcomes.items()):
        say(f"hostile requests: outcome {outcome}", f"{n}")
    for w in wrong[:5]:
        print("   ", w)
    say("hostile requests: 5xx beside 501 and 505, no answer where one is due", f"{len(wrong)}", "0", not wrong)
    say("hostile requests: the slowest answer", f"{slowest:.1f} s")
    good = sum(x[2] == 200 for x in plain.seen)
    say("hostile requests: one client beside them, served, slowest", f"{good}/{len(plain.seen)}, {max(x[1] for x in plain.seen):.2f} s", "all",
        good == len(plain.seen) > 0)
    report_memory(memory, took)
    say("hostile requests: the server is up", f"{s.process.poll() is None}", "True", s.process.poll() is None)
    report_settled(s, "hostile requests")
    s.stop()


def report_memory(memory, took):
    step = max(60, int(took / 900) * 60)
    for t in range(0, int(took), step):
        say(f"hostile requests: resident memory, most of second {t} to {min(t + step, int(took))}", f"{memory.most(t, t + step):.0f} MiB")
    if took < 1.5 * KEPT:
        return say("hostile requests: growth of memory", "not told", f"streams are kept for {KEPT} s, and this was shorter")
    half = (KEPT + took) / 2
    early, late = memory.most(KEPT, half), memory.most(half)
    say(f"hostile requests: memory, most of second {KEPT} to {half:.0f}, and after", f"{early:.0f}, {late:.0f} MiB", "+ 8 MiB", late - early < 8)


# ---- clients that are slow, or not there any more

def connect(address, receive_buffer=0):
    c = socket.socket()
    if receive_buffer:
        c.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    c.settimeout(20)
    c.connect(address)
    return c


def crowd(host, port, headers, sizes):
    """Opens connections of every slow kind; `sizes`: how many, by kind. (kind, socket) of each."""
    def post(path, body):
        return frame(path, json.dumps(body).encode(), headers=headers)
    endless = post("/generate", {"prompt": "x", "max_tokens": 1500, "ignore_eos": True, "stream": True, "store": False})
    short = post("/generate", {"prompt": "x", "max_tokens": 20, "stream": True, "store": False})
    long_body = frame("/tokenize", b" " * (3 << 20), headers=headers)
    data = {
        "streams that nobody reads": endless,
        "short streams that nobody reads": short,
        "state files that nobody reads": b"GET /v1/states/slow/file HTTP/1.1\r\nHost: localhost\r\n" + headers + b"\r\n",
        "half a header": endless[:40],
        "half a body": endless[:-10],
        "most of a long body": long_body[:-10],
        "nothing": b"",
    }
    out = []
    for kind, n in sizes.items():
        for _ in range(n):
            c = connect((host, port), 4096)
            try:
                c.sendall(data[kind])
            except OSError:  # refused already
                pass
            out.append((kind, c))
    return out


SIZES = {"streams that nobody reads": 8, "short streams that nobody reads": 50, "state files that nobody reads": 100, "half a header": 300, "half a body": 300,
         "most of a long body": 150, "nothing": 100}


def count_answers(clients, kind, mark):
    n = 0
    for k, c in clients:
        if k == kind:
            c.settimeout(5)
            try:
                n += mark in c.recv(100)
            except OSError:
                pass
    return n


class Beside:
    """Two ordinary clients and the memory of the server, while something is done to it."""

    def __init__(self, server, name):
        self.server, self.name = server, name
        for i in range(50):  # states and heaps have the size that they keep
            ask(server, "POST", "/generate", {"prompt": f"{i}", "max_tokens": 2, "store": False})
        self.before = server.resident()
        self.memory, self.plain = Resident(server, 0.5), [Plain(server), Plain(server)]

    def report(self, most):
        for p in self.plain:
            p.stop()
        seen = [x for p in self.plain for x in p.seen]
        good = sum(x[2] == 200 for x in seen)
        say(f"{self.name}: ordinary requests served, slowest", f"{good}/{len(seen)}, {max(x[1] for x in seen):.2f} s", "all", good == len(seen) > 0)
        self.memory.stop()
        say(f"{self.name}: memory before, most", f"{self.before:.0f}, {self.memory.most():.0f} MiB", f"+ {most} MiB", self.memory.most() - self.before < most)
        report_settled(self.server, self.name, patience=90)
        after = self.server.resident()
        say(f"{self.name}: memory after", f"{after:.0f} MiB", "+ 64 MiB", after - self.before < 64)


def slow(a):
    s = Server(a.krait, a.model, "--max-body", 4, "--state-memory", 16, "--queue", 1000, "--log-level", "warning")
    ask(s, "POST", "/generate", {"prompt": "x", "max_tokens": 2, "conversation_id": "slow"})
    for name, part in (("slow clients", slow_at_once), ("resets", resets), ("clients of a stopped process", stopped)):
        part(s, name)
    s.stop()
    if cut_network(a):
        say("clients behind a cut network", "skipped", "a network namespace cannot be made: wants root and ip")


def slow_at_once(s, name):
    """All kinds at once; for as long as the longest time limit that applies to them, but that of a body."""
    beside = Beside(s, name)
    clients = crowd("127.0.0.1", s.port, b"", SIZES)
    say(f"{name}: connections", f"{len(clients)}")
    time.sleep(35)
    told = count_answers(clients, "half a header", b" 408 ")
    say(f"{name}: half a header, and no more: told 408", f"{told}/{SIZES['half a header']}", "all", told == SIZES["half a header"])
    refused = count_answers(clients, "most of a long body", b" 503 ")
    say(f"{name}: long bodies refused for want of room", f"{refused}/{SIZES['most of a long body']}")
    say(f"{name}: streams cut off", f"{sum(over(c) for k, c in clients if k == 'streams that nobody reads')}")
    for _, c in clients:
        c.close()
    beside.report(400)


def over(c):
    """The server has ended this connection."""
    c.settimeout(1)
    try:
        while c.recv(1 << 20):
            pass
        return True
    except TimeoutError:
        return False
    except OSError:
        return True


def resets(s, name):
    """Connections that end in a reset, at any moment of a request."""
    beside = Beside(s, name)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        def one(i):
            w = Wire(s.port)
            body = {"prompt": "x " * (i % 50 + 1), "max_tokens": 200, "stream": i % 2 == 0, "seed": i}
            if i % 3 == 0:
                body["conversation_id"] = f"reset{i % 10}"
            data = frame("/generate", json.dumps(body).encode())
            w.socket.sendall(data[:len(data) * (i % 7) // 6])
            time.sleep(i % 5 * 0.01)
            w.close(reset=True)
        n = len(list(pool.map(one, range(2000))))
    say(f"{name}: connections", f"{n}")
    beside.report(150)


HOLDER = "import sys, time\nsys.path.insert(0, sys.argv[1])\nimport serve_crowd\n" \
         "kept = serve_crowd.crowd(sys.argv[2], int(sys.argv[3]), sys.argv[4].encode().decode('unicode_escape').encode(), serve_crowd.FEWER)\n" \
         "print(len(kept), flush=True)\ntime.sleep(1000)"
FEWER = {"streams that nobody reads": 8, "short streams that nobody reads": 50, "half a header": 100, "half a body": 100, "nothing": 100}


def holder(host, port, headers="", prefix=()):
    """A process that opens connections and keeps them."""
    p = popen([*prefix, sys.executable, "-c", HOLDER, os.path.dirname(os.path.abspath(__file__)), host, str(port), headers], stdout=subprocess.PIPE, text=True)
    return p, int(p.stdout.readline())


def wait_for_end(s, name, most):
    """Until only our own three connections are left."""
    begin = time.monotonic()
    while (left := metric(s, "mamba_http_connections")) > 3 and time.monotonic() - begin < most:
        time.sleep(0.2)
    say(f"{name}: all ended by the server after, still there", f"{time.monotonic() - begin:.0f} s, {max(0, left - 3):.0f}", f"<= {most} s, 0", left <= 3)


def stopped(s, name):
    """The sockets of a process that does not run: the kernel confirms what comes, nobody answers or closes."""
    beside = Beside(s, name)
    p, n = holder("127.0.0.1", s.port)
    p.send_signal(signal.SIGSTOP)
    say(f"{name}: connections", f"{n}")
    wait_for_end(s, name, 100)
    p.kill()
    beside.report(150)


def cut_network(a):
    """Peers that vanish without a word: no packet comes or goes any more. True: not possible here."""
    def ip(*words):
        return subprocess.run(["ip", *words], capture_output=True, check=False).returncode
    space = f"krait{os.getpid() % 10000}"
    try:
        if ip("netns", "add", space) or ip("link", "add", space, "type", "veth", "peer", "name", "far", "netns", space):
            return True
        ip("addr", "add", "10.213.7.1/30", "dev", space)
        ip("link", "set", space, "up")
        ip("-n", space, "addr", "add", "10.213.7.2/30", "dev", "far")
        ip("-n", space, "link", "set", "far", "up")
        key = "a-key-of-this-test-alone"
        s = Server(a.krait, a.model, "--host", "0.0.0.0", "--api-key", key, "--state-memory", 16, "--queue", 1000, "--log-level", "warning",
                   headers={"Authorization": f"Bearer {key}"})
        name = "clients behind a cut network"
        beside = Beside(s, name)
        p, n = holder("10.213.7.1", s.port, f"Authorization: Bearer {key}\\r\\n", ["ip", "netns", "exec", space])
        ip("link", "set", space, "down")
        say(f"{name}: connections", f"{n}")
        wait_for_end(s, name, 120)
        beside.report(150)
        p.kill()
        s.stop()
    except FileNotFoundError:
        return True
    finally:
        subprocess.run(["ip", "link", "del", space], capture_output=True, check=False)
        subprocess.run(["ip", "netns", "del", space], capture_output=True, check=False)
    return False


# ---- clients that go

def aborts(a):
    names = [f"kept{i}" for i in range(20)]
    with tempfile.TemporaryDirectory() as folder:
        s = Server(a.krait, a.model, "--state-dir", folder, "--queue", 1000, "--log-level", "warning")
        slots = metric(s, "mamba_state_slots_free")
        n = 2 * a.processes
        with concurrent.futures.ProcessPoolExecutor(n) as pool:
            parts = [pool.submit(trickle, s.port, s.model, f"{a.seed}/{i}", a.aborts // n, names) for i in range(n)]
            results = [p.result() for p in parts]
        completed, aborted = map(sum, zip(*results))
        say("requests that ended by themselves, that were aborted", f"{completed}, {aborted}")
        report_settled(s, "aborts")
        free = metric(s, "mamba_state_slots_free")
        say("aborts (trap G1): free slots before, after", f"{slots:.0f}, {free:.0f}", "equal", slots == free)
        status = [ask(s, "POST", "/generate", {"prompt": "x", "max_tokens": 1, "conversation_id": name})[0] for name in names]
        say("aborts: conversations that go on", f"{status.count(200)}/{len(names)}", "all", set(status) == {200})
        s.stop()
