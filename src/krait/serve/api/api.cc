#include "krait/serve/api/api.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <set>

#include "krait/serve/api/call.h"
#include "krait/serve/api/schema.h"
#include "krait/serve/api/schemas.h"
#include "krait/serve/api/states_routes.h"
#include "krait/serve/cache/state_key.h"
#include "krait/serve/web/page.h"

namespace krait::serve {
namespace {

using nlohmann::json;
using ExchangePtr = std::shared_ptr<Exchange>;
using PathValues = std::map<std::string, std::string>;

std::vector<std::string> split(const std::string& path) {
  std::vector<std::string> out;
  for (size_t begin = 1; begin <= path.size();) {
    const size_t end = std::min(path.find('/', begin), path.size());
    out.push_back(path.substr(begin, end - begin));
    begin = end + 1;
  }
  return out;
}

// Whether `path` has the form of a route's; what stands for {…} goes to `values`.
bool matches(const char* form, const std::string& path, PathValues& values) {
  const auto want = split(form);
  auto have = split(path);
  while (want.back() == "{model}" && have.size() > want.size()) {  // names of models may have slashes
    const std::string last = std::move(have.back());
    have.pop_back();
    have.back() += "/" + last;
  }
  if (want.size() != have.size()) return false;
  for (size_t i = 0; i < want.size(); ++i) {
    if (want[i].starts_with('{')) {
      values[want[i].substr(1, want[i].size() - 2)] = have[i];
    } else if (want[i] != have[i]) {
      return false;
    }
  }
  return true;
}

HttpResponse json_response(const json& body, int status = 200) { return {.status = status, .body = dump(body)}; }

HttpResponse error_response(const ServeError& e) {
  HttpResponse r{.status = e.status(), .body = dump(error_json(e))};
  if (e.retry_after()) r.headers.emplace_back("Retry-After", std::to_string(*e.retry_after()));
  if (e.status() == 401) r.headers.emplace_back("WWW-Authenticate", "Bearer");
  return r;
}

// A Host header: name or address, perhaps with a port.
bool is_loopback(const std::string& host) {
  const size_t colon = host.rfind(':');
  const bool has_port = colon != std::string::npos && host.find(']', colon) == std::string::npos;
  const std::string name = host.substr(0, has_port ? colon : host.size());
  return name == "localhost" || name.ends_with(".localhost") || name == "[::1]" ||
         (name.starts_with("127.") && name.find_first_not_of("0123456789.") == std::string::npos);
}

HttpResponse page_part(const std::string& type, std::string_view content) {
  return {.content_type = type + "; charset=utf-8", .body = std::string(content), .headers = page_headers()};
}

}  // namespace

struct Api::Impl {
  explicit Impl(ApiContext& c) : context(c), schemas(c.options), openapi(openapi_document(c.options)) {
    answers = {
        {"/v1/models", [this](auto&, auto&) { return all_models(); }},
        {"/v1/models/{model}", [this](auto&, auto& v) { return one_model(v.at("model")); }},
        {"/health", [this](auto&, auto&) { return health(); }},
        {"/ready", [this](auto&, auto&) { return health(); }},
        {"/openapi.json", [this](auto&, auto&) { return HttpResponse{.body = openapi}; }},
        {"/", [](auto&, auto&) { return page_part("text/html", page_html()); }},
        {"/page.css", [](auto&, auto&) { return page_part("text/css", page_css()); }},
        {"/page.js", [](auto&, auto&) { return page_part("text/javascript", page_js()); }},
    };
    slow_answers = {
        {"POST /tokenize", [this](auto& r, auto&, auto&) { return tokenize(r); }},
        {"POST /detokenize", [this](auto& r, auto&, auto&) { return detokenize(r); }},
        {"GET /metrics", [this](auto&, auto&, auto&) { return metrics(); }},
        {"GET /v1/states", [this](auto& r, auto&, auto& k) { return list_states(context, r, k.tenant); }},
        {"GET /v1/states/{conversation_id}",
         [this](auto&, auto& v, auto& k) { return get_state(context, id_of(v), k.tenant); }},
        {"DELETE /v1/states/{conversation_id}",
         [this](auto&, auto& v, auto& k) { return delete_state(context, id_of(v), k.tenant); }},
        {"GET /v1/states/{conversation_id}/file",
         [this](auto& r, auto& v, auto& k) { return export_state(context, r, id_of(v), k.tenant); }},
        {"POST /v1/states/{conversation_id}",
         [this](auto& r, auto& v, auto& k) { return import_state(context, r, v.at("conversation_id"), k.tenant); }},
        {"POST /v1/states/{conversation_id}/fork",
         [this](auto& r, auto& v, auto& k) { return fork_state(context, checked(r, "fork"), id_of(v), k.tenant); }},
        {"POST /v1/states/{conversation_id}/rewind",
         [this](auto& r, auto& v, auto& k) { return rewind_state(context, checked(r, "rewind"), id_of(v), k.tenant); }},
    };
  }

