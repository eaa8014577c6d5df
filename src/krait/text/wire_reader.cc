#include "krait/text/wire_reader.h"

#include <fmt/format.h>

#include <bit>

#include "krait/core/error.h"

namespace krait::text {

void WireReader::fail(const std::string& rule) const {
  fail_data(fmt::format("[sentencepiece] {}: {}, at byte {} of {}", what_, rule, at_, input_.size()));
}

uint64_t WireReader::varint() {
  uint64_t v = 0;
  for (int shift = 0; shift < 64; shift += 7) {
    if (at_ >= input_.size()) fail("truncated");
    const auto byte = static_cast<uint8_t>(input_[at_++]);
    if (shift == 63 && byte > 1) break;
    v |= static_cast<uint64_t>(byte & 0x7F) << shift;
    if (byte < 0x80) return v;
  }
  fail("a varint longer than 64 bits");
}

uint64_t WireReader::fixed(size_t n) {
  if (input_.size() - at_ < n) fail("truncated");
  uint64_t v = 0;
  for (size_t i = 0; i < n; ++i) v |= static_cast<uint64_t>(static_cast<uint8_t>(input_[at_++])) << (8 * i);
  return v;
}

std::optional<WireReader::Field> WireReader::next() {
  if (at_ == input_.size()) return std::nullopt;
  const uint64_t key = varint();
  if (key >> 3 == 0 || key >> 3 > 0x1FFFFFFF) fail(fmt::format("field number {} is not one", key >> 3));
  Field f{static_cast<uint32_t>(key >> 3), static_cast<Type>(key & 7), 0, {}};
  switch (f.type) {
    case Type::kVarint:
      f.value = varint();
      return f;
    case Type::kFixed64:
      f.value = fixed(8);
      return f;
    case Type::kFixed32:
      f.value = fixed(4);
      return f;
    case Type::kBytes: {
      const uint64_t n = varint();
      if (n > input_.size() - at_)
        fail(fmt::format("field {} wants {} bytes, {} are left", f.number, n, input_.size() - at_));
      f.bytes = input_.substr(at_, n);
      at_ += n;
      return f;
    }
  }
  fail(fmt::format("field {} has wire type {}, which is not read", f.number, key & 7));
}

std::string_view WireReader::bytes(const Field& f) const {
  if (f.type != Type::kBytes) fail(fmt::format("field {} is not a string", f.number));
  return f.bytes;
}

int64_t WireReader::integer(const Field& f) const {
  if (f.type != Type::kVarint) fail(fmt::format("field {} is not an integer", f.number));
  return static_cast<int64_t>(f.value);
}

float WireReader::number(const Field& f) const {
  if (f.type != Type::kFixed32) fail(fmt::format("field {} is not a float", f.number));
  return std::bit_cast<float>(static_cast<uint32_t>(f.value));
}

}  // namespace krait::text
