#include "krait/serve/ops/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

namespace krait::serve {
namespace {

using prometheus::Counter;
using prometheus::Family;
using prometheus::Gauge;
using prometheus::Histogram;
using Buckets = Histogram::BucketBoundaries;

const Buckets kLatency = {0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120};
const Buckets kGap = {0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1};
const Buckets kTokens = {1, 4, 16, 64, 128, 256, 512, 1024, 2048};

}  // namespace

struct Metrics::Impl {
  prometheus::Registry registry;
  prometheus::TextSerializer serializer;

  Counter& counter(const std::string& name, const std::string& help) {
    return prometheus::BuildCounter().Name(name).Help(help).Register(registry).Add({});
  }
  Histogram& histogram(const std::string& name, const std::string& help, const Buckets& buckets) {
    return prometheus::BuildHistogram().Name(name).Help(help).Register(registry).Add({}, buckets);
  }
  Gauge& gauge(const std::string& name, const std::string& help) {
    return prometheus::BuildGauge().Name(name).Help(help).Register(registry).Add({});
  }

  Family<Counter>& requests = prometheus::BuildCounter()
                                  .Name("mamba_inference_requests_total")
                                  .Help("Requests by endpoint and HTTP status")
                                  .Register(registry);
  Family<Histogram>& latency = prometheus::BuildHistogram()
                                   .Name("mamba_inference_latency_seconds")
                                   .Help("From submission to the last token, by endpoint")
                                   .Register(registry);
  Family<Counter>& model_answers = prometheus::BuildCounter()
                                       .Name("mamba_model_answers_total")
                                       .Help("Finished requests, by the model or adapter that was asked")
                                       .Register(registry);
  Family<Counter>& model_tokens = prometheus::BuildCounter()
                                      .Name("mamba_model_tokens_generated_total")
                                      .Help("Tokens of finished requests, by the model or adapter that was asked")
                                      .Register(registry);
  Counter& tokens = counter("mamba_tokens_generated_total", "Tokens written");
  Counter& prompt_tokens = counter("mamba_prompt_tokens_total", "Tokens of prompts, cached ones included");
  Counter& saved =
      counter("mamba_prefill_tokens_saved_total", "Tokens of prompts that a cached state had read already");
  Counter& hits = counter("mamba_state_cache_hits_total", "Prompts of which a cached state had read a part or all");
  Family<Counter>& misses = prometheus::BuildCounter()
                                .Name("mamba_state_cache_misses_total")
                                .Help("Prompts not wholly covered by a cached state, by reason")
                                .Register(registry);
  Histogram& first_token =
      histogram("mamba_time_to_first_token_seconds", "From submission to the first token", kLatency);
  Histogram& between = histogram("mamba_time_between_tokens_seconds", "Between tokens of one answer", kGap);
  Histogram& queued = histogram("mamba_queue_seconds", "Time a request waited for a slot", kLatency);
  Histogram& pass_seconds = histogram("mamba_pass_seconds", "Duration of one forward pass", kGap);
  Histogram& pass_sequences = histogram("mamba_batch_sequences", "Sequences in one forward pass", kTokens);
  Histogram& pass_prompt = histogram("mamba_pass_prompt_tokens", "Prompt tokens in one forward pass", kTokens);

  Gauge& active = gauge("mamba_active_conversations", "Conversations in memory");
  Gauge& queue = gauge("mamba_queue_requests", "Requests that wait for a slot");
  Gauge& running = gauge("mamba_running_sequences", "Sequences that are being read or written");
  Gauge& slots = gauge("mamba_state_slots", "State slots: the most sequences at a time");
  Gauge& free_slots = gauge("mamba_state_slots_free", "State slots that nobody uses");
  Family<Gauge>& states =
      prometheus::BuildGauge().Name("mamba_cached_states").Help("Kept states, by tier").Register(registry);
  Family<Gauge>& state_bytes = prometheus::BuildGauge()
                                   .Name("mamba_cached_states_bytes")
                                   .Help("Bytes of kept states, by tier")
                                   .Register(registry);
  Family<Gauge>& store_errors = prometheus::BuildGauge()
                                    .Name("mamba_store_errors")
                                    .Help("Failed operations of a tier since the start")
                                    .Register(registry);
  Family<Gauge>& store_corrupt = prometheus::BuildGauge()
                                     .Name("mamba_store_corrupt_entries")
                                     .Help("Entries of a tier that failed their checksum since the start")
                                     .Register(registry);
  Gauge& connections = gauge("mamba_http_connections", "Open connections");
  Gauge& streams = gauge("mamba_http_streams", "Event streams in progress");

