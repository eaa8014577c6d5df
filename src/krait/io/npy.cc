#include "krait/io/npy.h"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "krait/io/atomic_file.h"
#include "krait/io/bytes.h"
#include "krait/io/json.h"
#include "krait/io/mapped_file.h"
#include "krait/io/problems.h"
#include "krait/io/zip.h"

namespace krait::io {
namespace {

using Bytes = std::span<const std::byte>;

constexpr std::string_view kMagic = "\x93NUMPY";

struct Kind {
  std::string_view code;  // NumPy's, without the byte order
  DType dtype;
};
constexpr std::array<Kind, 9> kKinds{{{"f4", DType::kF32},
                                      {"f8", DType::kF64},
                                      {"f2", DType::kF16},
                                      {"i1", DType::kI8},
                                      {"u1", DType::kU8},
                                      {"b1", DType::kBool},
                                      {"i2", DType::kI16},
                                      {"i4", DType::kI32},
                                      {"i8", DType::kI64}}};

struct Header {
  std::optional<DType> dtype;  // none, or no shape: a problem has been noted
  std::optional<Shape> shape;
  bool fortran = false;
  size_t data = 0;  // offset
};

// Reads the header's Python literal: {'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }. What its values may
// not be is noted; text that cannot be read any further throws, with all that was noted.
class HeaderText {
 public:
  HeaderText(std::string_view text, const std::string& what, Problems& problems)
      : rest_(text), what_(what), problems_(problems) {}

  Header parse() {
    Header h;
    bool descr = false, order = false, shape = false;
    expect("{");
    while (!accept("}")) {
      const std::string_view key = quoted();
      expect(":");
      if (key == "descr" && !std::exchange(descr, true)) {
        h.dtype = dtype();
      } else if (key == "fortran_order" && !std::exchange(order, true)) {
        h.fortran = accept("True");
        if (!h.fortran) expect("False");
      } else if (key == "shape" && !std::exchange(shape, true)) {
        h.shape = tuple();
      } else {
        bad(fmt::format("unexpected key {} in the header", quote_name(key)));
      }
      if (!accept(",")) {
        expect("}");
        break;
      }
    }
    skip_space();
    if (!rest_.empty()) problems_.add("text after the header");
    for (const auto& [key, there] : {std::pair{"descr", descr}, {"fortran_order", order}, {"shape", shape}}) {
      if (!there) problems_.add(fmt::format("the header has no {}", key));
    }
    return h;
  }

 private:
  [[noreturn]] void bad(const std::string& why) {
    problems_.add(why);
    problems_.raise("npy", what_);
  }

  void skip_space() { rest_.remove_prefix(std::min(rest_.find_first_not_of(" \t\r\n"), rest_.size())); }

  bool accept(std::string_view token) {
    skip_space();
    if (!rest_.starts_with(token)) return false;
    rest_.remove_prefix(token.size());
    return true;
  }

  void expect(std::string_view token) {
    if (!accept(token))
      bad(fmt::format("malformed header: expected {} before {}", token, quote_name(rest_.substr(0, 20))));
  }

  std::string_view quoted() {
    skip_space();
    const char quote = rest_.empty() ? '\0' : rest_.front();
    const size_t end = quote == '\'' || quote == '"' ? rest_.find(quote, 1) : std::string_view::npos;
    if (end == std::string_view::npos) {
      bad(fmt::format("malformed header: expected a string before {}", quote_name(rest_.substr(0, 20))));
    }
    const std::string_view s = rest_.substr(1, end - 1);
    rest_.remove_prefix(end + 1);
    return s;
  }

  std::optional<DType> dtype() {
    const std::string_view descr = quoted();
    for (const Kind& k : kKinds) {
      if (descr.size() != 3 || descr.substr(1) != k.code) continue;
      const bool single = size_of(k.dtype) == 1;
      if (descr[0] == '<' || descr[0] == '=' || (single && descr[0] == '|')) return k.dtype;
      if (descr[0] != '>') continue;
      problems_.add(fmt::format("big-endian data ({}) is not supported", quote_name(descr)));
      return std::nullopt;
    }
    problems_.add(fmt::format("dtype {} is not supported (f2 f4 f8 i1 i2 i4 i8 u1 b1 are)", quote_name(descr)));
    return std::nullopt;
  }

  std::optional<Shape> tuple() {
    std::vector<int64_t> dims;
    expect("(");
    while (!accept(")")) {
      skip_space();
      int64_t d = 0;
      const auto [end, ec] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), d);
      if (ec != std::errc() || d < 0) bad(fmt::format("malformed shape before {}", quote_name(rest_.substr(0, 20))));
      rest_.remove_prefix(static_cast<size_t>(end - rest_.data()));
      dims.push_back(d);
      if (!accept(",")) {
        expect(")");
        break;
      }
    }
    if (dims.size() > Shape::kMaxRank) {
      problems_.add(fmt::format("more than {} dimensions are not supported", Shape::kMaxRank));
      return std::nullopt;
    }
    try {
      return Shape(dims);
    } catch (const Error& e) {
      problems_.add(std::string(inner_message(e)));
      return std::nullopt;
    }
  }

  std::string_view rest_;
  const std::string& what_;
  Problems& problems_;
};

