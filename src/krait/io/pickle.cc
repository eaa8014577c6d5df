#include "krait/io/pickle.h"

#include <fmt/format.h>

#include <bit>
#include <string_view>
#include <unordered_map>

#include "krait/core/error.h"
#include "krait/io/bytes.h"

namespace krait::io {
namespace {

// Opcodes, by their names in Python's pickletools.
enum Op : uint8_t {
  kMark = '(',
  kStop = '.',
  kBinInt = 'J',
  kBinInt1 = 'K',
  kBinInt2 = 'M',
  kNone = 'N',
  kBinPersId = 'Q',
  kReduce = 'R',
  kBinString = 'T',
  kShortBinString = 'U',
  kBinUnicode = 'X',
  kAppend = 'a',
  kBuild = 'b',
  kGlobal = 'c',
  kAppends = 'e',
  kBinGet = 'h',
  kLongBinGet = 'j',
  kBinPut = 'q',
  kLongBinPut = 'r',
  kSetItem = 's',
  kTuple = 't',
  kSetItems = 'u',
  kEmptyDict = '}',
  kEmptyList = ']',
  kEmptyTuple = ')',
  kBinFloat = 'G',
  kProto = 0x80,
  kTuple1 = 0x85,
  kTuple2 = 0x86,
  kTuple3 = 0x87,
  kNewTrue = 0x88,
  kNewFalse = 0x89,
  kLong1 = 0x8a,
  kShortBinUnicode = 0x8c,
  kBinUnicode8 = 0x8d,
  kStackGlobal = 0x93,
  kMemoize = 0x94,
  kFrame = 0x95
};

// Every opcode takes at least a byte and makes at most one node, so the work and the memory are bounded by the length.
class Machine {
 public:
  Machine(std::span<const std::byte> bytes, const std::function<bool(const std::string&)>& allowed,
          const std::string& what)
      : bytes_(bytes), allowed_(allowed), what_(what) {}

  PickleId run() {
    for (;;) {
      op_at_ = at_;
      const auto op = get<uint8_t>();
      if (op == kStop) {
        const PickleId root = pop();
        if (!stack_.empty() || !marks_.empty()) fail("values are left over at its end");
        return root;
      }
      step(op);
    }
  }

  std::vector<PickleNode> nodes;

 private:
  [[noreturn]] void fail(const std::string& why) const {
    fail_data(fmt::format("[pickle] {}: {} (at byte {} of the pickle)", what_, why, op_at_));
  }

  const std::byte* take(uint64_t n) {
    if (n > bytes_.size() - at_)
      fail(fmt::format("{} bytes are wanted, {} are left: truncated", n, bytes_.size() - at_));
    const std::byte* p = bytes_.data() + at_;
    at_ += static_cast<size_t>(n);
    return p;
  }
  template <class T>
  T get() {
    return load_le<T>(take(sizeof(T)));
  }
  std::string text(uint64_t n) { return {reinterpret_cast<const char*>(take(n)), static_cast<size_t>(n)}; }
  std::string line() {
    const auto* begin = reinterpret_cast<const char*>(bytes_.data()) + at_;
    const size_t end = std::string_view(begin, bytes_.size() - at_).find('\n');
    if (end == std::string_view::npos) fail("a line does not end: truncated");
    std::string s = text(end);
    ++at_;
    return s;
  }

  void push(PickleNode n) {
    nodes.push_back(std::move(n));
    stack_.push_back(static_cast<PickleId>(nodes.size() - 1));
  }
  // Values above the last mark; opcodes may not reach below it.
  size_t above_mark() const { return stack_.size() - (marks_.empty() ? 0 : marks_.back()); }
  void need(size_t n) const {
    if (above_mark() < n) fail("an opcode finds too few values on the stack");
  }
  PickleId pop() {
    need(1);
    const PickleId id = stack_.back();
    stack_.pop_back();
    return id;
  }
  PickleId top() const {
    need(1);
    return stack_.back();
  }
  std::vector<PickleId> pop_to_mark() {
    if (marks_.empty()) fail("an opcode finds no mark on the stack");
    const auto first = stack_.begin() + static_cast<std::ptrdiff_t>(marks_.back());
    std::vector<PickleId> items(first, stack_.end());
    stack_.erase(first, stack_.end());
    marks_.pop_back();
    return items;
  }