  void tier(const char* name, Store* store) {
    if (store == nullptr) return;
    const Store::Stats s = store->stats();
    states.Add({{"tier", name}}).Set(static_cast<double>(s.blobs));
    state_bytes.Add({{"tier", name}}).Set(static_cast<double>(s.bytes));
    store_errors.Add({{"tier", name}}).Set(static_cast<double>(s.errors));
    store_corrupt.Add({{"tier", name}}).Set(static_cast<double>(s.corrupt));
  }
};

Metrics::Metrics(const std::vector<std::string>& models, const std::string& version) : impl_(std::make_unique<Impl>()) {
  prometheus::BuildGauge()
      .Name("krait_info")
      .Help("1; the labels say what runs")
      .Register(impl_->registry)
      .Add({{"model", models.at(0)}, {"version", version}})
      .Set(1);
  for (const std::string& m : models) {
    impl_->model_answers.Add({{"model", m}});
    impl_->model_tokens.Add({{"model", m}});
  }
}

Metrics::~Metrics() = default;

void Metrics::request(const std::string& endpoint, int status) {
  impl_->requests.Add({{"endpoint", endpoint}, {"status", std::to_string(status)}}).Increment();
}

void Metrics::token() { impl_->tokens.Increment(); }

void Metrics::answer(const std::string& endpoint, const std::string& model, const Answer& a) {
  impl_->model_answers.Add({{"model", model}}).Increment();
  impl_->model_tokens.Add({{"model", model}}).Increment(static_cast<double>(a.usage.completion_tokens));
  impl_->latency.Add({{"endpoint", endpoint}}, kLatency).Observe(a.timing.total);
}

ServiceProbe Metrics::probe() {
  ServiceProbe p;
  p.pass = [this](double seconds, int64_t prompt_tokens, int64_t sequences) {
    impl_->pass_seconds.Observe(seconds);
    impl_->pass_prompt.Observe(static_cast<double>(prompt_tokens));
    impl_->pass_sequences.Observe(static_cast<double>(sequences));
  };
  p.first_token = [this](double s) { impl_->first_token.Observe(s); };
  p.between_tokens = [this](double s) { impl_->between.Observe(s); };
  p.queued = [this](double s) { impl_->queued.Observe(s); };
  p.prompt = [this](const Usage& u) {
    impl_->prompt_tokens.Increment(static_cast<double>(u.prompt_tokens));
    impl_->saved.Increment(static_cast<double>(u.cached_tokens));
    if (u.cached_tokens > 0) impl_->hits.Increment();
    if (u.miss != MissReason::kNone) impl_->misses.Add({{"reason", name_of(u.miss)}}).Increment();
  };
  return p;
}

std::string Metrics::text(const MetricSources& from) {
  Impl& m = *impl_;
  if (from.service != nullptr) {
    const ServiceStats s = from.service->stats();
    m.queue.Set(static_cast<double>(s.queued));
    m.running.Set(static_cast<double>(s.running));
    m.slots.Set(static_cast<double>(s.slots));
    m.free_slots.Set(static_cast<double>(s.free_slots));
  }
  if (from.cache != nullptr) {
    const PrefixCacheStats s = from.cache->stats();
    m.states.Add({{"tier", "memory"}}).Set(static_cast<double>(s.states));
    m.state_bytes.Add({{"tier", "memory"}}).Set(static_cast<double>(s.bytes));
  }
  if (from.conversations != nullptr) m.active.Set(static_cast<double>(from.conversations->active()));
  if (from.http != nullptr) {
    const HttpStats s = from.http->stats();
    m.connections.Set(static_cast<double>(s.connections));
    m.streams.Set(static_cast<double>(s.streams));
  }
  m.tier("disk", from.disk);
  m.tier("redis", from.redis);
  return m.serializer.Serialize(m.registry.Collect());
}

}  // namespace krait::serve
