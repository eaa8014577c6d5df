#include "train_report.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "krait/text/utf8.h"
#include "krait/train/lora.h"

namespace krait::cli {
namespace {

using train::LrSchedule;
using train::StepReport;

std::string name_of(const Init& init) {
  switch (init.kind) {
    case Init::Kind::kConstant:
      return fmt::format("{:g}", init.a);
    case Init::Kind::kUniform:
      return fmt::format("uniform in ±{:.4g}", init.a);
    case Init::Kind::kNormal:
      return fmt::format("normal, deviation {:.4g}", init.a);
    case Init::Kind::kLogIndex:
      return "log(1), log(2), … along a row";
    case Init::Kind::kLogUniform:
      return fmt::format("log of uniform in {:g} .. {:g}", init.a, init.b);
    case Init::Kind::kDtBias:
      return fmt::format("inverse softplus of log-uniform in {:g} .. {:g}", init.a, init.b);
  }
  return "?";
}

std::string duration(double seconds) {
  const auto s = static_cast<int64_t>(seconds);
  if (s < 60) return fmt::format("{} s", s);
  if (s < 3600) return fmt::format("{}:{:02} min", s / 60, s % 60);
  return fmt::format("{}:{:02} h", s / 3600, s / 60 % 60);
}

// 1234567 -> "1.23M"
std::string count(double n) {
  if (n < 1e3) return fmt::format("{:.0f}", n);
  if (n < 1e6) return fmt::format("{:.3g}k", n / 1e3);
  if (n < 1e9) return fmt::format("{:.3g}M", n / 1e6);
  return fmt::format("{:.3g}G", n / 1e9);
}

// What matters least comes last: a narrow terminal cuts it off. `speed`: tokens a second, of more than this step.
std::string line_of(const StepReport& r, double speed, double seconds_left) {
  std::string line = fmt::format("step {}/{}  loss {:.4f}", r.step, r.steps, r.loss);
  if (r.kl) line += fmt::format("  KL {:.4f}", *r.kl);
  if (r.step < r.steps) line += "  " + duration(seconds_left) + " left";
  line += fmt::format("  {} tok/s  lr {:.3g}  |g| {:.3g}", count(speed), r.lr, r.grad_norm);
  if (r.peak_share > 0) line += fmt::format("  {:.1f} % of peak", 100 * r.peak_share * speed / r.tokens_per_second);
  return line;
}

// A tensor that learns.
struct Row {
  ParamSpec spec;
  std::string type, first;
};

std::vector<Row> rows_of(const train::TrainConfig& c, const ModelSpec& spec,
                         const std::optional<train::FirstAdapter>& a) {
  std::vector<Row> rows;
  if (a) {
    for (const auto& [p, t] : train::adapter_params(a->adapter)) {
      const bool zero = std::all_of(t.f32(), t.f32() + t.numel(), [](float v) { return v == 0; });
      rows.push_back({p, "f32", zero ? "0" : "drawn"});
    }
    return rows;
  }
  for (const ParamSpec& p : model_params(spec)) {
    const bool rounded = p.role != ParamRole::kVector && c.train.weights == "bf16";
    std::string first = c.model.from.empty() ? name_of(p.init) : "from " + c.model.from;
    if (c.model.from.empty() && p.residual_output) first += ", divided by sqrt(layers)";
    rows.push_back({p, rounded ? "bf16" : "f32", std::move(first)});
  }
  return rows;
}

void explain_tensors(const std::vector<Row>& rows) {
  size_t width = 6;
  for (const Row& r : rows) width = std::max(width, r.spec.name.size());
  fmt::print("{:{}}  {:16}  {:4}  {:5}  {}\n", "tensor", width, "shape", "type", "decay", "first value");
  for (const Row& r : rows) {
    fmt::print("{:{}}  {:16}  {:4}  {:5}  {}\n", r.spec.name, width, r.spec.shape.str(), r.type,
               train::decays(r.spec) ? "yes" : "no", r.first);
  }
}

std::string rate_text(const LrSchedule& s) {
  std::string text = fmt::format("rises to {:g} over {} steps", s.peak, s.warmup);
  switch (s.shape) {
    case LrSchedule::Shape::kConstant:
      return text + ", then constant";
    case LrSchedule::Shape::kCosine:
      return text + fmt::format(", then falls by half a cosine to {:g}", s.final);
    case LrSchedule::Shape::kLinear:
      return text + fmt::format(", then falls in a line to {:g}", s.final);
    case LrSchedule::Shape::kWsd:
      return text + fmt::format(", then constant, the last {} steps fall in a line to {:g}", s.decay, s.final);
  }
  return text;
}

std::string data_text(const train::TrainConfig& c, const train::RunData& d) {
  if (!d.train_corpus) return "task " + c.data.task + ", generated";
  return fmt::format("{} shards, {} documents, {} tokens; {} samples of {} tokens an epoch ({}{})",
                     d.train_corpus->shards().size(), d.train_corpus->n_documents(), d.train_corpus->n_tokens(),
                     d.train->epoch_samples(), c.data.length, c.data.mode, c.data.shuffle ? ", shuffled" : "");
}

void explain_plan(const train::TrainConfig& c, const train::TrainerOptions& o, const std::vector<Row>& rows,
                  const train::RunData& d) {
  int64_t total = 0, decayed = 0;
  for (const Row& r : rows) {
    total += r.spec.shape.numel();
    if (train::decays(r.spec)) decayed += r.spec.shape.numel();
  }
  fmt::print("\nparameters    {} ({} with weight decay {:g}, {} without)\n", total, decayed, o.optimizer.weight_decay,
             total - decayed);
  fmt::print("data          {}\n", data_text(c, d));
  if (d.valid_corpus) fmt::print("validation    {} samples every {} steps\n", o.valid_samples, o.valid_every);
  if (d.valid && !d.valid_corpus)
    fmt::print("validation    {} examples every {} steps\n", o.valid_samples, o.valid_every);
  fmt::print("steps         {} of {} samples in {} passes of {}\n", o.schedule.steps, o.batch, o.batch / o.micro_batch,
             o.micro_batch);
  if (d.train_corpus) {
    const auto samples = static_cast<double>(o.schedule.steps * o.batch);
    fmt::print("tokens        {} ({:.3g} epochs)\n", o.schedule.steps * o.batch * c.data.length,
               samples / static_cast<double>(d.train->epoch_samples()));
  }
  fmt::print("optimizer     {}, betas {:g} and {:g}, gradient norm {}\n", o.optimizer.name, o.optimizer.beta1,
             o.optimizer.beta2, o.clip > 0 ? fmt::format("clipped at {:g}", o.clip) : "not clipped");
  fmt::print("learning rate {}\n", rate_text(o.schedule));
  if (!c.distill.teacher.empty()) {
    fmt::print("teacher       {}, weight {:g}, temperature {:g}\n", c.distill.teacher, c.distill.weight,
               c.distill.temperature);
  }
  fmt::print("checkpoints   every {} steps, the last {}{} are kept\n", o.save_every, o.keep_last,
             o.keep_best ? " and the best" : "");
}

}  // namespace

void explain(const train::TrainConfig& c, const train::TrainerOptions& o, const ModelSpec& spec,
             const train::RunData& data, const std::optional<train::FirstAdapter>& adapter) {
  const std::vector<Row> rows = rows_of(c, spec, adapter);
  explain_tensors(rows);
  if (adapter) fmt::print("\nadapter       {}\n", train::describe(adapter->adapter, spec));
  explain_plan(c, o, rows, data);
}

TrainProgress::TrainProgress() : terminal_(isatty(STDERR_FILENO) == 1), start_(Clock::now()), shown_(start_) {}

TrainProgress::~TrainProgress() {
  if (visible_) std::fputs("\r\033[K", stderr);
}

void TrainProgress::say(const std::string& line) {
  std::fprintf(stderr, "%s%s\n", visible_ ? "\r\033[K" : "", line.c_str());
  visible_ = false;
}

void TrainProgress::on_step(const StepReport& r) {
  const auto now = Clock::now();
  if (first_ < 0) first_ = r.step - 1;
  constexpr double kFading = 0.9;
  tokens_ = kFading * tokens_ + r.tokens_per_second * r.seconds;
  seconds_ = kFading * seconds_ + r.seconds;
  const double seconds = std::chrono::duration<double>(now - start_).count();
  const double left = seconds / static_cast<double>(r.step - first_) * static_cast<double>(r.steps - r.step);
  const bool edge = r.step == first_ + 1 || r.step == r.steps;
  const double pause = terminal_ ? 0.2 : 10;
  if (!edge && std::chrono::duration<double>(now - shown_).count() < pause) return;
  shown_ = now;
  const std::string line = line_of(r, tokens_ / seconds_, left);
  if (!terminal_ || r.step == r.steps) return say(line);
  draw(r, line);
}

// In one row of the terminal: the bar where it fits, and of the line the parts that fit.
void TrainProgress::draw(const StepReport& r, const std::string& line) {
  winsize size{};
  const size_t columns = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col - 1 : 79;
  constexpr int kWidth = 24;
  std::string bar(static_cast<size_t>(kWidth * r.step / r.steps), '#');
  bar.resize(kWidth, '.');
  std::string row = line.size() + kWidth + 3 <= columns ? "[" + bar + "] " + line : line;
  if (row.size() > columns) row.resize(std::min(columns, row.rfind("  ", columns)));
  std::fprintf(stderr, "\r\033[K%s", row.c_str());
  std::fflush(stderr);
  visible_ = true;
}

void TrainProgress::on_validation(const train::ValidationReport& r) {
  std::string line = fmt::format("step {}  validation loss {:.4f}", r.step, r.loss);
  if (r.accuracy) line += fmt::format(", {:.2f} % right", 100 * *r.accuracy);
  if (r.best) line += ", the best so far";
  say(line);
}

void TrainProgress::on_saved(const train::SavedReport& r) {
  say(fmt::format("step {}  saved {}", r.step, text::escape_controls(r.folder.string())));
}

void TrainProgress::on_samples(int64_t step, const std::vector<train::SampleText>& texts) {
  for (const train::SampleText& t : texts) {
    say(fmt::format("step {}  {}|{}", step, text::escape_controls(t.prompt), text::escape_controls(t.text)));
  }
}

}  // namespace krait::cli
