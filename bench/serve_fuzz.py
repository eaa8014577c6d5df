"""Random and mutated requests over raw sockets: the hostile part of serve_faults.py. Standard library only."""
import collections
import json
import random
import socket
import struct
import time

PATHS = ["/generate", "/v1/completions", "/v1/chat/completions", "/v1/responses", "/v1/models", "/tokenize", "/detokenize", "/v1/states",
         "/v1/states/fuzz", "/v1/states/fuzz/fork", "/v1/states/fuzz/rewind", "/v1/states/fuzz/file", "/v1/streams/gen-0", "/health",
         "/ready", "/metrics", "/openapi.json", "/", "/page.js", "/nothing"]
METHODS = ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "TRACE", "CONNECT", "get", "BREW", "A" * 300]
ODD = [None, True, -1, 0, 1.5, 1e308, 2**63, -2**63, 2**64, 10**40, "", "\x00", "\ud800", "é" * 50, "x" * 5000, [], {}, [[]], [None], {"a": {}}, "1", "null",
       [0] * 300, ["x"] * 70, {"type": "function"}, "../../etc/passwd", "a/b", "%2e%2e"]
AS_IT_SHOULD_BE = "as it should be"
OVERSIZED = 3 << 20  # bytes; the server under test takes 1 MiB


def bodies(model):
    """One request of each kind that makes sense."""
    return [
        ("/generate", {"prompt": "It was", "max_tokens": 2, "seed": 1, "store": False}),
        ("/generate", {"prompt": "It was", "max_tokens": 1, "stream": True, "conversation_id": "fuzz"}),
        ("/v1/completions", {"model": model, "prompt": ["a", "b"], "max_tokens": 1, "n": 2, "logprobs": 2, "stop": ["x", "yy"]}),
        ("/v1/completions", {"model": model, "prompt": [1, 2, 3], "max_tokens": 1, "stream": True, "stream_options": {"include_usage": True}}),
        ("/v1/chat/completions", {"model": model, "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "hello"}],
                                  "max_tokens": 1, "logit_bias": {"5": 1}, "presence_penalty": 0.5, "top_logprobs": 1, "logprobs": True}),
        ("/v1/chat/completions", {"model": model, "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
                                  "max_completion_tokens": 1, "stream": True, "response_format": {"type": "text"}}),
        ("/v1/responses", {"model": model, "input": "hello", "max_output_tokens": 1, "store": False, "metadata": {"a": "b"}}),
        ("/v1/responses", {"model": model, "input": [{"role": "user", "content": "x"}], "max_output_tokens": 1, "conversation": "fuzz2"}),
        ("/tokenize", {"text": "some text", "add_special": True}),
        ("/detokenize", {"tokens": [1, 2, 300], "skip_special": False}),
        ("/v1/states/fuzz/fork", {"turns": 1, "conversation_id": "fuzz3"}),
        ("/v1/states/fuzz/rewind", {"turns": 1}),
    ]


def due(path, status, body=b"{}"):
    """Whether this may be the status of one of them. Others use the same conversations."""
    return status == 200 or status == 409 and b'"fuzz' in body or path.startswith("/v1/states/") and status in (400, 404, 409)


def mutate_value(rng, value, depth=0):
    """JSON with something changed somewhere."""
    if isinstance(value, dict) and value and rng.random() < 0.8:
        out = dict(value)
        key = rng.choice(list(out))
        what = rng.random()
        if what < 0.15 and not key.endswith("tokens"):  # their default is a long answer
            del out[key]
        elif what < 0.3:
            out[rng.choice(["temperature", "top_p", "top_k", "min_p", "seed", "n", "stop", "user", "priority", "stream", "tools", "best_of", "x" * 200,
                            "", "logit_bias", "conversation_id", "previous_response_id", "ignore_eos", "\x00"])] = rng.choice(ODD)
        else:
            out[key] = mutate_value(rng, out[key], depth + 1)
            if out[key] is None and key.endswith("tokens"):
                out[key] = -1
        return out
    if isinstance(value, list) and value and rng.random() < 0.7:
        out = list(value)
        i = rng.randrange(len(out))
        out[i] = mutate_value(rng, out[i], depth + 1)
        return out * rng.choice([1, 1, 1, 3])
    if rng.random() < 0.03:
        deep = value
        for _ in range(rng.choice([10, 70, 500])):
            deep = [deep] if rng.random() < 0.5 else {"a": deep}
        return deep
    return rng.choice(ODD)


