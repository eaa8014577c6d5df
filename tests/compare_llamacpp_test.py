#!/usr/bin/env python3
"""bench/compare_llamacpp.py with two programs that play Krait and llama-bench: what it measures, skips, writes and refuses."""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest
from unittest import mock
import xml.dom.minidom

BENCH = pathlib.Path(__file__).resolve().parent.parent / "bench"
sys.path.insert(0, str(BENCH))
import compare_llamacpp as compare  # noqa: E402
import compare_report as report  # noqa: E402
from compare_engines import Failure, LlamaPython, Test  # noqa: E402

KRAIT = """#!/usr/bin/env python3
import json, pathlib, sys
a = sys.argv[1:]
log = pathlib.Path(sys.argv[0]).with_name("log")
with log.open("a") as f: f.write(" ".join(a) + "\\n")
if a == ["--version"]: print("krait 9")
elif a == ["--help"]: print("Subcommands:\\n  quantize    Quantize")
elif a[0] == "new":
    pathlib.Path(a[2]).mkdir()
    (pathlib.Path(a[2]) / "architecture").write_text("mamba3" if "mamba3" in a[1] else "mamba2")
elif a[0] == "convert":
    source = pathlib.Path(a[1])
    source = source / "architecture" if source.is_dir() else source
    pathlib.Path(a[2]).write_text(source.read_text().ljust(1000))
elif a[0] == "inspect": print(json.dumps({"architecture": pathlib.Path(a[1]).read_text().strip(), "vocab_size": 9}))
elif a[0] == "quantize":
    if a[4] == "Q2_K": sys.exit("no such type")
    pathlib.Path(a[2]).write_bytes(bytes(500))
elif a[1] == "roofline": print(json.dumps(dict.fromkeys(
    ["f32_gflops", "bf16_gflops", "int8_gops", "read_gb_per_s", "copy_gb_per_s"], 100.0)))
else: print(json.dumps({"cpu": "C", "kernels": "cpu-test", "compute": "f32", "rows": [
    {"test": "t", "tokens_per_second": 30.0, "roofline_share": None if "--no-roofline" in a else 0.5}]}))
"""
LLAMA = """#!/usr/bin/env python3
import sys
if "--help" not in sys.argv: print('[{"avg_ts": 10.0, "build_commit": "abc", "build_number": 7}]')
"""


