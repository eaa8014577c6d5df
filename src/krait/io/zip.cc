#include "krait/io/zip.h"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <limits>
#include <string_view>
#include <unordered_set>

#include "krait/io/bytes.h"
#include "krait/io/json.h"
#include "krait/io/problems.h"

namespace krait::io {
namespace {

using Bytes = std::span<const std::byte>;

// Record signatures and fixed lengths: APPNOTE.TXT 4.3.7, 4.3.12, 4.3.14–4.3.16.
constexpr uint32_t kLocal = 0x04034b50, kCentral = 0x02014b50, kEnd = 0x06054b50, kEnd64 = 0x06064b50,
                   kLocator64 = 0x07064b50;
constexpr size_t kLocalSize = 30, kCentralSize = 46, kEndSize = 22, kEnd64Size = 56, kLocator64Size = 20;
constexpr uint32_t kEscape32 = 0xFFFFFFFF;  // "see the zip64 field"
constexpr uint16_t kEscape16 = 0xFFFF;
constexpr uint16_t kEncrypted = 1, kSizesFollow = 8;  // general purpose flags

// Deflate cannot do better than 258 bytes for 2 bits. An archive beyond the second bound is a bomb.
constexpr uint64_t kDeflateRatio = 1032, kArchiveRatio = 100, kArchiveFree = uint64_t{256} << 20;

struct Directory {
  uint64_t offset, size, entries;
};

Directory find_directory(Bytes file, const std::string& what) {
  const auto bad = [&](std::string_view why) { fail_data(fmt::format("[zip] {}: {}", what, why)); };
  if (file.size() < kEndSize) bad(fmt::format("{} bytes are too few for a zip archive", file.size()));
  // The end record is last, but for a comment of up to 65535 bytes.
  const size_t last = file.size() - kEndSize;
  const size_t first = last > 0xFFFF ? last - 0xFFFF : 0;
  size_t end = last + 1;
  for (size_t at = last + 1; at-- > first;) {
    const std::byte* p = file.data() + at;
    if (load_le<uint32_t>(p) == kEnd && at + kEndSize + load_le<uint16_t>(p + 20) == file.size()) {
      end = at;
      break;
    }
  }
  if (end > last) bad("no end of central directory: not a zip archive, or truncated");

  const std::byte* p = file.data() + end;
  if (load_le<uint16_t>(p + 4) != load_le<uint16_t>(p + 6)) bad("parts of a split archive are not supported");
  Directory d{load_le<uint32_t>(p + 16), load_le<uint32_t>(p + 12), load_le<uint16_t>(p + 10)};
  uint64_t limit = end;
  const bool has64 = end >= kLocator64Size && load_le<uint32_t>(p - kLocator64Size) == kLocator64;
  if (has64) {
    const auto at = load_le<uint64_t>(p - kLocator64Size + 8);
    const uint64_t room = end - kLocator64Size;
    if (room < kEnd64Size || at > room - kEnd64Size || load_le<uint32_t>(file.data() + at) != kEnd64) {
      bad(fmt::format("the zip64 end record is not at {} as stated", at));
    }
    const std::byte* q = file.data() + at;
    d = {load_le<uint64_t>(q + 48), load_le<uint64_t>(q + 40), load_le<uint64_t>(q + 32)};
    limit = at;
  } else if (d.offset == kEscape32 || d.size == kEscape32 || d.entries == kEscape16) {
    bad("a zip64 end record is referred to but missing");
  }
  if (d.offset > limit || d.size > limit - d.offset) {
    bad(fmt::format("the central directory (offset {}, {} bytes) leaves the file ({} bytes)", d.offset, d.size,
                    file.size()));
  }
  if (d.entries > d.size / kCentralSize) {
    bad(fmt::format("{} members are claimed in a central directory of {} bytes", d.entries, d.size));
  }
  return d;
}

// The zip64 extra field (id 1) holds 64-bit values for those of the three that are escaped, in this order.
bool read_zip64(Bytes extra, uint64_t& size, uint64_t& compressed, uint64_t& offset) {
  while (extra.size() >= 4) {
    const auto id = load_le<uint16_t>(extra.data());
    const size_t length = load_le<uint16_t>(extra.data() + 2);
    if (length > extra.size() - 4) return false;
    if (id == 1) {
      Bytes field = extra.subspan(4, length);
      for (uint64_t* v : {&size, &compressed, &offset}) {
        if (*v != kEscape32) continue;
        if (field.size() < 8) return false;
        *v = load_le<uint64_t>(field.data());
        field = field.subspan(8);
      }
      return true;
    }
    extra = extra.subspan(4 + length);
  }
  return size != kEscape32 && compressed != kEscape32 && offset != kEscape32;
}

std::string_view text_of(Bytes b) { return {reinterpret_cast<const char*>(b.data()), b.size()}; }

// What is wrong with the member's local header at `start`, or ""; sets e.offset.
std::string check_local(Bytes file, uint64_t start, uint64_t limit, ZipEntry& e) {
  if (start > limit || limit - start < kLocalSize) return fmt::format("its header at {} leaves the file", start);
  const std::byte* p = file.data() + start;
  if (load_le<uint32_t>(p) != kLocal) return fmt::format("no local header at {}", start);
  const size_t name = load_le<uint16_t>(p + 26), extra = load_le<uint16_t>(p + 28);
  if (limit - start - kLocalSize < name + extra) return fmt::format("its header at {} leaves the file", start);
  e.offset = start + kLocalSize + name + extra;
  if (e.compressed_size > limit - e.offset) {
    return fmt::format("its data ({} bytes at {}) leaves the file", e.compressed_size, e.offset);
  }
  const Bytes after = file.subspan(start + kLocalSize, name + extra);
  if (text_of(after.first(name)) != e.name) {
    return fmt::format("its local header has another name, {}", quote_name(text_of(after.first(name))));
  }
  const auto flags = load_le<uint16_t>(p + 6);
  if (flags & kEncrypted) return "it is encrypted";
  if (load_le<uint16_t>(p + 8) != e.method) return "its local header has another method";
  if (flags & kSizesFollow) return "";
  uint64_t size = load_le<uint32_t>(p + 22), compressed = load_le<uint32_t>(p + 18), none = 0;
  if (!read_zip64(after.subspan(name), size, compressed, none)) return "its local extra fields are malformed";
  if (size != e.size || compressed != e.compressed_size || load_le<uint32_t>(p + 14) != e.crc) {
    return fmt::format("its local header has other sizes or CRC ({} bytes from {}, directory: {} from {})", size,
                       compressed, e.size, e.compressed_size);
  }
  return "";
}

std::string check_claims(const ZipEntry& e, uint16_t flags) {
  if (flags & kEncrypted) return "it is encrypted";
  if (e.method != ZipEntry::kStored && e.method != ZipEntry::kDeflated) {
    return fmt::format("compression method {} is not supported (stored and deflated are)", e.method);
  }
  if (e.method == ZipEntry::kStored && e.size != e.compressed_size) {
    return fmt::format("it is stored, but {} bytes are said to come from {}", e.size, e.compressed_size);
  }
  if (e.method == ZipEntry::kDeflated && e.size / kDeflateRatio > e.compressed_size) {
    return fmt::format("{} bytes cannot come from {} by deflate", e.size, e.compressed_size);
  }
  return "";
}

struct Extent {
  uint64_t begin, end;  // from the local header to the end of the data
  size_t entry;
};

void check_extents(std::vector<Extent> extents, const std::vector<ZipEntry>& entries, uint64_t file_size,
                   Problems& problems) {
  std::ranges::sort(extents, {}, &Extent::begin);
  for (size_t i = 1; i < extents.size(); ++i) {
    if (extents[i].begin < extents[i - 1].end) {
      problems.add(fmt::format("members {} and {} overlap", quote_name(entries[extents[i - 1].entry].name),
                               quote_name(entries[extents[i].entry].name)));
    }
  }
  uint64_t total = 0;  // cannot overflow once the members do not overlap: at most kDeflateRatio times the file
  for (const ZipEntry& e : entries) total += e.size;
  if (problems.empty() && total > kArchiveFree && total / kArchiveRatio > file_size) {
    problems.add(fmt::format("{} bytes are said to come from an archive of {}: a zip bomb", total, file_size));
  }
}

// Inflates `in` into exactly `out`; the reason why not, or "".
std::string inflate_all(Bytes in, std::span<std::byte> out) {
  z_stream z{};
  if (inflateInit2(&z, -MAX_WBITS) != Z_OK) throw Error(ErrorCode::kFailed, "[zip] out of memory");
  constexpr size_t kMost = std::numeric_limits<uInt>::max();
  size_t taken = 0, given = 0;
  int rc = Z_OK;
  std::byte none{};  // zlib wants a pointer even for no bytes
  while (rc == Z_OK) {
    const size_t can_take = std::min(in.size() - taken, kMost), can_give = std::min(out.size() - given, kMost);
    z.next_in = reinterpret_cast<Bytef*>(const_cast<std::byte*>(can_take ? in.data() + taken : &none));
    z.avail_in = static_cast<uInt>(can_take);
    z.next_out = reinterpret_cast<Bytef*>(can_give ? out.data() + given : &none);
    z.avail_out = static_cast<uInt>(can_give);
    rc = inflate(&z, Z_NO_FLUSH);
    taken += can_take - z.avail_in;
    given += can_give - z.avail_out;
  }
  inflateEnd(&z);
  if (rc == Z_STREAM_END && taken == in.size() && given == out.size()) return "";
  if (rc == Z_MEM_ERROR) throw Error(ErrorCode::kFailed, "[zip] out of memory");
  if (rc == Z_STREAM_END || rc == Z_BUF_ERROR) {
    return fmt::format("its data ends after {} of {} bytes, {} of {} inflated", taken, in.size(), given, out.size());
  }
  return "its compressed data is corrupt";
}

}  // namespace

bool looks_like_zip(Bytes file) { return file.size() >= 4 && load_le<uint32_t>(file.data()) == kLocal; }

std::vector<ZipEntry> list_zip(Bytes file, const std::string& what) {
  const Directory d = find_directory(file, what);
  std::vector<ZipEntry> entries;
  std::vector<Extent> extents;
  std::unordered_set<std::string> names;
  Problems problems;
  Bytes rest = file.subspan(d.offset, d.size);
  for (uint64_t i = 0; i < d.entries; ++i) {
    const std::byte* p = rest.data();
    if (rest.size() < kCentralSize || load_le<uint32_t>(p) != kCentral) {
      problems.add(fmt::format("the central directory is broken at member {} of {}", i, d.entries));
      break;
    }
    const size_t name = load_le<uint16_t>(p + 28), extra = load_le<uint16_t>(p + 30),
                 comment = load_le<uint16_t>(p + 32);
    if (rest.size() - kCentralSize < name + extra + comment) {
      problems.add(fmt::format("the central directory is broken at member {} of {}", i, d.entries));
      break;
    }
    ZipEntry e;
    e.name = text_of(rest.subspan(kCentralSize, name));
    e.method = load_le<uint16_t>(p + 10);
    e.crc = load_le<uint32_t>(p + 16);
    e.compressed_size = load_le<uint32_t>(p + 20);
    e.size = load_le<uint32_t>(p + 24);
    uint64_t start = load_le<uint32_t>(p + 42);
    const bool sizes_ok = read_zip64(rest.subspan(kCentralSize + name, extra), e.size, e.compressed_size, start);
    std::string why = sizes_ok ? check_claims(e, load_le<uint16_t>(p + 8)) : "its extra fields are malformed";
    if (why.empty()) why = check_local(file, start, d.offset, e);
    if (why.empty() && !names.insert(e.name).second) why = "its name occurs twice";
    rest = rest.subspan(kCentralSize + name + extra + comment);
    if (!why.empty()) {
      problems.add(fmt::format("member {}: {}", quote_name(e.name), why));
    } else if (!e.name.ends_with('/')) {
      extents.push_back({start, e.offset + e.compressed_size, entries.size()});
      entries.push_back(std::move(e));
    }
  }
  check_extents(std::move(extents), entries, file.size(), problems);
  problems.throw_if_any("zip", what);
  return entries;
}

Bytes stored_bytes(Bytes file, const ZipEntry& e, const std::string& what) {
  if (e.method != ZipEntry::kStored)
    fail_data(fmt::format("[zip] {}: member {} is compressed", what, quote_name(e.name)));
  return file.subspan(e.offset, e.size);
}

std::vector<std::byte> extract_zip(Bytes file, const ZipEntry& e, const std::string& what) {
  const Bytes data = file.subspan(e.offset, e.compressed_size);
  std::vector<std::byte> out(e.size);
  std::string why;
  if (e.method == ZipEntry::kStored) {
    std::ranges::copy(data, out.begin());
  } else {
    why = inflate_all(data, out);
  }
  if (why.empty()) {
    const auto crc = static_cast<uint32_t>(crc32_z(0, reinterpret_cast<const Bytef*>(out.data()), out.size()));
    if (crc != e.crc) why = fmt::format("its CRC is {:08x}, stated is {:08x}", crc, e.crc);
  }
  if (!why.empty()) fail_data(fmt::format("[zip] {}: member {}: {}", what, quote_name(e.name), why));
  return out;
}

}  // namespace krait::io
