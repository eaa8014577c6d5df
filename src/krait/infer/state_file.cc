// The state file: docs/formats.md, "State files".
#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <memory>

#include "krait/core/error.h"
#include "krait/infer/state.h"
#include "krait/io/atomic_file.h"
#include "krait/io/mapped_file.h"

namespace krait {
namespace {

static_assert(std::endian::native == std::endian::little, "files are little-endian and are read in place");

constexpr std::array<char, 8> kMagic = {'K', 'R', 'A', 'I', 'T', 'S', 'T', '\n'};
constexpr size_t kAlignment = 64;  // of every tensor
constexpr size_t kSmallest = 72;   // bytes of a file
constexpr uint32_t kLongestName = 256;

// Type codes of the file; what a state tensor may be.
constexpr std::array kTypes = {DType::kF32, DType::kF64, DType::kBF16, DType::kF16, DType::kI32, DType::kI64};

class Writer {
 public:
  // `total`: of the file; 0: it is what shall be found out, and the checksum does not matter.
  Writer(const std::function<void(const void*, size_t)>& sink, uint64_t total) : sink_(sink), total_(total) {
    if (total == 0) return;
    hash_.reset(XXH3_createState());
    XXH3_64bits_reset(hash_.get());
  }
  void bytes(const void* p, size_t n) {
    if (n == 0) return;
    sink_(p, n);
    if (hash_) XXH3_64bits_update(hash_.get(), p, n);
    position_ += n;
  }
  template <class T>
  void number(T v) {
    bytes(&v, sizeof v);
  }
  void text(const std::string& s) {
    number(static_cast<uint32_t>(s.size()));
    bytes(s.data(), s.size());
  }
  void tensor(const Tensor& t) {
    constexpr std::array<char, kAlignment> zeros{};
    bytes(zeros.data(), (kAlignment - position_ % kAlignment) % kAlignment);
    bytes(t.bytes(), static_cast<size_t>(t.nbytes()));
  }
  void checksum() { number<uint64_t>(hash_ ? XXH3_64bits_digest(hash_.get()) : 0); }
  uint64_t total() const { return total_; }

 private:
  struct Free {
    void operator()(XXH3_state_t* s) const { XXH3_freeState(s); }
  };
  const std::function<void(const void*, size_t)>& sink_;
  std::unique_ptr<XXH3_state_t, Free> hash_;
  const uint64_t total_;
  uint64_t position_ = 0;
};

uint8_t type_code(DType t) {
  for (size_t i = 0; i < kTypes.size(); ++i)
    if (kTypes[i] == t) return static_cast<uint8_t>(i);
  throw Error(ErrorCode::kInternal, "[state] a state tensor of " + std::string(name_of(t)) + " cannot be saved");
}

void write_specs(Writer& w, const std::vector<StateSpec>& specs) {
  w.number(static_cast<uint32_t>(specs.size()));
  for (const StateSpec& spec : specs) {
    w.number(static_cast<uint32_t>(spec.size()));
    for (const StateTensorSpec& t : spec) {
      w.text(t.name);
      w.number(type_code(t.dtype));
      w.number(static_cast<uint8_t>(t.shape.rank()));
      for (const int64_t d : t.shape.dims()) w.number(d);
    }
  }
}

void write_history(Writer& w, const TokenHistory& h) {
  w.number(static_cast<uint32_t>(h.recent().size()));
  w.bytes(h.recent().data(), h.recent().size_bytes());
  std::vector<TokenCounts::Entry> counts(h.counts().begin(), h.counts().end());
  std::ranges::sort(counts);
  w.number(static_cast<uint32_t>(counts.size()));
  std::string packed;
  for (const auto& [id, n] : counts) {
    packed.append(reinterpret_cast<const char*>(&id), sizeof id);
    packed.append(reinterpret_cast<const char*>(&n), sizeof n);
  }
  w.bytes(packed.data(), packed.size());
}

void write_all(Writer& w, const State& s) {
  const SequenceHead& h = s.head;
  w.bytes(kMagic.data(), kMagic.size());
  w.number(kStateFileVersion);
  w.number(uint32_t{0});  // reserved
  w.number(w.total());
  w.number(s.model_fingerprint);
  w.number(h.history.position());
  w.number(h.history.hash());
  w.number(h.rng.seed);
  w.number(h.rng.stream);
  w.number(h.rng.counter);
  w.text(s.architecture);
  write_specs(w, s.specs);
  write_history(w, h.history);
  w.number(h.last_logits.defined() ? h.last_logits.numel() : int64_t{0});
  for (const StateView& view : s.blocks)
    for (const Tensor& t : view) w.tensor(t);
  if (h.last_logits.defined()) w.tensor(h.last_logits);
  w.checksum();
}

// Takes values off the front; every length is checked against what is left before anything is allocated.
class Reader {
 public:
  Reader(std::span<const std::byte> all, std::string name) : all_(all), name_(std::move(name)) {}