// Layout: magic, version (2 bytes), header length (u16 in version 1, u32 in 2 and 3), header, data.
Header read_header(Bytes file, const std::string& what, Problems& problems) {
  const auto bad = [&](const std::string& why) { fail_data(fmt::format("[npy] {}: {}", what, why)); };
  const std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
  if (!text.starts_with(kMagic)) bad("not a .npy file");
  if (file.size() < 12) bad("truncated in the header");
  const auto version = static_cast<unsigned>(file[6]);
  if (version < 1 || version > 3) bad(fmt::format("version {} is not supported", version));
  const size_t start = version == 1 ? 10 : 12;
  const size_t length = version == 1 ? load_le<uint16_t>(file.data() + 8) : load_le<uint32_t>(file.data() + 8);
  if (length > file.size() - start) bad(fmt::format("truncated in the header ({} bytes stated)", length));
  Header h = HeaderText(text.substr(start, length), what, problems).parse();
  h.data = start + length;
  return h;
}

// Row-major `out` from `in` with the first index fastest.
void copy_fortran(const std::byte* in, Tensor& out) {
  const auto size = static_cast<size_t>(size_of(out.dtype()));
  std::array<int64_t, Shape::kMaxRank> index{};
  std::byte* to = out.bytes();
  for (int64_t n = out.numel(); n > 0; --n, to += size) {
    int64_t from = 0;
    for (int i = out.rank() - 1; i >= 0; --i) from = from * out.dim(i) + index[static_cast<size_t>(i)];
    std::memcpy(to, in + static_cast<size_t>(from) * size, size);
    for (int i = out.rank() - 1; i >= 0 && ++index[static_cast<size_t>(i)] == out.dim(i); --i) {
      index[static_cast<size_t>(i)] = 0;
    }
  }
}

Tensor parse_npy(Bytes file, const std::string& what) {
  Problems problems;
  const Header h = read_header(file, what, problems);
  const size_t present = file.size() - h.data;
  if (!h.dtype || !h.shape) problems.raise("npy", what);
  int64_t bytes = 0;
  if (__builtin_mul_overflow(h.shape->numel(), size_of(*h.dtype), &bytes) || static_cast<size_t>(bytes) != present) {
    problems.add(
        fmt::format("{} of {} needs {} bytes, the file has {}", name_of(*h.dtype), h.shape->str(), bytes, present));
  }
  problems.throw_if_any("npy", what);
  Tensor t = Tensor::empty(*h.shape, *h.dtype);
  if (h.fortran) {
    copy_fortran(file.data() + h.data, t);
  } else if (present > 0) {
    std::memcpy(t.bytes(), file.data() + h.data, present);
  }
  return t;
}

std::string_view code_of(DType dtype) {
  for (const Kind& k : kKinds) {
    if (k.dtype == dtype) return k.code;
  }
  fail_usage(fmt::format("[npy] {} has no NumPy type", name_of(dtype)));
}

}  // namespace

Tensor read_npy(const std::filesystem::path& path) {
  const auto file = MappedFile::open(path);
  return parse_npy(file->bytes(), path.string());
}

std::map<std::string, Tensor> read_npz(const std::filesystem::path& path) {
  constexpr std::string_view kSuffix = ".npy";
  const auto file = MappedFile::open(path);
  std::map<std::string, Tensor> arrays;
  Problems problems;
  for (const ZipEntry& e : list_zip(file->bytes(), path.string())) {
    if (!e.name.ends_with(kSuffix)) {
      problems.add(quote_name(e.name) + ": members must be .npy arrays");
      continue;
    }
    const std::vector<std::byte> content = extract_zip(file->bytes(), e, path.string());
    try {
      arrays.emplace(e.name.substr(0, e.name.size() - kSuffix.size()), parse_npy(content, quote_name(e.name)));
    } catch (const Error& error) {
      problems.add(std::string(inner_message(error)));
    }
  }
  problems.throw_if_any("npz", path.string());
  return arrays;
}

void write_npy(const std::filesystem::path& path, const Tensor& tensor, const Poll& poll) {
  const Tensor t = tensor.is_contiguous() ? tensor : tensor.clone();
  std::string shape;
  for (const int64_t d : t.shape().dims()) shape += fmt::format("{}, ", d);
  if (t.rank() > 1) shape.resize(shape.size() - 2);
  if (t.rank() == 1) shape.pop_back();
  std::string header = fmt::format("{{'descr': '{}{}', 'fortran_order': False, 'shape': ({}), }}",
                                   size_of(t.dtype()) == 1 ? '|' : '<', code_of(t.dtype()), shape);
  // Padded with spaces and a line feed so that the data begins at a multiple of 64.
  const size_t data = (10 + header.size() + 1 + 63) / 64 * 64;
  header.resize(data - 11, ' ');
  header += '\n';
  const auto length = static_cast<uint16_t>(header.size());
  AtomicFile f(path, poll);
  f.write(kMagic);
  f.write(std::string_view("\x01\x00", 2));
  f.write(&length, sizeof length);
  f.write(header);
  f.write(t.bytes(), static_cast<size_t>(t.nbytes()));
  f.commit();
}

}  // namespace krait::io
