#include "krait/io/torch_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <string_view>

#include "krait/core/error.h"
#include "krait/io/mapped_file.h"
#include "krait/io/pickle.h"
#include "krait/io/problems.h"
#include "krait/io/sharded.h"
#include "krait/io/zip.h"

namespace krait::io {
namespace {

constexpr std::string_view kRebuildTensor = "torch._utils._rebuild_tensor_v2";
constexpr std::string_view kRebuildTensor3 = "torch._utils._rebuild_tensor_v3";  // dtype apart from the storage
constexpr std::string_view kRebuildParameter = "torch._utils._rebuild_parameter";
constexpr std::string_view kUntyped = "torch.storage.UntypedStorage";

struct NamedType {
  std::string_view storage, dtype;
  DType type;
};
constexpr std::array<NamedType, 10> kTypes = {{{"torch.FloatStorage", "torch.float32", DType::kF32},
                                               {"torch.DoubleStorage", "torch.float64", DType::kF64},
                                               {"torch.HalfStorage", "torch.float16", DType::kF16},
                                               {"torch.BFloat16Storage", "torch.bfloat16", DType::kBF16},
                                               {"torch.LongStorage", "torch.int64", DType::kI64},
                                               {"torch.IntStorage", "torch.int32", DType::kI32},
                                               {"torch.ShortStorage", "torch.int16", DType::kI16},
                                               {"torch.CharStorage", "torch.int8", DType::kI8},
                                               {"torch.ByteStorage", "torch.uint8", DType::kU8},
                                               {"torch.BoolStorage", "torch.bool", DType::kBool}}};

std::optional<DType> find_type(std::string_view name, std::string_view NamedType::* by) {
  for (const NamedType& t : kTypes) {
    if (t.*by == name) return t.type;
  }
  return std::nullopt;
}

bool allowed(const std::string& name) {
  return name == kRebuildTensor || name == kRebuildTensor3 || name == kRebuildParameter || name == kUntyped ||
         find_type(name, &NamedType::storage) || find_type(name, &NamedType::dtype);
}

// One tensor as the pickle describes it.
struct Description {
  std::string storage;        // member below data/
  std::optional<DType> type;  // of the storage; nothing: untyped
  int64_t storage_size = 0;   // elements (bytes if untyped)
  int64_t offset = 0;         // elements
  std::vector<int64_t> size, stride;
};

class Archive {
 public:
  explicit Archive(const std::filesystem::path& path) : file_(MappedFile::open(path)), what_(path.string()) {
    refuse_other_files();
    for (ZipEntry& e : list_zip(file_->bytes(), what_)) {
      if (e.name == "data.pkl" || e.name.ends_with("/data.pkl")) {
        if (!pickle_.empty()) fail_data(fmt::format("[torch] {}: holds both {} and {}", what_, pickle_, e.name));
        pickle_ = e.name;
      }
      std::string name = e.name;
      members_.emplace(std::move(name), std::move(e));
    }
    if (pickle_.empty())
      fail_data(fmt::format("[torch] {}: a zip archive without data.pkl, not one of torch.save", what_));
    prefix_ = pickle_.substr(0, pickle_.size() - std::string_view("data.pkl").size());
    check_byte_order();
  }

  std::map<std::string, Tensor> tensors() {
    const ZipEntry& entry = members_.at(pickle_);
    if (entry.size > Pickle::kMostBytes) {
      fail_data(fmt::format("[torch] {}: {} has {} bytes, at most {} are read", what_, pickle_, entry.size,
                            Pickle::kMostBytes));
    }
    const Pickle p(extract_zip(file_->bytes(), entry, what_), allowed, what_);
    std::map<std::string, Tensor> out;
    for (const auto& [key, value] : state_dict(p).items) {
      const auto* name = p.get<std::string>(key);
      if (name == nullptr) {
        problems_.add("the state dict has a key that is no text");
        continue;
      }
      const std::optional<Tensor> t = tensor(p, value, *name);
      if (t && !out.emplace(*name, *t).second) problems_.add(*name + " stands twice in the state dict");
    }
    problems_.throw_if_any("torch", what_);
    return out;
  }

 private:
  void refuse_other_files() const {
    if (looks_like_zip(file_->bytes())) return;
    const auto b = file_->bytes();
    const bool pickle = b.size() > 2 && b[0] == std::byte{0x80};
    fail_data(fmt::format("[torch] {}: {}", what_,
                          pickle
                              ? "is in the format of torch before 1.6 (no zip archive); load it with torch and save it "
                                "again: torch.save(torch.load(path, weights_only=True), path)"
                              : "is no zip archive of torch.save"));
  }

