#include "krait/train/event_file.h"

#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <ctime>

#include "krait/core/error.h"

namespace krait::train {
namespace {

constexpr std::array<uint32_t, 256> make_table() {
  std::array<uint32_t, 256> table{};
  for (uint32_t i = 0; i < table.size(); ++i) {
    uint32_t c = i;
    for (int bit = 0; bit < 8; ++bit) c = (c & 1) != 0 ? 0x82f63b78u ^ (c >> 1) : c >> 1;
    table[i] = c;
  }
  return table;
}
constexpr std::array<uint32_t, 256> kTable = make_table();

// Of a TFRecord frame.
uint32_t masked(uint32_t crc) { return ((crc >> 15) | (crc << 17)) + 0xa282ead8u; }

template <class T>
void append_fixed(std::string& s, T v) {  // little endian, as the machine is
  char bytes[sizeof v];
  std::memcpy(bytes, &v, sizeof v);
  s.append(bytes, sizeof v);
}

// Protocol buffer wire format (https://protobuf.dev/programming-guides/encoding/).
enum Wire : uint8_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

void append_varint(std::string& s, uint64_t v) {
  for (; v >= 0x80; v >>= 7) s += static_cast<char>((v & 0x7f) | 0x80);
  s += static_cast<char>(v);
}
void append_key(std::string& s, int field, Wire wire) { append_varint(s, static_cast<uint64_t>(field) << 3 | wire); }
void append_bytes(std::string& s, int field, std::string_view v) {
  append_key(s, field, kBytes);
  append_varint(s, v.size());
  s += v;
}

std::string event(double when, int64_t step) {
  std::string e;
  append_key(e, 1, kFixed64);
  append_fixed(e, when);
  append_key(e, 2, kVarint);
  append_varint(e, static_cast<uint64_t>(step));
  return e;
}

// Event with summary { value { tag, <rest of the value> } }
std::string summary_event(std::string_view tag, int64_t step, double when, std::string_view rest) {
  std::string value, summary, e = event(when, step);
  append_bytes(value, 1, tag);
  value += rest;
  append_bytes(summary, 1, value);
  append_bytes(e, 5, summary);
  return e;
}

std::string host() {
  std::array<char, 256> name{};
  if (::gethostname(name.data(), name.size() - 1) != 0) return "host";
  return name.data();
}

}  // namespace

uint32_t crc32c(std::string_view bytes) {
  uint32_t c = ~0u;
  for (const char b : bytes) c = kTable[(c ^ static_cast<uint8_t>(b)) & 0xff] ^ (c >> 8);
  return ~c;
}

EventFile::EventFile(const std::filesystem::path& folder) {
  const auto now = static_cast<long long>(std::time(nullptr));
  path_ = folder / ("events.out.tfevents." + std::to_string(now) + "." + host() + "." + std::to_string(::getpid()));
  file_.reset(std::fopen(path_.c_str(), "wb"));
  if (!file_) throw Error(ErrorCode::kFailed, "[events] cannot create " + path_.string() + ": " + std::strerror(errno));
  std::string first = event(static_cast<double>(now), 0);
  append_bytes(first, 3, "brain.Event:2");
  record(first);
  flush();
}

void EventFile::record(std::string_view bytes) {
  std::string frame;
  append_fixed(frame, static_cast<uint64_t>(bytes.size()));
  append_fixed(frame, masked(crc32c(frame)));
  frame += bytes;
  append_fixed(frame, masked(crc32c(bytes)));
  if (std::fwrite(frame.data(), 1, frame.size(), file_.get()) != frame.size()) {
    throw Error(ErrorCode::kFailed, "[events] cannot write " + path_.string() + ": " + std::strerror(errno));
  }
}

// session_log { status: START (1) }
void EventFile::session_start(int64_t step) {
  std::string log, e = event(static_cast<double>(std::time(nullptr)), step);
  append_key(log, 1, kVarint);
  append_varint(log, 1);
  append_bytes(e, 7, log);
  record(e);
  flush();
}

void EventFile::scalar(std::string_view tag, int64_t step, double when, float value) {
  std::string rest;
  append_key(rest, 2, kFixed32);
  append_fixed(rest, value);
  record(summary_event(tag, step, when, rest));
}

// tensor { dtype: DT_STRING (7), tensor_shape {}, string_val } with metadata { plugin_data { plugin_name: "text" } }
void EventFile::text(std::string_view tag, int64_t step, double when, std::string_view value) {
  std::string tensor, plugin, metadata, rest;
  append_key(tensor, 1, kVarint);
  append_varint(tensor, 7);
  append_bytes(tensor, 2, "");
  append_bytes(tensor, 8, value);
  append_bytes(plugin, 1, "text");
  append_bytes(metadata, 1, plugin);
  append_bytes(rest, 8, tensor);
  append_bytes(rest, 9, metadata);
  record(summary_event(tag, step, when, rest));
}

void EventFile::flush() {
  if (std::fflush(file_.get()) != 0) {
    throw Error(ErrorCode::kFailed, "[events] cannot write " + path_.string() + ": " + std::strerror(errno));
  }
}

}  // namespace krait::train