  using Answer = std::function<HttpResponse(const HttpRequest&, const PathValues&)>;
  using SlowAnswer = std::function<HttpResponse(const HttpRequest&, const PathValues&, const KeyInfo&)>;

  ApiContext& context;
  RequestSchemas schemas;
  std::string openapi;
  std::map<std::string, Answer> answers;           // GET, at once, by path
  std::map<std::string, SlowAnswer> slow_answers;  // on a worker, by method and path

  // An id out of a path: of a form that an id can have, or there is no such thing.
  static std::string id_of(const PathValues& v) {
    const std::string& id = v.at("conversation_id");
    if (!is_id(id)) throw ServeError(404, "conversation_not_found", "[states] there is no such conversation");
    return id;
  }

  json checked(const HttpRequest& r, const std::string& schema) const {
    json body = parse_body(r.body);
    check_schema(body, schemas.of(schema));
    return body;
  }

  void respond(const ExchangePtr& exchange, const std::string& endpoint, HttpResponse response) {
    context.metrics.request(endpoint, response.status);
    const bool poll = endpoint == "/health" || endpoint == "/ready" || endpoint == "/metrics";
    if (!poll || response.status >= 400) {
      context.log.info("request={} from={} method={} path={} status={}", exchange->request().id,
                       exchange->request().remote, exchange->request().method, endpoint, response.status);
    }
    exchange->respond(std::move(response));
  }

  void fail(const ExchangePtr& exchange, const std::string& endpoint) {
    try {
      throw;
    } catch (const ServeError&) {
    } catch (const std::exception& e) {
      context.log.warn("request={} path={} error: {}", exchange->request().id, endpoint, e.what());
    }
    respond(exchange, endpoint, error_response(current_serve_error()));
  }

  void handle(const ExchangePtr& exchange) {
    const HttpRequest& r = exchange->request();
    std::string endpoint = "unknown";
    try {
      PathValues values;
      check_origin(r);
      const Route* route = find_route(r, values, endpoint, exchange);
      if (route == nullptr) return;
      const KeyInfo key = route->guarded ? context.keys.check(r.header("authorization")) : KeyInfo{};
      // Probes and pages are asked for with parameters that only caches read.
      if (route->guarded) check_query(r, route->query);
      check_content_type(r, *route);
      answer(exchange, *route, values, key);
    } catch (...) {
      fail(exchange, endpoint);
    }
  }

  // Null: answered already (OPTIONS). Throws 404 and 405.
  const Route* find_route(const HttpRequest& r, PathValues& values, std::string& endpoint,
                          const ExchangePtr& exchange) {
    std::string allowed;
    const std::string method = r.method == "HEAD" ? "GET" : r.method;
    for (const Route& route : routes()) {
      PathValues here;
      if (!matches(route.path, r.path, here)) continue;
      endpoint = route.path;
      allowed += (allowed.empty() ? "" : ", ") + std::string(route.method);
      if (method == route.method) {
        values = std::move(here);
        return &route;
      }
    }
    if (allowed.empty()) throw ServeError(404, "not_found", "[serve] there is nothing at this path");
    if (r.method == "OPTIONS" && !context.options.cors_origin.empty()) {
      respond(exchange, endpoint,
              {.status = 204,
               .content_type = "",
               .headers = {{"Allow", allowed},
                           {"Access-Control-Allow-Methods", allowed},
                           {"Access-Control-Allow-Headers", "Authorization, Content-Type, Last-Event-ID"},
                           {"Access-Control-Max-Age", "600"}}});
      return nullptr;
    }
    HttpResponse refused = error_response(ServeError(405, "method_not_allowed", "[serve] this path takes " + allowed));
    refused.headers.emplace_back("Allow", allowed);
    respond(exchange, endpoint, std::move(refused));
    return nullptr;
  }

