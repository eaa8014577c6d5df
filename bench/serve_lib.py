"""A server under test and a small client for it: what the scripts beside it share. Standard library only."""
import atexit
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import tempfile
import threading
import time

missed = []  # bars


def popen(command, **options):
    """A process that does not outlive this one."""
    process = subprocess.Popen(command, **options)
    atexit.register(process.kill)
    return process


class Redis:
    def __init__(self, folder, *options):
        self.folder, self.options = pathlib.Path(folder), options
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.start()

    def start(self):
        self.process = popen(["redis-server", "--port", str(self.port), "--dir", str(self.folder), "--save", "", *self.options],
                                        stdout=subprocess.DEVNULL)
        for _ in range(200):
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except OSError:
                time.sleep(0.05)
        raise RuntimeError("redis-server does not listen")

    def stop(self, kill=False):
        self.process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
        self.process.wait(30)

    def hang(self, on):
        self.process.send_signal(signal.SIGSTOP if on else signal.SIGCONT)

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}/0"


class Server:
    """`krait serve` on a free port; options stay the same over restarts."""

    def __init__(self, krait, model, *options, headers=None):
        self.folder = tempfile.TemporaryDirectory(prefix="krait-serve-")
        self.command = [krait, "serve", *([model] if model else []), "--port", "0", *map(str, options)]
        self.starts = 0
        self.headers = headers or {}  # of every request
        self.start()

    def start(self):
        self.launch()
        self.wait()

    def launch(self):
        self.starts += 1
        self.port_file = pathlib.Path(self.folder.name) / f"port{self.starts}"
        log = open(pathlib.Path(self.folder.name) / "log", "a")
        self.process = popen([*self.command, "--port-file", str(self.port_file)], stderr=log)

    def wait(self, patience=60):
        """Until it serves."""
        until = time.monotonic() + patience
        while True:
            if self.process.poll() is not None:
                raise RuntimeError("the server ended:\n" + self.log()[-3000:])
            try:
                self.port = int(self.port_file.read_text() or 0)
                if self.request("GET", "/health")[0] == 200:
                    break
            except (OSError, http.client.HTTPException):
                pass
            if time.monotonic() > until:
                raise RuntimeError("the server does not come up:\n" + self.log()[-3000:])
            time.sleep(0.01)
        self.model = json.loads(self.request("GET", "/v1/models")[1])["data"][0]["id"]

    def log(self):
        return (pathlib.Path(self.folder.name) / "log").read_text()

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self):
        self.process.terminate()
        code = self.process.wait(120)
        if code != 0:
            raise RuntimeError(f"exit code {code}\n{self.log()[-3000:]}")

    def resident(self):
        """MiB."""
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1024

    def processor_seconds(self):
        fields = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def request(self, method, path, body=None, timeout=600):
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        try:
            c.request(method, path, json.dumps(body) if body is not None else None, {"Content-Type": "application/json", **self.headers})
            r = c.getresponse()
            return r.status, r.read().decode()
        finally:
            c.close()

    def post(self, path, **body):
        status, text = self.request("POST", path, body)
        if status != 200:
            raise RuntimeError(f"{path}: {status} {text}")
        return json.loads(text)

    def stream(self, path, **body):
        """Seconds to the first event with text, and all data lines."""
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        begin = time.perf_counter()
        c.request("POST", path, json.dumps({**body, "stream": True}), {"Content-Type": "application/json", **self.headers})
        r = c.getresponse()
        if r.status != 200:
            raise RuntimeError(f"{path}: {r.status} {r.read().decode()}")
        first, lines = None, []
        for line in r:
            if line.startswith(b"data: "):
                lines.append(line[6:].decode().strip())
                if first is None and has_text(lines[-1]):
                    first = time.perf_counter() - begin
        c.close()
        return first, lines


def has_text(data):
    if data == "[DONE]":
        return False
    j = json.loads(data)
    if "choices" in j:
        return bool(j["choices"]) and bool(j["choices"][0].get("text") or j["choices"][0].get("delta", {}).get("content"))
    return bool(j.get("text") or j.get("delta"))


def metric(server, name):
    """Sum over the labels of a metric."""
    total = 0.0
    for line in server.request("GET", "/metrics")[1].splitlines():
        if line.startswith(name + " ") or line.startswith(name + "{"):
            total += float(line.rsplit(" ", 1)[1])
    return total


def say(name, value, bar="", ok=True):
    print(f"{name:66} {value:>26}   {bar}{'' if ok else '   MISSED'}", flush=True)
    if not ok:
        missed.append(f"{name}: {value}")


def ask(server, method, path, body=None, timeout=120):
    """status, headers, text. Status 0: the connection broke."""
    try:
        c = http.client.HTTPConnection("127.0.0.1", server.port, timeout=timeout)
        try:
            c.request(method, path, json.dumps(body) if body is not None else None, {"Content-Type": "application/json", **server.headers})
            r = c.getresponse()
            return r.status, {k.lower(): v for k, v in r.getheaders()}, r.read().decode()
        finally:
            c.close()
    except (OSError, http.client.HTTPException):
        return 0, {}, ""


class Plain:
    """Requests without a conversation, one after the other."""

    def __init__(self, server):
        self.server, self.end, self.seen = server, threading.Event(), []
        self.thread = threading.Thread(target=self.work)
        self.thread.start()

    def work(self):
        i = 0
        while not self.end.is_set():
            i += 1
            begin = time.monotonic()
            status, _, _ = ask(self.server, "POST", "/generate", {"prompt": "Once", "max_tokens": 4, "seed": i, "store": False})
            self.seen.append((begin, time.monotonic() - begin, status))

    def stop(self):
        self.end.set()
        self.thread.join()


def settle(s, patience=20):
    """Free slots, waiting requests, connections beside ours: when they have come to rest."""
    until = time.monotonic() + patience
    while True:
        now = [metric(s, n) for n in ("mamba_state_slots", "mamba_state_slots_free", "mamba_queue_requests", "mamba_http_connections", "mamba_http_streams")]
        if now[0] == now[1] and now[2] == 0 and now[3] <= 1 or time.monotonic() > until:
            return now
        time.sleep(0.05)


def report_settled(s, name, patience=20):
    slots, free, queued, connections, streams = settle(s, patience)
    say(f"{name}: slots free, requests waiting, streams", f"{free:.0f}/{slots:.0f}, {queued:.0f}, {streams:.0f}", "all, 0, 0",
        free == slots and queued == 0 and streams == 0)
    say(f"{name}: connections left beside ours", f"{connections - 1:.0f}", "0", connections <= 1)
