// krait new: a random-weight model of a published shape.
#include <cstdio>
#include <memory>

#include "krait/core/error.h"
#include "krait/models/export.h"
#include "krait/models/presets.h"
#include "krait/text/utf8.h"
#include "out_folder.h"
#include "session.h"
#include "terminal.h"

namespace krait::cli {
namespace {

struct Args {
  std::string shape, out, dtype = "bf16";
  int64_t seed = 1, threads = 0;
};

DType dtype_of(const std::string& name) {
  return name == "f32" ? DType::kF32 : name == "f16" ? DType::kF16 : DType::kBF16;
}

int create(const Args& a) {
  if (a.seed < 0) fail_usage("[new] --seed is " + std::to_string(a.seed) + ", expected 0 or more");
  const ModelSpec spec = preset(a.shape);
  OutFolder out("new", a.out, false);
  const auto pool = make_pool(a.threads);
  const ParamStore params = random_params(spec, static_cast<uint64_t>(a.seed), dtype_of(a.dtype), *pool);
  const Signals signals;
  save_folder(spec, params, out.create(), CheckpointForm::kAuto, Signals::check);
  out.publish();
  std::fprintf(stderr, "wrote %s (%s, random weights, seed %lld, %s)\n", text::escape_controls(a.out).c_str(),
               a.shape.c_str(), static_cast<long long>(a.seed), a.dtype.c_str());
  return 0;
}

}  // namespace

void add_new(Command& root) {
  auto a = std::make_shared<Args>();
  std::string names;
  for (const std::string& n : preset_names()) names += (names.empty() ? "" : ", ") + n;
  Command c = root.subcommand("new", "Make a random-weight model of a published shape, initialised as published");
  c.positional("SHAPE", a->shape, names);
  c.positional("OUT", a->out, "folder to write: config.json and model.safetensors");
  c.option("--seed", a->seed, "the weights are a function of shape, seed and dtype");
  c.choice("--dtype", a->dtype, {"f32", "bf16", "f16"}, "of matrices and embeddings; vectors are f32");
  c.option("-t,--threads", a->threads, "0: all CPUs this process may use");
  c.run([a] { return create(*a); });
}

}  // namespace krait::cli
