// The options of `krait serve`.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "session.h"

namespace krait::cli {

struct ServeArgs {
  ModelArgs model;
  std::string model_option;  // -m
  std::string name, host = "127.0.0.1", tls_certificate, tls_key, cors_origin;
  std::vector<std::string> api_key;
  std::string api_keys, chat_template, state_dir, redis, log_file, log_format = "text", log_level = "info", port_file;
  int64_t port = 8080, io_threads = 1, max_connections = 4096, max_body_mib = 16;
  int64_t slots = 16, queue = 256, queue_per_key = 0, max_prompt = 1'000'000, max_answer = 1'000'000, max_wait = 60,
          checkpoint_every = 1024;
  int64_t state_ttl = 3600, state_memory_mib = 1024, state_disk_mib = 10'240, drain = 30, heartbeat = 15;
  double max_stall = 3;
  bool no_prefix_cache = false, log_prompts = false;
};

void add_serve_options(Command& command, ServeArgs& args);
// Throws kUsage on values out of range and options that cannot take effect together.
void check_serve_options(const Command& command, ServeArgs& args);

}  // namespace krait::cli
