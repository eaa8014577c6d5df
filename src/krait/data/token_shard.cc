#include "krait/data/token_shard.h"

#include <fmt/format.h>
#include <xxhash.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "krait/core/error.h"
#include "krait/data/shard_format.h"
#include "krait/io/bytes.h"

namespace krait::data {
namespace {

constexpr uint64_t kMost = uint64_t{1} << 56;  // of any count: sums of offsets stay far from 2^64

template <class Id>
int64_t copy_ids(const std::byte* from, std::span<int32_t> out, int64_t vocab_size) {
  uint32_t largest = 0;
  for (size_t i = 0; i < out.size(); ++i) {
    const uint32_t id = io::load_le<Id>(from + i * sizeof(Id));
    largest = std::max(largest, id);
    out[i] = static_cast<int32_t>(id);
  }
  return largest < vocab_size ? -1 : static_cast<int64_t>(largest);
}

}  // namespace

TokenShard::TokenShard(const std::filesystem::path& path, Verify verify) : file_(io::MappedFile::open(path)) {
  read_header();
  check_documents();
  if (verify == Verify::kEverything) check_payload();
}

void TokenShard::fail(const std::string& what) const { fail_data("[shard] " + path().string() + ": " + what); }

void TokenShard::read_header() {
  const auto bytes = file_->bytes();
  ShardHeader h;
  if (bytes.size() < sizeof h.magic || std::memcmp(bytes.data(), kShardMagic.data(), sizeof h.magic) != 0) {
    fail("it is no file of token ids (krait tokenize writes them)");
  }
  if (bytes.size() < sizeof h)
    fail(fmt::format("truncated: {} bytes, the header alone has {}", bytes.size(), sizeof h));
  std::memcpy(&h, bytes.data(), sizeof h);
  if (h.version != kShardVersion) fail(fmt::format("version {}, this program reads {}", h.version, kShardVersion));
  if (h.header_checksum != XXH3_64bits(&h, offsetof(ShardHeader, header_checksum))) fail("the header is corrupt");
  if ((h.id_bits != 16 && h.id_bits != 32) || (h.flags & ~kShardHasMask) != 0 || h.reserved != ShardHeader{}.reserved) {
    fail(fmt::format("ids of {} bits with flags {:#x} are not known", h.id_bits, h.flags));
  }
  if (h.n_tokens > kMost || h.n_documents > h.n_tokens || (h.n_documents == 0 && h.n_tokens != 0)) {
    fail(fmt::format("{} tokens in {} documents", h.n_tokens, h.n_documents));
  }
  if (h.vocab_size == 0 || h.vocab_size > uint64_t{1} << 31) fail(fmt::format("a vocabulary of {}", h.vocab_size));
  const ShardLayout layout = shard_layout(h);
  if (layout.end != bytes.size()) {
    fail(fmt::format("{}: {} bytes, {} tokens in {} documents take {}",
                     bytes.size() < layout.end ? "truncated" : "too long", bytes.size(), h.n_tokens, h.n_documents,
                     layout.end));
  }
  n_tokens_ = static_cast<int64_t>(h.n_tokens);
  n_documents_ = static_cast<int64_t>(h.n_documents);
  vocab_size_ = static_cast<int64_t>(h.vocab_size);
  tokenizer_hash_ = h.tokenizer_hash;
  checksum_ = h.payload_checksum;
  id_bytes_ = static_cast<int>(h.id_bits / 8);
  documents_ = bytes.data() + layout.documents;
  ids_ = bytes.data() + layout.ids;
  if ((h.flags & kShardHasMask) != 0) mask_ = bytes.data() + layout.mask;
}

void TokenShard::check_documents() const {
  for (int64_t d = 0; d < n_documents_; ++d) {
    const auto begin = io::load_le<uint64_t>(documents_ + 8 * d), end = io::load_le<uint64_t>(documents_ + 8 * (d + 1));
    if (begin >= end || end > static_cast<uint64_t>(n_tokens_)) {
      fail(fmt::format("document {} of {} goes from token {} to {} of {}", d, n_documents_, begin, end, n_tokens_));
    }
  }
  if (document_begin(0) != 0 || document_begin(n_documents_) != n_tokens_) {
    fail(fmt::format("the documents go from token {} to {}, there are {}", document_begin(0),
                     document_begin(n_documents_), n_tokens_));
  }
}

void TokenShard::check_payload() const {
  constexpr size_t kPart = size_t{8} << 20;  // pages that were checked may leave memory: a corpus may be larger
  const auto payload = file_->bytes().subspan(sizeof(ShardHeader));
  XXH3_state_t* hash = XXH3_createState();
  XXH3_64bits_reset(hash);
  for (size_t at = 0; at < payload.size(); at += kPart) {
    const auto part = payload.subspan(at, std::min(kPart, payload.size() - at));
    XXH3_64bits_update(hash, part.data(), part.size());
    io::MappedFile::release_pages(part.data(), part.size());
  }
  const uint64_t sum = XXH3_64bits_digest(hash);
  XXH3_freeState(hash);
  if (sum != checksum_) fail(fmt::format("corrupt: its checksum is {:016x}, the header says {:016x}", sum, checksum_));
  std::vector<int32_t> ids(1 << 16);
  for (int64_t at = 0; at < n_tokens_;) {
    const auto n = std::min<int64_t>(static_cast<int64_t>(ids.size()), n_tokens_ - at);
    read_ids(at, std::span(ids).first(static_cast<size_t>(n)));
    io::MappedFile::release_pages(ids_ + at * id_bytes_, static_cast<size_t>(n * id_bytes_));
    at += n;
  }
}

int64_t TokenShard::document_begin(int64_t d) const {
  return static_cast<int64_t>(io::load_le<uint64_t>(documents_ + 8 * d));
}

void TokenShard::read_ids(int64_t first, std::span<int32_t> out) const {
  const std::byte* from = ids_ + first * id_bytes_;
  const int64_t wrong =
      id_bytes_ == 2 ? copy_ids<uint16_t>(from, out, vocab_size_) : copy_ids<uint32_t>(from, out, vocab_size_);
  if (wrong < 0) return;
  const auto at = std::ranges::find(out, static_cast<int32_t>(wrong)) - out.begin();
  fail(fmt::format("token {} has id {}, the vocabulary has {}", first + at, wrong, vocab_size_));
}

void TokenShard::read_weights(int64_t first, std::span<float> out) const {
  for (size_t i = 0; i < out.size(); ++i) {
    const auto t = static_cast<uint64_t>(first) + i;
    const bool learned = mask_ == nullptr || (static_cast<unsigned>(mask_[t / 8]) >> (t % 8) & 1) != 0;
    out[i] = learned ? 1.0f : 0.0f;
  }
}

}  // namespace krait::data
