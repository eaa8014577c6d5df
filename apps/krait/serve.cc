// krait serve: an HTTP server of one model, with conversations that go on where they were.
#include <fmt/format.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <future>
#include <mutex>
#include <thread>

#include "krait/core/error.h"
#include "krait/io/atomic_file.h"
#include "krait/models/slot_store.h"
#include "krait/serve/api/api.h"
#include "krait/serve/cache/disk_store.h"
#include "krait/serve/cache/redis_store.h"
#include "krait/serve/cache/state_key.h"
#include "serve_log.h"
#include "serve_options.h"
#include "terminal.h"

namespace krait::cli {
namespace {

using namespace serve;
using std::chrono::seconds;

std::vector<KeyEntry> all_keys(const ServeArgs& a) {
  std::vector<KeyEntry> out;
  if (!a.api_keys.empty()) out = read_keys(a.api_keys);
  for (size_t i = 0; i < a.api_key.size(); ++i) {
    KeyEntry e = key_from_secret(fmt::format("key{}", i + 1), a.api_key[i]);
    if (std::ranges::any_of(out, [&](const KeyEntry& o) { return o.sha256 == e.sha256; })) {
      fail_usage("[serve] an API key is given twice");
    }
    out.push_back(std::move(e));
  }
  return out;
}

std::string model_name(const ServeArgs& a) {
  if (!a.name.empty()) return a.name;
  namespace fs = std::filesystem;
  fs::path p = fs::path(a.model.model.empty() ? shipped_model() : a.model.model).lexically_normal();
  if (p.filename().empty()) p = p.parent_path();
  return p.extension() == ".gguf" ? p.stem().string() : p.filename().string();
}

int64_t file_time(const std::string& path) {
  struct stat s{};
  return stat(path.c_str(), &s) == 0 ? s.st_mtim.tv_sec : 0;
}

HttpOptions http_options(const ServeArgs& a, std::shared_ptr<spdlog::logger> log) {
  HttpOptions o;
  o.host = a.host;
  o.port = static_cast<uint16_t>(a.port);
  o.threads = static_cast<int>(a.io_threads);
  o.tls_certificate = a.tls_certificate;
  o.tls_key = a.tls_key;
  o.max_body = static_cast<size_t>(a.max_body_mib) << 20;
  o.max_held = std::max(o.max_held, 4 * o.max_body);
  o.max_connections = static_cast<int>(a.max_connections);
  o.heartbeat = seconds(a.heartbeat);
  o.error_body = http_error_body;
  if (!a.cors_origin.empty()) {
    o.headers = {{"Access-Control-Allow-Origin", a.cors_origin},
                 {"Access-Control-Expose-Headers", "X-Request-Id, X-Krait-Stream, Retry-After"},
                 {"Vary", "Origin"}};
  }
  o.on_failure = [log = std::move(log)](const std::string& id, const std::string& what) {
    log->warn("request={} error: {}", id, what);
  };
  return o;
}

// Everything that serves, in the order in which it is needed.
struct Server {
  Server(const ServeArgs& a, const Session& s, std::shared_ptr<spdlog::logger> logger);

  const ServeArgs& args;
  std::shared_ptr<spdlog::logger> log;
  const ServedModels models;
  std::unique_ptr<Store> disk, redis;
  PrefixCache cache;
  Conversations conversations;
  std::unique_ptr<text::ChatTemplate> chat;
  Metrics metrics;
  Keys keys;
  Service service;
  StreamLog streams;
  Workers workers, store_workers;
  ApiContext context;
  Api api;
};

// What listens, from the beginning: until the model is loaded, everything is answered with 503.
struct Front {
  Front(const ServeArgs& a, std::shared_ptr<spdlog::logger> log)
      : http(options(a, std::move(log)), [this](std::shared_ptr<Exchange> e) { handle(e); }) {}
  ~Front() { http.stop(); }

  HttpOptions options(const ServeArgs& a, std::shared_ptr<spdlog::logger> log) {
    HttpOptions o = http_options(a, std::move(log));
    o.admit = [this](const HttpRequest& head) {
      if (const Api* const there = api.load()) there->admit(head);
    };
    return o;
  }

  void handle(const std::shared_ptr<Exchange>& e) {
    if (Api* const there = api.load()) return there->handle(e);
    if (e->request().path == "/health" || e->request().path == "/ready") {
      return e->respond(
          {.status = 503, .body = R"({"status":"loading","model_loaded":false})", .headers = {{"Retry-After", "1"}}});
    }
    e->respond({.status = 503,
                .body = http_error_body(503, "[serve] the model is being loaded"),
                .headers = {{"Retry-After", "1"}}});
  }