  void tuple(size_t n) {
    need(n);
    const auto first = stack_.end() - static_cast<std::ptrdiff_t>(n);
    PickleSequence t{true, {first, stack_.end()}};
    stack_.erase(first, stack_.end());
    push(std::move(t));
  }
  PickleDict& dict_on_top() {
    auto* d = std::get_if<PickleDict>(&nodes[top()]);
    if (d == nullptr) fail("items are set on something that is no dict");
    return *d;
  }
  void extend_list(const std::vector<PickleId>& items) {
    auto* list = std::get_if<PickleSequence>(&nodes[top()]);
    if (list == nullptr || list->is_tuple) fail("items are appended to something that is no list");
    list->items.insert(list->items.end(), items.begin(), items.end());
  }
  void set_items(const std::vector<PickleId>& items) {
    if (items.size() % 2 != 0) fail("a dict is given a key without a value");
    PickleDict& d = dict_on_top();
    for (size_t i = 0; i < items.size(); i += 2) d.items.emplace_back(items[i], items[i + 1]);
  }
  void fetch(uint32_t slot) {
    const auto it = memo_.find(slot);
    if (it == memo_.end()) fail(fmt::format("memo {} is read before it is written", slot));
    stack_.push_back(it->second);
  }
  void global(std::string name) {
    if (name != kOrderedDict && !allowed_(name)) {
      fail(fmt::format("refers to '{}', which has no place in a file of weights; nothing in it was run", name));
    }
    push(PickleGlobal{std::move(name)});
  }
  void stack_global() {
    const PickleId name = pop(), module = pop();
    const auto *m = std::get_if<std::string>(&nodes[module]), *n = std::get_if<std::string>(&nodes[name]);
    if (m == nullptr || n == nullptr) fail("a global is named by something that is no text");
    global(*m + "." + *n);
  }
  void reduce() {
    const PickleId arguments = pop(), callee = pop();
    const auto* g = std::get_if<PickleGlobal>(&nodes[callee]);
    const auto* a = std::get_if<PickleSequence>(&nodes[arguments]);
    if (g == nullptr || a == nullptr || !a->is_tuple) fail("a call of something that is no global, or without a tuple");
    if (g->name != kOrderedDict) return push(PickleCall{g->name, arguments});
    if (!a->items.empty()) fail("an OrderedDict made with arguments");
    push(PickleDict{});
  }
  // The attributes of a state dict (its _metadata) say nothing about the tensors.
  void build() {
    const PickleId state = pop();
    if (std::get_if<PickleDict>(&nodes[state]) == nullptr) fail("attributes that are no dict");
    dict_on_top();
  }
  int64_t long1() {
    const auto n = get<uint8_t>();
    if (n > 8) fail(fmt::format("an integer of {} bytes", n));
    const std::byte* p = take(n);
    uint64_t v = 0;
    for (unsigned i = 0; i < n; ++i) v |= static_cast<uint64_t>(p[i]) << (8 * i);
    const bool negative = n > 0 && (static_cast<unsigned>(p[n - 1]) & 0x80u) != 0;
    if (negative && n < 8) v |= ~uint64_t{0} << (8 * n);
    return static_cast<int64_t>(v);
  }
  double big_endian_double() {
    const std::byte* p = take(8);
    uint64_t v = 0;
    for (int i = 0; i < 8; ++i) v = v << 8 | static_cast<uint64_t>(p[i]);
    return std::bit_cast<double>(v);
  }
  void protocol() {
    const auto v = get<uint8_t>();
    if (v < 2 || v > 4) fail(fmt::format("protocol {}, supported are 2 to 4", v));
  }

  void step(uint8_t op) {
    switch (op) {
      case kProto:
        return protocol();
      case kFrame:
        take(8);
        return;  // a hint for readers of streams
      case kMark:
        marks_.push_back(stack_.size());
        return;
      case kNone:
        return push(std::monostate{});
      case kNewTrue:
        return push(true);
      case kNewFalse:
        return push(false);
      case kBinInt:
        return push(int64_t{get<int32_t>()});
      case kBinInt1:
        return push(int64_t{get<uint8_t>()});
      case kBinInt2:
        return push(int64_t{get<uint16_t>()});
      case kLong1:
        return push(long1());
      case kBinFloat:
        return push(big_endian_double());
      case kBinString:
        return push(text(get<uint32_t>()));
      case kShortBinString:
      case kShortBinUnicode:
        return push(text(get<uint8_t>()));
      case kBinUnicode:
        return push(text(get<uint32_t>()));
      case kBinUnicode8:
        return push(text(get<uint64_t>()));
      case kEmptyDict:
        return push(PickleDict{});
      case kEmptyList:
        return push(PickleSequence{false, {}});
      case kEmptyTuple:
        return push(PickleSequence{true, {}});
      case kTuple1:
        return tuple(1);
      case kTuple2:
        return tuple(2);
      case kTuple3:
        return tuple(3);
      default:
        return step_on_stack(op);
    }
  }

  void step_on_stack(uint8_t op) {
    switch (op) {
      case kTuple:
        return push(PickleSequence{true, pop_to_mark()});
      case kAppend: {
        const PickleId item = pop();
        return extend_list({item});
      }
      case kAppends:
        return extend_list(pop_to_mark());
      case kSetItem: {
        const PickleId value = pop(), key = pop();
        return set_items({key, value});
      }
      case kSetItems:
        return set_items(pop_to_mark());
      case kBuild:
        return build();
      case kGlobal: {
        const std::string module = line();
        return global(module + "." + line());
      }
      case kStackGlobal:
        return stack_global();
      case kReduce:
        return reduce();
      case kBinPersId:
        return push(PicklePersistent{pop()});
      case kBinGet:
        return fetch(get<uint8_t>());
      case kLongBinGet:
        return fetch(get<uint32_t>());
      case kBinPut:
        memo_[get<uint8_t>()] = top();
        return;
      case kLongBinPut:
        memo_[get<uint32_t>()] = top();
        return;
      case kMemoize: {
        const auto slot = static_cast<uint32_t>(memo_.size());
        memo_[slot] = top();
        return;
      }
      default:
        fail(fmt::format("opcode 0x{:02x} has no place in a file of weights; nothing in it was run", op));
    }
  }

  static constexpr std::string_view kOrderedDict = "collections.OrderedDict";
  std::span<const std::byte> bytes_;
  const std::function<bool(const std::string&)>& allowed_;
  const std::string& what_;
  size_t at_ = 0, op_at_ = 0;
  std::vector<PickleId> stack_;
  std::vector<size_t> marks_;  // heights of the stack
  std::unordered_map<uint32_t, PickleId> memo_;
};

}  // namespace

Pickle::Pickle(std::span<const std::byte> bytes, const std::function<bool(const std::string&)>& allowed,
               const std::string& what) {
  if (bytes.size() > kMostBytes)
    fail_data(fmt::format("[pickle] {}: {} bytes, at most {} are read", what, bytes.size(), kMostBytes));
  Machine m(bytes, allowed, what);
  root_ = m.run();
  nodes_ = std::move(m.nodes);
}

}  // namespace krait::io
