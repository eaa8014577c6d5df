#include "krait/serve/cache/disk_format.h"

#include <xxhash.h>

#include <algorithm>
#include <cstring>

#include "krait/io/bytes.h"

namespace krait::serve {
namespace {

constexpr std::string_view kLogMagic = "KRAITLG\n", kBlobMagic = "KRAITBL\n";
constexpr uint32_t kVersion = 1;
constexpr size_t kChecked = 16;  // bytes of the file header before its checksum

template <class T>
void add(std::string& out, T value) {
  char bytes[sizeof value];
  std::memcpy(bytes, &value, sizeof value);
  out.append(bytes, sizeof value);
}

template <class T>
T number(std::string_view bytes, size_t at) {
  return io::load_le<T>(reinterpret_cast<const std::byte*>(bytes.data()) + at);
}

std::string_view magic_of(FileKind kind) { return kind == FileKind::kLog ? kLogMagic : kBlobMagic; }

// Of the length of record `index`: a length is not believed, and a record not taken for another one, without it.
uint32_t length_check(uint32_t length, int64_t index) {
  return static_cast<uint32_t>(XXH3_64bits_withSeed(&length, sizeof length, static_cast<uint64_t>(index)));
}

bool all_zeros(std::string_view s) {
  return std::ranges::all_of(s, [](char c) { return c == '\0'; });
}

}  // namespace

std::string file_header(FileKind kind, uint32_t ttl) {
  std::string h(magic_of(kind));
  add(h, kVersion);
  add(h, ttl);
  add<uint64_t>(h, XXH3_64bits(h.data(), h.size()));
  return h;
}

std::optional<uint32_t> parse_file_header(FileKind kind, std::string_view bytes) {
  if (bytes.size() < kFileHeader || !bytes.starts_with(magic_of(kind))) return {};
  const auto ttl = number<uint32_t>(bytes, kChecked - sizeof(uint32_t));
  if (bytes.substr(0, kFileHeader) != file_header(kind, ttl)) return {};
  return ttl;
}

std::string log_record(int64_t index, std::string_view payload) {
  std::string r;
  r.reserve(kRecordHeader + payload.size());
  const auto length = static_cast<uint32_t>(payload.size());
  add(r, length);
  add(r, length_check(length, index));
  add<uint64_t>(r, XXH3_64bits(payload.data(), payload.size()));
  r += payload;
  return r;
}

ParsedLog parse_records(std::string_view bytes, size_t at, int64_t index) {
  ParsedLog log;
  log.valid = at;
  log.last = at;
  while (at < bytes.size()) {
    // A crash leaves a part of a record, or zeros where the file had grown but its content was not yet on the disk.
    const std::string_view rest = bytes.substr(at);
    if (rest.size() < kRecordHeader || all_zeros(rest)) break;
    const auto length = number<uint32_t>(rest, 0);
    if (number<uint32_t>(rest, 4) != length_check(length, index)) {
      log.corrupt = true;
      break;
    }
    if (rest.size() - kRecordHeader < length) break;
    const std::string_view payload = rest.substr(kRecordHeader, length);
    if (number<uint64_t>(rest, 8) != XXH3_64bits(payload.data(), payload.size())) {
      log.corrupt = true;
      break;
    }
    log.records.push_back(payload);
    log.last = at;
    at += kRecordHeader + length;
    log.valid = at;
    ++index;
  }
  return log;
}

ParsedLog parse_log(std::string_view bytes) {
  if (bytes.size() < kFileHeader) {
    ParsedLog log;
    log.corrupt = !kLogMagic.starts_with(bytes.substr(0, kLogMagic.size()));
    return log;
  }
  ParsedLog log = parse_records(bytes, kFileHeader, 0);  // a damaged header is no reason to lose the records behind it
  log.corrupt = log.corrupt || !parse_file_header(FileKind::kLog, bytes);
  return log;
}

std::string blob_file(const std::string& key, std::string_view payload, uint32_t ttl) {
  std::string f = file_header(FileKind::kBlob, ttl);
  f.reserve(kFileHeader + kRecordHeader + payload.size());
  add<uint64_t>(f, payload.size());
  const uint64_t whose = XXH3_64bits(key.data(), key.size());  // a file under another's name is corrupt
  add<uint64_t>(f, XXH3_64bits_withSeed(payload.data(), payload.size(), whose ^ payload.size()));
  f += payload;
  return f;
}

std::optional<std::string_view> parse_blob(const std::string& key, std::string_view bytes) {
  if (!parse_file_header(FileKind::kBlob, bytes) || bytes.size() < kFileHeader + kRecordHeader) return {};
  const std::string_view payload = bytes.substr(kFileHeader + kRecordHeader);
  if (number<uint64_t>(bytes, kFileHeader) != payload.size()) return {};
  const uint64_t whose = XXH3_64bits(key.data(), key.size());
  const uint64_t sum = XXH3_64bits_withSeed(payload.data(), payload.size(), whose ^ payload.size());
  if (number<uint64_t>(bytes, kFileHeader + 8) != sum) return {};
  return payload;
}

}  // namespace krait::serve
