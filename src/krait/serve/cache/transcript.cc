#include "krait/serve/cache/transcript.h"

#include <xxhash.h>

#include <cstring>

#include "krait/io/bytes.h"

namespace krait::serve {
namespace {

enum class Kind : uint8_t { kTurn = 1, kRewind = 2, kImport = 3, kFork = 4, kErase = 5 };

constexpr uint8_t kVersion = 1;
constexpr size_t kChainAt = 4;

class Writer {
 public:
  Writer(Kind kind, uint64_t chain, int64_t time) {
    number(kVersion);
    number(static_cast<uint8_t>(kind));
    number(uint16_t{0});
    number(chain);
    number(time);
  }
  template <class T>
  Writer& number(T v) {
    bytes_.append(reinterpret_cast<const char*>(&v), sizeof v);
    return *this;
  }
  Writer& text(std::string_view s) {
    number(static_cast<uint32_t>(s.size()));
    bytes_ += s;
    return *this;
  }
  Writer& ids(const std::vector<int32_t>& v) {
    number(static_cast<uint32_t>(v.size()));
    bytes_.append(reinterpret_cast<const char*>(v.data()), v.size() * sizeof(int32_t));
    return *this;
  }
  std::string take() { return std::move(bytes_); }

 private:
  std::string bytes_;
};

// Takes values off the front; after one that is not there, nothing is good any more.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : left_(bytes) {}
  template <class T>
  T number() {
    if (!has(sizeof(T))) return T{};
    const T v = io::load_le<T>(reinterpret_cast<const std::byte*>(left_.data()));
    left_.remove_prefix(sizeof(T));
    return v;
  }
  std::string text() {
    const auto n = number<uint32_t>();
    if (!has(n)) return {};
    std::string s(left_.substr(0, n));
    left_.remove_prefix(n);
    return s;
  }
  std::vector<int32_t> ids() {
    const auto n = static_cast<size_t>(number<uint32_t>());
    if (!has(n * sizeof(int32_t))) return {};
    std::vector<int32_t> v(n);
    if (n > 0) std::memcpy(v.data(), left_.data(), n * sizeof(int32_t));
    left_.remove_prefix(n * sizeof(int32_t));
    return v;
  }
  bool complete() const { return good_ && left_.empty(); }

 private:
  bool has(size_t n) {
    good_ = good_ && n <= left_.size();
    return good_;
  }
  std::string_view left_;
  bool good_ = true;
};

}  // namespace

Transcript::Transcript(uint64_t model) { begin_at(beginning_of(model)); }

void Transcript::begin_at(const PrefixRoot& new_root) {
  root = new_root;
  hasher = PrefixHasher(root);
  ids = {};
  marks = {hasher.mark()};
  conversation.imported = root.position;
  conversation.model = root.model;
}

ConversationEnd Transcript::end(size_t n) const {
  ConversationEnd e{ids.first(ids_to(marks[n]).size()), marks[n], root.position, {}, n == turns(), root.model};
  if (n > 0) e.last_response = conversation.turns[n - 1].response_id;
  return e;
}

void Transcript::cut(size_t turns) {
  conversation.turns.resize(turns);
  conversation.n_turns = turns;
  marks.resize(turns + 1);
  ids = ids.first(static_cast<size_t>(marks.back().position - root.position));
  inherited = std::min(inherited, turns);
  hasher = PrefixHasher(root);
  hasher.add(ids.span());
}

bool Transcript::apply(std::string_view record) {
  Reader r(record);
  const auto version = r.number<uint8_t>();
  const auto kind = static_cast<Kind>(r.number<uint8_t>());
  const auto reserved = r.number<uint16_t>();
  const auto before = r.number<uint64_t>();
  const auto time = r.number<int64_t>();
  if (version != kVersion || reserved != 0 || before != chain) return false;
  switch (kind) {
    case Kind::kTurn: {
      Turn t;
      t.created = r.number<int64_t>();
      t.response_id = r.text();
      t.user = r.text();
      t.assistant = r.text();
      t.prompt = r.ids();
      t.answer = r.ids();
      if (!r.complete()) return false;
      for (const auto* part : {&t.prompt, &t.answer}) {
        ids.append(*part);
        hasher.add(*part);
      }
      marks.push_back(hasher.mark());
      conversation.turns.push_back(std::move(t));
      conversation.n_turns = turns();
      break;
    }
    case Kind::kRewind: {
      const auto n = r.number<uint64_t>();
      if (!r.complete() || n > turns()) return false;
      cut(static_cast<size_t>(n));
      break;
    }
    case Kind::kImport: {
      PrefixRoot from = beginning_of(root.model);
      from.position = r.number<int64_t>();
      from.hash = r.number<uint64_t>();
      from.name = r.text();
      if (!r.complete() || turns() > 0 || from.position < 0) return false;
      begin_at(from);
      break;
    }
    case Kind::kFork: {
      r.text();
      const auto n = r.number<uint64_t>();
      if (!r.complete()) return false;
      inherited = static_cast<size_t>(n);
      break;
    }
    case Kind::kErase:
      if (!r.complete()) return false;
      cut(0);
      begin_at(beginning_of(root.model));
      break;
    default:
      return false;
  }
  if (!exists) conversation.created = time;
  exists = kind != Kind::kErase;
  conversation.last_used = time;
  chain = chain_after(record);
  ++records;
  return true;
}

size_t Transcript::apply_all(const std::vector<std::string>& all) {
  size_t n = 0;
  while (n < all.size() && apply(all[n])) ++n;
  return n;
}

std::string Transcript::turn_record(const Turn& t, int64_t time) const {
  return Writer(Kind::kTurn, chain, time)
      .number(t.created)
      .text(t.response_id)
      .text(t.user)
      .text(t.assistant)
      .ids(t.prompt)
      .ids(t.answer)
      .take();
}

std::string Transcript::rewind_record(size_t turns, int64_t time) const {
  return Writer(Kind::kRewind, chain, time).number(static_cast<uint64_t>(turns)).take();
}

std::string Transcript::import_record(const PrefixRoot& from, int64_t time) const {
  return Writer(Kind::kImport, chain, time).number(from.position).number(from.hash).text(from.name).take();
}

std::string Transcript::fork_record(const std::string& from, size_t turns, int64_t time) const {
  return Writer(Kind::kFork, chain, time).text(from).number(static_cast<uint64_t>(turns)).take();
}

std::string Transcript::erase_record(int64_t time) const { return Writer(Kind::kErase, chain, time).take(); }

uint64_t chain_after(std::string_view record) {
  if (record.size() < kChainAt + sizeof(uint64_t)) return 0;
  return XXH3_64bits_withSeed(record.data(), record.size(),
                              io::load_le<uint64_t>(reinterpret_cast<const std::byte*>(record.data()) + kChainAt));
}

bool is_turn(std::string_view record) { return record.size() > 1 && record[1] == static_cast<char>(Kind::kTurn); }

std::vector<std::string> rebuild(const Transcript& from) {
  std::vector<std::string> all;
  Transcript to(from.root.model);
  const auto add = [&](std::string record) {
    to.apply(record);
    all.push_back(std::move(record));
  };
  const int64_t created = from.conversation.created;
  if (!from.root.name.empty()) add(to.import_record(from.root, created));
  if (from.inherited > 0) add(to.fork_record("", from.inherited, created));
  for (const Turn& t : from.conversation.turns) add(to.turn_record(t, all.empty() ? created : t.created));
  if (all.empty() && from.exists) add(to.rewind_record(0, created));  // begun, and nothing said
  return all;
}

}  // namespace krait::serve
