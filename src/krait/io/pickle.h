// A pickle as data: the opcodes that torch.save writes for a state dict (protocols 2 to 4), interpreted into a tree of
// nodes. Nothing is imported, constructed or called: a global is its name, a call is its name and its arguments.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace krait::io {

// Nodes refer to each other by index: the graph may share nodes and even be cyclic.
using PickleId = uint32_t;

struct PickleGlobal {
  std::string name;  // "torch._utils._rebuild_tensor_v2"
};
struct PickleSequence {  // tuple or list
  bool is_tuple = true;
  std::vector<PickleId> items;
};
struct PickleDict {
  std::vector<std::pair<PickleId, PickleId>> items;
};
struct PickleCall {  // what a global would return for these arguments (a tuple)
  std::string name;
  PickleId arguments = 0;
};
struct PicklePersistent {  // an object outside the pickle, by its id (anything)
  PickleId id = 0;
};
using PickleNode = std::variant<std::monostate, bool, int64_t, double, std::string, PickleGlobal, PickleSequence,
                                PickleDict, PickleCall, PicklePersistent>;

class Pickle {
 public:
  static constexpr size_t kMostBytes = size_t{64} << 20;

  // Throws kBadData naming the opcode or the global that is not allowed, or what is malformed. `what` names the file.
  // collections.OrderedDict() is always allowed and becomes an empty PickleDict; attributes set on a dict are dropped.
  Pickle(std::span<const std::byte> bytes, const std::function<bool(const std::string&)>& allowed,
         const std::string& what);

  const PickleNode& node(PickleId id) const { return nodes_[id]; }
  PickleId root() const { return root_; }
  // The node as a T, or null.
  template <class T>
  const T* get(PickleId id) const {
    return std::get_if<T>(&nodes_[id]);
  }

 private:
  std::vector<PickleNode> nodes_;
  PickleId root_ = 0;
};

}  // namespace krait::io
