#include "krait/io/safetensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <string_view>
#include <unordered_set>

#include "krait/io/atomic_file.h"
#include "krait/io/bytes.h"
#include "krait/io/json.h"
#include "krait/io/mapped_file.h"
#include "krait/io/problems.h"
#include "krait/io/sharded.h"

namespace krait::io {
namespace {

namespace fs = std::filesystem;

constexpr uint64_t kMaxHeader = 100'000'000;  // bytes; the limit of the reference implementation

struct Kind {
  std::string_view name;
  DType dtype;
};
constexpr std::array<Kind, 10> kKinds{{{"F64", DType::kF64},
                                       {"F32", DType::kF32},
                                       {"F16", DType::kF16},
                                       {"BF16", DType::kBF16},
                                       {"I64", DType::kI64},
                                       {"I32", DType::kI32},
                                       {"I16", DType::kI16},
                                       {"I8", DType::kI8},
                                       {"U8", DType::kU8},
                                       {"BOOL", DType::kBool}}};

struct Entry {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;
  uint64_t begin = 0, end = 0;  // in the data
};

// What an entry says, part by part: a fault of one does not hide those of the others.
class EntryReader {
 public:
  EntryReader(const std::string& name, Problems& problems) : problems_(problems) { e_.name = name; }

  std::optional<Entry> read(const Json& j) {
    step([&] {
      for (const auto& [key, value] : j.items()) {
        if (key != "dtype" && key != "shape" && key != "data_offsets") problem("unknown key " + quote_name(key));
      }
      object_ = true;
    });
    if (!object_) return std::nullopt;
    bool dtype = false, shape = false, range = false;
    step([&] { dtype = read_dtype(j.at("dtype").as_string()); });
    step([&] { shape = read_shape(j.at("shape")); });
    step([&] { range = read_range(j.at("data_offsets")); });
    if (dtype && shape && range) check_size();
    return good_ ? std::optional(e_) : std::nullopt;
  }

 private:
  template <class Action>
  void step(Action action) {
    try {
      action();
    } catch (const Error& e) {
      problem(inner_message(e));
    }
  }

  void problem(std::string_view why) {
    good_ = false;
    problems_.add(fmt::format("{}: {}", quote_name(e_.name), why));
  }

  bool read_dtype(const std::string& name) {
    const auto kind = std::ranges::find(kKinds, name, &Kind::name);
    if (kind == kKinds.end()) {
      problem(fmt::format("dtype {} is not supported", quote_name(name)));
      return false;
    }
    e_.dtype = kind->dtype;
    return true;
  }

  bool read_shape(const Json& j) {
    if (!j.is_array()) fail_data("its shape is not an array");
    std::vector<int64_t> dims;
    for (size_t i = 0; i < j.size(); ++i) dims.push_back(j.at(i).as_integer());
    e_.shape = Shape(dims);
    return true;
  }

  bool read_range(const Json& j) {
    if (!j.is_array() || j.size() != 2) fail_data("data_offsets are not two numbers");
    const int64_t begin = j.at(0).as_integer(), end = j.at(1).as_integer();
    if (begin < 0 || end < begin) fail_data(fmt::format("data_offsets [{}, {}] are not a range", begin, end));
    e_.begin = static_cast<uint64_t>(begin);
    e_.end = static_cast<uint64_t>(end);
    return true;
  }

  void check_size() {
    int64_t bytes = 0;
    const auto have = static_cast<int64_t>(e_.end - e_.begin);
    if (!__builtin_mul_overflow(e_.shape.numel(), size_of(e_.dtype), &bytes) && bytes == have) return;
    problem(fmt::format("{} of {} does not fit the {} bytes at [{}, {}]",
                        std::ranges::find(kKinds, e_.dtype, &Kind::dtype)->name, e_.shape.str(), have, e_.begin,
                        e_.end));
  }