  std::atomic<Api*> api = nullptr;
  HttpServer http;
};

ServiceOptions service_options(const ServeArgs& a, const Session& s) {
  ServiceOptions o;
  o.max_running = a.slots;
  o.max_queue = a.queue;
  o.max_queue_per_tenant = a.queue_per_key;
  o.max_prompt_tokens = a.max_prompt;
  o.max_tokens = a.max_answer;
  o.max_wait = seconds(a.max_wait);
  o.max_stall = a.max_stall;
  o.checkpoint_every = a.checkpoint_every;
  o.prefix_cache = !a.no_prefix_cache;
  o.vocab = s.sampled_vocab();
  return o;
}

ServedModels served_models(const ServeArgs& a, const Model& model) {
  ServedModels all = {
      {model_name(a), file_time(a.model.model.empty() ? shipped_model() : a.model.model), model.fingerprint(-1)}};
  for (size_t i = 0; i < model.adapters().size(); ++i) {
    const std::string& name = model.adapters()[i]->name;
    if (name == all[0].id) fail_usage("[lora] an adapter cannot be named '" + name + "': the model is (--name)");
    all.push_back(
        {name, file_time(split_named(a.model.named_lora[i]).folder), model.fingerprint(static_cast<int32_t>(i))});
  }
  return all;
}

std::vector<std::string> names_of(const ServedModels& models) {
  std::vector<std::string> names;
  for (const ServedModel& m : models) names.push_back(m.id);
  return names;
}

ConversationsOptions conversations_options(const ServeArgs& a, const ServedModels& models) {
  ConversationsOptions o;
  o.ttl = seconds(a.state_ttl);
  o.model = models[0].fingerprint;
  for (size_t i = 1; i < models.size(); ++i) o.adapted.push_back(models[i].fingerprint);
  return o;
}

ApiOptions api_options(const ServeArgs& a, const Session& s, const ServedModels& models) {
  ApiOptions o;
  o.models = models;
  o.version = KRAIT_VERSION;
  o.vocab = s.sampled_vocab();
  o.state_bytes = SlotStore::bytes_per_slot(s.model().state_specs());
  o.cors_origin = a.cors_origin;
  o.log_prompts = a.log_prompts;
  o.max_tokens = a.max_answer;
  return o;
}

// What stores have to say goes to the log: all of a day with a few faults, but no more than one line a second of many.
std::function<void(const std::string&)> store_reports(std::shared_ptr<spdlog::logger> log) {
  struct Last {
    std::mutex mutex;
    std::chrono::nanoseconds at{};
    int64_t left_out = 0;
  };
  return [log = std::move(log), last = std::make_shared<Last>()](const std::string& what) {
    const std::lock_guard lock(last->mutex);
    const auto now = real_clock().steady();
    if (last->at.count() != 0 && now - last->at < seconds(1)) {
      ++last->left_out;
      return;
    }
    last->at = now;
    const int64_t left_out = std::exchange(last->left_out, 0);
    log->warn(left_out > 0 ? fmt::format("{} (and {} more)", what, left_out) : what);
  };
}

std::unique_ptr<Store> disk_of(const ServeArgs& a, const std::shared_ptr<spdlog::logger>& log) {
  if (a.state_dir.empty()) return nullptr;
  DiskStoreOptions o;
  o.report = store_reports(log);
  o.folder = a.state_dir;
  o.max_blob_bytes = a.state_disk_mib << 20;
  return open_disk_store(o);
}

std::unique_ptr<Store> redis_of(const ServeArgs& a, const std::shared_ptr<spdlog::logger>& log) {
  if (a.redis.empty()) return nullptr;
  RedisStoreOptions o;
  o.report = store_reports(log);
  o.url = a.redis;
  o.timeout = std::chrono::milliseconds(1500);
  return open_redis_store(o);
}

// A model without a template of its own takes what the user says as a paragraph, and goes on from there: as in a chat
// of `krait run`.
constexpr const char* kParagraphs =
    "{% for m in messages %}{% if m.role == 'user' and not loop.first %}{{ '\\n\\n' }}{% endif %}{{ m.content }}{% "
    "endfor %}";

std::unique_ptr<text::ChatTemplate> chat_of(const ServeArgs& a, const text::Tokenizer& t) {
  if (!a.chat_template.empty()) return text::choose_chat_template(t, a.chat_template);
  auto own = text::choose_chat_template(t);
  return own ? std::move(own) : text::compile_chat_template(kParagraphs, "", "");
}

ServiceProbe probe_of(Metrics& metrics, spdlog::logger& log) {
  ServiceProbe p = metrics.probe();
  p.fault = [&log](const std::string& id, const std::string& what) { log.warn("id={} error: {}", id, what); };
  return p;
}

// What the memory has no room for goes to the disk, if there is one. Not to Redis, where conversations keep their last
// states anyway: while it hangs, requests that need no store would wait for it.
PrefixCacheOptions cache_options(const ServeArgs& a, Store* disk) {
  PrefixCacheOptions o;
  o.max_bytes = a.state_memory_mib << 20;
  o.ttl = seconds(a.state_ttl);
  if (disk != nullptr) spill_to(o, *disk, o.ttl);
  return o;
}

Server::Server(const ServeArgs& a, const Session& s, std::shared_ptr<spdlog::logger> logger)
    : args(a),
      log(std::move(logger)),
      models(served_models(a, s.model())),
      disk(disk_of(a, log)),
      redis(redis_of(a, log)),
      cache(cache_options(a, disk.get()), real_clock()),
      conversations(conversations_options(a, models), cache, disk.get(), redis.get(), real_clock()),
      chat(chat_of(a, *s.tokenizer)),
      metrics(names_of(models), KRAIT_VERSION),
      keys(all_keys(a), real_clock()),
      service(s.model(), *s.tokenizer, chat.get(), cache, conversations, real_clock(), service_options(a, s),
              probe_of(metrics, *log)),
      streams(size_t{64} << 20, seconds(600), real_clock()),
      workers(2),
      store_workers(2),
      context{.options = api_options(a, s, models),
              .service = service,
              .cache = cache,
              .conversations = conversations,
              .tokenizer = *s.tokenizer,
              .has_chat = chat != nullptr,
              .keys = keys,
              .metrics = metrics,
              .streams = streams,
              .workers = workers,
              .store_workers = store_workers,
              .clock = real_clock(),
              .log = *log,
              .disk = disk.get(),
              .redis = redis.get()},
      api(context) {}

// What SIGHUP asks for. A file that is wrong leaves everything as it was.
void reload(Server& server, Front& front) {
  const ServeArgs& a = server.args;
  try {
    std::vector<KeyEntry> keys = all_keys(a);
    open_log(*server.log, a.log_file, a.log_format);
    if (!a.tls_certificate.empty()) front.http.reload_tls();
    server.keys.replace(std::move(keys));
    server.log->info("reloaded keys, certificate and log file");
  } catch (const std::exception& e) {
    server.log->error("not reloaded: {}", e.what());
  }
}

// Until SIGINT or SIGTERM, which are blocked in all threads.
void wait_for_end(Server& server, Front& front, const sigset_t& signals) {
  while (true) {
    const int got = sigwaitinfo(&signals, nullptr);
    if (got == SIGHUP) reload(server, front);
    if (got == SIGINT || got == SIGTERM) return;
  }
}

// True: all answers were finished. A second signal ends the program at once: conversations hold whole turns only.
bool drain(Server& server, const sigset_t& signals) {
  auto draining =
      std::async(std::launch::async, [&server] { return server.service.drain(seconds(server.args.drain)); });
  while (draining.wait_for(seconds(0)) != std::future_status::ready) {
    const timespec pause{0, 20'000'000};
    const int got = sigtimedwait(&signals, nullptr, &pause);
    if (got != SIGINT && got != SIGTERM) continue;
    server.log->info("ended by a second signal; running answers were cut off");
    std::_Exit(128 + got);
  }
  return draining.get();
}

void serve_until_end(Server& server, Front& front, const sigset_t& signals) {
  const ServeArgs& a = server.args;
  std::jthread engine([&server] { server.service.run(); });
  front.api = &server.api;
  server.log->info("{} is served at {}://{}:{}/", fmt::format("{}", fmt::join(names_of(server.models), ", ")),
                   a.tls_certificate.empty() ? "http" : "https", a.host, front.http.port());
  wait_for_end(server, front, signals);
  server.log->info("draining: running answers have {} s", a.drain);
  server.context.draining = true;
  const bool finished = drain(server, signals);
  front.http.drain(std::chrono::milliseconds(finished ? 5000 : 500));
  front.http.stop();
  server.service.stop();
  server.log->info(finished ? "ended" : "ended; answers that took too long were cut off");
}

// The model, loaded by another thread: this one waits for signals, which still end the program at once.
Session load(const ServeArgs& a, const sigset_t& signals) {
  auto loading = std::async(std::launch::async, [&a] { return open_session(a.model, NeedTokenizer::kYes); });
  while (loading.wait_for(seconds(0)) != std::future_status::ready) {
    const timespec pause{0, 10'000'000};
    const int got = sigtimedwait(&signals, nullptr, &pause);
    if (got == SIGINT || got == SIGTERM) {
      std::fputs("krait: ended while the model was being loaded\n", stderr);
      std::_Exit(128 + got);
    }
  }
  return loading.get();
}

int run_serve(const ServeArgs& a) {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int s : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&signals, s);
  auto log = std::make_shared<spdlog::logger>("krait");
  log->set_level(spdlog::level::from_str(a.log_level));
  log->flush_on(spdlog::level::info);
  open_log(*log, a.log_file, a.log_format);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);  // in all threads, which come now
  Front front(a, log);
  front.http.start();
  if (!a.port_file.empty()) io::write_file(a.port_file, fmt::format("{}\n", front.http.port()));
  const Session session = load(a, signals);
  Server server(a, session, log);
  server.context.http = &front.http;
  serve_until_end(server, front, signals);
  return 0;
}

}  // namespace

void add_serve(Command& root) {
  auto args = std::make_shared<ServeArgs>();
  Command c = root.subcommand("serve", "serve a model over HTTP: OpenAI's API, conversations, a web page");
  add_serve_options(c, *args);
  c.run([args, c] {
    check_serve_options(c, *args);
    return run_serve(*args);
  });
}

}  // namespace krait::cli
