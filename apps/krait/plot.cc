// krait plot: the curves of one or more training runs.
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <deque>
#include <fstream>
#include <map>
#include <memory>
#include <numeric>
#include <set>

#include "chart.h"
#include "cli.h"
#include "krait/core/error.h"

namespace krait::cli {
namespace {

namespace fs = std::filesystem;

struct Args {
  std::vector<std::string> runs, keys;
  std::string out;
  int64_t smooth = 0;
  bool log_loss = false;
};

using Series = std::map<std::string, Curve>;  // by key

// Every number of every line over its step.
Series read_metrics(const fs::path& file) {
  std::ifstream in(file);
  if (!in) throw Error(ErrorCode::kBadData, "[plot] cannot read " + file.string());
  Series series;
  std::string line;
  for (int64_t n = 1; std::getline(in, line); ++n) {
    if (line.empty()) continue;
    const auto j = nlohmann::json::parse(line, nullptr, false);
    if (!j.is_object() || !j.contains("step") || !j["step"].is_number()) {
      if (in.peek() == std::ifstream::traits_type::eof()) break;  // a run that still writes its last line
      fail_data("[plot] line " + std::to_string(n) + " of " + file.string() + " is no object with a step");
    }
    for (const auto& [key, value] : j.items()) {
      if (key == "step") continue;
      if (value.is_number()) series[key].points.emplace_back(j["step"].get<double>(), value.get<double>());
      if (value.is_null()) series[key].points.emplace_back(j["step"].get<double>(), NAN);  // was not finite
    }
  }
  return series;
}

// Running mean over `n` points; what is not finite stays a gap.
void smooth(Curve& c, size_t n) {
  std::deque<double> last;
  for (auto& [x, y] : c.points) {
    if (!std::isfinite(y)) continue;
    last.push_back(y);
    if (last.size() > n) last.pop_front();
    y = std::accumulate(last.begin(), last.end(), 0.0) / static_cast<double>(last.size());
  }
}

struct Topic {
  const char* title;
  std::vector<std::string> keys;
};

// What the panels show: keys that belong together share one.
std::vector<Topic> topics(const Args& a) {
  std::vector<Topic> t;
  if (a.keys.empty()) {
    return {{"loss (nats a token)", {"loss", "valid_loss"}},
            {"learning rate", {"lr"}},
            {"gradient norm", {"grad_norm"}},
            {"tokens a second", {"tokens_per_second"}}};
  }
  for (const std::string& k : a.keys) t.push_back({k.c_str(), {k}});
  return t;
}

int plot(const Args& a) {
  if (a.runs.empty() || a.out.empty()) fail_usage("[plot] RUN and --out are needed");
  if (!a.keys.empty() && a.log_loss) fail_usage("[plot] --log-loss has no effect beside --key");
  if (a.smooth > 0 && !a.keys.empty() && std::ranges::find(a.keys, "loss") == a.keys.end()) {
    fail_usage("[plot] --smooth has no effect: it smooths the loss, which no --key names");
  }
  if (a.smooth < 0) fail_usage("[plot] --smooth is " + std::to_string(a.smooth) + ", expected 0 or more");
  std::vector<std::pair<std::string, Series>> runs;
  std::set<std::string> known;
  for (const std::string& r : a.runs) {
    const fs::path file = fs::is_directory(r) ? fs::path(r) / "metrics.jsonl" : fs::path(r);
    runs.emplace_back(a.runs.size() > 1 ? r + " " : "", read_metrics(file));
    for (const auto& [key, curve] : runs.back().second) known.insert(key);
  }
  std::vector<Panel> panels;
  for (const Topic& t : topics(a)) {
    Panel p{t.title, a.log_loss && std::string(t.title).starts_with("loss"), {}};
    for (const auto& [run, series] : runs) {
      for (const std::string& key : t.keys) {
        const auto found = series.find(key);
        if (found == series.end()) continue;
        Curve c = found->second;
        c.name = run + key;
        if (a.smooth > 1 && key == "loss") smooth(c, static_cast<size_t>(a.smooth));
        p.curves.push_back(std::move(c));
      }
    }
    if (!p.curves.empty()) {
      panels.push_back(std::move(p));
    } else if (!a.keys.empty()) {
      std::string names;
      for (const std::string& k : known) names += (names.empty() ? "" : ", ") + k;
      fail_usage("[plot] no run has a '" + std::string(t.title) + "'; there are " + names);
    }
  }
  if (panels.empty()) fail_data("[plot] there is nothing to draw in " + a.runs.front());
  draw(panels, "step", a.out);
  return 0;
}

}  // namespace

void add_plot(Command& root) {
  auto a = std::make_shared<Args>();
  Command c = root.subcommand("plot", "Draw the curves of training runs: SVG or PNG");
  c.positionals("RUN", a->runs, "folders of `krait train`, or their metrics.jsonl; several are drawn over each other");
  c.option("--out", a->out, "picture, .svg or .png");
  c.list("--key", a->keys, "a panel for this number of metrics.jsonl, instead of the usual ones; repeatable");
  c.option("--smooth", a->smooth, "running mean of the training loss over so many points; 0: as it is");
  c.flag("--log-loss", a->log_loss, "logarithmic axis for the loss");
  c.run([a] { return plot(*a); });
}

}  // namespace krait::cli
