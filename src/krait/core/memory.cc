#include "krait/core/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <list>
#include <map>
#include <mutex>
#include <string>

#include "krait/core/error.h"

namespace krait {
namespace {

constexpr size_t kHuge = size_t{2} << 20;   // bytes of a huge page
constexpr size_t kSlab = size_t{32} << 20;  // of a slab, unless one block needs more
constexpr size_t kBig = size_t{64} << 10;   // of the smallest block that comes from a slab
constexpr size_t kGrain = 256;              // sizes are multiples: no two blocks share a cache line, few fragments

// Under a checker every block is the system's own, so that it sees what is read too late or too far.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)  // g++
constexpr bool kUseSlabs = false;
#elif defined(__has_feature)  // clang++
constexpr bool kUseSlabs = !__has_feature(address_sanitizer) && !__has_feature(thread_sanitizer);
#else
constexpr bool kUseSlabs = true;
#endif

[[noreturn]] void fail(size_t bytes) {
  throw Error(ErrorCode::kFailed, "[memory] cannot allocate " + std::to_string(bytes) + " bytes");
}

size_t round_up(size_t n, size_t multiple) { return (n + multiple - 1) / multiple * multiple; }

class Slabs {
 public:
  std::byte* allocate(size_t bytes) {
    const std::lock_guard lock(mutex_);
    if (const Place p = best_place(bytes); p.slab != slabs_.end()) return take(p, bytes);
    const size_t size = std::max(kSlab, round_up(bytes, kHuge));
    // All that the entry needs comes before the mapping, which nobody would undo.
    std::map<std::byte*, Slab> entry;
    entry.emplace(nullptr, Slab{size, 0, {{0, size}}});
    auto node = entry.extract(entry.begin());
    node.key() = map(size);
    const auto at = slabs_.insert(std::move(node)).position;
    mapped_ += size;
    return take({at, at->second.free.begin()}, bytes);
  }

  void release(std::byte* p, size_t bytes) noexcept {
    const std::lock_guard lock(mutex_);
    const auto at = std::prev(slabs_.upper_bound(p));
    Slab& slab = at->second;
    give_back(slab, static_cast<size_t>(p - at->first), bytes);
    used_ -= bytes;
    if (slab.used != 0) return;
    size_t empty = 0;
    for (const auto& [base, s] : slabs_) empty += s.used == 0 ? s.size : 0;
    if (empty <= keep_) return;
    ::munmap(at->first, slab.size);
    mapped_ -= slab.size;
    slabs_.erase(at);
  }

  void keep(size_t bytes) {
    const std::lock_guard lock(mutex_);
    keep_ = bytes;
  }

  MemoryUse use() {
    const std::lock_guard lock(mutex_);
    return {mapped_, used_};
  }

 private:
  struct Piece {
    size_t offset, bytes;
  };
  struct Slab {
    size_t size, used;
    std::list<Piece> free;  // ascending, never adjacent
  };

  struct Place {
    std::map<std::byte*, Slab>::iterator slab;
    std::list<Piece>::iterator piece;
  };

  // The smallest free piece that is long enough, so that what stays long leaves the long pieces whole: a training pass
  // keeps a small block of each layer and needs the same big ones in every layer. No slab if there is none.
  Place best_place(size_t bytes) {
    Place best{slabs_.end(), {}};
    for (auto slab = slabs_.begin(); slab != slabs_.end(); ++slab) {
      if (slab->second.size - slab->second.used < bytes) continue;
      for (auto piece = slab->second.free.begin(); piece != slab->second.free.end(); ++piece) {
        if (piece->bytes < bytes) continue;
        if (best.slab == slabs_.end() || piece->bytes < best.piece->bytes) best = {slab, piece};
      }
    }
    return best;
  }

  std::byte* take(const Place& place, size_t bytes) {
    Slab& slab = place.slab->second;
    const auto piece = place.piece;
    const size_t offset = piece->offset;
    if (piece->bytes > bytes) {
      spare_.emplace_back();
      *piece = {offset + bytes, piece->bytes - bytes};
    } else {
      spare_.splice(spare_.end(), slab.free, piece);
    }
    slab.used += bytes;
    used_ += bytes;
    return place.slab->first + offset;
  }

  void give_back(Slab& slab, size_t offset, size_t bytes) noexcept {
    slab.used -= bytes;
    const auto next = std::ranges::find_if(slab.free, [&](const Piece& f) { return f.offset > offset; });
    slab.free.splice(next, spare_, spare_.begin());
    const auto here = std::prev(next);
    *here = {offset, bytes};
    join_with_next(slab.free, here);
    if (here != slab.free.begin()) join_with_next(slab.free, std::prev(here));
  }

  static void join_with_next(std::list<Piece>& free, std::list<Piece>::iterator piece) noexcept {
    const auto next = std::next(piece);
    if (next == free.end() || piece->offset + piece->bytes != next->offset) return;
    piece->bytes += next->bytes;
    free.erase(next);
  }

  // Aligned to huge pages. That the system backs it with them is a wish.
  static std::byte* map(size_t size) {
    void* whole = ::mmap(nullptr, size + kHuge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (whole == MAP_FAILED) fail(size);
    auto* start = static_cast<std::byte*>(whole);
    const size_t before = (kHuge - reinterpret_cast<uintptr_t>(start) % kHuge) % kHuge;
    if (before > 0) ::munmap(start, before);
    if (before < kHuge) ::munmap(start + before + size, kHuge - before);
    ::madvise(start + before, size, MADV_HUGEPAGE);
    return start + before;
  }

  std::mutex mutex_;
  std::map<std::byte*, Slab> slabs_;
  std::list<Piece> spare_;  // as many as there are blocks in use: giving one back needs no memory
  size_t mapped_ = 0, used_ = 0, keep_ = kKeptSlabBytes;
};

// Never destroyed: tensors of static duration may outlive anything.
Slabs& slabs() {
  static Slabs& s = *new Slabs;
  return s;
}

}  // namespace

std::shared_ptr<void> allocate(size_t bytes) {
  if (bytes > SIZE_MAX / 2) fail(bytes);
  if (!kUseSlabs || bytes < kBig) {
    void* p = std::aligned_alloc(64, round_up(bytes + 64, 64));
    if (p == nullptr) fail(bytes);
    return {p, [](void* q) { std::free(q); }};
  }
  const size_t size = round_up(bytes + 64, kGrain);
  std::byte* p = slabs().allocate(size);
  return {static_cast<void*>(p), [size](void* q) { slabs().release(static_cast<std::byte*>(q), size); }};
}

void keep_slabs(size_t bytes) { slabs().keep(bytes); }

MemoryUse slab_memory() { return slabs().use(); }

}  // namespace krait
