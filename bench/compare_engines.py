"""The two engines of compare_llamacpp.py, each with measure(test, count, …) -> tokens a second."""
import json
import pathlib
import re
import subprocess
import tempfile

HOW_TO_GET = """get it so (it is compiled for this CPU, about 15 minutes on 2 cores):
  python3 -m venv peer && peer/bin/pip install --no-binary llama-cpp-python llama-cpp-python
  {script} --python peer/bin/python
or give the path of a llama.cpp build: --llama-bench PATH/llama-bench"""
HOW_TO_GET_AVX2 = """build one so:
  python3 -m venv peer-avx2 && CMAKE_ARGS="-DGGML_NATIVE=OFF -DGGML_AVX512=OFF -DGGML_AVX=ON -DGGML_AVX2=ON -DGGML_FMA=ON \
-DGGML_F16C=ON -DGGML_BMI2=ON" \\
  peer-avx2/bin/pip install --no-binary llama-cpp-python llama-cpp-python"""


class Failure(Exception):
    """What was asked cannot be measured; the text says why."""


class Test:
    """pp512: a prompt of 512 tokens; tg128: 128 tokens one by one; tg64x16: 64 of each of 16 sequences together."""

    def __init__(self, name):
        found = re.fullmatch(r"(pp|tg)([1-9]\d*)(?:x([1-9]\d*))?", name)
        if not found or (found[1] == "pp" and found[3]):
            raise Failure(f"a test is written pp512, tg128 or tg64x16, not '{name}'")
        self.name, self.prompt, self.count, self.batch = name, found[1] == "pp", int(found[2]), int(found[3] or 1)

    def fitting(self, tokens_per_second, seconds):
        """The count that takes about `seconds`, at most the test's own. The cost of a token of these models does not
        depend on its position, so that a shorter slice measures the same."""
        steps = int(tokens_per_second * seconds / self.batch)
        if self.prompt:
            steps = max(1024, steps // 512 * 512)
        return min(self.count, max(steps, 16 if self.batch == 1 else 8))

    def probe(self):
        return min(self.count, 512 if self.prompt else 16 if self.batch == 1 else 4)


def run(command, **kwargs):
    try:
        done = subprocess.run([str(c) for c in command], capture_output=True, text=True, **kwargs)
    except OSError as e:
        raise Failure(f"{command[0]}: {e.strerror}") from e
    if done.returncode != 0:
        said = " ".join((done.stderr or done.stdout).split())[:300] or "nothing said"
        raise Failure(f"{pathlib.Path(command[0]).name} {command[1]}: exit code {done.returncode}: {said}")
    return done.stdout


class Krait:
    def __init__(self, program, threads, arguments):
        self.program, self.threads, self.arguments = program, threads, arguments
        self.model, self.facts = None, {}
        self.facts["version"] = run([program, "--version"]).strip()
        self.quantizes = re.search(r"^ +quantize ", run([program, "--help"]), re.M) is not None

    def load(self, model):
        self.model = model

    def measure(self, test, count, bound=False):
        """(tokens a second, share of the bound or None). The program warms up by a run of its own."""
        shape = ["-p", count, "-n", 0] if test.prompt else ["-p", 0, "-n", count, "-b", test.batch]
        command = [self.program, "bench", self.model, *shape, "-r", 1, "-t", self.threads, "--json", *self.arguments]
        j = json.loads(run(command + ([] if bound else ["--no-roofline"])))
        self.facts.update({k: j[k] for k in ("cpu", "kernels", "compute") if k in j})
        return j["rows"][0]["tokens_per_second"], j["rows"][0]["roofline_share"]

    def roofline(self, repeats=3):
        """The best of several: what the machine can do when nothing disturbs it."""
        runs = [json.loads(run([self.program, "bench", "roofline", "-t", self.threads, "--json"])) for _ in range(repeats)]
        return {k: max(r[k] for r in runs) for k in runs[0] if isinstance(runs[0][k], float)}

    def logits(self, model, ids_file, out_file):
        run([self.program, "logits", model, "--ids", ids_file, "--out", out_file, *self.arguments])


class LlamaPython:
    """llama.cpp through the package llama-cpp-python of another interpreter. The process stays; it sleeps meanwhile."""

    def __init__(self, python, threads, script):
        self.threads, self.model = threads, None
        worker = pathlib.Path(__file__).with_name("compare_worker.py")
        self.said = tempfile.TemporaryFile("w+")
        try:
            self.process = subprocess.Popen([python, str(worker)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                            stderr=self.said, text=True)
            self.facts = self.ask(op="info")
        except (OSError, Failure) as e:
            raise Failure(f"no llama.cpp behind --python {python} ({e}); " + HOW_TO_GET.format(script=script)) from e

    def ask(self, **request):
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self.process.wait()
            self.said.seek(0)
            said = self.said.read().strip().splitlines() or ["nothing said"]
            raise Failure(f"llama.cpp's process ended, {said[-1]}")
        answer = json.loads(line)
        if "error" in answer:
            raise Failure(answer["error"])
        return answer

    def load(self, model):
        self.ask(op="load", model=str(model), threads=self.threads)

    def measure(self, test, count):
        seconds = self.ask(op="measure", tokens=count, batch=test.batch, prompt=test.prompt)["seconds"]
        return count * test.batch / seconds

    def quantize(self, source, target, kind):
        self.ask(op="quantize", source=str(source), target=str(target), type=kind)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


class LlamaBench:
    """llama.cpp through its own programs: llama-bench, and llama-batched-bench and llama-quantize beside it."""

    def __init__(self, program, threads, script):
        self.program, self.threads, self.model = pathlib.Path(program), threads, None
        try:
            run([program, "--help"])
        except Failure as e:
            raise Failure(f"no llama.cpp behind --llama-bench {program} ({e}); " + HOW_TO_GET.format(script=script)) from e
        self.facts = {"version": "llama-bench", "system": ""}

    def load(self, model):
        self.model = model

    def beside(self, name):
        path = self.program.with_name(name)
        if not path.exists():
            raise Failure(f"there is no {name} beside {self.program}")
        return path

    def measure(self, test, count):
        if test.batch > 1:
            out = run([self.beside("llama-batched-bench"), "-m", self.model, "-c", 4096 * test.batch, "-npp", 1, "-ntg", count,
                       "-npl", test.batch, "-t", self.threads, "--output-format", "jsonl"])
            lines = [json.loads(line[line.index("{"):]) for line in out.splitlines() if '"speed_tg"' in line]
            if not lines:
                raise Failure("llama-batched-bench printed no result")
            return lines[-1]["speed_tg"]
        shape = ["-p", count, "-n", 0] if test.prompt else ["-p", 0, "-n", count]
        result = json.loads(run([self.program, "-m", self.model, *shape, "-r", 1, "-t", self.threads, "-o", "json"]))[0]
        self.facts["version"] = f"llama.cpp {result.get('build_commit', '')} ({result.get('build_number', '?')})"
        return result["avg_ts"]

    def quantize(self, source, target, kind):
        run([self.beside("llama-quantize"), source, target, kind])

    def close(self):
        pass
