#include "run_options.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <random>

#include "krait/core/error.h"
#include "krait/text/stop_matcher.h"
#include "text_file.h"

namespace krait::cli {
namespace {

constexpr const char* kFooter =
    "Without -p, -f or --load-state: a chat on a terminal (/help lists its commands), else the prompt is standard "
    "input.\n"
    "One newline at the end of a file or of standard input is not part of the prompt.\n"
    "Ctrl-C ends the text (the best beam is shown as it stands), keeps the state if --save-state is given, and exits\n"
    "with 130; in a chat it stops the answer.\n"
    "A reader of the output that goes away ends the run with exit code 0.";

// Sequences that run together: each takes a token of a forward pass.
constexpr int64_t kMostSequences = kPrefillChunk;

// Options that say how tokens are drawn: useless where nothing is drawn.
constexpr const char* kDrawing[] = {"--top-k", "--top-p", "--min-p", "--seed"};
constexpr const char* kNotForChat[] = {"--parallel", "--beams", "--logprobs", "--json", "--no-display-prompt"};

void refuse_together(const Command& c, const char* option, const std::string& with) {
  if (c.given(option)) fail_usage(std::string("[run] ") + option + " has no effect with " + with);
}

void check_sampling(const Command& c, const RunArgs& a) {
  if (a.temperature == 0 && a.beams == 0) {
    for (const char* o : kDrawing) refuse_together(c, o, "--temp 0, which takes the likeliest token");
    if (a.parallel > 1) fail_usage("[run] with --temp 0 all --parallel sequences would be the same");
  }
  if (a.seed < -1)
    fail_usage("[run] --seed is " + std::to_string(a.seed) + ", expected 0 or more, or -1 for a random one");
  const bool penalty = a.repeat_penalty != 1 || a.presence_penalty != 0 || a.frequency_penalty != 0;
  if (c.given("--repeat-last-n") && !penalty) fail_usage("[run] --repeat-last-n has no effect without a penalty");
}

void check_beams(const Command& c, const RunArgs& a) {
  if (!c.given("--beams")) {
    if (c.given("--length-penalty")) fail_usage("[run] --length-penalty has no effect without --beams");
    return;
  }
  if (a.beams < 1 || a.beams > kMostSequences) {
    fail_usage("[run] --beams is " + std::to_string(a.beams) + ", expected 1 to " + std::to_string(kMostSequences));
  }
  refuse_together(c, "--temp", "--beams, which draws nothing at random");
  for (const char* o : kDrawing) refuse_together(c, o, "--beams, which draws nothing at random");
  if (a.parallel > a.beams) fail_usage("[run] --parallel is " + std::to_string(a.parallel) + ", more than the --beams");
  if (a.n_predict < 1) {
    fail_usage("[run] --beams needs -n of 1 or more: scores of beams are compared up to a length");
  }
}

void check_counts(const Command& c, const RunArgs& a) {
  if (a.n_predict < -1)
    fail_usage("[run] -n is " + std::to_string(a.n_predict) + ", expected 0 or more, or -1: no limit");
  if (a.n_predict == 0 && a.save_state.empty() && !a.json) {
    fail_usage("[run] -n 0 reads the prompt and writes nothing: it needs --save-state or --json");
  }
  if (a.parallel < 1 || a.parallel > kMostSequences) {
    fail_usage("[run] --parallel is " + std::to_string(a.parallel) + ", expected 1 to " +
               std::to_string(kMostSequences));
  }
  if (a.parallel > 1 && !a.save_state.empty()) fail_usage("[run] --save-state keeps one state: not with --parallel");
  if (c.given("--logprobs") && !a.json) fail_usage("[run] --logprobs are part of the --json output");
  if (a.logprobs < 0) fail_usage("[run] --logprobs is " + std::to_string(a.logprobs) + ", expected 0 or more");
}

void check_prompt(const Command& c, const RunArgs& a) {
  if (!a.model.model.empty() && !a.model_option.empty()) fail_usage("[run] MODEL and -m both name a model");
  if (a.has_prompt && a.has_file) fail_usage("[run] -p and -f both give a prompt");
  if (a.interactive) {
    for (const char* o : kNotForChat) refuse_together(c, o, "a chat");
    if (a.has_file) fail_usage("[run] -f has no effect with a chat");
    if (a.n_predict == 0) fail_usage("[run] -n 0 leaves no answer in a chat");
    if (c.given("--system") && a.chat_template == "none") fail_usage("[run] --system needs a chat template");
    return;
  }
  if (c.given("--system") && !a.templated()) fail_usage("[run] --system needs --chat-template (or a chat: -i)");
  const bool continues = !a.load_state.empty() && !a.has_prompt && !a.has_file;
  if (continues && a.has_template) fail_usage("[run] --chat-template needs a prompt");
  if (c.given("--no-display-prompt") && (a.json || a.templated() || continues)) {
    fail_usage("[run] --no-display-prompt: no prompt is shown here anyway");
  }
}

std::pair<int32_t, double> parse_bias(const std::string& text, int64_t vocab) {
  const size_t eq = text.find('=');
  size_t id_end = 0, value_end = 0;
  int64_t id = -1;
  double value = 0;
  try {
    id = std::stoll(text.substr(0, eq), &id_end);
    value = std::stod(text.substr(eq + 1), &value_end);
  } catch (const std::exception&) {
    id_end = 0;
  }
  const bool whole = eq != std::string::npos && id_end == eq && value_end == text.size() - eq - 1;
  if (!whole || std::isnan(value))
    fail_usage("[run] --logit-bias '" + text + "' is not ID=VALUE, e.g. 15=-inf or 15=2.5");
  if (id < 0 || id >= vocab) {
    fail_usage("[run] --logit-bias: " + std::to_string(id) + " is not an id below " + std::to_string(vocab));
  }
  return {static_cast<int32_t>(id), value};
}

uint64_t random_seed() {
  std::random_device device;
  const uint64_t seed = device();
  std::fprintf(stderr, "seed %llu\n", static_cast<unsigned long long>(seed));
  return seed;
}

std::string special_text(const text::Tokenizer& t, std::optional<int32_t> id) { return id ? t.token_bytes(*id) : ""; }

}  // namespace

void add_run_options(Command& c, RunArgs& a) {
  add_model_options(c, a.model, true, false, {.lora = true});
  c.option("-m,--model", a.model_option, "the same as MODEL; neither: the shipped model");
  c.option("-p,--prompt", a.prompt, "text to go on from");
  c.option("-f,--file", a.file, "file with that text; '-' is standard input");
  c.flag("--lossy-utf8", a.lossy_utf8, "take text that is not UTF-8: U+FFFD stands for what is not");
  c.option("-n,--n-predict", a.n_predict,
           "tokens to write; -1: until the model ends (default in a chat with a template)");
  c.flag("-i,--interactive", a.interactive,
         "chat, also when standard input is not a terminal; -p is the first message");
  c.option("--temp,--temperature", a.temperature, "temperature; 0: always the likeliest token");
  c.option("--top-k", a.top_k, "draw from the K likeliest tokens; 0: all");
  c.option("--top-p", a.top_p, "draw from the likeliest tokens that make up this probability; 1: all");
  c.option("--min-p", a.min_p, "draw from tokens at least this probable relative to the likeliest; 0: all");
  c.option("--repeat-penalty", a.repeat_penalty,
           "divides the logits of seen tokens (multiplies negative ones); 1: none");
  c.option("--presence-penalty", a.presence_penalty, "subtracted from the logits of seen tokens");
  c.option("--frequency-penalty", a.frequency_penalty, "subtracted as often as a token was seen");
  c.option("--repeat-last-n", a.repeat_last_n, "tokens back that penalties look; -1: all");
  c.list("--logit-bias", a.logit_bias, "ID=VALUE, added to a token's logit; -inf forbids it; repeatable");
  c.option("-s,--seed", a.seed, "of the random draws: same seed, same text; -1: a random one, printed on stderr");
  c.list("--stop", a.stop, "end before this text; repeatable");
  c.list("--stop-id", a.stop_id, "end at this token; repeatable, or 1,2,3");
  c.flag("--ignore-eos", a.ignore_eos, "never choose a token that ends the text");
  c.option("-N,--parallel", a.parallel, "texts to write, at most 256; the prompt is read once");
  c.option("--beams", a.beams, "beam search with that many beams instead of random draws; at most 256");
  c.option("--length-penalty", a.length_penalty, "beams are ranked by log probability / length^this");
  c.option("--logprobs", a.logprobs, "with --json: log probabilities of the chosen tokens and of the K likeliest");
  c.option("--save-state", a.save_state, "write the state after the last token to this file");
  c.option("--load-state", a.load_state, "go on from this state; its random draws go on too, unless --seed is given");
  c.option(
      "--chat-template", a.chat_template,
      "format the prompt as a chat: 'auto' (the model's own), a name, or 'none'; default: auto in a chat, else none");
  c.option("--system", a.system, "system message of the chat");
  c.flag("--no-display-prompt", a.no_display_prompt, "do not repeat the prompt before the text");
  c.flag("--json", a.json, "print one JSON object: text, ids, finish_reason, timings (choices with --parallel)");
  c.flag("-v,--verbose", a.verbose, "say on stderr how many tokens were read and written, and how fast");
  c.refuse("-c,--ctx-size", "a state space model has no context size: its state does not grow");
  c.footer(kFooter);
}

void check_run_options(const Command& c, RunArgs& a) {
  a.has_prompt = c.given("--prompt");
  a.has_file = c.given("--file");
  a.has_n = c.given("--n-predict");
  a.has_seed = c.given("--seed");
  a.has_logprobs = c.given("--logprobs");
  a.has_template = c.given("--chat-template");
  const bool nothing = !a.has_prompt && !a.has_file && a.load_state.empty();
  a.interactive = a.interactive || (nothing && isatty(STDIN_FILENO) == 1);
  check_prompt(c, a);
  check_counts(c, a);
  check_sampling(c, a);
  check_beams(c, a);
  [[maybe_unused]] const text::StopMatcher usable(a.stop);  // throws on stop strings that can never be found
  if (!a.model_option.empty()) a.model.model = a.model_option;
}

std::string prompt_text(const RunArgs& a) {
  if (a.has_prompt) return require_utf8(a.prompt, "the prompt", a.lossy_utf8);
  if (!a.has_file && !a.load_state.empty()) return "";
  const std::string file = a.has_file ? a.file : "-";
  std::string text = require_utf8(read_text(file), file == "-" ? "standard input" : file, a.lossy_utf8);
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

SamplerParams sampler_params(const RunArgs& a, const Session& s) {
  SamplerParams p;
  const int64_t vocab = s.sampled_vocab();
  const bool draws = a.temperature != 0 && a.beams == 0;
  p.temperature = draws ? a.temperature : 0;
  if (draws) {
    p.top_k = a.top_k;
    p.top_p = a.top_p;
    p.min_p = a.min_p;
    p.seed = a.seed < 0 ? random_seed() : static_cast<uint64_t>(a.seed);
  }
  p.repetition_penalty = a.repeat_penalty;
  p.presence_penalty = a.presence_penalty;
  p.frequency_penalty = a.frequency_penalty;
  p.penalty_window = a.repeat_last_n;
  for (const std::string& b : a.logit_bias) {
    if (!p.logit_bias.insert(parse_bias(b, vocab)).second) fail_usage("[run] --logit-bias names a token twice: " + b);
  }
  if (a.ignore_eos) {
    const std::vector<int32_t> eos = s.tokenizer->eos_ids();
    if (eos.empty()) fail_usage("[run] --ignore-eos: this tokenizer has no token that ends a text");
    for (const int32_t id : eos) {
      if (std::ranges::count(a.stop_id, id) > 0)
        fail_usage("[run] --ignore-eos forbids --stop-id " + std::to_string(id));
      if (id < vocab) p.logit_bias[id] = -std::numeric_limits<double>::infinity();
    }
  }
  validate(p, vocab);
  return p;
}

std::vector<int32_t> stop_ids(const RunArgs& a, const Session& s) {
  std::vector<int32_t> ids;
  if (!a.ignore_eos) ids = s.tokenizer->eos_ids();
  for (const int64_t id : a.stop_id) {
    if (id < 0 || id >= s.sampled_vocab()) {
      fail_usage("[run] --stop-id " + std::to_string(id) + " is not an id below " + std::to_string(s.sampled_vocab()));
    }
    ids.push_back(static_cast<int32_t>(id));
  }
  return ids;
}

std::unique_ptr<text::ChatTemplate> chat_template(const RunArgs& a, const text::Tokenizer& t) {
  const std::string wanted = a.has_template ? a.chat_template : a.interactive ? "auto" : "none";
  if (wanted == "none") return nullptr;
  const auto eos = t.eos_ids();
  const std::string bos_text = special_text(t, t.bos_id());
  const std::string eos_text = special_text(t, eos.empty() ? std::nullopt : std::optional(eos.front()));
  if (wanted != "auto") return text::named_chat_template(wanted, bos_text, eos_text);
  const std::string source = t.chat_template();
  if (!source.empty()) return text::compile_chat_template(source, bos_text, eos_text);
  if (a.has_template) fail_usage("[run] --chat-template auto: this model has no chat template; name one, or 'none'");
  if (!a.system.empty()) fail_usage("[run] --system: this model has no chat template; name one with --chat-template");
  return nullptr;
}

}  // namespace krait::cli
