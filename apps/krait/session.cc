#include "session.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <limits>

#include "krait/backends/cpu/cpu_backend.h"
#include "krait/core/error.h"
#include "krait/io/find_files.h"
#include "krait/io/gguf.h"
#include "krait/models/peft.h"
#include "krait/text/utf8.h"
#include "progress.h"

namespace krait::cli {
namespace {

namespace fs = std::filesystem;
constexpr const char* kShippedName = "mamba3-books-12m/mamba3-books-12m-Q8_0.gguf";

text::GgufVocab gguf_vocab(const io::Gguf& g) {
  text::GgufVocab v;
  const auto id = [&](const char* key) -> std::optional<int32_t> {
    if (!g.has(key)) return std::nullopt;
    const int64_t value = g.integer(key);
    if (value < 0 || value > std::numeric_limits<int32_t>::max()) {
      fail_data(std::string("[tokenizer] ") + key + " is " + std::to_string(value) + ", not a token id");
    }
    return static_cast<int32_t>(value);
  };
  const auto flag = [&](const char* key) -> std::optional<bool> {
    if (!g.has(key)) return std::nullopt;
    return g.boolean(key);
  };
  v.model = g.str("tokenizer.ggml.model");
  v.pre = g.str_or("tokenizer.ggml.pre", "");
  v.tokens = g.strings("tokenizer.ggml.tokens");
  if (g.has("tokenizer.ggml.scores")) v.scores = g.floats("tokenizer.ggml.scores");
  if (g.has("tokenizer.ggml.token_type")) v.types = g.integers32("tokenizer.ggml.token_type");
  if (g.has("tokenizer.ggml.merges")) v.merges = g.strings("tokenizer.ggml.merges");
  v.bos = id("tokenizer.ggml.bos_token_id");
  v.eos = id("tokenizer.ggml.eos_token_id");
  v.eot = id("tokenizer.ggml.eot_token_id");
  v.unk = id("tokenizer.ggml.unknown_token_id");
  v.pad = id("tokenizer.ggml.padding_token_id");
  v.add_bos = flag("tokenizer.ggml.add_bos_token");
  v.add_eos = flag("tokenizer.ggml.add_eos_token");
  v.add_space_prefix = flag("tokenizer.ggml.add_space_prefix");
  v.remove_extra_whitespaces = flag("tokenizer.ggml.remove_extra_whitespaces");
  if (g.has("tokenizer.ggml.precompiled_charsmap")) {
    for (const int32_t byte : g.integers32("tokenizer.ggml.precompiled_charsmap")) {
      v.precompiled_charsmap += static_cast<char>(byte);
    }
  }
  v.chat_template = g.str_or("tokenizer.chat_template", "");
  v.huggingface_json = g.str_or("tokenizer.huggingface.json", "");
  return v;
}

Compute parse_compute(const std::string& s) {
  return s == "bf16" ? Compute::kBF16 : s == "bf16x2" ? Compute::kBF16x2 : Compute::kF32;
}

fs::path program_folder() {
  std::error_code ignored;
  return fs::read_symlink("/proc/self/exe", ignored).parent_path();
}

}  // namespace

void add_model_options(Command& c, ModelArgs& a, bool positional, bool model_required, ModelUse use) {
  if (positional)
    c.positional("MODEL", a.model, "folder or file: safetensors, pytorch_model.bin, GGUF", model_required);
  if (use.tokenizer) c.option("--tokenizer", a.tokenizer, "tokenizer file or folder, if not beside the weights");
  if (use.threads) c.option("-t,--threads", a.threads, "threads; 0: all CPUs this process may use");
  if (use.lora) {
    c.list("--lora", a.lora, "folder of an adapter, DIR or DIR=SCALE; repeatable: what they add is added up");
  }
  c.choice("--compute", a.compute, {"f32", "bf16x2", "bf16"},
           "arithmetic of matmuls on bf16 weights: f32 (exact products), bf16x2 (2e-6 relative error), bf16 (1.4e-3)");
  c.choice("--weights", a.weights, {"file", "f32", "bf16", "f16"}, "hold matrices in this type instead of the file's");
  c.option("--kernels", a.backend, "kernel set (see 'krait doctor'); auto: the best this CPU runs");
}

std::unique_ptr<ThreadPool> make_pool(int64_t threads) {
  if (threads < 0 || threads > 1024) fail_usage("[threads] " + std::to_string(threads) + " is not 0 to 1024");
  return std::make_unique<ThreadPool>(threads == 0 ? ThreadPool::default_threads() : static_cast<int>(threads));
}

Runtime make_runtime(const ModelArgs& a, ThreadPool& pool) {
  Runtime rt;
  rt.pool = &pool;
  rt.compute = parse_compute(a.compute);
  rt.kernels = a.backend == "auto" ? &cpu_kernels() : cpu_kernels(a.backend);
  if (rt.kernels == nullptr) {
    std::string known;
    for (const KernelSet* k : cpu_kernel_sets()) known += std::string(" ") + k->name;
    fail_usage("[kernels] '" + a.backend + "' does not run here; this CPU has:" + known);
  }
  if (a.wrap != nullptr) rt.kernels = &a.wrap(*rt.kernels);
  return rt;
}

std::string shipped_model() {
  const fs::path here = program_folder();
  for (const fs::path& p :
       {here / ".." / "models" / kShippedName, here / ".." / "share" / "krait" / "models" / kShippedName}) {
    if (fs::exists(p)) return p.lexically_normal().string();
  }
  fail_usage("[model] no MODEL was given and the shipped one is not beside the program (models/" +
             std::string(kShippedName) + ")");
}

std::unique_ptr<text::Tokenizer> find_tokenizer(const io::Checkpoint& c) {
  if (const io::Gguf* g = c.gguf()) {
    return g->has("tokenizer.ggml.tokens") ? text::make_gguf_tokenizer(gguf_vocab(*g)) : nullptr;
  }
  return text::has_tokenizer(c.folder()) ? text::open_tokenizer(c.folder()) : nullptr;
}

std::unique_ptr<text::Tokenizer> open_any_tokenizer(const std::string& path) {
  std::error_code ec;
  const fs::path folder(path);
  const bool model = fs::is_directory(folder, ec) && !fs::exists(folder / "tokenizer.json", ec) &&
                     !io::find_files(path, false, [](const fs::path& p) { return p.extension() == ".gguf"; }).empty();
  if (model || path.ends_with(".gguf")) {
    const auto c = io::Checkpoint::open(path);
    auto t = find_tokenizer(*c);
    if (!t) fail_data("[tokenizer] " + path + " holds no vocabulary");
    return t;
  }
  return text::open_tokenizer(path);
}

void check_vocabulary(const text::Tokenizer& t, int64_t padded_vocab_size) {
  if (t.vocab_size() <= padded_vocab_size) return;
  fail_data("[tokenizer] it has " + std::to_string(t.vocab_size()) + " ids, the model " +
            std::to_string(padded_vocab_size) + ": it belongs to another model");
}

namespace {

std::optional<double> number_in(std::string_view text) {
  double x = 0;
  const char* last = text.data() + text.size();
  const auto [end, error] = std::from_chars(text.data(), last, x);
  if (error != std::errc() || end != last || !std::isfinite(x)) return std::nullopt;
  return x;
}

// DIR or DIR=SCALE
std::pair<std::string, double> split_scale(const std::string& text) {
  const size_t eq = text.rfind('=');
  if (eq == std::string::npos) return {text, 1};
  const std::optional<double> scale = number_in(std::string_view(text).substr(eq + 1));
  if (!scale) fail_usage("[lora] '" + text + "' is not DIR or DIR=SCALE");
  if (*scale == 0) fail_usage("[lora] '" + text + "': with a scale of 0 it adds nothing");
  return {text.substr(0, eq), *scale};
}

// Options and files that the loaded model makes meaningless are refused (trap G6).
void check_session(const ModelArgs& a, const Session& s) {
  const auto& params = s.model().params().all();
  const bool has_bf16 = std::ranges::any_of(
      params, [](const auto& p) { return p.second.value.rank() == 2 && p.second.value.dtype() == DType::kBF16; });
  if (a.compute != "f32" && !has_bf16) {
    fail_usage("[compute] --compute " + a.compute + " acts on bf16 weights, and this model has none; see --weights");
  }
  if (s.tokenizer) check_vocabulary(*s.tokenizer, s.model().padded_vocab_size());
}

bool is_adapter_name(std::string_view s) {
  return !s.empty() && s.size() <= 128 && std::ranges::all_of(s, [](unsigned char c) {
    return std::isalnum(c) != 0 || std::string_view("._:/-").find(static_cast<char>(c)) != std::string_view::npos;
  });
}

Adapters named_adapters(const std::vector<std::string>& lora, const ModelSpec& spec) {
  Adapters all;
  for (const std::string& text : lora) {
    const NamedAdapter named = split_named(text);
    Adapter a = combined({{read_adapter(named.folder, spec), named.scale}});
    a.name = named.name;
    if (std::ranges::any_of(all, [&](const auto& other) { return other->name == a.name; })) {
      fail_usage("[lora] two adapters are named '" + a.name + "'");
    }
    all.push_back(std::make_shared<const Adapter>(std::move(a)));
  }
  return all;
}

// All of --lora as the one adapter that everything is read with; or those that have names, to choose from.
WithAdapters with_adapters(const std::vector<std::string>& lora, const std::vector<std::string>& named) {
  if (!named.empty()) return {[named](const ModelSpec& spec) { return named_adapters(named, spec); }, -1};
  if (lora.empty()) return {};
  return {[lora](const ModelSpec& spec) -> Adapters {
            return {std::make_shared<const Adapter>(read_adapters(lora, spec))};
          },
          0};
}

}  // namespace

NamedAdapter split_named(const std::string& text) {
  const size_t eq = text.find('=');
  NamedAdapter a{text.substr(0, eq), {}};
  if (eq != std::string::npos) std::tie(a.folder, a.scale) = split_scale(text.substr(eq + 1));
  if (is_adapter_name(a.name) && !a.folder.empty() && (fs::exists(a.folder) || !number_in(a.folder))) return a;
  fail_usage("[lora] '" + text + "' is not NAME=DIR or NAME=DIR=SCALE; a name has 1 to 128 of A-Z a-z 0-9 . _ : / -");
}

Adapter read_adapters(const std::vector<std::string>& lora, const ModelSpec& spec) {
  std::vector<std::pair<Adapter, double>> parts;
  for (const std::string& text : lora) {
    const auto [folder, scale] = split_scale(text);
    parts.emplace_back(read_adapter(folder, spec), scale);
  }
  return combined(parts);
}

Session open_session(const ModelArgs& a, NeedTokenizer need) {
  Session s;
  s.pool = make_pool(a.threads);
  const Runtime rt = make_runtime(a, *s.pool);
  const std::optional<DType> cast = a.weights == "file"   ? std::nullopt
                                    : a.weights == "f32"  ? std::optional(DType::kF32)
                                    : a.weights == "bf16" ? std::optional(DType::kBF16)
                                                          : std::optional(DType::kF16);
  const std::string path = a.model.empty() ? shipped_model() : a.model;
  const SlowNotice notice("loading " + path);
  s.before = resident_now();
  s.loaded = load_model(path, rt, cast, with_adapters(a.lora, a.named_lora));
  s.with_model = resident_now();
  if (need != NeedTokenizer::kNo) {
    s.tokenizer = a.tokenizer.empty() ? find_tokenizer(*s.loaded.checkpoint) : open_any_tokenizer(a.tokenizer);
  }
  if (!s.tokenizer && need == NeedTokenizer::kYes) {
    fail_data("[tokenizer] " + s.loaded.checkpoint->path().string() +
              " has no tokenizer (tokenizer.json or tokenizer.model); name one with --tokenizer");
  }
  s.with_tokenizer = resident_now();
  check_session(a, s);
  return s;
}

int64_t Session::sampled_vocab() const {
  return tokenizer ? std::min(model().vocab_size(), tokenizer->vocab_size()) : model().vocab_size();
}

std::string require_utf8(std::string text, const std::string& name, bool lossy) {
  if (text::is_valid_utf8(text)) return text;
  if (lossy) return text::replace_invalid_utf8(text);
  size_t at = 0;
  for (text::Utf8Char c;
       (c = text::decode_utf8(std::string_view(text).substr(at))).status == text::Utf8Status::kValid;) {
    at += c.bytes;
  }
  char byte[8];
  std::snprintf(byte, sizeof byte, "0x%02X", static_cast<unsigned char>(text[at]));
  fail_data("[utf-8] " + name + " is not UTF-8: byte " + byte + " at offset " + std::to_string(at) +
            " (--lossy-utf8 takes it as U+FFFD)");
}

}  // namespace krait::cli
