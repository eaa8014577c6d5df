#include "serve_log.h"

#include <fmt/format.h>
#include <spdlog/pattern_formatter.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/dist_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <iterator>
#include <memory>
#include <string_view>

#include "krait/core/error.h"

namespace krait::cli {
namespace {

// {"time":"…","level":"info","text":"id=… …"}: text of the log holds no quotes but those of bodies, which are escaped.
class JsonEscape : public spdlog::custom_flag_formatter {
 public:
  void format(const spdlog::details::log_msg& m, const std::tm&, spdlog::memory_buf_t& out) override {
    for (const char c : std::string_view(m.payload.data(), m.payload.size())) {
      const auto byte = static_cast<unsigned char>(c);
      if (c == '"' || c == '\\') {
        out.push_back('\\');
        out.push_back(c);
      } else if (byte < 0x20) {
        fmt::format_to(std::back_inserter(out), "\\u{:04x}", byte);
      } else {
        out.push_back(c);
      }
    }
  }
  std::unique_ptr<custom_flag_formatter> clone() const override { return std::make_unique<JsonEscape>(); }
};

std::unique_ptr<spdlog::formatter> log_format(const std::string& name) {
  auto f = std::make_unique<spdlog::pattern_formatter>();
  if (name == "json") {
    f->add_flag<JsonEscape>('*').set_pattern(R"({"time":"%Y-%m-%dT%H:%M:%S.%e%z","level":"%l","text":"%*"})");
  } else {
    f->set_pattern("%Y-%m-%d %H:%M:%S.%e %L %v");
  }
  return f;
}

}  // namespace

void open_log(spdlog::logger& log, const std::string& file, const std::string& format) {
  spdlog::sink_ptr sink;
  if (file.empty()) {
    sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
  } else {
    try {
      sink = std::make_shared<spdlog::sinks::basic_file_sink_mt>(file);
    } catch (const spdlog::spdlog_ex& e) {
      throw Error(ErrorCode::kFailed, fmt::format("[serve] cannot open the log: {}", e.what()));
    }
  }
  sink->set_formatter(log_format(format));
  // Behind a sink with a lock: other threads may be logging.
  if (log.sinks().empty()) log.sinks().push_back(std::make_shared<spdlog::sinks::dist_sink_mt>());
  static_cast<spdlog::sinks::dist_sink_mt&>(*log.sinks().front()).set_sinks({sink});
}

}  // namespace krait::cli
