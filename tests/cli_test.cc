// The program as a user meets it: help, exit codes, pipes, files that cannot be read or written.
#include "tests/cli_harness.h"

namespace krait::test {
namespace {

using testing::HasSubstr;
using testing::Not;

std::vector<std::string> commands() {
  return {"run",     "logits", "perplexity", "bench", "inspect",  "verify",    "state",
          "convert", "lora",   "quantize",   "new",   "tokenize", "tokenizer", "doctor"};
}

TEST_F(CliTest, HelpNamesEveryCommandAndEveryCommandHasHelp) {
  const Finished all = krait({"--help"});
  EXPECT_EQ(all.code, 0);
  for (const std::string& name : commands()) {
    EXPECT_THAT(all.out, HasSubstr("\n  " + name + " ")) << "in krait --help";
    const Finished one = krait({name, "--help"});
    EXPECT_EQ(one.code, 0) << name;
    EXPECT_THAT(one.out, HasSubstr("-h,--help")) << name;
    EXPECT_EQ(one.err, "") << name;
  }
  EXPECT_THAT(krait({"--version"}).out, HasSubstr("krait "));
}

TEST_F(CliTest, WrongUsageIsExitCode2WithAReason) {
  for (const Args& args : std::vector<Args>{{},
                                            {"sing"},
                                            {"run", "--sing"},
                                            {"bench", "-p", "many"},
                                            {"logits"},
                                            {"bench", "roofline", "-p", "5"},
                                            {"bench", "-p", "0", "-n", "0"},
                                            {"bench", "--chunk", "0"},
                                            {"bench", "-p", "0", "-n", "4611686018427387904", "-b", "4"},
                                            {"bench", "-p", "0", "-n", "67108864", "-b", "2"},
                                            {"bench", "-p", "4611686018427387904"},
                                            {"bench", "-d", "4611686018427387904"},
                                            {"bench", "-b", "1000000"},
                                            {"bench", "-r", "4611686018427387904"},
                                            {"bench", "--chunk", "4611686018427387904"},
                                            {"bench", "-n", "0", "-b", "7"},
                                            {"bench", "-p", "0", "--chunk", "7"},
                                            {"bench", "--tokenizer", "x"},
                                            {"tokenize", "-p", "a", "-f", "b"},
                                            {"tokenize", "-p", "a", "--decode", "--json"},
                                            {"tokenize", "-p", "a", "--pieces", "--json"},
                                            {"new", "mamba-1b", "x"},
                                            {"new", "mamba-130m", "x", "--seed", "-1"}}) {
    const Finished f = krait(args);
    EXPECT_EQ(f.code, 2) << testing::PrintToString(args);
    EXPECT_NE(f.err, "") << testing::PrintToString(args);
    EXPECT_EQ(f.out, "") << testing::PrintToString(args);
  }
}

TEST_F(CliTest, ModelsThatAreNoneAreRefused) {
  EXPECT_THAT(krait({"inspect", path("absent")}).code, testing::AnyOf(1, 3));
  write("garbage.safetensors", "not a model");
  write("config.json", "{}");
  for (const char* command : {"inspect", "bench"}) {
    const Finished f = krait({command, path("garbage.safetensors")});
    EXPECT_EQ(f.code, 3) << command;
    EXPECT_THAT(f.err, HasSubstr("garbage.safetensors"));
  }
}

TEST_F(CliTest, IdsOutOfRangeAreRefusedAndNothingIsLeftBehind) {
  // npy, version 1.0: int32 [2], the ids 5 and 5000.
  std::string npy =
      std::string("\x93NUMPY\x01\x00\x76\x00", 10) + "{'descr': '<i4', 'fortran_order': False, 'shape': (2,), }";
  npy.resize(127, ' ');
  npy += "\n" + std::string("\x05\0\0\0\x88\x13\0\0", 8);
  write("ids.npy", npy);
  const Finished f = krait({"logits", model(), "--ids", path("ids.npy"), "--out", path("out.npy")});
  EXPECT_EQ(f.code, 3) << f.err;
  EXPECT_THAT(f.err, HasSubstr("5000"));
  EXPECT_FALSE(fs::exists(path("out.npy")));
}

TEST_F(CliTest, PerplexityCountsWindowsAndMeansOverBooks) {
  write("a.txt", std::string(100, 'a'));
  write("b.txt", std::string(70, 'b') + "\n\n" + std::string(30, 'c'));
  const std::string m = model();
  // A leading id, and two newlines after each paragraph: 103 and 105 ids; windows of 40 targets: 2 and 2.
  const json one = krait({"perplexity", m, path("a.txt"), "--window", "40", "--json"}).parsed();
  const json two = krait({"perplexity", m, path("b.txt"), "--window", "40", "--json"}).parsed();
  const json both = krait({"perplexity", m, path("a.txt"), path("b.txt"), "--window", "40", "--json"}).parsed();
  EXPECT_EQ(one["targets"], 80);
  EXPECT_EQ(one["tokens"], 103);
  EXPECT_EQ(two["tokens"], 105);
  EXPECT_EQ(both["targets"], 160);
  EXPECT_NEAR(both["loss"].get<double>(), (one["loss"].get<double>() + two["loss"].get<double>()) / 2, 1e-12);
  // Without windows: the text as it is, all of it but the first id.
  EXPECT_EQ(krait({"perplexity", m, path("a.txt"), "--json"}).parsed()["targets"], 99);
  EXPECT_EQ(krait({"perplexity", m, path("a.txt"), "--window", "1000"}).code, 3);
  EXPECT_EQ(krait({"perplexity", m, path("absent.txt")}).code, 1);
}

TEST_F(CliTest, BenchNamesItsRowsLikeItsPeers) {
  const json j =
      krait({"bench", model(), "-p", "8", "-n", "4,2", "-b", "1,3", "-d", "0,5", "-r", "1", "--no-roofline", "--json"})
          .parsed();
  std::vector<std::string> names;
  for (const json& row : j["rows"]) {
    names.push_back(row["test"]);
    EXPECT_GT(row["tokens_per_second"].get<double>(), 0);
    EXPECT_TRUE(row.contains("roofline_share"));
    EXPECT_TRUE(row["fits_in_cache"].is_boolean());
  }
  EXPECT_THAT(names, testing::ElementsAre("pp8", "tg4", "tg4x3", "tg2", "tg2x3", "pp8@d5", "tg4@d5", "tg4x3@d5",
                                          "tg2@d5", "tg2x3@d5"));
}

TEST_F(CliTest, BenchProfileAccountsForThePass) {
  const json j =
      krait({"bench", model(), "-p", "40", "-n", "6", "-r", "1", "--profile", "--no-roofline", "--json"}).parsed();
  for (const json& row : j["rows"]) {
    double share = 0;
    std::vector<std::string> ops;
    for (const json& op : row["profile"]) {
      ops.push_back(op["op"]);
      share += op["share"].get<double>();
      EXPECT_GE(op["share"].get<double>(), 0);
    }
    EXPECT_NEAR(share, 1, 1e-6);
    EXPECT_THAT(
        ops, testing::IsSupersetOf({"matmul head (f32)", "matmul in_proj (f32)", "norm", "embed", "outside kernels"}));
  }
}

// A kernel forks and joins once, the matmul and the Mamba-3 scan twice: kernels of a layer bound its barriers.
TEST_F(CliTest, TrapH6_KernelsOfALayer) {
  const std::vector<std::pair<std::string, double>> most = {{"mamba1", 7}, {"mamba2", 6}, {"mamba3_siso", 8}};
  for (const auto& [generation, kernels] : most) {
    const std::string m = model(generation);
    const json j =
        krait({"bench", m, "-p", "0", "-n", "4", "-r", "1", "--profile", "--no-roofline", "--json"}).parsed();
    double calls = 0;
    for (const json& op : j["rows"][0]["profile"])
      calls += op["op"] == "outside kernels" ? 0 : op["calls"].get<double>();
    const double layer = (calls - 3) / 2;  // beside two layers: embedding, last norm, head
    EXPECT_GT(layer, 2) << generation;
    EXPECT_LE(layer, kernels) << generation;
  }
}

// Which kernels run is said, and those that were asked for run or nothing does.
TEST_F(CliTest, TrapH8_KernelsAreNamedAndNeverReplaced) {
  const std::string m = model();
  const Args bench = {"bench", m, "-p", "4", "-n", "0", "-r", "1", "--no-roofline"};
  EXPECT_THAT(krait(bench + Args{"--json"}).parsed()["kernels"].get<std::string>(), testing::StartsWith("cpu-"));
  EXPECT_EQ(krait(bench + Args{"--json", "--kernels", "cpu-scalar"}).parsed()["kernels"], "cpu-scalar");
  EXPECT_THAT(krait(bench + Args{"--kernels", "cpu-scalar"}).out, HasSubstr("cpu-scalar"));
  const Finished f = krait({"run", m, "-p", "a", "-n", "1", "--kernels", "cpu-amx"});
  EXPECT_EQ(f.code, 2);
  EXPECT_THAT(f.err, HasSubstr("cpu-amx"));
  EXPECT_EQ(f.out, "");
}

TEST_F(CliTest, TokenizeThereAndBack) {
  const std::string m = model();
  EXPECT_EQ(krait({"tokenize", m, "-p", "Az\xC3\xA9", "--json"}).out, "{\"ids\":[65,122,195,169]}\n");
  EXPECT_EQ(krait({"tokenize", m, "--decode"}, "[65, 122, 195, 169]").out, "Az\xC3\xA9");
  EXPECT_EQ(krait({"tokenize", m, "--decode"}, "65 1000").code, 3);
}

TEST_F(CliTest, FullDiskOnStandardOutput) {
  const std::string m = model();
  for (const Args& args : std::vector<Args>{{"run", m, "-p", "a", "-n", "3"},
                                            {"run", m, "-p", "a", "-n", "3", "--json"},
                                            {"inspect", m},
                                            {"tokenize", m, "-p", "a"}}) {
    const Finished f = Child(args, "", "/dev/full").wait();
    EXPECT_EQ(f.code, 1) << args[0];
    EXPECT_THAT(f.err, HasSubstr("No space left")) << args[0];
  }
}

}  // namespace
}  // namespace krait::test
