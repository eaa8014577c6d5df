#!/usr/bin/env python3
"""The server as clients see it: the openai package, prometheus-client, schemathesis, curl.

  python3 -m venv VENV && VENV/bin/pip install openai prometheus-client schemathesis
  VENV/bin/python tests/serve_clients.py [--krait build/krait] [--model MODEL] [--cases 2000] [--only openai,metrics,curl,fuzz]

Starts a server of its own (with an API key, on a free port), prints a line a check, exits with 1 if one fails.
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request

KEY = "a-key-for-tests-only"
OTHER = "another-key-for-tests"
checks = []


def check(name):
    def add(f):
        checks.append((name, f))
        return f
    return add


class Server:
    def __init__(self, krait, model, *options):
        self.folder = tempfile.TemporaryDirectory(prefix="krait-serve-")
        port_file = pathlib.Path(self.folder.name) / "port"
        self.log = open(pathlib.Path(self.folder.name) / "log", "w+")
        self.process = subprocess.Popen(
            [krait, "serve", *([model] if model else []), "--port", "0", "--port-file", str(port_file), "--api-key", KEY,
             "--api-key", OTHER, *options], stderr=self.log)
        for _ in range(600):
            if port_file.exists() and port_file.read_text():
                break
            if self.process.poll() is not None:
                sys.exit("the server ended:\n" + pathlib.Path(self.log.name).read_text())
            time.sleep(0.05)
        self.url = f"http://127.0.0.1:{port_file.read_text().strip()}"
        for _ in range(600):
            if self.status("/health") == 200:
                return
            time.sleep(0.05)
        sys.exit("the server does not become healthy")

    def status(self, path):
        try:
            return urllib.request.urlopen(self.url + path).status
        except urllib.error.HTTPError as e:
            return e.code

    def get(self, path, key=KEY):
        request = urllib.request.Request(self.url + path, headers={"Authorization": f"Bearer {key}"})
        return urllib.request.urlopen(request).read().decode()

    def client(self, key=KEY):
        import openai
        return openai.OpenAI(base_url=self.url + "/v1", api_key=key, max_retries=0)

    def end(self):
        self.process.terminate()
        code = self.process.wait(60)
        log = pathlib.Path(self.log.name).read_text()
        assert code == 0, f"exit code {code}\n{log[-2000:]}"
        assert KEY not in log and OTHER not in log, "a key stands in the log"


@check("openai: models, completions, seeds, n, stop, logprobs")
def completions(s):
    c = s.client()
    model = c.models.list().data[0].id
    assert c.models.retrieve(model).id == model
    ask = dict(model=model, prompt="It was a dark night", max_tokens=12, seed=3)
    a, b = c.completions.create(**ask), c.completions.create(**ask)
    assert a.choices[0].text == b.choices[0].text and a.choices[0].finish_reason == "length"
    assert a.usage.completion_tokens == 12 and a.usage.total_tokens == a.usage.prompt_tokens + 12
    several = c.completions.create(**{**ask, "n": 3})
    assert [x.index for x in several.choices] == [0, 1, 2] and several.choices[0].text == a.choices[0].text
    assert len({x.text for x in several.choices}) > 1
    stop = a.choices[0].text[4:6]
    cut = c.completions.create(**ask, stop=[stop])
    assert cut.choices[0].finish_reason == "stop" and cut.choices[0].text == a.choices[0].text[:a.choices[0].text.index(stop)]
    logprobs = c.completions.create(**ask, logprobs=2).choices[0].logprobs
    assert len(logprobs.tokens) == 12 and all(len(t) == 2 for t in logprobs.top_logprobs) and all(x <= 0 for x in logprobs.token_logprobs)
    lists = c.completions.create(**{**ask, "prompt": ["It was a dark night", "Once"]})
    assert len(lists.choices) == 2 and lists.choices[0].text == a.choices[0].text
    text = "".join(p.choices[0].text for p in c.completions.create(**ask, stream=True) if p.choices)
    assert text == a.choices[0].text


@check("openai: chat, stream with usage, logprobs")
def chat(s):
    c = s.client()
    model = c.models.list().data[0].id
    ask = dict(model=model, messages=[{"role": "system", "content": "A story."}, {"role": "user", "content": "Who are you?"}],
               max_tokens=10, seed=5)
    a = c.chat.completions.create(**ask)
    assert a.choices[0].message.role == "assistant" and a.usage.completion_tokens == 10
    parts = list(c.chat.completions.create(**ask, stream=True, stream_options={"include_usage": True}))
    assert "".join(p.choices[0].delta.content or "" for p in parts if p.choices) == a.choices[0].message.content
    assert parts[-1].usage.completion_tokens == 10 and parts[-2].choices[0].finish_reason == "length"
    l = c.chat.completions.create(**ask, logprobs=True, top_logprobs=3).choices[0].logprobs.content
    assert len(l) == 10 and all(len(t.top_logprobs) == 3 for t in l)
    assert b"".join(bytes(t.bytes) for t in l).decode(errors="replace").startswith(a.choices[0].message.content[:3])


@check("openai: responses with previous_response_id, stream, fork")
def responses(s):
    c = s.client()
    model = c.models.list().data[0].id
    one = c.responses.create(model=model, input="Who are you?", max_output_tokens=8, extra_body={"seed": 1})
    ask = dict(model=model, input="And where?", previous_response_id=one.id, max_output_tokens=8, extra_body={"seed": 2})
    two = c.responses.create(**ask)
    assert two.usage.input_tokens > one.usage.total_tokens - 2 and two.usage.input_tokens_details.cached_tokens >= one.usage.input_tokens
    again = c.responses.create(**ask)  # behind the first one once more: a fork
    assert again.output_text == two.output_text and again.id != two.id
    events = list(c.responses.create(**ask, stream=True))
    assert events[0].type == "response.created" and events[-1].type == "response.incomplete"
    assert events[-1].response.output_text == two.output_text and events[-1].response.incomplete_details.reason == "max_output_tokens"
    stop = two.output_text[3:6]
    with c.responses.stream(**{**ask, "extra_body": {"seed": 2, "stop": stop}}) as stream:
        assert stream.get_final_response().output_text == two.output_text[:two.output_text.index(stop)]


@check("openai: errors")
def errors(s):
    import openai
    c = s.client()
    model = c.models.list().data[0].id

    def fails(kind, f, **more):
        try:
            f(**more)
        except kind as e:
            return e
        raise AssertionError(f"{kind} expected")
    e = fails(openai.BadRequestError, c.completions.create, model=model, prompt="x", temperature=-1)
    assert e.param == "temperature" and e.code == "invalid_value" and e.type == "invalid_request_error", e
    e = fails(openai.BadRequestError, c.completions.create, model=model, prompt="x", extra_body={"temprature": 1})
    assert e.param == "temprature" and e.code == "unknown_parameter"
    fails(openai.BadRequestError, c.completions.create, model="other", prompt="x")
    fails(openai.NotFoundError, c.models.retrieve, model="other")
    fails(openai.NotFoundError, c.responses.create, model=model, input="x", previous_response_id="resp_none")
    fails(openai.AuthenticationError, s.client("wrong-key-of-some-length").models.list)
    mine = c.responses.create(model=model, input="x", max_output_tokens=2)
    fails(openai.NotFoundError, s.client(OTHER).responses.create, model=model, input="x", previous_response_id=mine.id)


@check("prometheus-client reads /metrics")
def metrics(s):
    from prometheus_client.parser import text_string_to_metric_families
    families = {f.name: f for f in text_string_to_metric_families(s.get("/metrics"))}
    for name in ("mamba_inference_requests", "mamba_inference_latency_seconds", "mamba_tokens_generated", "mamba_state_cache_hits",
                 "mamba_state_cache_misses", "mamba_active_conversations", "mamba_time_to_first_token_seconds",
                 "mamba_time_between_tokens_seconds", "mamba_state_slots_free", "mamba_prefill_tokens_saved"):
        assert name in families, name


@check("curl -N: stream, cancel, resume by Last-Event-ID")
def curl(s):
    ask = json.dumps({"prompt": "It was", "max_tokens": 60, "seed": 4, "stream": True})
    command = ["curl", "-sN", s.url + "/generate", "-H", f"Authorization: Bearer {KEY}", "-d", ask]
    whole = subprocess.run([*command, "-H", "Content-Type: application/json"], capture_output=True, check=True).stdout.decode()

    def texts(stream):
        return [json.loads(l[6:])["text"] for l in stream.splitlines() if l.startswith("data: ")]
    text = texts(whole)[-1]
    assert "event: done" in whole and "".join(texts(whole)[:-1]) == text
    head = subprocess.run(["bash", "-c", 'set -o pipefail; "$@" | head -12', "curl", *command, "-H", "Content-Type: application/json"],
                          capture_output=True).stdout.decode()
    ids = [l[4:] for l in head.splitlines() if l.startswith("id: ")]
    assert ids and "event: done" not in head
    stream = ids[0].rsplit(":", 1)[0]
    rest = subprocess.run(["curl", "-sN", f"{s.url}/v1/streams/{stream}", "-H", f"Authorization: Bearer {KEY}", "-H",
                           f"Last-Event-ID: {ids[1]}"], capture_output=True, check=True).stdout.decode()
    assert "".join(texts(head)[:2]) + "".join(texts(rest)[:-1]) == text


@check("keys and conversations of others")
def security(s):
    def status(path, key=None, body=None, method=None):
        headers = {"Content-Type": "application/json"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(s.url + path, headers=headers, method=method, data=json.dumps(body).encode() if body else None)
        try:
            return urllib.request.urlopen(request).status
        except urllib.error.HTTPError as e:
            return e.code
    body = {"prompt": "x", "max_tokens": 2, "conversation_id": "mine"}
    assert status("/generate", None, body) == 401 and status("/v1/states") == 401 and status("/metrics") == 401
    assert status("/generate", KEY, body) == 200
    for path, method in (("/v1/states/mine", "GET"), ("/v1/states/mine", "DELETE"), ("/v1/states/mine/file", "GET")):
        assert status(path, OTHER, None, method) == 404, path
    for action, more in (("fork", {}), ("rewind", {"turns": 0})):
        assert status(f"/v1/states/mine/{action}", OTHER, {**more, "turns": 0}, "POST") == 404
    assert status("/v1/states/mine", KEY) == 200
    for path in ("/v1/states/../states/mine", "/v1/states/%2e%2e/health", "//etc/passwd", "/v1/states/mine%00", "/v1/states/a%2fb"):
        assert status(path, KEY) in (400, 404), path


def fuzz(s, cases):
    """schemathesis: all checks, at least `cases` of them."""
    schemathesis = pathlib.Path(sys.executable).parent / "schemathesis"
    operations = sum(len(p) for p in json.loads(s.get("/openapi.json"))["paths"].values())
    # What makes a state file a good one, no schema can say.
    config = pathlib.Path(s.folder.name) / "schemathesis.toml"
    config.write_text("""[[operations]]
