// krait state: what a saved state is, how two differ, and copies that draw other random numbers.
#include <fmt/format.h>

#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli.h"
#include "json_out.h"
#include "krait/core/error.h"
#include "krait/infer/state.h"
#include "krait/text/utf8.h"

namespace krait::cli {
namespace {

using nlohmann::ordered_json;

std::string hex(uint64_t v) { return fmt::format("{:016x}", v); }

// --- info
// -------------------------------------------------------------------------------------------------------------

struct InfoArgs {
  std::vector<std::string> files;
  bool json = false;
};

ordered_json tensors_of(const State& s) {
  ordered_json list = ordered_json::array();
  for (size_t b = 0; b < s.specs.size(); ++b) {
    for (const StateTensorSpec& t : s.specs[b]) {
      list.push_back({{"sub_block", b}, {"name", t.name}, {"dtype", name_of(t.dtype)}, {"shape", to_json(t.shape)}});
    }
  }
  return list;
}

ordered_json describe(const std::string& path, const State& s) {
  const SequenceHead& h = s.head;
  return {{"file", path},
          {"format_version", kStateFileVersion},
          {"architecture", s.architecture},
          {"model_fingerprint", hex(s.model_fingerprint)},
          {"position", s.position()},
          {"token_hash", hex(h.history.hash())},
          {"distinct_tokens", h.history.counts().size()},
          {"recent_tokens", h.history.recent().size()},
          {"seed", h.rng.seed},
          {"stream", h.rng.stream},
          {"draws", h.rng.counter},
          {"logits", h.last_logits.defined() ? h.last_logits.numel() : 0},
          {"sub_blocks", s.specs.size()},
          {"bytes", s.nbytes()},
          {"tensors", tensors_of(s)}};
}

int info(const InfoArgs& a) {
  ordered_json all = ordered_json::array();
  for (const std::string& file : a.files) all.push_back(describe(file, read_state(file)));
  if (a.json) {
    print_json(all.size() == 1 ? all[0] : all);
    return 0;
  }
  for (const ordered_json& j : all) {
    for (const auto& [key, value] : j.items()) {
      if (key == "tensors") continue;
      const std::string shown = value.is_string() ? text::escape_controls(value.get<std::string>()) : value.dump();
      std::printf("%-18s %s\n", key.c_str(), shown.c_str());
    }
    std::printf("tensors\n");
    for (const auto& t : j["tensors"]) {
      std::printf(
          "  %-16s %-5s %s\n",
          fmt::format("{}.{}", t["sub_block"].get<size_t>(), text::escape_controls(t["name"].get<std::string>()))
              .c_str(),
          t["dtype"].get<std::string>().c_str(), shape_text(t["shape"]).c_str());
    }
    if (&j != &all.back()) std::printf("\n");
  }
  return 0;
}

void add_info(Command& group) {
  auto a = std::make_shared<InfoArgs>();
  Command c = group.subcommand("info", "Show the header fields and the tensors of state files");
  c.positionals("FILE", a->files, "state files");
  c.flag("--json", a->json, "print JSON: an object, or an array of them for several files");
  c.run([a] { return info(*a); });
}

// --- diff
// -------------------------------------------------------------------------------------------------------------

struct DiffArgs {
  std::string a, b;
  bool json = false;
};

std::string difference(const TensorDiff& t) {
  if (t.equal) return "equal";
  return t.phase ? fmt::format("max |a-b| {:.3g} turns, RMS {:.3g} turns", t.max_abs, t.rms)
                 : fmt::format("max |a-b| {:.3g}, relative RMS {:.3g}", t.max_abs, t.rms);
}

int compare(const DiffArgs& args) {
  const StateDiff d = diff(read_state(args.a), read_state(args.b));
  if (args.json) {
    ordered_json tensors = ordered_json::array();
    for (const TensorDiff& t : d.tensors) {
      tensors.push_back({{"name", t.name},
                         {"shape", to_json(t.shape)},
                         {"equal", t.equal},
                         {t.phase ? "max_abs_turns" : "max_abs", to_json(t.max_abs)},
                         {t.phase ? "rms_turns" : "relative_rms", to_json(t.rms)}});
    }
    const ordered_json j = {{"equal", d.equal()}, {"header", d.header}, {"tensors", tensors}};
    print_json(j);
  } else {
    for (const std::string& field : d.header) std::printf("%-16s differs\n", field.c_str());
    for (const TensorDiff& t : d.tensors) {
      std::printf("%-16s %-20s %s\n", text::escape_controls(t.name).c_str(), t.shape.str().c_str(),
                  difference(t).c_str());
    }
    std::printf("%s\n", d.equal() ? "equal" : "different");
  }
  return d.equal() ? 0 : 1;
}

void add_diff(Command& group) {
  auto a = std::make_shared<DiffArgs>();
  Command c = group.subcommand("diff", "Compare two state files tensor by tensor; exit code 1 if they differ");
  c.positional("A", a->a, "state file");
  c.positional("B", a->b, "state file; relative RMS is relative to it");
  c.footer("Phases are compared around the circle, in turns.");
  c.flag("--json", a->json, "print JSON");
  c.run([a] { return compare(*a); });
}

// --- fork
// -------------------------------------------------------------------------------------------------------------

struct ForkArgs {
  std::string from, to;
  int64_t seed = 0, stream = 0;
  bool has_seed = false, has_stream = false, force = false;
};

int fork(const ForkArgs& a) {
  if (a.seed < 0 || a.stream < 0)
    fail_usage(fmt::format("[state fork] seed {}, stream {}: wants >= 0", a.seed, a.stream));
  if (!a.force && std::filesystem::exists(a.to))
    fail_usage("[state fork] " + a.to + " exists already (--force overwrites)");
  State s = read_state(a.from);
  RngState& rng = s.head.rng;
  const RngState before = rng;
  if (a.has_seed) rng.seed = static_cast<uint64_t>(a.seed);
  rng.stream = a.has_stream ? static_cast<uint64_t>(a.stream) : a.has_seed ? rng.stream : rng.stream + 1;
  if (rng == before) {
    fail_usage(fmt::format("[state fork] seed {} and stream {} are what {} has: the copy would draw the same tokens",
                           rng.seed, rng.stream, a.from));
  }
  rng.counter = 0;
  write_state(a.to, s);
  std::printf("%s: position %lld, seed %llu, stream %llu\n", text::escape_controls(a.to).c_str(),
              static_cast<long long>(s.position()), static_cast<unsigned long long>(rng.seed),
              static_cast<unsigned long long>(rng.stream));
  return 0;
}

void add_fork(Command& group) {
  auto a = std::make_shared<ForkArgs>();
  Command c = group.subcommand("fork", "Copy a state, to go on from it with other random draws");
  c.positional("FILE", a->from, "state file");
  c.positional("OUT", a->to, "copy");
  c.option("--seed", a->seed, "seed of the copy; if not given, the original's");
  c.option("--stream", a->stream, "stream of the copy; with neither option, the original's plus one");
  c.flag("--force", a->force, "overwrite OUT");
  c.run([a, c] {
    a->has_seed = c.given("--seed");
    a->has_stream = c.given("--stream");
    return fork(*a);
  });
}

}  // namespace

void add_state(Command& root) {
  Command group = root.subcommand("state", "Look at, compare and copy saved states");
  add_info(group);
  add_diff(group);
  add_fork(group);
}

}  // namespace krait::cli
