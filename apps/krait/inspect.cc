// krait inspect: what a checkpoint is, tensor by tensor, and what running it takes.
#include <algorithm>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "json_out.h"
#include "krait/infer/score.h"
#include "krait/text/utf8.h"
#include "session.h"

namespace krait::cli {
namespace {

using nlohmann::ordered_json;

struct Args {
  ModelArgs model;
  bool json = false, tensors = false;
};

std::string human(int64_t bytes) {
  char s[32];
  const double b = static_cast<double>(bytes);
  if (b < 1 << 20) {
    std::snprintf(s, sizeof s, "%.1f KiB", b / (1 << 10));
  } else if (b < 1 << 30) {
    std::snprintf(s, sizeof s, "%.1f MiB", b / (1 << 20));
  } else {
    std::snprintf(s, sizeof s, "%.2f GiB", b / (1 << 30));
  }
  return s;
}

// Smallest and largest value of A = −exp(A_log) over all layers: negative, once (trap C1).
void add_A_range(const Model& m, ordered_json& j) {
  double lo = 0, hi = -1e300;
  for (const auto& [name, p] : m.params().all()) {
    if (!name.ends_with(".A_log")) continue;
    const Tensor A = m.params().neg_exp(name);
    for (int64_t i = 0; i < A.numel(); ++i) {
      lo = std::min(lo, static_cast<double>(A.f32()[i]));
      hi = std::max(hi, static_cast<double>(A.f32()[i]));
    }
  }
  if (hi > -1e300) j["A_range"] = {lo, hi};
}

// Tensors, parameters and bytes of each type, the largest share first.
ordered_json weight_types(const ParamStore& params) {
  struct Share {
    int64_t tensors = 0, parameters = 0, bytes = 0;
  };
  std::map<DType, Share> shares;
  for (const auto& [name, p] : params.all()) {
    Share& s = shares[p.value.dtype()];
    ++s.tensors;
    s.parameters += p.value.numel();
    s.bytes += p.value.nbytes();
  }
  std::vector<std::pair<DType, Share>> order(shares.begin(), shares.end());
  std::ranges::stable_sort(order, std::ranges::greater{}, [](const auto& s) { return s.second.bytes; });
  ordered_json j = ordered_json::object();
  for (const auto& [type, s] : order) {
    j[std::string(name_of(type))] = {{"tensors", s.tensors}, {"parameters", s.parameters}, {"bytes", s.bytes}};
  }
  return j;
}

// Parameters of a model on which a whole pass is measured: about 0.1 s. In a bigger one, activations are small beside
// the weights, and counting them will do.
constexpr int64_t kMeasured = int64_t{32} << 20;

// What a run adds to a loaded model: the state, and a pass over `tokens`, at its peak. Reads tokens as a run would.
int64_t working_bytes(const Session& s, int64_t tokens) {
  const Model& m = s.model();
  const Resident loaded = resident_now();
  if (s.tokenizer) s.tokenizer->encode("It was a dark and stormy night;", {});  // fills its caches
  SlotStore states(m.state_specs(), 1);
  m.reset_state(states, 0);
  const bool measured = m.param_count() <= kMeasured && peak_resident() > 0;
  const int64_t n = measured ? tokens : 1, last = n - 1;
  std::vector<int32_t> ids;  // from all over the vocabulary: rows of the embedding are pages of the file
  ids.reserve(static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) ids.push_back(static_cast<int32_t>(i * m.vocab_size() / n));
  const Tensor logits = m.forward(ids, SeqSpans::one(n, 0), states, {&last, 1});
  if (measured) return std::max<int64_t>(peak_resident() - loaded.total(), 0);
  return (resident_now() - loaded).total() + m.activation_bytes(tokens);
}

// What `krait run` holds, in bytes, by what it is for (traps J5, A11). Measured on this process, which loads the model
// as it would: how pages are rounded, shared and given back is the system's affair.
ordered_json memory(const Session& s) {
  const Resident model = s.with_model - s.before;
  return {{"program_bytes", s.before.total()},
          {"weights_bytes", model.own},  // packed for the kernels
          {"mapped_file_bytes", model.file},
          {"tokenizer_bytes", (s.with_tokenizer - s.with_model).total()},
          {"working_bytes", working_bytes(s, kPrefillChunk)}};
}

// What --lora adds, parameter by parameter.
ordered_json describe_adapter(const Adapter& a, const Model& m) {
  ordered_json parts = ordered_json::array();
  for (const auto& [name, f] : a.factors) parts.push_back({{"name", name}, {"rank", f.rank()}, {"scale", f.scale}});
  for (const auto& [name, t] : a.states) parts.push_back({{"name", name}, {"initial_state", to_json(t.shape())}});
  const double share = static_cast<double>(a.param_count()) / static_cast<double>(m.param_count());
  return {{"name", a.name}, {"parameters", a.param_count()}, {"share", share}, {"parts", parts}};
}

ordered_json describe(const Session& s) {
  const Model& m = s.model();
  const ModelSpec& spec = m.spec();
  ordered_json j;
  j["path"] = s.loaded.checkpoint->path().string();
  j["dialect"] = s.loaded.family->name;
  j["architecture"] = spec.architecture;
  j["d_model"] = spec.d_model;
  j["n_layer"] = spec.n_layer;
  j["vocab_size"] = spec.vocab_size;
  j["padded_vocab_size"] = spec.padded_vocab_size;
  j["tie_embeddings"] = spec.tie_embeddings;
  j["norm"] = spec.rms_norm ? "rms" : "layer";
  j["norm_eps"] = spec.norm_eps;
  ordered_json mixer;
  for (const auto& [key, value] : spec.blocks.front().config.values()) {
    mixer[key] = to_json(value);
  }
  j["mixer"] = spec.blocks.front().mixer;
  j["mixer_config"] = mixer;
  j["sub_blocks"] = spec.blocks.size();
  j["parameters"] = m.param_count();
  int64_t weight_bytes = 0;
  for (const auto& [name, p] : m.params().all()) weight_bytes += p.value.nbytes();
  const int64_t state_bytes = SlotStore::bytes_per_slot(m.state_specs());
  j["weight_bytes"] = weight_bytes;
  j["weight_types"] = weight_types(m.params());
  j["state_bytes_per_sequence"] = state_bytes;
  j["memory"] = memory(s);
  int64_t sum = 0;
  for (const auto& part : j["memory"]) sum += part.get<int64_t>();
  j["memory_estimate_bytes"] = sum;
  j["fingerprint"] = [&] {
    char h[17];
    std::snprintf(h, sizeof h, "%016llx", static_cast<unsigned long long>(m.fingerprint()));
    return std::string(h);
  }();
  add_A_range(m, j);
  if (!m.adapters().empty()) j["adapter"] = describe_adapter(*m.adapters().front(), m);
  j["kernels"] = m.runtime().kernels->name;
  j["tokenizer"] = s.tokenizer ? ordered_json(s.tokenizer->name()) : ordered_json(nullptr);
  ordered_json state = ordered_json::array();
  const StateSpec first = m.state_specs().front();
  for (const StateTensorSpec& t : first) {
    state.push_back({{"name", t.name}, {"shape", to_json(t.shape)}, {"dtype", name_of(t.dtype)}});
  }
  j["state_of_a_layer"] = state;
  return j;
}

void print_adapter(const ordered_json& a) {
  std::printf("adapter %s: %zu parts, %lld parameters, %.3f %% of the model\n",
              text::escape_controls(a["name"].get<std::string>()).c_str(), a["parts"].size(),
              a["parameters"].get<long long>(), 100 * a["share"].get<double>());
  for (const auto& p : a["parts"]) {
    const std::string what = p.contains("rank") ? "rank " + p["rank"].dump() + ", scale " + p["scale"].dump()
                                                : "initial state " + shape_text(p["initial_state"]);
    std::printf("  %-52s %s\n", p["name"].get<std::string>().c_str(), what.c_str());
  }
}

void print_text(const ordered_json& j) {
  for (const auto& [key, value] : j.items()) {
    const bool below = key == "adapter" || key == "tensors" || key == "state_of_a_layer" || key == "memory";
    if (below || key == "mixer_config" || key == "weight_types") continue;
    std::string shown = value.is_string() ? text::escape_controls(value.get<std::string>()) : value.dump();
    if (key.find("bytes") != std::string::npos) shown += "  (" + human(value.get<int64_t>()) + ")";
    std::printf("%-26s %s\n", key.c_str(), shown.c_str());
  }
  for (const auto& [key, value] : j["mixer_config"].items())
    std::printf("  %-24s %s\n", key.c_str(), value.dump().c_str());
  std::printf("weight types:\n");
  for (const auto& [type, share] : j["weight_types"].items()) {
    std::printf("  %-8s %5lld tensors %14lld parameters  %s\n", type.c_str(), share["tensors"].get<long long>(),
                share["parameters"].get<long long>(), human(share["bytes"].get<int64_t>()).c_str());
  }
  std::printf("memory of 'krait run', with a prompt of %lld tokens or more:\n", static_cast<long long>(kPrefillChunk));
  for (const auto& [key, value] : j["memory"].items()) {
    std::printf("  %-24s %s\n", key.c_str(), (value.dump() + "  (" + human(value.get<int64_t>()) + ")").c_str());
  }
  std::printf("state of a layer:\n");
  for (const auto& t : j["state_of_a_layer"]) {
    std::printf("  %-8s %-20s %s\n", t["name"].get<std::string>().c_str(), shape_text(t["shape"]).c_str(),
                t["dtype"].get<std::string>().c_str());
  }
  if (j.contains("adapter")) print_adapter(j["adapter"]);
  if (!j.contains("tensors")) return;
  std::printf("tensors:\n");
  for (const auto& t : j["tensors"]) {
    std::printf("  %-52s %-6s %s\n", text::escape_controls(t["name"].get<std::string>()).c_str(),
                t["dtype"].get<std::string>().c_str(), shape_text(t["shape"]).c_str());
  }
}

int inspect(const Args& a) {
  const Session s = open_session(a.model, NeedTokenizer::kIfThere);
  ordered_json j = describe(s);
  if (a.tensors || a.json) {
    ordered_json list = ordered_json::array();
    const io::Checkpoint& c = *s.loaded.checkpoint;
    for (const std::string& name : c.names()) {
      list.push_back({{"name", name}, {"dtype", name_of(c.tensor(name).dtype())}, {"shape", to_json(c.shape(name))}});
    }
    j["tensors"] = list;
  }
  if (a.json) {
    print_json(j);
  } else {
    print_text(j);
  }
  return 0;
}

}  // namespace

void add_inspect(Command& root) {
  auto a = std::make_shared<Args>();
  Command c = root.subcommand("inspect", "Show configuration, parameters, state and memory of a model");
  add_model_options(c, a->model, true, false, {.tokenizer = false, .threads = false, .lora = true});
  c.flag("--tensors", a->tensors, "list every tensor of the checkpoint");
  c.flag("--json", a->json, "print JSON, tensors included");
  c.run([a] { return inspect(*a); });
}

}  // namespace krait::cli
