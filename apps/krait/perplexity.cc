// krait perplexity: cross entropy of texts under a model.
#include <cmath>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "json_out.h"
#include "krait/core/error.h"
#include "krait/infer/score.h"
#include "progress.h"
#include "session.h"
#include "text_file.h"

namespace krait::cli {
namespace {

struct Args {
  ModelArgs model;
  std::vector<std::string> files;
  int64_t window = 0;
  std::string encode = "auto";
  bool json = false, lossy = false;
};

struct Total {
  double nll = 0;
  int64_t targets = 0, windows = 0, tokens = 0, bytes = 0;
};

// [bos] + encode(p + "\n\n") for each paragraph p: pieces never reach across a paragraph.
std::vector<int32_t> encode_paragraphs(const text::Tokenizer& t, const std::string& text) {
  std::vector<int32_t> ids{t.bos_id().value_or(t.eos_ids().empty() ? 0 : t.eos_ids().front())};
  for (size_t at = 0;;) {
    const size_t end = text.find("\n\n", at);
    const auto part = t.encode(text.substr(at, end - at) + "\n\n", {.add_special = false, .parse_special = false});
    ids.insert(ids.end(), part.begin(), part.end());
    if (end == std::string::npos) return ids;
    at = end + 2;
  }
}

std::vector<int32_t> encode(const Args& a, const text::Tokenizer& t, const std::string& text) {
  const bool paragraphs = a.encode == "paragraphs" || (a.encode == "auto" && a.window > 0);
  if (paragraphs) return encode_paragraphs(t, text);
  return t.encode(text, {.add_special = true, .parse_special = false});
}

// Adds the loss of ids[first+1 .. first+n] given ids[first .. first+n-1], from the state in slot 0.
void add_loss(const Model& m, SlotStore& states, std::span<const int32_t> ids, int64_t first, int64_t n, Total& total,
              ProgressBar& bar) {
  score(m, states, 0, ids.subspan(static_cast<size_t>(first), static_cast<size_t>(n)),
        [&](int64_t at, const Tensor& part) {
          const int64_t V = part.dim(1);
          std::vector<double> nll(static_cast<size_t>(part.dim(0)));
          m.runtime().pool->parallel_for(part.dim(0), [&](int64_t i) {
            const std::span row(part.f32() + i * V, static_cast<size_t>(V));
            nll[static_cast<size_t>(i)] = negative_log_likelihood(row, ids[static_cast<size_t>(first + at + i + 1)]);
          });
          for (const double v : nll) total.nll += v;
          total.targets += part.dim(0);
          bar.advance(part.dim(0));
          return true;
        });
}

// A text, and the windows that it is measured in.
struct Text {
  std::string file;
  std::vector<int32_t> ids;
  int64_t bytes = 0, window = 0, windows = 0;
};

Text read(const Args& a, const text::Tokenizer& tokenizer, const std::string& file) {
  const std::string text = require_utf8(read_text(file), file == "-" ? "standard input" : file, a.lossy);
  Text t{file, encode(a, tokenizer, text), static_cast<int64_t>(text.size()), 0, 0};
  const auto n = static_cast<int64_t>(t.ids.size());
  t.window = a.window > 0 ? a.window : n - 1;
  t.windows = n < 2 ? 0 : (n - 1) / t.window;
  if (t.windows == 0) {
    fail_data("[perplexity] " + file + " has " + std::to_string(n) + " tokens, too few for a window of " +
              std::to_string(std::max<int64_t>(t.window, 1)));
  }
  return t;
}

void measure(const Session& s, const Text& t, Total& total) {
  SlotStore states(s.model().state_specs(), 1);
  ProgressBar bar(t.file, t.windows * t.window, "tokens");
  for (int64_t w = 0; w < t.windows; ++w) {
    s.model().reset_state(states, 0);
    add_loss(s.model(), states, t.ids, w * t.window, t.window, total, bar);
  }
  total.windows += t.windows;
  total.tokens += static_cast<int64_t>(t.ids.size());
  total.bytes += t.bytes;
}

int perplexity(const Args& a) {
  if (a.window < 0)
    fail_usage("[perplexity] --window is " + std::to_string(a.window) + ", expected a positive number of tokens");
  const Session s = open_session(a.model, NeedTokenizer::kYes);
  std::vector<Text> texts;  // all of them first: no result is lost to a text that cannot be measured
  texts.reserve(a.files.size());
  for (const std::string& f : a.files) texts.push_back(read(a, *s.tokenizer, f));
  Total total;
  for (const Text& t : texts) measure(s, t, total);
  const double loss = total.nll / static_cast<double>(total.targets);
  if (a.json) {
    const nlohmann::ordered_json j = {
        {"loss", loss},       {"perplexity", std::exp(loss)}, {"targets", total.targets}, {"windows", total.windows},
        {"window", a.window}, {"tokens", total.tokens},       {"bytes", total.bytes}};
    print_json(j);
  } else {
    std::printf("loss        %.5f nats a token\nperplexity  %.4f\ntargets     %lld in %lld window(s)\n", loss,
                std::exp(loss), static_cast<long long>(total.targets), static_cast<long long>(total.windows));
  }
  return 0;
}

}  // namespace

void add_perplexity(Command& root) {
  auto a = std::make_shared<Args>();
  Command c = root.subcommand("perplexity", "Cross entropy of texts under a model");
  add_model_options(c, a->model, true, true, {.lora = true});
  c.positionals("FILE", a->files, "texts, each measured by itself; '-' is standard input");
  c.option("--window", a->window,
           "measure in windows of that many tokens, state reset at each, the incomplete last left out; 0: one pass "
           "with carried state");
  c.choice("--encode", a->encode, {"auto", "whole", "paragraphs"},
           "paragraphs: a leading BOS, then each paragraph (ended by a blank line) encoded by itself; whole: the text "
           "at once; "
           "auto: paragraphs with --window, else whole");
  c.flag("--lossy-utf8", a->lossy, "take text that is not UTF-8: U+FFFD stands for what is not");
  c.flag("--json", a->json, "print JSON: loss (nats a token), perplexity, targets, windows, tokens, bytes");
  c.run([a] { return perplexity(*a); });
}

}  // namespace krait::cli
