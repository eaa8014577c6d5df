#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <optional>
#include <set>
#include <string_view>

#include "krait/core/error.h"
#include "krait/io/atomic_file.h"
#include "krait/io/gguf.h"
#include "krait/io/gguf_types.h"

namespace krait::io {
namespace {

constexpr int64_t kMaxU32 = std::numeric_limits<uint32_t>::max();

// The header, built in memory.
class Header {
 public:
  template <class T>
  void put(T v) {
    const auto* p = reinterpret_cast<const char*>(&v);
    text_.append(p, sizeof v);
  }
  void put(GgufType t) { put(static_cast<uint32_t>(t)); }
  void put(const std::string& s) {
    put(uint64_t{s.size()});
    text_ += s;
  }
  void raw(std::string_view s) { text_ += s; }
  const std::string& text() const { return text_; }

 private:
  std::string text_;
};

bool fits_i32(const std::vector<int64_t>& v) {
  for (const int64_t x : v) {
    if (x < std::numeric_limits<int32_t>::min() || x > std::numeric_limits<int32_t>::max()) return false;
  }
  return true;
}

struct ValueWriter {
  Header& h;

  void operator()(bool v) const { scalar(GgufType::kBool, static_cast<uint8_t>(v)); }
  void operator()(int64_t v) const {
    if (v >= 0 && v <= kMaxU32) return scalar(GgufType::kU32, static_cast<uint32_t>(v));
    scalar(GgufType::kI64, v);
  }
  void operator()(uint64_t v) const { scalar(GgufType::kU64, v); }
  void operator()(double v) const {
    const auto f = static_cast<float>(v);
    if (std::isnan(v) || decimal_of(f) == v) return scalar(GgufType::kF32, f);
    scalar(GgufType::kF64, v);
  }
  void operator()(const std::string& v) const {
    h.put(GgufType::kString);
    h.put(v);
  }
  void operator()(const std::vector<bool>& v) const {
    array(GgufType::kBool, v.size());
    for (const bool x : v) h.put(static_cast<uint8_t>(x));
  }
  void operator()(const std::vector<int64_t>& v) const {
    const bool narrow = fits_i32(v);
    array(narrow ? GgufType::kI32 : GgufType::kI64, v.size());
    for (const int64_t x : v) {
      if (narrow) {
        h.put(static_cast<int32_t>(x));
      } else {
        h.put(x);
      }
    }
  }
  void operator()(const std::vector<double>& v) const {
    array(GgufType::kF32, v.size());
    for (const double x : v) h.put(static_cast<float>(x));
  }
  void operator()(const std::vector<std::string>& v) const {
    array(GgufType::kString, v.size());
    for (const std::string& s : v) h.put(s);
  }

 private:
  template <class T>
  void scalar(GgufType type, T v) const {
    h.put(type);
    h.put(v);
  }
  void array(GgufType element, size_t n) const {
    h.put(GgufType::kArray);
    h.put(element);
    h.put(uint64_t{n});
  }
};

uint64_t padded(uint64_t n) { return (n + kGgufAlignment - 1) / kGgufAlignment * kGgufAlignment; }

void put_info(Header& h, const NamedTensor& t, uint64_t offset) {
  const std::optional<uint32_t> type = ggml_of_dtype(t.tensor.dtype());
  if (t.name.empty() || t.name.size() > kGgufLongestTensorName) {
    fail_usage(fmt::format("[gguf] tensor name '{}' is {} bytes long, expected 1 to {}", t.name, t.name.size(),
                           kGgufLongestTensorName));
  }
  const Shape& s = t.tensor.shape();
  if (!type || s.rank() < 1 || s.rank() > static_cast<int>(kGgufMostDims) || s.numel() == 0) {
    fail_usage(
        fmt::format("[gguf] {} is {} {}, which the format cannot hold", t.name, name_of(t.tensor.dtype()), s.str()));
  }
  h.put(t.name);
  h.put(static_cast<uint32_t>(s.rank()));
  for (int i = s.rank() - 1; i >= 0; --i) h.put(static_cast<uint64_t>(s[i]));  // ne[0] is the contiguous dimension
  h.put(*type);
  h.put(offset);
}

}  // namespace

void write_gguf(const std::filesystem::path& path, const std::vector<std::pair<std::string, Gguf::Value>>& values,
                const std::vector<NamedTensor>& tensors, const Poll& poll) {
  AtomicFile out(path, poll);
  write_gguf(out, values, tensors);
  out.commit();
}

void write_gguf(AtomicFile& out, const std::vector<std::pair<std::string, Gguf::Value>>& values,
                const std::vector<NamedTensor>& tensors) {
  Header h;
  h.raw("GGUF");
  h.put(kGgufVersion);
  h.put(uint64_t{tensors.size()});
  h.put(uint64_t{values.size()});
  std::set<std::string> seen;
  for (const auto& [key, value] : values) {
    if (key.empty() || !seen.insert(key).second) fail_usage("[gguf] key '" + key + "' is empty or given twice");
    h.put(key);
    std::visit(ValueWriter{h}, value);
  }
  seen.clear();
  uint64_t offset = 0;
  for (const NamedTensor& t : tensors) {
    if (!seen.insert(t.name).second) fail_usage("[gguf] tensor '" + t.name + "' is given twice");
    put_info(h, t, offset);
    offset += padded(static_cast<uint64_t>(t.tensor.nbytes()));
  }
  out.write(h.text());
  out.pad_to(kGgufAlignment);
  for (const NamedTensor& t : tensors) {
    const Tensor whole = t.tensor.is_contiguous() ? t.tensor : t.tensor.clone();
    out.write(whole.bytes(), static_cast<size_t>(whole.nbytes()));
    out.pad_to(kGgufAlignment);
  }
}

}  // namespace krait::io
