// EventFile: scalars and texts over steps in the form that `tensorboard --logdir` reads (TFRecord frames of Event
// messages; tensorflow/core/util/event.proto, summary.proto).
#pragma once
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

namespace krait::train {

class EventFile {
 public:
  // Makes FOLDER/events.out.tfevents.<seconds>.<host>.<pid>. Throws kFailed if it cannot.
  explicit EventFile(const std::filesystem::path& folder);

  // `when`: seconds since 1970. Throws kFailed if it cannot be written.
  void scalar(std::string_view tag, int64_t step, double when, float value);
  void text(std::string_view tag, int64_t step, double when, std::string_view value);
  // A run is resumed here: tensorboard forgets what earlier files say of this step and later ones.
  void session_start(int64_t step);
  void flush();

 private:
  struct Close {
    void operator()(std::FILE* f) const { std::fclose(f); }
  };
  void record(std::string_view event);

  std::filesystem::path path_;
  std::unique_ptr<std::FILE, Close> file_;
};

// CRC-32C (Castagnoli), of the frames. https://www.rfc-editor.org/rfc/rfc3720 B.4
uint32_t crc32c(std::string_view bytes);

}  // namespace krait::train