  void check_byte_order() const {
    const auto it = members_.find(prefix_ + "byteorder");
    if (it == members_.end()) return;
    const auto b = stored_bytes(file_->bytes(), it->second, what_);
    const std::string_view order(reinterpret_cast<const char*>(b.data()), b.size());
    if (order != "little")
      fail_data(fmt::format("[torch] {}: byte order is '{}', supported is 'little'", what_, order.substr(0, 16)));
  }

  // The root, or what stands in it under a name that trainers use.
  const PickleDict& state_dict(const Pickle& p) const {
    const auto* root = p.get<PickleDict>(p.root());
    if (root == nullptr) fail_data(fmt::format("[torch] {}: the pickle is no dict", what_));
    for (const std::string_view wanted : {"state_dict", "model"}) {
      for (const auto& [key, value] : root->items) {
        const auto* name = p.get<std::string>(key);
        const auto* inner = p.get<PickleDict>(value);
        if (name != nullptr && *name == wanted && inner != nullptr) return *inner;
      }
    }
    const bool tensors = std::ranges::any_of(root->items, [&](const auto& kv) { return p.get<PickleCall>(kv.second); });
    if (!tensors && !root->items.empty()) {
      fail_data(fmt::format("[torch] {}: holds no tensors, neither directly nor under 'state_dict' or 'model'", what_));
    }
    return *root;
  }

  std::optional<Tensor> tensor(const Pickle& p, PickleId id, const std::string& name) {
    const auto* call = p.get<PickleCall>(id);
    if (call != nullptr && call->name == kRebuildParameter) {
      const std::vector<PickleId>& a = arguments(p, *call);
      call = a.empty() ? nullptr : p.get<PickleCall>(a[0]);
    }
    Description d;
    const std::string why = call == nullptr ? "is no tensor" : describe(p, *call, d);
    if (why.empty()) return view(name, d);
    problems_.add(name + " " + why);
    return std::nullopt;
  }

  static const std::vector<PickleId>& arguments(const Pickle& p, const PickleCall& c) {
    return p.get<PickleSequence>(c.arguments)->items;  // the interpreter saw to it that it is a tuple
  }

  static std::optional<std::vector<int64_t>> integers(const Pickle& p, PickleId id) {
    const auto* s = p.get<PickleSequence>(id);
    if (s == nullptr) return std::nullopt;
    std::vector<int64_t> out;
    for (const PickleId i : s->items) {
      const auto* v = p.get<int64_t>(i);
      if (v == nullptr) return std::nullopt;
      out.push_back(*v);
    }
    return out;
  }

  // _rebuild_tensor_v2(storage, offset, size, stride, requires_grad, hooks); v3 adds the dtype. "" or what is wrong.
  static std::string describe(const Pickle& p, const PickleCall& call, Description& d) {
    const bool v3 = call.name == kRebuildTensor3;
    if (!v3 && call.name != kRebuildTensor) return "is made by " + call.name + ", not a tensor";
    const std::vector<PickleId>& a = arguments(p, call);
    const auto* offset = a.size() > 1 ? p.get<int64_t>(a[1]) : nullptr;
    const auto size = a.size() > 2 ? integers(p, a[2]) : std::nullopt;
    const auto stride = a.size() > 3 ? integers(p, a[3]) : std::nullopt;
    if (a.size() < (v3 ? 7u : 6u) || offset == nullptr || !size || !stride)
      return "is described by arguments of other kinds";
    d.offset = *offset;
    d.size = *size;
    d.stride = *stride;
    if (std::string why = describe_storage(p, a[0], d); !why.empty()) return why;
    if (!v3) return d.type ? "" : "lies in an untyped storage and has no dtype";
    const auto* g = p.get<PickleGlobal>(a[6]);
    const std::optional<DType> t = g == nullptr ? std::nullopt : find_type(g->name, &NamedType::dtype);
    if (!t) return "has no known dtype";
    if (!d.type) d.storage_size /= size_of(*t);
    d.type = t;
    return "";
  }

  // ('storage', type, key, location, size)
  static std::string describe_storage(const Pickle& p, PickleId id, Description& d) {
    const auto* persistent = p.get<PicklePersistent>(id);
    const auto* s = persistent == nullptr ? nullptr : p.get<PickleSequence>(persistent->id);
    if (s == nullptr || s->items.size() < 5) return "has no storage";
    const auto* kind = p.get<std::string>(s->items[0]);
    const auto* type = p.get<PickleGlobal>(s->items[1]);
    const auto* key = p.get<std::string>(s->items[2]);
    const auto* size = p.get<int64_t>(s->items[4]);
    if (kind == nullptr || *kind != "storage" || type == nullptr || key == nullptr || size == nullptr) {
      return "has a storage described by arguments of other kinds";
    }
    d.type = find_type(type->name, &NamedType::storage);
    if (!d.type && type->name != kUntyped) return "lies in a storage of unknown type " + type->name;
    d.storage = *key;
    d.storage_size = *size;
    return "";
  }

