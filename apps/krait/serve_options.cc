#include "serve_options.h"

#include <fmt/format.h>

#include "krait/core/error.h"

namespace krait::cli {
namespace {

void in_range(const char* option, int64_t value, int64_t least, int64_t most) {
  if (value < least || value > most) {
    fail_usage(fmt::format("[serve] {} is {}, wants {} to {}", option, value, least, most));
  }
}

bool is_loopback(const std::string& host) { return host == "localhost" || host == "::1" || host.starts_with("127."); }

}  // namespace

void add_serve_options(Command& c, ServeArgs& a) {
  add_model_options(c, a.model, true, false);
  c.option("-m,--model", a.model_option, "the same as MODEL");
  c.option("--name", a.name, "how clients name the model; default: the file's or folder's name");
  c.list("--lora", a.model.named_lora,
         "an adapter that requests may ask for as a model of its own: NAME=DIR or NAME=DIR=SCALE; may be repeated");
  c.option("--host", a.host, "address to listen at; 0.0.0.0 or :: for all of them (then API keys are wanted)");
  c.option("--port", a.port, "port; 0: any free one");
  c.option("--port-file", a.port_file, "write the port there once the server listens");
  c.option("--tls-cert", a.tls_certificate, "certificate chain (PEM): HTTPS instead of HTTP");
  c.option("--tls-key", a.tls_key, "its private key (PEM)");
  c.list("--api-key", a.api_key, "a key that clients must have; may be repeated");
  c.option("--api-keys", a.api_keys, "file of hashed keys with their limits (docs/http.md)");
  c.option("--cors-origin", a.cors_origin, "web origin that may call this server from a browser, or *; default: none");
  c.option("--chat-template", a.chat_template,
           "chat template by name instead of the model's own; base models have none");
  c.option("--slots", a.slots, "sequences that are read and written at a time");
  c.option("--queue", a.queue, "requests that may wait; beyond: 429");
  c.option("--queue-per-key", a.queue_per_key, "of one API key; 0: no limit of its own");
  c.option("--max-wait", a.max_wait, "seconds that a request may wait; beyond: 503");
  c.option("--max-prompt", a.max_prompt, "tokens of a prompt; beyond: 400");
  c.option("--max-answer", a.max_answer, "tokens of an answer; beyond: 400");
  c.option("--max-stall", a.max_stall,
           "while answers are being written, prompts are read in pieces that keep the time between tokens below so "
           "many times "
           "that without");
  c.option("--checkpoint-every", a.checkpoint_every, "tokens of a long prompt between states kept for reuse");
  c.flag("--no-prefix-cache", a.no_prefix_cache, "keep no states of prompts for other requests");
  c.option("--state-memory", a.state_memory_mib, "MiB of memory for states");
  c.option("--state-ttl", a.state_ttl, "seconds that a conversation and its states are kept after their last use");
  c.option("--state-dir", a.state_dir, "folder where conversations outlive the process; default: memory only");
  c.option("--state-disk", a.state_disk_mib, "MiB of states in that folder");
  c.option("--redis", a.redis,
           "redis://[:PASSWORD@]HOST:PORT/DB or unix:PATH: conversations shared by several servers");
  c.option("--drain", a.drain, "seconds that running answers get to end after SIGTERM");
  c.option("--io-threads", a.io_threads, "threads that talk HTTP");
  c.option("--max-connections", a.max_connections, "open connections; beyond: 503");
  c.option("--max-body", a.max_body_mib, "MiB of a request");
  c.option("--heartbeat", a.heartbeat, "seconds of silence after which a stream says that it lives");
  c.choice("--log-format", a.log_format, {"text", "json"}, "of the log");
  c.choice("--log-level", a.log_level, {"info", "warning", "error"}, "least severity that is logged");
  c.option("--log-file", a.log_file, "log there instead of standard error; reopened on SIGHUP");
  c.flag("--log-prompts", a.log_prompts, "log what clients send, too");
  c.config("file of options (TOML: host = \"127.0.0.1\"), overridden by the command line");
  c.footer(
      "SIGTERM and SIGINT: no new requests, running answers end, conversations are kept. SIGHUP: keys, certificate and "
      "log "
      "file are\nread again. The API: docs/http.md, and /openapi.json of a running server.");
}

void check_serve_options(const Command& c, ServeArgs& a) {
  if (!a.model_option.empty() && !a.model.model.empty()) fail_usage("[serve] MODEL and --model are the same: give one");
  if (!a.model_option.empty()) a.model.model = a.model_option;
  in_range("--port", a.port, 0, 65535);
  in_range("--slots", a.slots, 1, 4096);
  in_range("--queue", a.queue, 0, 1'000'000);
  in_range("--queue-per-key", a.queue_per_key, 0, 1'000'000);
  in_range("--max-wait", a.max_wait, 1, 86'400);
  in_range("--max-prompt", a.max_prompt, 1, 1'000'000'000);
  in_range("--max-answer", a.max_answer, 1, 1'000'000'000);
  in_range("--checkpoint-every", a.checkpoint_every, 16, 1'000'000'000);
  in_range("--state-memory", a.state_memory_mib, 1, int64_t{1} << 30);
  in_range("--state-disk", a.state_disk_mib, 1, int64_t{1} << 30);
  in_range("--state-ttl", a.state_ttl, 1, int64_t{1} << 40);
  in_range("--drain", a.drain, 0, 86'400);
  in_range("--io-threads", a.io_threads, 1, 64);
  in_range("--max-connections", a.max_connections, 1, 1'000'000);
  in_range("--max-body", a.max_body_mib, 1, 4096);
  in_range("--heartbeat", a.heartbeat, 1, 3600);
  if (!(a.max_stall >= 1 && a.max_stall <= 1000)) fail_usage("[serve] --max-stall wants 1 to 1000");
  if (a.tls_certificate.empty() != a.tls_key.empty()) fail_usage("[serve] --tls-cert and --tls-key go together");
  if (c.given("--state-disk") && a.state_dir.empty()) fail_usage("[serve] --state-disk wants --state-dir");
  if (c.given("--checkpoint-every") && a.no_prefix_cache) {
    fail_usage("[serve] --checkpoint-every keeps states for reuse, and --no-prefix-cache forbids that");
  }
  if (c.given("--queue-per-key") && a.api_key.empty() && a.api_keys.empty()) {
    fail_usage("[serve] --queue-per-key wants --api-key or --api-keys");
  }
  if (!is_loopback(a.host) && a.api_key.empty() && a.api_keys.empty()) {
    fail_usage(fmt::format("[serve] --host {} lets other machines in: it wants --api-key or --api-keys", a.host));
  }
}

}  // namespace krait::cli