  static void check_content_type(const HttpRequest& r, const Route& route) {
    const std::string wants = route.request;
    if (wants.empty()) return;
    const std::string expected = wants == "binary" ? "application/octet-stream" : "application/json";
    const std::string* type = r.header("content-type");
    std::string given = type == nullptr ? "" : type->substr(0, type->find(';'));
    while (given.ends_with(' ')) given.pop_back();
    std::ranges::transform(given, given.begin(),
                           [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c; });
    if (given != expected) {
      throw ServeError(415, "unsupported_media_type", "[serve] this path wants Content-Type: " + expected);
    }
  }

  // Pages of other origins may not use the server that a browser can reach, whether it asks for keys or not: neither by
  // requests that need no preflight, nor under a name of theirs that leads here (DNS rebinding).
  void check_origin(const HttpRequest& r) const {
    const std::string* host = r.header("host");
    if (context.keys.open() && host != nullptr && !is_loopback(*host)) {
      throw ServeError(403, "wrong_host",
                       "[serve] without API keys, this server answers to names of this machine only");
    }
    const std::string* origin = r.header("origin");
    if (origin == nullptr) return;
    const bool own = host != nullptr && (*origin == "http://" + *host || *origin == "https://" + *host);
    const std::string& allowed = context.options.cors_origin;
    if (!own && allowed != "*" && *origin != allowed) {
      throw ServeError(403, "wrong_origin", "[serve] this server answers no pages of other origins (--cors-origin)");
    }
  }

  void answer(const ExchangePtr& exchange, const Route& route, const PathValues& values, const KeyInfo& key) {
    const std::string path = route.path;
    if (const auto e = generating(path)) return generate(exchange, *e, key);
    if (path == "/v1/streams/{response_id}") return resume(exchange, values.at("response_id"), key);
    if (const auto it = answers.find(path); it != answers.end()) {
      return respond(exchange, path, it->second(exchange->request(), values));
    }
    auto pass = std::make_shared<Keys::Pass>(context.keys.enter(key));
    const SlowAnswer& f = slow_answers.at(std::string(route.method) + " " + path);
    // Nobody who needs no store waits because a store hangs.
    const bool no_store = path == "/tokenize" || path == "/detokenize";
    (no_store ? context.workers : context.store_workers).post([this, exchange, path, values, key, pass, &f] {
      try {
        respond(exchange, path, f(exchange->request(), values, key));
      } catch (...) {
        fail(exchange, path);
      }
    });
  }

  static std::optional<Endpoint> generating(const std::string& path) {
    for (const Endpoint e : {Endpoint::kGenerate, Endpoint::kCompletion, Endpoint::kChat, Endpoint::kResponse}) {
      if (path == path_of(e)) return e;
    }
    return {};
  }

  // Long bodies are read on a worker: the IO threads have other clients.
  void generate(const ExchangePtr& exchange, Endpoint endpoint, const KeyInfo& key) {
    constexpr size_t kLong = size_t{32} << 10;
    auto pass = std::make_shared<Keys::Pass>(context.keys.enter(key));
    if (exchange->request().body.size() < kLong) return begin(exchange, endpoint, key, *pass);
    context.workers.post([this, exchange, endpoint, key, pass] {
      try {
        begin(exchange, endpoint, key, *pass);
      } catch (...) {
        fail(exchange, path_of(endpoint));
      }
    });
  }

  void begin(const ExchangePtr& exchange, Endpoint endpoint, const KeyInfo& key, Keys::Pass& pass) {
    const json body = checked(exchange->request(), schema_of(endpoint));
    auto asked =
        std::make_shared<const Asked>(read_request(endpoint, body, key, context.clock, context.options.models));
    if (context.options.log_prompts) context.log.info("id={} body={}", asked->id, dump(body));
    std::make_shared<Call>(context, asked, key, std::move(pass))->start(exchange);
  }

  // Goes on with a stream: what was written is sent again, what was not is written now.
  void resume(const ExchangePtr& exchange, const std::string& id, const KeyInfo& key) {
    const auto record = context.streams.find(id, key.tenant);
    if (!record) throw ServeError(404, "stream_not_found", "[streams] there is no such stream (any more)");
    const size_t from = first_wanted(exchange->request(), id, *record);
    std::shared_ptr<Call> call;
    bool finished = false;
    {
      const std::lock_guard lock(context.streams.mutex);
      finished = record->finished;
      call = record->call.lock();
    }
    if (call && call->attach(exchange, from)) return;
    if (!finished) {
      return std::make_shared<Call>(context, record->asked, key, context.keys.enter(key), record)
          ->start(exchange, from);
    }
    exchange->begin_stream({{"X-Krait-Stream", id}});
    const std::lock_guard lock(context.streams.mutex);
    for (size_t i = std::max(from, record->first); i < record->end(); ++i)
      exchange->send(record->events[i - record->first]);
    exchange->end_stream();
    context.metrics.request("/v1/streams/{response_id}", 200);
  }