  std::optional<Tensor> refuse(const std::string& name, const std::string& why) {
    problems_.add(name + " " + why);
    return std::nullopt;
  }

  std::optional<Tensor> view(const std::string& name, const Description& d) {
    const auto member = members_.find(prefix_ + "data/" + d.storage);
    if (member == members_.end())
      return refuse(name, fmt::format("lies in storage {}, which the archive lacks", d.storage));
    const ZipEntry& e = member->second;
    if (e.method != ZipEntry::kStored)
      return refuse(name, fmt::format("lies in storage {}, which is compressed", d.storage));
    const auto bytes = stored_bytes(file_->bytes(), e, what_);
    const int64_t width = size_of(*d.type);
    const auto elements = static_cast<int64_t>(bytes.size()) / width;
    if (d.storage_size < 0 || d.storage_size > elements) {
      return refuse(
          name, fmt::format("lies in storage {} of {} elements, which holds {}", d.storage, d.storage_size, elements));
    }
    if (std::string why = outside(d); !why.empty()) return refuse(name, why);
    const Shape shape(d.size);
    const std::byte* first = bytes.data() + d.offset * width;
    if (row_major(d)) {
      const Tensor t = Tensor::view_of(file_, first, shape, *d.type);
      const bool aligned = reinterpret_cast<uintptr_t>(first) % static_cast<uintptr_t>(width) == 0;
      return aligned ? t : t.clone();
    }
    return gathered(d, first, shape);
  }

  // Why the tensor does not lie inside its storage, or "".
  static std::string outside(const Description& d) {
    if (d.size.size() != d.stride.size() || d.size.size() > static_cast<size_t>(Shape::kMaxRank)) {
      return fmt::format("has {} dimensions and {} strides", d.size.size(), d.stride.size());
    }
    __extension__ using Wide = __int128;
    Wide last = d.offset, numel = 1;
    for (size_t i = 0; i < d.size.size(); ++i) {
      if (d.size[i] < 0 || d.stride[i] < 0) return "has a negative size or stride";
      numel = std::min(numel * d.size[i], Wide{1} << 62);
      if (d.size[i] > 0) last = std::min(last + Wide{d.size[i] - 1} * d.stride[i], Wide{1} << 62);
    }
    if (d.offset < 0 || d.offset > d.storage_size || (numel > 0 && last >= d.storage_size)) {
      return fmt::format("[{}] with strides [{}] at {} leaves its storage of {} elements", fmt::join(d.size, ", "),
                         fmt::join(d.stride, ", "), d.offset, d.storage_size);
    }
    // A view that repeats elements could claim any size.
    if (numel > d.storage_size) return "is larger than its storage (an expanded view); save a contiguous copy";
    return "";
  }

  static bool row_major(const Description& d) {
    int64_t want = 1;
    for (size_t i = d.size.size(); i-- > 0;) {
      if (d.size[i] == 0) return true;
      if (d.size[i] != 1 && d.stride[i] != want) return false;
      want *= d.size[i];
    }
    return true;
  }

  // A contiguous copy of a strided tensor.
  static Tensor gathered(const Description& d, const std::byte* first, const Shape& shape) {
    Tensor out = Tensor::empty(shape, *d.type);
    const int64_t width = size_of(*d.type);
    std::vector<int64_t> index(d.size.size(), 0);
    for (int64_t i = 0, at = 0; i < shape.numel(); ++i) {
      std::copy_n(first + at * width, width, out.bytes() + i * width);
      for (size_t k = d.size.size(); k-- > 0;) {
        const int64_t step = d.size[k] > 1 ? d.stride[k] : 0;  // the stride of a single element may be anything
        at += step;
        if (++index[k] < d.size[k]) break;
        at -= step * d.size[k];
        index[k] = 0;
      }
    }
    return out;
  }

  std::shared_ptr<const MappedFile> file_;
  std::string what_, pickle_, prefix_;
  std::map<std::string, ZipEntry> members_;
  Problems problems_;
};

}  // namespace

std::map<std::string, Tensor> read_torch(const std::filesystem::path& path) { return Archive(path).tensors(); }

std::map<std::string, Tensor> read_torch_index(const std::filesystem::path& index) {
  return read_sharded(index, "torch", read_torch);
}

}  // namespace krait::io