def mutate_bytes(rng, data, times=None):
    data = bytearray(data)
    for _ in range(times or rng.choice([1, 1, 2, 4, 16])):
        at = rng.randrange(len(data) + 1)
        what = rng.random()
        if what < 0.4 and data:
            data[at - 1] ^= 1 << rng.randrange(8)
        elif what < 0.6:
            data[at:at] = rng.choice([b"\r\n", b"\x00", b"\xff", b"{", b"\"", b" ", b"\\u0000", b"1e999", b"%00", b"/../", b":", rng.randbytes(9)])
        elif what < 0.8:
            del data[at:at + rng.choice([1, 3, 20])]
        else:
            data[at:at] = data[at:at + rng.choice([2, 30])]
    return bytes(data)


def frame(path, body, method="POST", headers=b""):
    return (f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n".encode("utf-8", "replace")
            + headers + b"\r\n" + body)


def chunked(rng, path, body):
    out = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    while body:
        n = rng.choice([1, 5, 100])
        out += f"{len(body[:n]):x}\r\n".encode() + body[:n] + b"\r\n"
        body = body[n:]
    return out + b"0\r\n\r\n"


def make(rng, samples):
    """kind, bytes, whether it is well framed: an answer must come, and the connection may be used again."""
    path, sample = rng.choice(samples)
    for key in ("conversation", "conversation_id"):  # many, so that none grows to a length that takes long to read again
        if key in sample:
            sample = {**sample, key: f"{sample[key]}{rng.randrange(500)}"}
    path = path.replace("fuzz", f"fuzz{rng.randrange(500)}")
    good = json.dumps(sample).encode()
    what = rng.random()
    if what < 0.05:
        return AS_IT_SHOULD_BE, frame(path, good), True
    if what < 0.45:
        return "JSON with other values", frame(path, json.dumps(mutate_value(rng, sample)).encode("utf-8", "surrogatepass")), True
    if what < 0.60:
        return "bodies with other bytes", frame(path, mutate_bytes(rng, good)), True
    if what < 0.68:
        path = mutate_bytes(rng, rng.choice(PATHS).encode(), 1).translate(None, b"\r\n \x00")
        return "other methods, paths, queries", frame("/" + path.decode("latin-1") + rng.choice(["", "?limit=9", "?x=%zz&limit=-1"]), b"" if rng.random() < 0.5 else good,
                                                      rng.choice(METHODS)), False
    if what < 0.74:
        return "chunked bodies", mutate_bytes(rng, chunked(rng, path, good), rng.choice([1, 2])) if rng.random() < 0.7 else chunked(rng, path, good), False
    if what < 0.86:
        return "requests with other bytes", mutate_bytes(rng, frame(path, good)), False
    if what < 0.91:
        extra = rng.choice([b"X-A: " + b"a" * 20000 + b"\r\n", b"".join(b"X-%d: 1\r\n" % i for i in range(2000)), b"Content-Length: 3\r\n", b"Expect: 7\r\n",
                            b"Transfer-Encoding: gzip\r\n", b"Authorization: Bearer " + rng.randbytes(40) + b"\r\n", b"Last-Event-ID: gen-0:99999999999999999999\r\n",
                            b"X-Request-Id: a b\r\n", b"Host: y\r\n", b": x\r\n", b"Content-Encoding: gzip\r\n", b"Upgrade: h2c\r\n"])
        return "other and oversized headers", frame(path, good, headers=extra), False
    if what < 0.925:
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {rng.choice([OVERSIZED, 2**31, 2**63, 2**70])}\r\n\r\n".encode()
        return "oversized bodies", head + b" " * rng.choice([0, 1000, OVERSIZED]), False
    if what < 0.945:
        return "several at a time", frame(path, good) + frame("/v1/models", b"", "GET") + mutate_bytes(rng, frame(path, good)), False
    if what < 0.97:
        start = rng.choice([b"", b"\x16\x03\x01\x02\x00\x01", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n"])
        return "random bytes", start + rng.randbytes(rng.choice([1, 30, 3000])), False
    whole = frame(path, good)
    return "half a request, then gone", whole[:rng.randrange(1, len(whole))], None


class Wire:
    """One connection and its reader."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=180)
        self.data = b""

    def more(self):
        part = self.socket.recv(65536)
        if not part:
            raise EOFError
        self.data += part

    def until(self, mark):
        while mark not in self.data:
            self.more()
        out, self.data = self.data.split(mark, 1)
        return out

    def exactly(self, n):
        while len(self.data) < n:
            self.more()
        out, self.data = self.data[:n], self.data[n:]
        return out

    def response(self, head_only=False):
        """status, body, whether the connection stays."""
        while True:
            head = self.until(b"\r\n\r\n").decode("latin-1")
            status = int(head.split(" ", 2)[1])
            if status != 100:
                break
        fields = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head.split("\r\n")[1:])}
        body = b""
        if fields.get("transfer-encoding") == "chunked":
            while n := int(self.until(b"\r\n"), 16):
                body += self.exactly(n)
                self.exactly(2)
            self.exactly(2)
        elif not head_only:
            body = self.exactly(int(fields.get("content-length", 0)))
        return status, body, fields.get("connection", "").lower() != "close"

    def close(self, reset=False):
        if reset:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()


def fuzz(port, model, seed, n):
    """Sends n requests; counts by kind and by outcome, what should not be: (kind, outcome, the request's beginning), and the slowest answer."""
    rng = random.Random(seed)
    samples = bodies(model)
    kinds, outcomes, wrong = collections.Counter(), collections.Counter(), []
    wire, slowest = None, 0
    for _ in range(n):
        kind, data, framed = make(rng, samples)
        kinds[kind] += 1
        outcome, begin = "no answer", time.monotonic()
        try:
            if wire is None or framed is not True:
                if wire is not None:
                    wire.close()
                wire = Wire(port)
            wire.socket.sendall(data)
            if framed is None:
                wire.close(reset=rng.random() < 0.5)
                wire, outcome = None, "gone"
            else:
                if framed is False:
                    wire.socket.shutdown(socket.SHUT_WR) if rng.random() < 0.5 else wire.socket.settimeout(0.05)
                status, body, stays = wire.response(data.startswith(b"HEAD "))
                outcome = status
                if status >= 400 and body:
                    json.loads(body)["error"]["message"]
                wire.socket.settimeout(180)
                if framed is False or not stays:
                    wire.close()
                    wire = None
        except (TimeoutError, EOFError, ConnectionError) as e:
            if wire is None:
                outcome = "refused"
            else:
                wire.close()
            wire = None
            if framed is True or outcome == "refused":
                outcome = f"{outcome}: {type(e).__name__}"
        except (ValueError, KeyError, IndexError, TypeError) as e:
            outcome = f"not as answers are: {type(e).__name__} {e}"
            wire.close()
            wire = None
        outcomes[str(outcome)] += 1
        slowest = max(slowest, time.monotonic() - begin)
        fine = outcome in ("gone", "no answer") or isinstance(outcome, int) and (outcome < 500 or outcome in (501, 505))
        if kind == AS_IT_SHOULD_BE:
            fine = isinstance(outcome, int) and due(data.split(b" ", 2)[1].decode(), outcome, data)
        if not fine and len(wrong) < 20:
            wrong.append((kind, str(outcome), data[:400].decode("latin-1")))
    if wire is not None:
        wire.close()
    return kinds, outcomes, wrong, slowest


def trickle(port, model, seed, n, keep):
    """n requests that end at a random moment. `keep`: names of conversations to add turns to."""
    rng = random.Random(seed)
    completed = aborted = 0
    for i in range(n):
        stream = rng.random() < 0.6
        body = {"prompt": "word " * rng.choice([1, 5, 60]), "max_tokens": rng.choice([1, 8, 64, 400]), "stream": stream, "seed": i}
        path = "/generate"
        kind = rng.random()
        if kind < 0.4:
            body["conversation_id"] = rng.choice(keep)
        elif kind < 0.6:
            path, body["model"] = "/v1/completions", model
            if body["max_tokens"] > 1:
                body["n"] = rng.choice([1, 3])
        else:
            body["store"] = False
        data = frame(path, json.dumps(body).encode())
        w = Wire(port)
        w.socket.settimeout(rng.choice([0.0005, 0.003, 0.01, 0.03, 0.1]))
        try:
            w.socket.sendall(data[:rng.randrange(1, len(data))] if rng.random() < 0.1 else data)
            if rng.random() < 0.1:
                w.socket.shutdown(socket.SHUT_WR)
            w.response()
            completed += 1
        except (TimeoutError, EOFError, ConnectionError):
            aborted += 1
        w.close(reset=rng.random() < 0.5)
    return completed, aborted