  // The event after the one named in Last-Event-ID ("<response id>:<number>"); the first one without that header.
  size_t first_wanted(const HttpRequest& r, const std::string& id, const StreamRecord& record) const {
    const std::string* last = r.header("last-event-id");
    if (last == nullptr) return 0;
    size_t number = 0;
    const char* end = last->data() + last->size();
    const bool ours = last->starts_with(id + ":") && last->size() > id.size() + 1;
    const auto read = ours ? std::from_chars(last->data() + id.size() + 1, end, number) : std::from_chars_result{};
    const std::lock_guard lock(context.streams.mutex);
    if (!ours || read.ec != std::errc() || read.ptr != end || number >= record.end()) {
      throw ServeError(400, "invalid_value", "[streams] Last-Event-ID is none of this stream", "Last-Event-ID");
    }
    return number + 1;
  }

  json model(int32_t adapter) const {
    const ServedModels& models = context.options.models;
    const ServedModel& m = with_adapter(models, adapter);
    return {{"id", m.id},
            {"object", "model"},
            {"created", m.created},
            {"owned_by", "krait"},
            {"parent", adapter >= 0 ? json(models[0].id) : json()}};
  }
  HttpResponse all_models() const {
    json data = json::array();
    for (int32_t a = -1; a + 1 < std::ssize(context.options.models); ++a) data.push_back(model(a));
    return json_response({{"object", "list"}, {"data", std::move(data)}});
  }
  HttpResponse one_model(const std::string& id) const {
    return json_response(model(adapter_named(context.options.models, id)));
  }

  HttpResponse health() const {
    const bool draining = context.draining.load();
    return json_response({{"status", draining ? "draining" : "healthy"},
                          {"model_loaded", true},
                          {"model", context.options.models[0].id},
                          {"version", context.options.version},
                          {"state_bytes", context.options.state_bytes},
                          {"chat", context.has_chat}},
                         draining ? 503 : 200);
  }

  HttpResponse metrics() const {
    const MetricSources from{&context.service, &context.cache, &context.conversations,
                             context.http,     context.disk,   context.redis};
    return {.content_type = "text/plain; version=0.0.4; charset=utf-8", .body = context.metrics.text(from)};
  }

  HttpResponse tokenize(const HttpRequest& r) const {
    const json body = checked(r, "tokenize");
    const auto flag = [&](const char* name) {
      return !body.contains(name) || body[name].is_null() || body[name].get<bool>();
    };
    const auto ids =
        context.tokenizer.encode(body["text"].get_ref<const std::string&>(),
                                 {.add_special = flag("add_special"), .parse_special = flag("parse_special")});
    return json_response({{"tokens", ids}, {"count", ids.size()}});
  }

  HttpResponse detokenize(const HttpRequest& r) const {
    const json body = checked(r, "detokenize");
    std::vector<int32_t> ids;
    for (const json& id : body["tokens"]) ids.push_back(static_cast<int32_t>(id.get<double>()));
    const bool skip =
        !body.contains("skip_special") || body["skip_special"].is_null() || body["skip_special"].get<bool>();
    return json_response({{"text", context.tokenizer.decode(ids, skip)}});
  }
};

Api::Api(ApiContext& context) : impl_(std::make_unique<Impl>(context)) {}
Api::~Api() = default;
void Api::handle(const ExchangePtr& exchange) { impl_->handle(exchange); }

void Api::admit(const HttpRequest& head) const {
  PathValues unused;
  const bool guarded =
      std::ranges::any_of(routes(), [&](const Route& r) { return r.guarded && matches(r.path, head.path, unused); });
  if (guarded) impl_->context.keys.check(head.header("authorization"));
}

std::string http_error_body(int status, const std::string& message) {
  return dump(error_json(ServeError(status, status >= 500 ? "server_error" : "bad_request", message)));
}

}  // namespace krait::serve
