// krait run: text from a prompt, once; without a prompt, on a terminal, a chat.
#include <unistd.h>

#include <cstdio>
#include <memory>

#include "chat.h"
#include "generate.h"
#include "krait/core/error.h"
#include "krait/io/atomic_file.h"
#include "krait/text/utf8.h"
#include "run_report.h"

namespace krait::cli {
namespace {

std::vector<int32_t> encode_prompt(const RunArgs& a, const Session& s, const std::string& prompt, const State* start) {
  const auto chat = chat_template(a, *s.tokenizer);
  if (chat) return open_turn(*s.tokenizer, *chat, a.system, prompt, start != nullptr);
  return s.tokenizer->encode(prompt, {.add_special = start == nullptr, .parse_special = true});
}

void print(Output& out, const Job& job, const std::string& prompt, const Outcome& o, double load_seconds) {
  const RunArgs& a = job.args;
  if (a.json) return out.write(report_json(job, o, load_seconds));
  if (a.parallel == 1) {
    if (a.beams > 0) out.write(prompt + o.choices.front().text);
  } else {
    for (size_t i = 0; i < o.choices.size(); ++i) {
      const std::string title = "--- " + std::to_string(i + 1) + " of " + std::to_string(o.choices.size()) + " ---\n";
      out.write(title + prompt + o.choices[i].text + "\n");
    }
  }
  if (out.terminal() && a.parallel == 1) out.write("\n");
}

int finish(const RunArgs& a, const Outcome& o) {
  const auto& state = o.choices.front().state;
  if (!a.save_state.empty() && state) write_state(a.save_state, *state);
  if (!a.save_state.empty() && !state) {  // interrupted before the first token was read
    std::fprintf(stderr, "krait: no token was read, so there is no state to save in %s\n",
                 text::escape_controls(a.save_state).c_str());
  }
  if (a.verbose) {
    const std::string line = report_line(o.prompt_read, o.prompt_seconds, o.written(), o.write_seconds);
    std::fprintf(stderr, "[%s]\n", line.c_str());
  }
  const int signal = Signals::received();
  if (signal == 0) return 0;
  if (a.beams > 0) std::fputs("krait: interrupted; this is the best that the search had so far\n", stderr);
  if (o.prompt_read < o.prompt_tokens) {
    std::fprintf(stderr, "krait: interrupted after %lld of %lld tokens of the prompt\n",
                 static_cast<long long>(o.prompt_read), static_cast<long long>(o.prompt_tokens));
  }
  return 128 + signal;
}

int run_once(const RunArgs& a, const Session& s, const std::string& prompt, const std::shared_ptr<const State>& start,
             double load_seconds) {
  Job job{a, s, encode_prompt(a, s, prompt, start.get()), start, sampler_params(a, s), stop_ids(a, s)};
  if (job.prompt.empty() && (!start || start->position() == 0)) {
    fail_usage("[run] the prompt is empty, and this model has no token to begin a text with");
  }
  Output out;
  const bool shows_prompt = !a.json && !a.no_display_prompt && !a.templated();
  const bool streams = !a.json && a.parallel == 1 && a.beams == 0;
  const std::string shown_prompt = shows_prompt ? prompt : "";
  if (streams) out.write(shown_prompt);
  const Outcome o = a.beams > 0 ? search_beams(job) : draw(job, streams ? &out : nullptr);
  if (o.choices.empty()) {  // only a search has nothing to show for itself so far
    std::fputs("krait: interrupted before a beam had its first token: there is no text and no state\n", stderr);
    return 128 + Signals::received();
  }
  print(out, job, shown_prompt, o, load_seconds);
  return finish(a, o);
}

// Every sequence has a state, and every beam two: told before the system ends the program for want of memory.
void check_state_memory(const RunArgs& a, const Model& m) {
  const double states = static_cast<double>(a.beams > 0 ? 2 * a.beams : a.parallel);
  const double gib = states * static_cast<double>(SlotStore::bytes_per_slot(m.state_specs())) / 0x1p30;
  const double there =
      static_cast<double>(sysconf(_SC_PHYS_PAGES)) * static_cast<double>(sysconf(_SC_PAGESIZE)) / 0x1p30;
  if (gib < there) return;
  char text[120];
  std::snprintf(text, sizeof text, "[run] %.0f states take %.1f GiB, and this machine has %.1f GiB of memory", states,
                gib, there);
  fail_usage(text);
}

int run(const RunArgs& a) {
  if (!a.save_state.empty()) {  // before any work is done that could not be kept
    const io::AtomicFile probe(a.save_state);
  }
  require_utf8(a.system, "--system", a.lossy_utf8);
  const std::string prompt = a.interactive ? a.prompt : prompt_text(a);
  const double begin = uptime();
  const Session s = open_session(a.model, NeedTokenizer::kYes);
  const double load_seconds = uptime() - begin;
  check_state_memory(a, s.model());
  const Signals signals;
  std::shared_ptr<const State> start;
  if (!a.load_state.empty()) {
    start = std::make_shared<const State>(read_state(a.load_state));
    check_fits(s.model(), *start);
  }
  if (a.interactive) return chat(a, s, std::move(start));
  return run_once(a, s, prompt, start, load_seconds);
}

}  // namespace

void add_run(Command& root) {
  auto a = std::make_shared<RunArgs>();
  Command c = root.subcommand("run", "Write text after a prompt; without one, chat");
  add_run_options(c, *a);
  c.run([a, c] {
    check_run_options(c, *a);
    return run(*a);
  });
}

}  // namespace krait::cli