include-name = "POST /v1/states/{conversation_id}"
checks.positive_data_acceptance.expected-statuses = [200, 400, 409]
""")
    command = [schemathesis, "--config-file", config, "run", s.url + "/openapi.json", "--checks", "all", "--header", f"Authorization: Bearer {KEY}",
               "--max-examples", str(-(-cases // operations)), "--phases", "examples,coverage,fuzzing", "--no-color",
               "--request-timeout", "120", "--max-response-time", "60", "--seed", "1"]
    result = subprocess.run(command, capture_output=True, text=True, cwd=s.folder.name)
    print(result.stdout[-6000:])
    return result.returncode == 0


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--krait", default="build/krait")
    p.add_argument("--model", default="")
    p.add_argument("--cases", type=int, default=2000)
    p.add_argument("--only", default="openai,metrics,curl,keys,fuzz")
    a = p.parse_args()
    only = a.only.split(",")
    s = Server(os.path.abspath(a.krait), a.model, "--max-answer", "600")
    failed = 0
    for name, f in checks:
        if not any(o in name for o in only):
            continue
        try:
            f(s)
            print(f"ok      {name}")
        except Exception as e:  # every check is to be seen
            failed += 1
            print(f"FAILED  {name}: {type(e).__name__}: {e}")
    if "fuzz" in only:
        ok = fuzz(s, a.cases)
        failed += not ok
        print(f"{'ok    ' if ok else 'FAILED'}  schemathesis, all checks")
    s.end()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
