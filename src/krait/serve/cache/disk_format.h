// The files of a DiskStore as bytes: docs/formats.md, "Conversation logs".
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace krait::serve {

inline constexpr size_t kFileHeader = 24, kRecordHeader = 16;  // bytes

enum class FileKind : uint8_t { kLog, kBlob };

std::string file_header(FileKind kind, uint32_t ttl);  // seconds; 0: never too old
// Null: not such a header.
std::optional<uint32_t> parse_file_header(FileKind kind, std::string_view bytes);

// Record number `index` of a log, ready to be appended.
std::string log_record(int64_t index, std::string_view payload);

struct ParsedLog {
  std::vector<std::string_view> records;  // into the bytes
  size_t valid = 0;                       // bytes up to the end of the last good record
  size_t last = 0;                        // where that record begins
  bool corrupt = false;                   // damaged behind or before them (not merely cut off)
};
// `at`: where record `index` begins.
ParsedLog parse_records(std::string_view bytes, size_t at, int64_t index);
// A whole file. The beginning of a header alone is a log without records; anything else in its place is corrupt (the
// records behind it may still be good).
ParsedLog parse_log(std::string_view bytes);

std::string blob_file(const std::string& key, std::string_view payload, uint32_t ttl);
std::optional<std::string_view> parse_blob(const std::string& key, std::string_view bytes);  // null: corrupt

}  // namespace krait::serve
