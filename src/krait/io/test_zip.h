// For tests: builds zip archives, whose every claim can be falsified afterwards.
#pragma once
#include <zlib.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace krait::io {

class TestZip {
 public:
  struct Member {
    std::string name, data;  // as in the file, compressed if need be
    uint16_t method = 0, flags = 0;
    uint32_t size = 0, crc = 0;
  };

  static std::string deflate_raw(std::string_view content) {
    z_stream z{};
    deflateInit2(&z, 9, Z_DEFLATED, -MAX_WBITS, 9, Z_DEFAULT_STRATEGY);
    std::string out(deflateBound(&z, content.size()), '\0');
    z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(content.data()));
    z.avail_in = static_cast<uInt>(content.size());
    z.next_out = reinterpret_cast<Bytef*>(out.data());
    z.avail_out = static_cast<uInt>(out.size());
    deflate(&z, Z_FINISH);
    out.resize(z.total_out);
    deflateEnd(&z);
    return out;
  }

  Member& add(const std::string& name, std::string_view content, bool compress = false) {
    const auto* bytes = reinterpret_cast<const Bytef*>(content.data());
    const auto crc = static_cast<uint32_t>(crc32_z(0, bytes, content.size()));
    members_.push_back({name, compress ? deflate_raw(content) : std::string(content), uint16_t(compress ? 8 : 0), 0,
                        static_cast<uint32_t>(content.size()), crc});
    return members_.back();
  }

  // zip64: sizes, offsets and the end record in their 64-bit forms.
  std::string str(bool zip64 = false, std::string_view comment = "") const {
    std::string out, central;
    for (const Member& m : members_) {
      const uint64_t start = out.size();
      put(out, 4, 0x04034b50), put(out, 2, zip64 ? 45 : 20), put_common(out, m, zip64);
      put(out, 2, zip64 ? 20 : 0);
      out += m.name;
      if (zip64) put(out, 2, 1), put(out, 2, 16), put(out, 8, m.size), put(out, 8, m.data.size());
      out += m.data;
      put(central, 4, 0x02014b50), put(central, 2, 45), put(central, 2, zip64 ? 45 : 20), put_common(central, m, zip64);
      put(central, 2, zip64 ? 28 : 0), put(central, 2, 0), put(central, 2, 0), put(central, 2, 0), put(central, 4, 0);
      put(central, 4, zip64 ? 0xFFFFFFFF : start);
      central += m.name;
      if (zip64) {
        put(central, 2, 1), put(central, 2, 24);
        put(central, 8, m.size), put(central, 8, m.data.size()), put(central, 8, start);
      }
    }
    const uint64_t at = out.size(), n = members_.size();
    out += central;
    if (zip64) {
      const uint64_t end64 = out.size();
      put(out, 4, 0x06064b50), put(out, 8, 44), put(out, 2, 45), put(out, 2, 45), put(out, 4, 0), put(out, 4, 0);
      put(out, 8, n), put(out, 8, n), put(out, 8, central.size()), put(out, 8, at);
      put(out, 4, 0x07064b50), put(out, 4, 0), put(out, 8, end64), put(out, 4, 1);
    }
    put(out, 4, 0x06054b50), put(out, 2, 0), put(out, 2, 0);
    put(out, 2, zip64 ? 0xFFFF : n), put(out, 2, zip64 ? 0xFFFF : n);
    put(out, 4, zip64 ? 0xFFFFFFFF : central.size()), put(out, 4, zip64 ? 0xFFFFFFFF : at);
    put(out, 2, comment.size());
    return out.append(comment);
  }

 private:
  static void put(std::string& s, int bytes, uint64_t v) {
    for (int i = 0; i < bytes; ++i) s += static_cast<char>(v >> (8 * i) & 0xFF);
  }
  static void put_common(std::string& s, const Member& m, bool zip64) {
    put(s, 2, m.flags), put(s, 2, m.method), put(s, 4, 0), put(s, 4, m.crc);
    put(s, 4, zip64 ? 0xFFFFFFFF : m.data.size()), put(s, 4, zip64 ? 0xFFFFFFFF : m.size);
    put(s, 2, m.name.size());
  }
  std::vector<Member> members_;
};

}  // namespace krait::io