  [[noreturn]] void fail(const std::string& what) const { fail_data("[state] " + name_ + ": " + what); }

  std::span<const std::byte> take(uint64_t n) {
    if (n > all_.size() - at_) fail(fmt::format("{} bytes wanted at offset {} of {}", n, at_, all_.size()));
    const auto part = all_.subspan(at_, static_cast<size_t>(n));
    at_ += static_cast<size_t>(n);
    return part;
  }
  template <class T>
  T number() {
    T v;
    std::memcpy(&v, take(sizeof v).data(), sizeof v);
    return v;
  }
  // A count of items that take at least `least` bytes each.
  template <class T>
  size_t count(size_t least) {
    const T n = number<T>();
    if (n < 0 || static_cast<uint64_t>(n) > (all_.size() - at_) / least) {
      fail(fmt::format("a count of {} at offset {} of {}", n, at_ - sizeof n, all_.size()));
    }
    return static_cast<size_t>(n);
  }
  std::string text() {
    const auto n = number<uint32_t>();
    if (n > kLongestName) fail(fmt::format("a name of {} bytes", n));
    const auto part = take(n);
    return {reinterpret_cast<const char*>(part.data()), part.size()};
  }
  Tensor tensor(const Shape& shape, DType dtype) {
    for (const std::byte b : take((kAlignment - at_ % kAlignment) % kAlignment)) {
      if (b != std::byte{0}) fail("padding that is not zero");
    }
    uint64_t bytes = 0;
    if (__builtin_mul_overflow(shape.numel(), size_of(dtype), &bytes)) fail("a tensor of " + shape.str());
    const auto part = take(bytes);
    Tensor t = Tensor::empty(shape, dtype);
    if (!part.empty()) std::memcpy(t.bytes(), part.data(), part.size());
    return t;
  }
  size_t left() const { return all_.size() - at_; }

