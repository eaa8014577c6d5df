#include "krait/io/gguf.h"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <optional>
#include <span>

#include "krait/core/error.h"
#include "krait/io/bytes.h"
#include "krait/io/gguf_types.h"
#include "krait/io/problems.h"

namespace krait::io {
namespace {

constexpr uint64_t kLongestArray = uint64_t{1} << 26;
constexpr size_t kLongestKey = 65535;
constexpr int64_t kLargestAlignment = 1 << 20;
constexpr const char* kSupported =
    "F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ4_NL and IQ4_XS";

// Bytes of one element; 0 for strings and arrays, whose size is in the file.
constexpr size_t width_of(GgufType t) {
  switch (t) {
    case GgufType::kU8:
    case GgufType::kI8:
    case GgufType::kBool:
      return 1;
    case GgufType::kU16:
    case GgufType::kI16:
      return 2;
    case GgufType::kU32:
    case GgufType::kI32:
    case GgufType::kF32:
      return 4;
    case GgufType::kU64:
    case GgufType::kI64:
    case GgufType::kF64:
      return 8;
    case GgufType::kString:
    case GgufType::kArray:
      return 0;
  }
  return 0;
}

// The header, front to back. Every read is checked against what is left of the file.
class Cursor {
 public:
  Cursor(const MappedFile& f, Problems& problems) : bytes_(f.bytes()), path_(f.path().string()), problems_(problems) {}

  // Of what does not keep the rest from being read.
  void problem(const std::string& what) { problems_.add(fmt::format("{} (at byte {})", what, at_)); }
  // Throws this problem and all before it.
  [[noreturn]] void fail(const std::string& why) {
    problem(why);
    problems_.raise("gguf", path_);
  }
  size_t position() const { return at_; }
  uint64_t left() const { return bytes_.size() - at_; }

  template <class T>
  T get(const char* what) {
    return load_le<T>(take(sizeof(T), what));
  }

  const std::byte* take(uint64_t n, const char* what) {
    if (n > left()) fail(fmt::format("{} needs {} bytes, {} are left: truncated or damaged", what, n, left()));
    const std::byte* p = bytes_.data() + at_;
    at_ += static_cast<size_t>(n);
    return p;
  }

  std::string string(const char* what) {
    const auto n = get<uint64_t>(what);
    return {reinterpret_cast<const char*>(take(n, what)), static_cast<size_t>(n)};
  }

