// krait quantize as a user meets it, and what its measurements mean, on small models of all generations.
#include "krait/core/error.h"
#include "krait/io/gguf.h"
#include "krait/ops/dequantize.h"
#include "krait/quant/report.h"
#include "tests/cli_harness.h"

namespace krait::test {
namespace {

using testing::AllOf;
using testing::AnyOf;
using testing::HasSubstr;
using testing::Not;

// Wide enough for blocks of 256, two layers, the byte vocabulary of the harness.
ModelSpec wide_spec(const std::string& generation) {
  ModelSpec s = tiny_spec(generation);
  s.d_model = 256;
  s.vocab_size = 259;
  s.padded_vocab_size = 272;
  for (SubBlockSpec& b : s.blocks) {
    if (b.mixer == "gated_mlp") {
      b.config.set("d_hidden", 384);
      continue;
    }
    b.config.set("d_inner", 512);
    if (b.config.values().contains("d_ssm")) b.config.set("d_ssm", 512);
    if (b.config.values().contains("headdim")) b.config.set("headdim", 128);
    if (b.config.values().contains("dt_rank")) b.config.set("dt_rank", 48);
  }
  return s;
}

class QuantizeTest : public CliTest {
 protected:
  std::string wide(const std::string& generation = "mamba2") const {
    const fs::path out = folder_ / ("wide-" + generation);
    if (fs::exists(out)) return out.string();
    const ModelSpec spec = wide_spec(generation);
    save_folder(spec, random_params(spec, 1, DType::kBF16, pool()), out, CheckpointForm::kAuto);
    std::ofstream(out / "tokenizer.json") << byte_tokenizer().dump();
    std::ofstream(out / "tokenizer_config.json") << R"({"eos_token": "<|end|>"})";
    return out.string();
  }
  Finished quantize(const Args& args) const { return krait(Args{"quantize"} + args); }
  size_t files() const { return static_cast<size_t>(std::distance(fs::directory_iterator(folder_), {})); }
};

TEST_F(QuantizeTest, EveryTypeOfEveryGenerationRunsAndKeepsTheContract) {
  for (const std::string& generation : tiny_names()) {
    const std::string m = wide(generation);
    for (const quant::Mix& mix : quant::mixes()) {
      SCOPED_TRACE(generation + " " + mix.name);
      const std::string out = path(generation + mix.name + ".gguf");
      const Finished f = quantize({m, out, "--type", mix.name});
      ASSERT_EQ(f.code, 0) << f.err;
      const auto g = io::Gguf::open(out);
      EXPECT_EQ(g->tensors().at("blk.1.ssm_out.weight").dtype(), mix.base);
      EXPECT_EQ(g->integer("general.file_type"), mix.file_type);
      EXPECT_EQ(g->integer("general.quantization_version"), 2);
      EXPECT_EQ(krait({"tokenize", out, "-p", "Az"}).out, krait({"tokenize", m, "-p", "Az"}).out);
      const json v = krait({"verify", out, "--quick", "--length", "33", "--weights", "file", "--json"}).parsed();
      EXPECT_EQ(v["different"], 0);
      EXPECT_GT(v["cases"].get<int>(), 0);
    }
  }
}

TEST_F(QuantizeTest, TrapD1_RanksThatFillNoBlock) {
  ModelSpec s = wide_spec("mamba1");
  for (const int64_t dt_rank : {1, 16, 48, 50}) {
    for (SubBlockSpec& b : s.blocks) b.config.set("dt_rank", static_cast<double>(dt_rank));
    const std::string m = path(std::to_string(dt_rank));
    save_folder(s, random_params(s, 1, DType::kF32, pool()), m, CheckpointForm::kAuto);
    for (const char* type : {"Q8_0", "Q4_K_M"}) {
      const Finished f = quantize({m, m + type + ".gguf", "--type", type});
      EXPECT_EQ(f.code, 0) << f.err;
      EXPECT_THAT(f.err, HasSubstr("2 tensors have rows that their type does not fit")) << dt_rank;
      EXPECT_EQ(io::Gguf::open(m + type + ".gguf")->tensors().at("blk.0.ssm_dt.weight").dtype(), DType::kF16);
      EXPECT_EQ(krait({"logits", m + type + ".gguf", "--ids", "none.npy", "--out", "x"}).code, 1) << "the file opens";
    }
  }
}

TEST_F(QuantizeTest, TrapD6_StrictRefusesEveryFallbackByName) {
  const Finished f = quantize({wide("mamba1"), path("m.gguf"), "--type", "Q8_0", "--strict"});
  EXPECT_EQ(f.code, 2);
  EXPECT_THAT(f.err, AllOf(HasSubstr("blk.0.ssm_dt.weight [512, 48]"), HasSubstr("blk.1.ssm_dt.weight")));
  EXPECT_FALSE(fs::exists(path("m.gguf")));
  EXPECT_EQ(quantize({wide("mamba2"), path("m.gguf"), "--type", "Q8_0", "--strict"}).code, 0);
}

TEST_F(QuantizeTest, ExplainShowsEveryTensorAndWritesNothing) {
  const std::string m = wide("mamba1");
  const size_t before = files();
  const Finished f = quantize({m, "--explain", "--tensor-type", "ssm_out=q6_k"});
  EXPECT_EQ(f.code, 0) << f.err;
  EXPECT_THAT(f.out, AllOf(HasSubstr("blk.1.ssm_a"), HasSubstr("--tensor-type ssm_out=q6_k"), HasSubstr("makes dt"),
                           HasSubstr("bits a weight")));
  EXPECT_EQ(files(), before);
}

TEST_F(QuantizeTest, WrongUsage) {
  const std::string m = wide();
  write("there.gguf", "mine");
  for (const Args& args : std::vector<Args>{{m},
                                            {m, path("m.bin")},
                                            {m, path("there.gguf")},
                                            {m, path("m.gguf"), "--type", "Q4_K_X"},
                                            {m, path("m.gguf"), "--tensor-type", "ssm_out"},
                                            {m, path("m.gguf"), "--tensor-type", "ssm_out=q9"},
                                            {m, path("m.gguf"), "--tensor-type", "nothing=q8_0"},
                                            {m, path("m.gguf"), "--pure", "--tensor-type", "ssm_out=q8_0"},
                                            {m, path("m.gguf"), "--tokens", "5"},
                                            {m, path("m.gguf"), "--drift", "5"},
                                            {m, path("m.gguf"), "--effects"},
                                            {m, path("m.gguf"), "--report", path("r.txt")},
                                            {m, "--explain", "--force"},
                                            {m, "--explain", "--no-tokenizer"},
                                            {m, "--explain", "-t", "1"},
                                            {m, path("m.gguf"), "--kernels", "auto"},
                                            {m, "--explain", "--report", path("r.html")}}) {
    const Finished f = quantize(args);
    EXPECT_EQ(f.code, 2) << testing::PrintToString(args) << f.err;
    EXPECT_THAT(f.err, HasSubstr("[quantize]")) << testing::PrintToString(args);
  }
  EXPECT_THAT(quantize({m, path("m.gguf"), "--type", "x"}).err, AllOf(HasSubstr("Q4_K_M"), HasSubstr("Q8_0")));
  EXPECT_EQ(read_all(path("there.gguf")), "mine");
  EXPECT_EQ(quantize({m, path("there.gguf"), "--force"}).code, 0);
  EXPECT_EQ(quantize({path("absent"), path("m.gguf")}).code, 1);
  EXPECT_FALSE(fs::exists(path("m.gguf")));
}

TEST_F(QuantizeTest, EveryOutputIsCheckedBeforeAnyWork) {
  const std::string m = wide(), text = path("text.txt"), out = path("m.gguf");
  write("text.txt", std::string(5000, 'x'));
  write("mine.html", "mine");
  fs::create_symlink(path("nowhere"), path("dangling.html"));
  const Args base = {m, out, "--calibrate", text};
  const auto code = [&](const Args& more) {
    const Finished f = quantize(base + more);
    EXPECT_NE(f.code, 0) << testing::PrintToString(more);
    EXPECT_THAT(f.err, AnyOf(HasSubstr("[quantize]"), HasSubstr("[write]")));
    EXPECT_FALSE(fs::exists(out));
    return f.code;
  };
  EXPECT_EQ(code({"--report", path("mine.html")}), 2);
  EXPECT_EQ(code({"--save-stats", path("mine.html")}), 2);
  EXPECT_EQ(code({"--save-stats", out}), 2);
  EXPECT_EQ(code({"--save-stats", path("r.html"), "--report", path("./r.html")}), 2);
  for (const std::string& input : {text, m + "/config.json", m + "/model.safetensors", m}) {
    EXPECT_EQ(code({"--save-stats", input, "--force"}), 2) << input;
  }
  EXPECT_EQ(code({"--report", m + "/config.json", "--force"}), 2);
  EXPECT_EQ(code({"--report", path("no/folder/r.html")}), 1);
  EXPECT_EQ(code({"--report", path("dangling.html")}), 1);
  EXPECT_EQ(code({"--save-stats", "/dev/full"}), 1);
  EXPECT_EQ(code({"--save-stats", path(std::string(300, 'n'))}), 1);
  const Finished f = quantize({m, path(std::string(300, 'n') + ".gguf")});
  EXPECT_EQ(f.code, 1);
  EXPECT_THAT(f.err, HasSubstr("[quantize] OUT cannot be"));
  EXPECT_EQ(quantize({m, path(std::string(248, 'n') + ".gguf"), "--type", "Q8_0"}).code, 0);  // room for no suffix
  EXPECT_EQ(read_all(path("mine.html")), "mine");
}

TEST_F(QuantizeTest, TextsAreCheckedAndReadNoFurtherThanNeeded) {
  const std::string m = wide();
  const auto run = [&](const Args& more) {
    fs::remove(path("m.gguf"));
    return quantize(Args{m, path("m.gguf"), "--type", "Q8_0"} + more);
  };
  write("bad.txt", std::string(100, 'a') + "\xff" + std::string(100, 'a'));
  write("short.txt", "abc");
  std::string umlauts = "a";  // a limit of even bytes cuts one in two
  for (int i = 0; i < 5000; ++i) umlauts += "\xc3\xa4";
  write("long.txt", umlauts + "\xff");  // beyond what 20 tokens can need
  Finished f = run({"--calibrate", path("bad.txt")});
  EXPECT_EQ(f.code, 3);
  EXPECT_THAT(f.err, HasSubstr("0xFF at offset 100"));
  EXPECT_EQ(run({"--calibrate", path("bad.txt"), "--lossy-utf8"}).code, 0);
  EXPECT_EQ(run({"--report", path("r.html"), "--eval", path("bad.txt")}).code, 3);
  EXPECT_EQ(run({"--calibrate", path("short.txt")}).code, 3);
  EXPECT_EQ(run({"--calibrate", path("long.txt"), "--tokens", "20"}).code, 0);
  EXPECT_EQ(run({"--calibrate", path("long.txt")}).code, 3);
  f = run({"--calibrate", "/dev/zero"});
  EXPECT_EQ(f.code, 1);
  EXPECT_THAT(f.err, HasSubstr("neither a file nor a pipe"));
  ModelSpec small = wide_spec("mamba2");
  small.vocab_size = small.padded_vocab_size = 64;
  save_folder(small, random_params(small, 1, DType::kBF16, pool()), path("small"), CheckpointForm::kAuto);
  f = quantize({path("small"), path("s.gguf"), "--calibrate", path("long.txt"), "--tokenizer", m});
  EXPECT_EQ(f.code, 3);
  EXPECT_THAT(f.err, HasSubstr("ids, the model 64"));
}

TEST_F(QuantizeTest, TrapD6_AFileWithNothingQuantizedIsWarnedOf) {
  ModelSpec s = tiny_spec("mamba1");
  s.d_model = 20;
  for (SubBlockSpec& b : s.blocks) {
    b.config.set("d_inner", 40);
    b.config.set("dt_rank", 2);
  }
  save_folder(s, random_params(s, 1, DType::kF32, pool()), path("d20"), CheckpointForm::kAuto);
  const Finished f = quantize({path("d20"), path("m.gguf"), "--type", "Q8_0"});
  EXPECT_EQ(f.code, 0) << f.err;
  EXPECT_THAT(f.err, HasSubstr("warning: not one matrix gets a quantized type"));
  EXPECT_EQ(io::Gguf::open(path("m.gguf"))->integer("general.file_type"), 1);
  EXPECT_EQ(quantize({path("d20"), path("n.gguf"), "--type", "Q8_0", "--strict"}).code, 2);
}

TEST_F(QuantizeTest, QuantizedModelsAreRefusedUnlessAskedFor) {
  const std::string once = path("once.gguf"), twice = path("twice.gguf");
  ASSERT_EQ(quantize({wide(), once, "--type", "Q8_0"}).code, 0);
  const Finished f = quantize({once, twice, "--type", "Q4_0"});
  EXPECT_EQ(f.code, 2);
  EXPECT_THAT(f.err, HasSubstr("--allow-requantize"));
  EXPECT_EQ(quantize({once, twice, "--type", "Q4_0", "--allow-requantize"}).code, 0);
  EXPECT_THAT(quantize({once, once, "--allow-requantize", "--force"}).err, HasSubstr("OUT is MODEL itself"));
  const auto a = io::Gguf::open(once), b = io::Gguf::open(twice);
  EXPECT_EQ(b->tensors().at("blk.0.ssm_out.weight").dtype(), DType::kQ4_0);
  EXPECT_EQ(b->strings("tokenizer.ggml.tokens"), a->strings("tokenizer.ggml.tokens"));
}

TEST_F(QuantizeTest, ReportHasEveryFigure) {
  const std::string m = wide("mamba3_siso");
  write("text.txt", [] {
    std::string s;
    for (int i = 0; i < 200; ++i) s += "line " + std::to_string(i * 37 % 101) + " of it\n";
    return s;
  }());
  const Finished f = quantize({m, path("m.gguf"), "--type", "Q4_K_M", "--calibrate", path("text.txt"), "--tokens",
                               "500", "--save-stats", path("s.gguf"), "--report", path("r.json"), "--eval-tokens",
                               "300", "--drift", "1200", "--effects"});
  ASSERT_EQ(f.code, 0) << f.err;
  const json r = json::parse(read_all(path("r.json")));
  EXPECT_EQ(r["type"], "Q4_K_M");
  EXPECT_EQ(r["architecture"], "mamba3");
  EXPECT_EQ(r["calibration"]["tokens"], 500);
  EXPECT_EQ(r["evaluation"]["tokens"], 300);
  for (const char* key : {"mean_kl", "max_kl", "same_top", "perplexity_original", "perplexity_quantized"}) {
    EXPECT_GT(r["evaluation"][key].get<double>(), 0) << key;
  }
  ASSERT_EQ(r["drift"].size(), 2u);
  EXPECT_EQ(r["drift"][0]["tokens"], 1000);
  EXPECT_EQ(r["drift"][1]["tokens"], 1200);
  EXPECT_EQ(r["drift"][1]["states"].size(), 8u);  // two layers of phase, ssm, k, x
  EXPECT_GT(r["drift"][1]["states"][0]["rms_turns"].get<double>(), 0);
  EXPECT_GT(r["drift"][1]["state_relative_rms"].get<double>(), 0);
  int64_t bytes = 0, matrices = 0;
  for (const json& t : r["tensors"]) {
    bytes += t["bytes"].get<int64_t>();
    if (t["type"] == "f32") continue;
    ++matrices;
    EXPECT_GT(t["weight_error"].get<double>(), 0) << t;
    EXPECT_EQ(t["output_error"].is_null(), t["name"] == "token_embd.weight") << t;  // a table multiplies nothing
    EXPECT_GT(t["effect_kl"].get<double>(), 0) << t;
    EXPECT_NE(t["reason"], "");
  }
  EXPECT_EQ(matrices, 10);
  EXPECT_EQ(r["bytes"], bytes);
  // The same statistics from a file give the same file, and a page has the same figures.
  ASSERT_EQ(quantize({m, path("n.gguf"), "--type", "Q4_K_M", "--stats", path("s.gguf"), "--report", path("r.html"),
                      "--drift", "100"})
                .code,
            0);
  EXPECT_TRUE(read_all(path("n.gguf")) == read_all(path("m.gguf")));
  const std::string page = read_all(path("r.html"));
  EXPECT_THAT(page,
              AllOf(HasSubstr("<h2>Tensors</h2>"), HasSubstr("built-in text"), HasSubstr("blk.1.ffn_down.weight")));
  EXPECT_THAT(page, AllOf(Not(HasSubstr("<script")), Not(HasSubstr("http"))));
}

TEST_F(QuantizeTest, FailedOrInterruptedNothingIsLeft) {
  const std::string m = wide();
  const size_t before = files();
  const auto full_disk = [] {
    signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{4096, 4096};
    setrlimit(RLIMIT_FSIZE, &limit);
  };
  EXPECT_EQ(Child({"quantize", m, path("m.gguf")}, "", "", full_disk).wait().code, 1);
  EXPECT_EQ(files(), before);
  write("text", std::string(4000, 'a'));
  const size_t with_text = files();
  Child child({"quantize", m, path("m.gguf"), "--report", path("r.html"), "--drift", "100000000", "--calibrate",
               path("text"), "--save-stats", path("stats.gguf")},
              "");
  usleep(1500 * 1000);
  child.kill(SIGINT);
  EXPECT_EQ(child.wait().code, 130);
  EXPECT_EQ(files(), with_text);
}

// The first matrix of a model sees the normalised embeddings, which can be computed by hand.
TEST(Calibration, StatisticsAreThoseOfTheInputs) {
  const ModelSpec spec = wide_spec("mamba2");
  const ParamStore params = random_params(spec, 1, DType::kF32, pool());
  quant::ActivationStats stats;
  Runtime rt = runtime();
  rt.observer = &stats;
  const Model model(spec, params, rt);
  const auto ids = random_ids(50, 259, 3);
  all_logits(model, ids);
  std::vector<double> want(256, 0);
  const Tensor table = params.f32(kEmbeddingName);
  for (const int32_t id : ids) {
    const float* row = table.f32() + int64_t{id} * 256;
    double square = 0;
    for (int k = 0; k < 256; ++k) square += static_cast<double>(row[k]) * static_cast<double>(row[k]);
    for (size_t k = 0; k < 256; ++k)
      want[k] += std::pow(static_cast<double>(row[k]), 2) / (square / 256 + spec.norm_eps);
  }
  const auto got = stats.mean_squares("backbone.layers.0.mixer.in_proj.weight");
  ASSERT_EQ(got.size(), want.size());
  for (size_t k = 0; k < 256; ++k) EXPECT_NEAR(static_cast<double>(got[k]), want[k] / 50, 1e-5 * want[k]) << k;
  EXPECT_EQ(stats.rows(kHeadName), 50);
}

TEST(Compare, DivergenceAndLossByHand) {
  const ModelSpec spec = tiny_spec("mamba1");
  const ParamStore a = random_params(spec, 1, DType::kF32, pool());
  ParamStore b = a;
  Tensor head = a.f32(kHeadName);
  for (int64_t i = 0; i < head.numel(); ++i) head.f32()[i] *= i % 3 == 0 ? 1.3f : 0.9f;
  b.set(kHeadName, {head, false});
  const Model p(spec, a, runtime()), q(spec, b, runtime());
  const auto ids = random_ids(40, 29, 7);
  const auto same = quant::compare(p, p, ids, 0, [](int64_t) {});
  EXPECT_EQ(same.mean_kl, 0);
  EXPECT_EQ(same.same_top, 1);
  int64_t told = 0;
  const auto c = quant::compare(p, q, ids, 16, [&](int64_t n) { told += n; });
  EXPECT_EQ(told, 40);
  double kl = 0, largest = 0, loss = 0;
  for (size_t first = 0; first < 40; first += 16) {
    const auto window = std::span(ids).subspan(first, std::min<size_t>(16, 40 - first));
    const Tensor lp = all_logits(p, window), lq = all_logits(q, window);
    for (int64_t t = 0; t < lp.dim(0); ++t) {
      const std::span rp(lp.f32() + t * 32, 32), rq(lq.f32() + t * 32, 32);
      double one = 0;
      for (int32_t v = 0; v < 32; ++v) {
        const double np = negative_log_likelihood(rp, v), nq = negative_log_likelihood(rq, v);
        one += std::exp(-np) * (nq - np);
      }
      kl += one;
      largest = std::max(largest, one);
      const size_t next = first + static_cast<size_t>(t) + 1;
      if (next < ids.size()) loss += negative_log_likelihood(rq, ids[next]);
    }
  }
  EXPECT_NEAR(c.mean_kl, kl / 40, 1e-9);
  EXPECT_NEAR(c.max_kl, largest, 1e-9);
  EXPECT_NEAR(c.loss_quantized, loss / 39, 1e-9);
  EXPECT_GT(c.mean_kl, 0);
}

TEST(Compare, IdsOutsideTheVocabularyAreRefused) {
  const ModelSpec spec = tiny_spec("mamba1");
  const Model m(spec, random_params(spec, 1, DType::kF32, pool()), runtime());
  auto ids = random_ids(300, 29, 7);
  for (const int32_t bad : {-1, 1'000'000}) {
    ids[256] = bad;  // the first of the second chunk: a target before it is read
    EXPECT_THROW(quant::compare(m, m, ids, 0, [](int64_t) {}), Error);
    EXPECT_THROW(quant::drift(m, m, ids, std::vector<int64_t>{1}, [](int64_t) {}), Error);
  }
}

// Trap D2: short tests pass while the state goes astray; the report looks far into a text.
TEST(Compare, TrapD2_DriftOfStatesAndDistributions) {
  for (const std::string& generation : tiny_names()) {
    const ModelSpec spec = tiny_spec(generation);
    const ParamStore a = random_params(spec, 1, DType::kF32, pool());
    ParamStore b = a;
    const std::string name = spec.blocks.front().prefix + ".in_proj.weight";
    Tensor w = a.f32(name);
    for (int64_t i = 0; i < w.numel(); ++i) w.f32()[i] *= i % 2 == 0 ? 1.01f : 0.99f;
    b.set(name, {w, false});
    const Model p(spec, a, runtime()), q(spec, b, runtime());
    const auto ids = random_ids(100, 29, 7);
    const std::vector<int64_t> positions = {1, 700, 1500};
    for (const auto& point : quant::drift(p, p, ids, positions, [](int64_t) {})) {
      EXPECT_EQ(point.mean_kl, 0);
      EXPECT_EQ(point.state, 0);
    }
    const auto points = quant::drift(p, q, ids, positions, [](int64_t) {});
    ASSERT_EQ(points.size(), 3u);
    EXPECT_EQ(points[2].tokens, 1500);
    EXPECT_GT(points[2].mean_kl, 0) << generation;
    EXPECT_GT(points[2].state, 0) << generation;
    EXPECT_LT(points[2].state, 0.5) << generation;
    for (const auto& s : points[0].states) {
      EXPECT_EQ(s.angle, s.name.ends_with("phase"));
      EXPECT_TRUE(std::isfinite(s.error)) << s.name;
    }
  }
}

}  // namespace
}  // namespace krait::test
