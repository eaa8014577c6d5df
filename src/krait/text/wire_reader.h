// WireReader: the wire format of protocol buffers, as far as reading needs it. Every length is checked.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace krait::text {

class WireReader {
 public:
  enum class Type { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };
  struct Field {
    uint32_t number;
    Type type;
    uint64_t value;          // varint, fixed32 and fixed64 as raw bits
    std::string_view bytes;  // kBytes: views the input
  };

  // `what` names the message in errors. The input must outlive the reader.
  WireReader(std::string_view input, std::string what) : input_(input), what_(std::move(what)) {}

  // The next field, or none at the end. Throws kBadData: truncated, groups, field number 0, unknown wire type.
  std::optional<Field> next();

  // The value of a field that must have the type named; throws kBadData otherwise.
  std::string_view bytes(const Field&) const;
  int64_t integer(const Field&) const;
  bool boolean(const Field& f) const { return integer(f) != 0; }
  float number(const Field&) const;  // 32-bit float

 private:
  uint64_t varint();
  uint64_t fixed(size_t n);  // n bytes, little-endian
  [[noreturn]] void fail(const std::string& rule) const;

  std::string_view input_;
  std::string what_;
  size_t at_ = 0;
};

}  // namespace krait::text