 private:
  std::span<const std::byte> bytes_;
  std::string path_;
  Problems& problems_;
  size_t at_ = 0;
};

bool read_bool(Cursor& c, const std::string& key) {
  const auto b = c.get<uint8_t>("a bool");
  if (b > 1) c.problem(fmt::format("bool {} holds {}", key, b));
  return b != 0;
}

int64_t read_integer(Cursor& c, GgufType type) {
  switch (type) {
    case GgufType::kU8:
      return c.get<uint8_t>("a value");
    case GgufType::kI8:
      return c.get<int8_t>("a value");
    case GgufType::kU16:
      return c.get<uint16_t>("a value");
    case GgufType::kI16:
      return c.get<int16_t>("a value");
    case GgufType::kU32:
      return c.get<uint32_t>("a value");
    case GgufType::kI32:
      return c.get<int32_t>("a value");
    default:
      return c.get<int64_t>("a value");
  }
}

Gguf::Value read_array(Cursor& c, const std::string& key) {
  const auto type = static_cast<GgufType>(c.get<uint32_t>("an element type"));
  const auto n = c.get<uint64_t>("a count");
  if (type > GgufType::kF64 || type == GgufType::kArray) {
    c.fail(fmt::format("array {} has elements of type {}, which arrays cannot hold", key, static_cast<uint32_t>(type)));
  }
  const uint64_t least = type == GgufType::kString ? sizeof(uint64_t) : width_of(type);
  if (n > kLongestArray || n * least > c.left()) {
    c.fail(fmt::format("array {} says it has {} elements, {} bytes are left", key, n, c.left()));
  }
  const auto count = static_cast<size_t>(n);
  switch (type) {
    case GgufType::kString: {
      std::vector<std::string> v(count);
      for (std::string& s : v) s = c.string("an array of strings");
      return v;
    }
    case GgufType::kBool: {
      std::vector<bool> v(count);
      for (size_t i = 0; i < count; ++i) v[i] = read_bool(c, key);
      return v;
    }
    case GgufType::kF32:
    case GgufType::kF64: {
      std::vector<double> v(count);
      for (double& x : v)
        x = type == GgufType::kF32 ? static_cast<double>(c.get<float>("a value")) : c.get<double>("a value");
      return v;
    }
    default: {
      std::vector<int64_t> v(count);
      for (int64_t& x : v) {
        x = read_integer(c, type);
        if (type == GgufType::kU64 && x < 0) c.problem(fmt::format("array {} holds a value above 2^63", key));
      }
      return v;
    }
  }
}

Gguf::Value read_value(Cursor& c, const std::string& key) {
  const auto type = static_cast<GgufType>(c.get<uint32_t>("a value type"));
  switch (type) {
    case GgufType::kBool:
      return read_bool(c, key);
    case GgufType::kF32:
      return decimal_of(c.get<float>("a value"));
    case GgufType::kF64:
      return c.get<double>("a value");
    case GgufType::kString:
      return c.string("a string");
    case GgufType::kArray:
      return read_array(c, key);
    case GgufType::kU64: {
      const auto v = c.get<uint64_t>("a value");
      if (v <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return static_cast<int64_t>(v);
      return v;
    }
    case GgufType::kU8:
    case GgufType::kI8:
    case GgufType::kU16:
    case GgufType::kI16:
    case GgufType::kU32:
    case GgufType::kI32:
    case GgufType::kI64:
      return read_integer(c, type);
  }
  c.fail(fmt::format("{} has the unknown value type {}", key, static_cast<uint32_t>(type)));
}

struct TensorInfo {
  std::string name;
  std::vector<uint64_t> ne;  // ne[0] is the contiguous dimension
  uint32_t type = 0;
  uint64_t offset = 0;  // from the start of the data
};

TensorInfo read_info(Cursor& c) {
  TensorInfo t;
  t.name = c.string("a tensor name");
  const auto n_dims = c.get<uint32_t>("a rank");
  if (n_dims > kGgufMostDims)
    c.fail(fmt::format("tensor '{}' has {} dimensions, at most {} exist", t.name, n_dims, kGgufMostDims));
  for (uint32_t i = 0; i < n_dims; ++i) t.ne.push_back(c.get<uint64_t>("a dimension"));
  t.type = c.get<uint32_t>("a tensor type");
  t.offset = c.get<uint64_t>("an offset");
  return t;
}

// The shape in PyTorch's order, or nothing if it cannot be one.
std::optional<Shape> shape_of(const TensorInfo& t) {
  std::vector<int64_t> dims;
  uint64_t numel = 1;
  constexpr uint64_t kMost = uint64_t{1} << 48;
  for (auto d = t.ne.rbegin(); d != t.ne.rend(); ++d) {
    if (*d == 0 || *d > kMost || numel > kMost / *d) return std::nullopt;
    numel *= *d;
    dims.push_back(static_cast<int64_t>(*d));
  }
  if (dims.empty()) dims.push_back(1);
  return Shape(dims);
}

// Turns the table of tensors into views of the data section, collecting what is wrong with it.
class TensorTable {
 public:
  TensorTable(std::shared_ptr<const MappedFile> file, uint64_t data_start, uint64_t alignment, Problems& problems)
      : file_(std::move(file)), start_(data_start), alignment_(alignment), problems_(problems) {}

  void add(const TensorInfo& t) {
    const std::optional<DType> dtype = dtype_of_ggml(t.type);
    const std::optional<Shape> shape = shape_of(t);
    if (t.name.empty() || t.name.size() > kGgufLongestTensorName) {
      return problem("a tensor name of {} bytes, expected 1 to {}", t.name.size(), kGgufLongestTensorName);
    }
    if (!dtype)
      return problem("{} is {}, a type that is not supported; supported are {}", t.name, ggml_type_name(t.type),
                     kSupported);
    if (!shape) return problem("{} has an impossible shape {{{}}}", t.name, fmt::join(t.ne, ", "));
    if (t.offset % alignment_ != 0)
      return problem("{} begins at offset {}, no multiple of {}", t.name, t.offset, alignment_);
    if (const int64_t block = block_of(*dtype).elements; (*shape)[-1] % block != 0) {
      return problem("{} is {} with rows of {}, no multiple of its block of {}", t.name, ggml_type_name(t.type),
                     (*shape)[-1], block);
    }
    const auto bytes = static_cast<uint64_t>(bytes_of(*dtype, shape->numel()));  // below 2^51: see shape_of
    const uint64_t size = file_->bytes().size();
    const uint64_t room = size > start_ ? size - start_ : 0;
    if (t.offset > room || bytes > room - t.offset) {
      return problem("{} ends at byte {} of {} bytes of data: truncated or damaged", t.name, t.offset + bytes, room);
    }
    if (!tensors.emplace(t.name, Tensor::view_of(file_, file_->bytes().data() + start_ + t.offset, *shape, *dtype))
             .second) {
      return problem("{} stands twice in the table", t.name);
    }
    extents_.push_back({t.offset, bytes, t.name});
  }

  void check_overlaps() {
    std::ranges::sort(extents_, {}, &Extent::offset);
    for (size_t i = 1; i < extents_.size(); ++i) {
      const Extent &a = extents_[i - 1], &b = extents_[i];
      if (a.offset + a.bytes > b.offset) problem("{} overlaps {}", a.name, b.name);
    }
  }

  std::map<std::string, Tensor> tensors;

 private:
  struct Extent {
    uint64_t offset, bytes;
    std::string name;
  };
  template <class... A>
  void problem(fmt::format_string<A...> f, A&&... a) {
    problems_.add(fmt::format(f, std::forward<A>(a)...));
  }

  std::shared_ptr<const MappedFile> file_;
  uint64_t start_, alignment_;
  std::vector<Extent> extents_;
  Problems& problems_;
};

void check_preamble(Cursor& c) {
  if (std::memcmp(c.take(4, "the magic"), "GGUF", 4) != 0) c.fail("does not begin with GGUF");
  const auto version = c.get<uint32_t>("the version");
  if ((version & 0xFFFFu) == 0 && version != 0) c.fail("is a big-endian file, which is not supported");
  if (version != 2 && version != kGgufVersion) c.fail(fmt::format("has version {}, supported are 2 and 3", version));
}

const Gguf::Value& value_of(const std::map<std::string, Gguf::Value>& values, const std::string& key) {
  const auto it = values.find(key);
  if (it == values.end()) fail_data("[gguf] key " + key + " is missing");
  return it->second;
}

template <class T>
const T& typed(const std::map<std::string, Gguf::Value>& values, const std::string& key, const char* wanted) {
  const T* v = std::get_if<T>(&value_of(values, key));
  if (v == nullptr) fail_data(fmt::format("[gguf] key {} is not {}", key, wanted));
  return *v;
}

// The alignment of the data; 0 if the file states none that can be.
int64_t check_layout(const Gguf& g, Problems& problems) {
  const auto integer = [&](const char* key, int64_t otherwise) {
    try {
      return g.integer_or(key, otherwise);
    } catch (const Error& e) {
      problems.add(std::string(inner_message(e)));
      return otherwise;
    }
  };
  const int64_t parts = integer("split.count", 1), alignment = integer("general.alignment", kGgufAlignment);
  if (parts > 1) {
    problems.add(fmt::format("is one of {} parts of a split model; join the parts into one file first", parts));
  }
  const bool possible = alignment >= 8 && alignment <= kLargestAlignment;
  if (possible && std::has_single_bit(static_cast<uint64_t>(alignment))) return alignment;
  problems.add(
      fmt::format("general.alignment is {}, expected a power of two from 8 to {}", alignment, kLargestAlignment));
  return 0;
}

}  // namespace

std::shared_ptr<const Gguf> Gguf::open(const std::filesystem::path& path) {
  const auto file = MappedFile::open(path);
  Problems problems;
  Cursor c(*file, problems);
  check_preamble(c);
  const auto n_tensors = c.get<uint64_t>("the tensor count");
  const auto n_values = c.get<uint64_t>("the key count");
  // A key takes at least 13 bytes, a tensor 24.
  if (n_values > c.left() / 13 || n_tensors > c.left() / 24) {
    c.fail(fmt::format("says it has {} keys and {} tensors, more than fit in the file", n_values, n_tensors));
  }
  auto g = std::make_shared<Gguf>();
  for (uint64_t i = 0; i < n_values; ++i) {
    const std::string key = c.string("a key");
    if (key.empty() || key.size() > kLongestKey) c.problem(fmt::format("a key of {} bytes", key.size()));
    if (!g->values_.emplace(key, read_value(c, key)).second) c.problem("key " + key + " stands twice");
  }
  const int64_t alignment = check_layout(*g, problems);
  std::vector<TensorInfo> infos;  // not reserved: n_tensors is the file's word
  // NOLINTNEXTLINE(performance-inefficient-vector-operation)
  for (uint64_t i = 0; i < n_tensors; ++i) infos.push_back(read_info(c));
  if (alignment > 0) {  // else nobody knows where the data begins
    const auto a = static_cast<uint64_t>(alignment);
    TensorTable table(file, (c.position() + a - 1) / a * a, a, problems);
    for (const TensorInfo& t : infos) table.add(t);
    table.check_overlaps();
    g->tensors_ = std::move(table.tensors);
  }
  problems.throw_if_any("gguf", file->path().string());
  return g;
}

std::string Gguf::str(const std::string& key) const { return typed<std::string>(values_, key, "a string"); }

std::string Gguf::str_or(const std::string& key, const std::string& otherwise) const {
  return has(key) ? str(key) : otherwise;
}

int64_t Gguf::integer(const std::string& key) const { return typed<int64_t>(values_, key, "an integer below 2^63"); }

int64_t Gguf::integer_or(const std::string& key, int64_t otherwise) const {
  return has(key) ? integer(key) : otherwise;
}

double Gguf::number_or(const std::string& key, double otherwise) const {
  if (!has(key)) return otherwise;
  if (const auto* i = std::get_if<int64_t>(&value_of(values_, key))) return static_cast<double>(*i);
  return typed<double>(values_, key, "a number");
}

bool Gguf::boolean(const std::string& key) const { return typed<bool>(values_, key, "a bool"); }

bool Gguf::boolean_or(const std::string& key, bool otherwise) const { return has(key) ? boolean(key) : otherwise; }

std::vector<std::string> Gguf::strings(const std::string& key) const {
  return typed<std::vector<std::string>>(values_, key, "an array of strings");
}

std::vector<float> Gguf::floats(const std::string& key) const {
  const auto& v = typed<std::vector<double>>(values_, key, "an array of floats");
  std::vector<float> out(v.size());
  std::ranges::transform(v, out.begin(), [](double x) { return static_cast<float>(x); });
  return out;
}

std::vector<int32_t> Gguf::integers32(const std::string& key) const {
  std::vector<int32_t> out;
  for (const int64_t x : typed<std::vector<int64_t>>(values_, key, "an array of integers")) {
    if (x < std::numeric_limits<int32_t>::min() || x > std::numeric_limits<int32_t>::max()) {
      fail_data(fmt::format("[gguf] key {} holds {}, which does not fit in 32 bits", key, x));
    }
    out.push_back(static_cast<int32_t>(x));
  }
  return out;
}

}  // namespace krait::io