 private:
  std::span<const std::byte> all_;
  std::string name_;
  size_t at_ = 0;
};

// Magic, version, size, checksum: whether these are the bytes that were written.
void check_whole(std::span<const std::byte> bytes, Reader& r) {
  if (bytes.size() < kMagic.size() || std::memcmp(bytes.data(), kMagic.data(), kMagic.size()) != 0) {
    r.fail("not a state file");
  }
  if (bytes.size() < kSmallest + sizeof(uint64_t)) r.fail(fmt::format("truncated: {} bytes", bytes.size()));
  r.take(kMagic.size());
  const auto version = r.number<uint32_t>();
  if (version != kStateFileVersion) {
    r.fail(fmt::format("format version {}, this program reads version {}", version, kStateFileVersion));
  }
  if (r.number<uint32_t>() != 0) r.fail("the reserved field is not zero");
  const auto size = r.number<uint64_t>();
  if (size != bytes.size()) {
    r.fail(fmt::format("{}: {} bytes, its header says {}", bytes.size() < size ? "truncated" : "too long", bytes.size(),
                       size));
  }
  uint64_t stored;
  std::memcpy(&stored, bytes.data() + bytes.size() - sizeof stored, sizeof stored);
  const uint64_t actual = XXH3_64bits(bytes.data(), bytes.size() - sizeof stored);
  if (stored != actual) r.fail(fmt::format("damaged: checksum {:016x}, the file says {:016x}", actual, stored));
}

std::vector<StateSpec> read_specs(Reader& r) {
  std::vector<StateSpec> specs(r.count<uint32_t>(4));
  for (StateSpec& spec : specs) {
    spec.resize(r.count<uint32_t>(6));
    for (StateTensorSpec& t : spec) {
      t.name = r.text();
      const auto code = r.number<uint8_t>();
      if (code >= kTypes.size()) r.fail(fmt::format("unknown element type {}", code));
      t.dtype = kTypes[code];
      const auto rank = r.number<uint8_t>();
      if (rank > Shape::kMaxRank) r.fail(fmt::format("a tensor of rank {}", rank));
      std::vector<int64_t> dims(rank);
      for (int64_t& d : dims) d = r.number<int64_t>();
      t.shape = Shape(dims);
    }
  }
  return specs;
}

TokenHistory read_history(Reader& r, uint64_t hash) {
  std::vector<int32_t> recent(r.count<uint32_t>(4));
  for (int32_t& id : recent) id = r.number<int32_t>();
  TokenCounts counts;
  int64_t last = -1;
  for (size_t n = r.count<uint32_t>(12); n > 0; --n) {
    const auto id = r.number<int32_t>();
    if (id <= last) r.fail("token counts out of order");
    last = id;
    counts.add(id, r.number<int64_t>());
  }
  return TokenHistory::from_parts(hash, std::move(recent), std::move(counts));
}

}  // namespace

void encode_state(const State& s, const std::function<void(const void*, size_t)>& sink) {
  uint64_t total = 0;
  const std::function<void(const void*, size_t)> count = [&](const void*, size_t n) { total += n; };
  Writer counting(count, 0);
  write_all(counting, s);
  Writer writing(sink, total);
  write_all(writing, s);
}

void write_state(const std::filesystem::path& path, const State& s) {
  io::AtomicFile file(path);
  encode_state(s, [&](const void* p, size_t n) { file.write(p, n); });
  file.commit();
}

State read_state(const std::filesystem::path& path) {
  const auto file = io::MappedFile::open(path);
  return parse_state(file->bytes(), path.string());
}

State parse_state(std::span<const std::byte> bytes, const std::string& name) {
  Reader r(bytes, name);
  check_whole(bytes, r);
  State s;
  s.model_fingerprint = r.number<uint64_t>();
  const auto position = r.number<int64_t>();
  const auto hash = r.number<uint64_t>();
  s.head.rng.seed = r.number<uint64_t>();
  s.head.rng.stream = r.number<uint64_t>();
  s.head.rng.counter = r.number<uint64_t>();
  s.architecture = r.text();
  s.specs = read_specs(r);
  s.head.history = read_history(r, hash);
  if (position != s.position()) r.fail(fmt::format("position {}, but {} tokens are counted", position, s.position()));
  const auto n_logits = static_cast<int64_t>(r.count<int64_t>(sizeof(float)));
  if ((n_logits > 0) != (position > 0)) r.fail(fmt::format("{} logits at position {}", n_logits, position));
  for (const StateSpec& spec : s.specs) {
    StateView& view = s.blocks.emplace_back();
    for (const StateTensorSpec& t : spec) view.push_back(r.tensor(t.shape, t.dtype));
  }
  if (n_logits > 0) s.head.last_logits = r.tensor({n_logits}, DType::kF32);
  if (r.left() != sizeof(uint64_t)) r.fail(fmt::format("{} bytes too many", r.left() - sizeof(uint64_t)));
  return s;
}

}  // namespace krait
