// krait bench serve: load for a running server, and what its clients see of it.
#include <sys/resource.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "cli.h"
#include "json_out.h"
#include "krait/core/error.h"
#include "krait/core/rng.h"
#include "load_client.h"
#include "terminal.h"

namespace krait::cli {
namespace {

using nlohmann::ordered_json;

struct Args {
  std::string url, model, api_key;
  std::vector<int64_t> prompts = {16, 256}, answers = {64};
  double rate = 0, duration = 30;
  int64_t streams = 0, seed = 1;
  bool json = false;
};

// ids that every vocabulary has; different prompts, so that no cache helps.
constexpr uint64_t kLeastId = 1, kMostId = 255;

class Mix {
 public:
  explicit Mix(const Args& a) : a_(a), rng_(static_cast<uint64_t>(a.seed)) {}

  LoadRequest next() {
    const int64_t prompt = pick(a_.prompts), answer = pick(a_.answers);
    ordered_json ids = ordered_json::array();
    for (int64_t i = 0; i < prompt; ++i) ids.push_back(kLeastId + rng_.below(kMostId - kLeastId + 1));
    const ordered_json body = {{"model", a_.model},
                               {"prompt", ids},
                               {"max_tokens", answer},
                               {"ignore_eos", true},
                               {"seed", rng_.below(1'000'000'000)},
                               {"stream", true},
                               {"stream_options", {{"include_usage", true}}}};
    return {body.dump()};
  }

  // Seconds until the next arrival of a Poisson process.
  double gap() { return -std::log(1 - rng_.uniform()) / a_.rate; }

 private:
  int64_t pick(const std::vector<int64_t>& of) { return of[rng_.below(of.size())]; }

  const Args& a_;
  Rng rng_;
};

// [0, 1]: by order.
double quantile(std::vector<double> v, double q) {
  if (v.empty()) return 0;
  const auto k = static_cast<size_t>(std::lround(q * static_cast<double>(v.size() - 1)));
  std::nth_element(v.begin(), v.begin() + static_cast<int64_t>(k), v.end());
  return v[k];
}

struct Summary {
  std::vector<double> first, between, total, late;  // seconds
  std::map<std::string, int64_t> errors;
  int64_t requests = 0, tokens = 0, prompt_tokens = 0, cached_tokens = 0;
  double seconds = 0;
  double own_cpu = 0;  // seconds of processor time that the client took

  void add(const LoadResult& r) {
    requests += 1;
    if (!r.error.empty()) {
      errors[r.status >= 400 ? "HTTP " + std::to_string(r.status) : r.error.substr(0, 80)] += 1;
      return;
    }
    if (r.first >= 0) first.push_back(r.first - r.due);
    for (size_t i = 1; i < r.tokens.size(); ++i) between.push_back(r.tokens[i] - r.tokens[i - 1]);
    total.push_back(r.end - r.due);
    late.push_back(r.sent - r.due);
    tokens += r.completion_tokens;
    prompt_tokens += r.prompt_tokens;
    cached_tokens += r.cached_tokens;
  }
};

Summary drive(const Args& a) {
  LoadClient client(parse_url(a.url), a.api_key);
  Mix mix(a);
  Summary s;
  double next = 0;
  for (int64_t i = 0; i < a.streams; ++i) client.submit(0, mix.next());
  const Signals signals;
  while (client.now() < a.duration && Signals::received() == 0) {
    for (; a.rate > 0 && next <= client.now(); next += mix.gap()) client.submit(next, mix.next());
    const double until = a.rate > 0 ? std::min(a.duration, next) : std::min(a.duration, client.now() + 0.2);
    for (const LoadResult& r : client.poll(until)) {
      s.add(r);
      if (a.streams > 0) client.submit(client.now(), mix.next());
    }
  }
  s.seconds = client.now();
  // An open loop's requests have all been asked for: they count, however long they take.
  const double patience = client.now() + 60;
  while (a.rate > 0 && client.running() > 0 && client.now() < patience && Signals::received() == 0) {
    for (const LoadResult& r : client.poll(client.now() + 0.2)) s.add(r);
    s.seconds = client.now();
  }
  s.tokens += client.abandon();  // a closed loop ends amid answers
  return s;
}

double processor_seconds() {
  rusage u{};
  getrusage(RUSAGE_SELF, &u);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(u.ru_utime) + seconds(u.ru_stime);
}

ordered_json quantiles(const std::vector<double>& v) {
  return {{"p50", quantile(v, 0.5) * 1e3},
          {"p90", quantile(v, 0.9) * 1e3},
          {"p99", quantile(v, 0.99) * 1e3},
          {"max", quantile(v, 1) * 1e3}};
}

void print(const Args& a, const Summary& s) {
  int64_t failed = 0;
  for (const auto& [what, n] : s.errors) failed += n;
  if (a.json) {
    return print_json({{"requests", s.requests},
                       {"failed", failed},
                       {"errors", s.errors},
                       {"seconds", s.seconds},
                       {"client_cpu_seconds", s.own_cpu},
                       {"tokens", s.tokens},
                       {"tokens_per_second", static_cast<double>(s.tokens) / s.seconds},
                       {"prompt_tokens", s.prompt_tokens},
                       {"cached_tokens", s.cached_tokens},
                       {"first_token_ms", quantiles(s.first)},
                       {"between_tokens_ms", quantiles(s.between)},
                       {"request_ms", quantiles(s.total)}});
  }
  std::printf("%lld requests in %.1f s, %lld failed; %lld tokens written, %.1f tokens/s; %lld tokens of prompts\n",
              static_cast<long long>(s.requests), s.seconds, static_cast<long long>(failed),
              static_cast<long long>(s.tokens), static_cast<double>(s.tokens) / s.seconds,
              static_cast<long long>(s.prompt_tokens));
  const auto row = [](const char* name, const std::vector<double>& v) {
    std::printf("%-22s %9.1f %9.1f %9.1f %9.1f\n", name, quantile(v, 0.5) * 1e3, quantile(v, 0.9) * 1e3,
                quantile(v, 0.99) * 1e3, quantile(v, 1) * 1e3);
  };
  std::printf("%-22s %9s %9s %9s %9s\n", "milliseconds", "p50", "p90", "p99", "max");
  row("to the first token", s.first);
  row("between tokens", s.between);
  row("whole request", s.total);
  std::printf("this client took %.1f s of processor time\n", s.own_cpu);
  for (const auto& [what, n] : s.errors) std::printf("%lld x %s\n", static_cast<long long>(n), what.c_str());
}

void check(const Args& a) {
  if ((a.rate > 0) == (a.streams > 0)) fail_usage("[bench serve] give --rate (open loop) or --streams (closed loop)");
  const auto in_range = [](const std::vector<int64_t>& v, const char* what) {
    if (v.empty() || std::ranges::any_of(v, [](int64_t n) { return n < 1 || n > 10'000'000; })) {
      fail_usage(std::string("[bench serve] ") + what + " wants 1 to 10000000");
    }
  };
  in_range(a.prompts, "--prompts");
  in_range(a.answers, "--answers");
  if (a.rate < 0 || a.rate > 1e6) fail_usage("[bench serve] --rate wants 0 to 1000000");
  if (a.streams < 0 || a.streams > 100'000) fail_usage("[bench serve] --streams wants 0 to 100000");
  if (!(a.duration > 0)) fail_usage("[bench serve] --duration wants more than 0");
}

}  // namespace

void add_bench_serve(Command& bench) {
  auto a = std::make_shared<Args>();
  Command c = bench.subcommand("serve", "load for a running server: times to the first token and between tokens");
  c.positional("URL", a->url, "http://HOST:PORT of the server");
  c.option("-m,--model", a->model, "the model's name, as GET /v1/models gives it");
  c.option("--api-key", a->api_key, "key, if the server wants one");
  c.option("--rate", a->rate, "open loop: requests a second, at random times, however slow the answers are");
  c.option("--streams", a->streams, "closed loop: so many requests running at any time");
  c.option("--duration", a->duration, "seconds");
  c.list("--prompts", a->prompts, "tokens of a prompt, drawn from these");
  c.list("--answers", a->answers, "tokens of an answer, drawn from these");
  c.option("--seed", a->seed, "of the draws");
  c.flag("--json", a->json, "print JSON");
  c.run([a] {
    check(*a);
    if (a->model.empty()) fail_usage("[bench serve] --model is wanted: the name that GET /v1/models gives");
    Summary s = drive(*a);
    s.own_cpu = processor_seconds();
    print(*a, s);
    return s.errors.empty() ? 0 : 1;
  });
}

}  // namespace krait::cli
