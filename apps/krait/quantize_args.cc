#include "quantize_args.h"

#include <fmt/format.h>

#include <filesystem>

#include "krait/core/error.h"
#include "krait/io/atomic_file.h"
#include "krait/quant/mix.h"
#include "quantize_texts.h"

namespace krait::cli {
namespace {

namespace fs = std::filesystem;

struct NamedPath {
  const char* name;
  fs::path path;
};

// Whether both names are one file, which need not be there yet.
bool same_file(const fs::path& a, const fs::path& b) {
  std::error_code ec;
  if (fs::equivalent(a, b, ec)) return true;
  std::error_code ec_a, ec_b;
  const fs::path x = fs::weakly_canonical(a, ec_a), y = fs::weakly_canonical(b, ec_b);
  return !ec_a && !ec_b && x == y;
}

// The folder whose files are all part of the model: MODEL, or where it stands if it is a file that has others beside
// it (config.json, shards). Empty: none.
fs::path folder_of_model(const fs::path& model) {
  std::error_code ec;
  if (fs::is_directory(model, ec)) return model;
  return model.extension() == ".gguf" ? fs::path() : fs::absolute(model, ec).parent_path();
}

void refuse_inputs(const QuantizeArgs& a, const NamedPath& out) {
  for (const NamedPath& in : {NamedPath{"MODEL", a.model},
                              {"the text of --calibrate", a.calibrate},
                              {"the text of --eval", a.eval},
                              {"the file of --stats", a.stats},
                              {"the file of --tokenizer", a.tokenizer}}) {
    if (!in.path.empty() && same_file(out.path, in.path)) {
      fail_usage(fmt::format("[quantize] {} is {} itself: {}", out.name, in.name, out.path.string()));
    }
  }
  std::error_code ec;
  const fs::path model = folder_of_model(a.model), absolute = fs::absolute(out.path, ec);
  for (const fs::path& folder : {model, fs::path(a.tokenizer)}) {
    std::error_code none;
    if (folder.empty() || !fs::is_directory(folder, none) || !fs::exists(absolute, none)) continue;
    for (auto it = fs::directory_iterator(folder, none); !none && it != fs::directory_iterator(); it.increment(none)) {
      std::error_code gone;
      if (fs::equivalent(it->path(), absolute, gone)) {
        fail_usage(fmt::format("[quantize] {} is a file of {}: {}", out.name, folder.string(), out.path.string()));
      }
    }
  }
}

void check_output(const QuantizeArgs& a, const NamedPath& out) {
  const std::string path = out.path.string();
  std::error_code ec;
  const fs::file_status status = fs::status(out.path, ec);
  if (status.type() == fs::file_type::none) {
    throw Error(ErrorCode::kFailed, fmt::format("[quantize] {} cannot be {}: {}", out.name, path, ec.message()));
  }
  if (fs::is_directory(status)) fail_usage("[quantize] " + path + " is a folder; a file is to be written");
  refuse_inputs(a, out);
  if (fs::is_regular_file(status) && !a.force) {
    fail_usage(fmt::format("[quantize] {} exists already (--force overwrites)", path));
  }
  const io::AtomicFile probe(out.path);  // before any work is done that could not be kept
}

}  // namespace

void check_usage(const QuantizeArgs& a, const Command& c) {
  const auto needs = [&](const char* option, bool given, const char* other) {
    if (c.given(option) && !given) fail_usage(fmt::format("[quantize] {} acts only with {}", option, other));
  };
  const bool runs = !a.calibrate.empty() || !a.report.empty();
  needs("--tokens", !a.calibrate.empty(), "--calibrate");
  needs("--save-stats", !a.calibrate.empty(), "--calibrate");
  for (const char* option : {"--eval", "--eval-tokens", "--drift", "--effects"}) {
    needs(option, !a.report.empty(), "--report");
  }
  for (const char* option : {"--tokenizer", "--kernels"}) needs(option, runs, "--calibrate or --report");
  needs("--lossy-utf8", !a.calibrate.empty() || !a.eval.empty(), "--calibrate or --eval");
  for (const char* option : {"--calibrate", "--stats", "--report", "--force", "--no-tokenizer", "--threads"}) {
    needs(option, !a.out.empty(), "OUT");
  }
  if (!a.calibrate.empty() && !a.stats.empty()) fail_usage("[quantize] --stats stands for --calibrate: give one");
  if (a.calibrate == "-" && a.eval == "-") fail_usage("[quantize] standard input is one text: --calibrate or --eval");
  if (a.pure && !a.tensor_types.empty()) fail_usage("[quantize] --pure leaves no room for --tensor-type");
  if (a.tokens < kLeastCalibration || a.eval_tokens < 2 || a.drift < 0) {
    fail_usage(fmt::format("[quantize] --tokens, --eval-tokens or --drift is below {}, 2 or 0", kLeastCalibration));
  }
  if (!a.report.empty() && !a.report.ends_with(".json") && !a.report.ends_with(".html")) {
    fail_usage("[quantize] --report '" + a.report + "' must end in .html or .json");
  }
  if (a.out.empty() && !a.explain) fail_usage("[quantize] OUT.gguf is missing (--explain alone shows the plan)");
  if (!a.out.empty() && !a.out.ends_with(".gguf")) {
    fail_usage("[quantize] OUT is '" + a.out + "', expected a name that ends in .gguf");
  }
}

void check_outputs(const QuantizeArgs& a) {
  std::vector<NamedPath> outputs;
  for (const NamedPath& p : {NamedPath{"OUT", a.out}, {"--save-stats", a.save_stats}, {"--report", a.report}}) {
    if (p.path.empty()) continue;
    for (const NamedPath& other : outputs) {
      if (same_file(p.path, other.path)) {
        fail_usage(fmt::format("[quantize] {} and {} are one file: {}", other.name, p.name, p.path.string()));
      }
    }
    outputs.push_back(p);
  }
  for (const NamedPath& p : outputs) check_output(a, p);
}

std::vector<std::pair<std::string, DType>> parse_overrides(const std::vector<std::string>& all) {
  std::vector<std::pair<std::string, DType>> out;
  for (const std::string& one : all) {
    const size_t at = one.rfind('=');
    if (at == std::string::npos || at == 0) {
      fail_usage("[quantize] --tensor-type is '" + one + "', expected REGEX=TYPE, as in ssm_out=q6_k");
    }
    out.emplace_back(one.substr(0, at), quant::parse_type(one.substr(at + 1)));
  }
  return out;
}

}  // namespace krait::cli