class Whole(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.path = pathlib.Path(self.folder.name)
        for name, text in (("krait", KRAIT), ("llama-bench", LLAMA)):
            (self.path / name).write_text(text)
            (self.path / name).chmod(0o755)

    def run_it(self, *args):
        return subprocess.run([sys.executable, BENCH / "compare_llamacpp.py", "--krait", self.path / "krait", "--llama-bench",
                               self.path / "llama-bench", "--out", self.path / "out", "--rounds", "3", *args],
                              capture_output=True, text=True)

    def rows(self):
        return {(r["model"], r["type"], r["test"]): r for r in json.loads((self.path / "out" / "results.json").read_text())["rows"]}

    def test_both_engines_are_measured_and_all_is_written(self):
        done = self.run_it("--models", "mamba-130m,mamba3-siso-187m", "--types", "BF16,Q8_0", "--tests", "pp512,tg32")
        self.assertEqual(done.returncode, 0, done.stderr)
        rows = self.rows()
        self.assertEqual(len(rows), 8)
        row = rows["mamba-130m", "Q8_0", "tg32"]
        self.assertEqual((row["krait"], row["llama"], row["ratio"]), ([30.0] * 3, [10.0] * 3, 3.0))
        self.assertEqual(row["roofline_share"], 0.5)
        alone = rows["mamba3-siso-187m", "Q8_0", "tg32"]
        self.assertEqual((alone["krait_median"], alone["llama"], alone["ratio"], alone["note"]), (30.0, [], None, ""))
        self.assertIn("30.0 / 10.0 = **3.00x**", done.stdout)
        self.assertEqual(done.stdout.strip(), (self.path / "out" / "table.md").read_text().strip())
        xml.dom.minidom.parse(str(self.path / "out" / "ratio.svg"))

    def test_what_cannot_be_measured_is_said_and_the_rest_goes_on(self):
        done = self.run_it("--models", "mamba-130m", "--types", "BF16,Q2_K", "--tests", "tg32,tg8x16")
        self.assertEqual(done.returncode, 1)
        rows = self.rows()
        self.assertIn("no such type", rows["mamba-130m", "Q2_K", "tg32"]["note"])
        self.assertIn("no llama-batched-bench beside", rows["mamba-130m", "BF16", "tg8x16"]["note"])
        self.assertEqual(rows["mamba-130m", "BF16", "tg8x16"]["krait_median"], 30.0)
        self.assertEqual(rows["mamba-130m", "BF16", "tg32"]["ratio"], 3.0)
        self.assertIn("### Not measured", done.stdout)

    def test_kept_files_are_made_once(self):
        for _ in range(2):
            self.run_it("--models", "mamba-130m", "--types", "Q8_0", "--tests", "tg32", "--cache", self.path / "cache")
        log = (self.path / "log").read_text().splitlines()
        self.assertEqual(sum(line.startswith(("new ", "quantize ")) for line in log), 2)

    def test_a_newer_program_quantizes_anew(self):
        args = ["--models", "mamba-130m", "--types", "Q8_0", "--tests", "tg32", "--cache", self.path / "cache"]
        self.run_it(*args)
        kept = self.path / "cache" / "mamba-130m-Q8_0.krait.gguf"
        os.utime(kept, (0, 0))
        self.run_it(*args)
        self.assertGreater(kept.stat().st_mtime, 0)

    def test_cpu_chooses_the_kernels(self):
        self.run_it("--models", "mamba-130m", "--types", "BF16", "--tests", "tg32", "--cpu", "avx2")
        log = (self.path / "log").read_text().splitlines()
        benches = [line for line in log if line.startswith("bench ") and not line.startswith("bench roofline")]
        self.assertTrue(benches and all("--kernels cpu-avx2" in line for line in benches), benches)

    def test_cores_that_are_none_are_refused(self):
        for cores in ("a", "99999", "", "-1"):
            done = self.run_it("--cores", cores)
            self.assertEqual(done.returncode, 2, done.stderr)
            self.assertIn("compare: --cores", done.stderr)

    def test_two_models_of_one_name_are_refused(self):
        done = self.run_it("--models", "a/model,b/model.gguf")
        self.assertEqual(done.returncode, 2)
        self.assertIn("the same name", done.stderr)

    def test_a_model_without_peer_is_known_by_its_architecture(self):
        for name, architecture in (("mine", "mamba3"), ("not-mamba3", "mamba2")):
            (self.path / name).mkdir()
            (self.path / name / "architecture").write_text(architecture)
        models = f"{self.path / 'mine'},{self.path / 'not-mamba3'}"
        self.assertEqual(self.run_it("--models", models, "--types", "BF16", "--tests", "tg32").returncode, 0)
        rows = self.rows()
        self.assertEqual([rows[name, "BF16", "tg32"]["ratio"] for name in ("mine", "not-mamba3")], [None, 3.0])

    def test_a_missing_peer_is_refused_with_the_way_to_get_it(self):
        done = subprocess.run([sys.executable, BENCH / "compare_llamacpp.py", "--krait", self.path / "krait", "--python",
                               self.path / "none"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 2)
        self.assertIn("pip install --no-binary llama-cpp-python llama-cpp-python", done.stderr)


class Parts(unittest.TestCase):
    def test_another_model_behind_the_same_file_fails(self):
        for kl, failed in ((9e-4, 0), (2e-3, 1), (float("nan"), 1)):
            peer, models = mock.Mock(spec=LlamaPython), mock.Mock()
            models.file.return_value.stat.return_value.st_size = 1000
            c = compare.Comparison(mock.Mock(tests=[]), mock.Mock(), peer, models)
            with mock.patch.object(compare, "divergence", return_value=kl):
                c.measure_file("m", "BF16")
            self.assertEqual(c.failed, failed, kl)

    def test_slow_tests_are_cut_to_the_slice(self):
        self.assertEqual(Test("pp512").fitting(10, 2), 512)
        self.assertEqual(Test("pp2048").fitting(10, 2), 1024)
        self.assertEqual(Test("pp2048").fitting(900, 2), 1536)
        self.assertEqual(Test("tg128").fitting(20, 2), 40)
        self.assertEqual(Test("tg128").fitting(1e6, 2), 128)
        self.assertEqual(Test("tg64x16").fitting(160, 2), 20)

    def test_names_of_tests(self):
        for name in ("pp", "pp0", "pp8x2", "tgx4", "tg4x0", "tg4@d8", ""):
            with self.assertRaises(Failure, msg=name):
                Test(name)

    def test_the_ratio_is_the_median_of_the_rounds_ratios(self):
        row = compare.empty_row(Test("tg32"))
        row.update(krait=[30.0, 10.0, 33.0], llama=[10.0, 1.0, 10.0])
        compare.summarize(row, bound=60.0)
        self.assertEqual((row["ratio"], row["ratio_least"], row["ratio_most"], row["roofline_share"]), (3.3, 3.0, 10.0, 0.5))
        self.assertIn("3.30x", report.line(row))


if __name__ == "__main__":
    unittest.main()