  Problems& problems_;
  Entry e_;
  bool object_ = false, good_ = true;
};

std::vector<Entry> parse_entries(const Json& header, Problems& problems) {
  std::vector<Entry> entries;
  for (const auto& [name, value] : header.items()) {
    if (name != "__metadata__") {
      if (auto e = EntryReader(name, problems).read(value)) entries.push_back(std::move(*e));
      continue;
    }
    if (!value.is_object()) {
      problems.add("\"__metadata__\": expected an object");
      continue;
    }
    for (const auto& [key, text] : value.items()) {
      if (!text.is_string()) problems.add(fmt::format("\"__metadata__\": {} is no string", quote_name(key)));
    }
  }
  return entries;
}

// The format wants the data covered once, without holes; those can be told only if all entries were understood.
void check_layout(const std::vector<Entry>& entries, bool complete, uint64_t present, Problems& problems) {
  std::vector<const Entry*> order;
  for (const Entry& e : entries) order.push_back(&e);
  std::ranges::sort(
      order, [](const Entry* a, const Entry* b) { return std::pair(a->begin, a->end) < std::pair(b->begin, b->end); });
  uint64_t covered = 0;
  const Entry* before = nullptr;
  for (const Entry* e : order) {
    if (e->begin < covered && e->begin != e->end) {
      problems.add(fmt::format("{} overlaps {} at byte {} of the data", quote_name(e->name), quote_name(before->name),
                               e->begin));
    } else if (complete && e->begin > covered) {
      problems.add(fmt::format("bytes {} to {} of the data belong to no tensor", covered, e->begin));
    }
    if (e->end > present) {
      problems.add(fmt::format("{} ends at byte {} of the data, the file has {}: truncated?", quote_name(e->name),
                               e->end, present));
    }
    if (e->end > covered) {
      covered = e->end;
      before = e;
    }
  }
  if (complete && covered < present) problems.add(fmt::format("{} bytes after the last tensor", present - covered));
}

Json parse_header(const MappedFile& file) {
  const std::string what = file.path().string();
  const auto bytes = file.bytes();
  if (bytes.size() < 8) fail_data(fmt::format("[safetensors] {}: {} bytes are too few", what, bytes.size()));
  const auto length = load_le<uint64_t>(bytes.data());
  if (length > kMaxHeader) {
    fail_data(fmt::format("[safetensors] {}: a header of {} bytes is absurd; not a safetensors file?", what, length));
  }
  if (length > bytes.size() - 8) {
    fail_data(
        fmt::format("[safetensors] {}: truncated: a header of {} bytes in a file of {}", what, length, bytes.size()));
  }
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + 8, length);
  if (!text.starts_with('{')) fail_data(fmt::format("[safetensors] {}: the header is not a JSON object", what));
  return Json::parse(text, what + ": header");
}

// A view of the mapping; a copy if the file does not align the elements.
Tensor tensor_at(const std::shared_ptr<const MappedFile>& file, const std::byte* data, const Entry& e) {
  if (reinterpret_cast<uintptr_t>(data) % static_cast<uintptr_t>(size_of(e.dtype)) == 0) {
    return Tensor::view_of(file, data, e.shape, e.dtype);
  }
  Tensor t = Tensor::empty(e.shape, e.dtype);
  if (e.end > e.begin) std::memcpy(t.bytes(), data, e.end - e.begin);
  return t;
}

void check_tensors(const std::vector<NamedTensor>& tensors) {
  std::unordered_set<std::string_view> names;
  for (const NamedTensor& t : tensors) {
    if (t.name == "__metadata__" || !names.insert(t.name).second) {
      fail_usage(fmt::format("[safetensors] tensor name {} is reserved or occurs twice", quote_name(t.name)));
    }
    if (is_block_type(t.tensor.dtype())) {
      fail_usage(fmt::format("[safetensors] {} is {}, which the format cannot hold", quote_name(t.name),
                             name_of(t.tensor.dtype())));
    }
  }
}

std::string header_text(const std::vector<const NamedTensor*>& order,
                        const std::vector<std::pair<std::string, std::string>>& metadata) {
  Json::Object header;
  if (!metadata.empty()) {
    Json m = Json::object();
    for (const auto& [key, value] : metadata) m.set(key, Json(value));
    header.emplace_back("__metadata__", std::move(m));
  }
  int64_t offset = 0;
  for (const NamedTensor* t : order) {
    Json shape = Json::array(), offsets = Json::array(), entry = Json::object();
    for (const int64_t d : t->tensor.shape().dims()) shape.push(Json(d));
    offsets.push(Json(offset));
    offset += t->tensor.nbytes();
    offsets.push(Json(offset));
    entry.set("dtype", Json(std::string(std::ranges::find(kKinds, t->tensor.dtype(), &Kind::dtype)->name)));
    entry.set("shape", std::move(shape));
    entry.set("data_offsets", std::move(offsets));
    header.emplace_back(t->name, std::move(entry));
  }
  std::string text = Json(std::move(header)).dump();
  text.resize((text.size() + 8 + 63) / 64 * 64 - 8, ' ');
  return text;
}

}  // namespace

std::map<std::string, Tensor> read_safetensors(const fs::path& path) {
  const auto file = MappedFile::open(path);
  const Json header = parse_header(*file);
  const uint64_t start = 8 + load_le<uint64_t>(file->bytes().data());
  Problems problems;
  const std::vector<Entry> entries = parse_entries(header, problems);
  check_layout(entries, problems.empty(), file->bytes().size() - start, problems);
  problems.throw_if_any("safetensors", path.string());
  std::map<std::string, Tensor> tensors;
  for (const Entry& e : entries) tensors.emplace(e.name, tensor_at(file, file->bytes().data() + start + e.begin, e));
  return tensors;
}

std::map<std::string, Tensor> read_safetensors_index(const fs::path& index) {
  return read_sharded(index, "safetensors", read_safetensors);
}

void write_safetensors(const fs::path& path, const std::vector<NamedTensor>& tensors,
                       const std::vector<std::pair<std::string, std::string>>& metadata, const Poll& poll) {
  check_tensors(tensors);
  // Wide elements first, so that every tensor is aligned to its elements without holes.
  std::vector<const NamedTensor*> order;
  for (const int64_t size : {8, 4, 2, 1}) {
    for (const NamedTensor& t : tensors) {
      if (size_of(t.tensor.dtype()) == size) order.push_back(&t);
    }
  }
  const std::string header = header_text(order, metadata);
  const uint64_t length = header.size();
  if (length > kMaxHeader) {
    throw Error(ErrorCode::kFailed,
                fmt::format("[safetensors] {}: the header would have {} bytes, at most {} are allowed", path.string(),
                            length, kMaxHeader));
  }
  AtomicFile f(path, poll);
  f.write(&length, sizeof length);
  f.write(header);
  for (const NamedTensor* t : order) {
    const Tensor c = t->tensor.is_contiguous() ? t->tensor : t->tensor.clone();
    f.write(c.bytes(), static_cast<size_t>(c.nbytes()));
  }
  f.commit();
}

}  // namespace krait::io
