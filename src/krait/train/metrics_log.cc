#include "krait/train/metrics_log.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "krait/core/error.h"
#include "krait/io/mapped_file.h"

namespace krait::train {
namespace {

using io::Json;

// The step of a whole line, or -1.
int64_t step_of(std::string_view line) {
  try {
    return Json::parse(line, "metrics").at("step").as_integer();
  } catch (const Error&) {
    return -1;
  }
}

// Bytes of the lines up to the first one of a later step. Lines come in the order of their steps.
int64_t kept_bytes(const std::filesystem::path& path, int64_t last_step) {
  if (!std::filesystem::exists(path)) return 0;
  const auto file = io::MappedFile::open(path);
  const std::string_view text = file->text();
  size_t kept = 0;
  for (size_t end = text.find('\n'); end != std::string_view::npos; end = text.find('\n', kept)) {
    const int64_t step = step_of(text.substr(kept, end - kept));
    if (step < 0 || step > last_step) break;
    kept = end + 1;
  }
  return static_cast<int64_t>(kept);
}

}  // namespace

MetricsLog::MetricsLog(const std::filesystem::path& path, int64_t last_step) : path_(path) {
  const int64_t kept = kept_bytes(path, last_step);
  fd_ = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd_ < 0 || ::ftruncate(fd_, kept) != 0) {
    const int error = errno;
    if (fd_ >= 0) ::close(fd_);
    throw Error(ErrorCode::kFailed, fmt::format("[metrics] {}: {}", path.string(), std::strerror(error)));
  }
}

MetricsLog::~MetricsLog() { ::close(fd_); }

void MetricsLog::write(const Json& j) {
  const std::string line = j.dump() + "\n";
  for (size_t done = 0; done < line.size();) {
    const ssize_t n = ::write(fd_, line.data() + done, line.size() - done);
    if (n >= 0) {
      done += static_cast<size_t>(n);
    } else if (errno != EINTR) {
      throw Error(ErrorCode::kFailed, fmt::format("[metrics] {}: {}", path_.string(), std::strerror(errno)));
    }
  }
}

void MetricsLog::on_step(const StepReport& r) {
  Json j = Json::object();
  j.set("step", Json(r.step));
  j.set("loss", Json(r.loss));
  if (r.kl) j.set("kl", Json(*r.kl));
  j.set("lr", Json(r.lr));
  j.set("grad_norm", Json(r.grad_norm));
  j.set("tokens", Json(r.tokens));
  j.set("seconds", Json(r.seconds));
  j.set("tokens_per_second", Json(r.tokens_per_second));
  if (r.peak_share > 0) j.set("peak_share", Json(r.peak_share));
  write(j);
}

void MetricsLog::on_validation(const ValidationReport& r) {
  Json j = Json::object();
  j.set("step", Json(r.step));
  j.set("valid_loss", Json(r.loss));
  if (r.accuracy) j.set("valid_accuracy", Json(*r.accuracy));
  j.set("best", Json(r.best));
  j.set("seconds", Json(r.seconds));
  write(j);
}

void MetricsLog::on_samples(int64_t step, const std::vector<SampleText>& texts) {
  for (const SampleText& t : texts) {
    Json j = Json::object();
    j.set("step", Json(step));
    j.set("prompt", Json(t.prompt));
    j.set("text", Json(t.text));
    write(j);
  }
}

}  // namespace krait::train
