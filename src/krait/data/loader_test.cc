#include "krait/data/loader.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <xxhash.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <set>

#include "krait/data/permutation.h"
#include "krait/data/shard_format.h"
#include "krait/data/test_corpus.h"

namespace krait::data {
namespace {

std::vector<int64_t> random_lengths(int64_t n, int64_t most, uint64_t seed) {
  std::vector<int64_t> lengths;
  Rng rng(seed);
  for (int64_t i = 0; i < n; ++i) lengths.push_back(1 + static_cast<int64_t>(rng.below(static_cast<uint64_t>(most))));
  return lengths;
}

TEST(Permutation, ContainsEveryNumberOnce) {
  for (const int64_t n : {1, 2, 3, 4, 5, 16, 17, 1000, 4097}) {
    std::set<int64_t> seen;
    const Permutation order(n, 3, 5);
    for (int64_t i = 0; i < n; ++i) seen.insert(order.at(i));
    EXPECT_EQ(std::ssize(seen), n);
    EXPECT_GE(*seen.begin(), 0);
    EXPECT_LT(*seen.rbegin(), n);
  }
}

TEST(Permutation, LooksRandomAndChangesWithSeedAndEpoch) {
  constexpr int64_t kN = 1000, kOrders = 400;
  std::vector<int64_t> first, neighbours;
  int64_t same_as_next = 0;
  for (uint64_t e = 0; e < kOrders; ++e) {
    const Permutation order(kN, 1, e), next(kN, 1, e + 1);
    first.push_back(order.at(0));
    for (int64_t i = 0; i < kN; ++i) same_as_next += order.at(i) == next.at(i) ? 1 : 0;
    for (int64_t i = 1; i < kN; ++i) neighbours.push_back(order.at(i) - order.at(i - 1) == 1 ? 1 : 0);
  }
  // One position in n agrees by chance: 400 +- 20 over all orders; likewise neighbours that stay neighbours.
  EXPECT_NEAR(static_cast<double>(same_as_next), kOrders, 120);
  EXPECT_NEAR(static_cast<double>(std::ranges::count(neighbours, 1)), kOrders, 120);
  // Quarters of the range come up equally often in the first place: 100 +- 9.
  for (int64_t quarter = 0; quarter < 4; ++quarter) {
    EXPECT_NEAR(static_cast<double>(std::ranges::count_if(first, [&](int64_t x) { return x / 250 == quarter; })), 100,
                45);
  }
  EXPECT_NE(Permutation(kN, 1, 0).at(0), Permutation(kN, 2, 0).at(0));
}

TEST(Permutation, NeedsNoTable) {
  const int64_t n = int64_t{1} << 60;
  const Permutation order(n, 3, 5);
  std::set<int64_t> seen;
  for (int64_t i = 0; i < 100; ++i) seen.insert(order.at(n - 1 - i));
  EXPECT_EQ(seen.size(), 100u);
  EXPECT_LT(*seen.rbegin(), n);
}

TEST(Loader, ContiguousWindowsInOrder) {
  const TestCorpus c(random_lengths(50, 40, 1), 5000, 100);
  const Corpus corpus({c.place()});
  const Loader loader(corpus, {.length = 16, .shuffle = false});
  const std::vector<int32_t> all = c.joined();
  ASSERT_EQ(loader.epoch_samples(), (std::ssize(all) - 1) / 16);
  const Batch b = loader.samples({0, 0}, loader.epoch_samples());
  ASSERT_EQ(b.n_seqs(), loader.epoch_samples());
  for (size_t i = 0; i < b.ids.size(); ++i) {
    EXPECT_EQ(b.ids[i], all[i]);
    EXPECT_EQ(b.targets[i], all[i + 1]);
    EXPECT_EQ(b.weights[i], 1.0f);
    EXPECT_EQ(b.spans.offset[i / 16], static_cast<int64_t>(i / 16 * 16));
  }
}

// Where a token of the corpus stands; its ids are running numbers.
struct Owner {
  size_t document, token;
};
std::vector<Owner> owners(const TestCorpus& c) {
  std::vector<Owner> out;
  for (size_t d = 0; d < c.documents.size(); ++d) {
    for (size_t t = 0; t < c.documents[d].size(); ++t) out.push_back({d, t});
  }
  return out;
}

// Trap A6: packed documents do not leak: every sequence lies in one document, targets too, and together they are all of
// it, once.
TEST(Loader, TrapA6PackedSequencesNeverCrossDocuments) {
  for (const int64_t most : {3, 40, 200}) {
    const TestCorpus c(random_lengths(200, most, 7), 100000, 500, true);
    const Corpus corpus({c.place()});
    const std::vector<Owner> owner = owners(c);
    for (const bool shuffle : {false, true}) {
      const Loader loader(corpus, {.mode = LoaderMode::kPacked, .length = 32, .shuffle = shuffle, .seed = 3});
      std::vector<int> seen(owner.size());
      for (int64_t i = 0; i < loader.epoch_samples(); ++i) {
        const Batch b = loader.samples({0, i}, 1);
        EXPECT_LE(b.n_tokens(), 32);
        for (int64_t s = 0; s < b.n_seqs(); ++s) {
          const auto from = static_cast<size_t>(b.spans.offset[static_cast<size_t>(s)]);
          ASSERT_GT(b.spans.length(s), 0);
          EXPECT_EQ(b.spans.slot[static_cast<size_t>(s)], s);
          const size_t document = owner[static_cast<size_t>(b.ids[from])].document;
          const bool whole = c.documents[document].size() - 1 <= 32;
          if (whole) {
            EXPECT_EQ(b.spans.length(s), std::ssize(c.documents[document]) - 1);
          }
          for (size_t t = from; t < from + static_cast<size_t>(b.spans.length(s)); ++t) {
            const Owner target = owner[static_cast<size_t>(b.targets[t])];
            EXPECT_EQ(owner[static_cast<size_t>(b.ids[t])].document, document);
            EXPECT_EQ(target.document, document);
            EXPECT_EQ(b.targets[t], b.ids[t] + 1);
            EXPECT_EQ(b.weights[t], c.learned[document][target.token] != 0 ? 1.0f : 0.0f);
            ++seen[static_cast<size_t>(b.ids[t])];
          }
        }
      }
      for (size_t i = 0; i < seen.size(); ++i) {
        EXPECT_EQ(seen[i], owner[i].token + 1 < c.documents[owner[i].document].size() ? 1 : 0) << i;
      }
    }
  }
}

TEST(Loader, WindowsWithinDocumentsLeaveTheirEndsOut) {
  const TestCorpus c({33, 32, 100, 5}, 100000, 60);
  const Corpus corpus({c.place()});
  const Loader loader(corpus, {.mode = LoaderMode::kWindows, .length = 32, .shuffle = false});
  const Batch b = loader.samples({0, 0}, loader.epoch_samples());
  std::vector<int32_t> first;
  for (int64_t s = 0; s < b.n_seqs(); ++s) {
    EXPECT_EQ(b.spans.length(s), 32);
    first.push_back(b.ids[static_cast<size_t>(b.spans.offset[static_cast<size_t>(s)])]);
  }
  EXPECT_THAT(first, testing::ElementsAre(0, 65, 97, 129));  // documents begin at 0, 33, 65 and 165
}

TEST(Loader, TheMaskOfATargetIsItsOwn) {
  TestCorpus c({20}, 100, 60, true);
  const Corpus corpus({c.place()});
  const Batch b = Loader(corpus, {.length = 19}).samples({}, 1);
  for (size_t t = 0; t < 19; ++t) EXPECT_EQ(b.weights[t], c.learned[0][t + 1] != 0 ? 1.0f : 0.0f);
}

TEST(Loader, EpochsAreDifferentOrdersOfTheSameSamples) {
  const TestCorpus c(random_lengths(50, 40, 1), 5000, 100);
  const Corpus corpus({c.place()});
  const Loader loader(corpus, {.length = 16, .seed = 9}), other(corpus, {.length = 16, .seed = 10});
  const int64_t n = loader.epoch_samples();
  const auto firsts = [n](const Loader& l, int64_t epoch) {
    std::vector<int32_t> ids;
    for (int64_t i = 0; i < n; ++i) ids.push_back(l.samples({epoch, i}, 1).ids[0]);
    return ids;
  };
  EXPECT_NE(firsts(loader, 0), firsts(loader, 1));
  EXPECT_NE(firsts(loader, 0), firsts(other, 0));
  EXPECT_THAT(firsts(loader, 0), testing::UnorderedElementsAreArray(firsts(loader, 1)));
}

// Trap B9: the order of the data is a function of the seed and the position: resuming, accumulating and sharing among
// ranks give the same bits, over the end of an epoch too.
TEST(Loader, TrapB9ResumedRunsSeeBitEqualBatches) {
  const TestCorpus c(random_lengths(300, 40, 2), 5000, 1000);
  for (const LoaderMode mode : {LoaderMode::kContiguous, LoaderMode::kPacked, LoaderMode::kWindows}) {
    const Corpus corpus({c.place()}), again({c.place()});
    const LoaderOptions options{.mode = mode, .length = 16, .seed = 4};
    const Loader loader(corpus, options), resumed(again, options);
    ASSERT_EQ(loader.fingerprint(), resumed.fingerprint());
    Position at;
    std::vector<Batch> batches;
    std::vector<Position> places;
    for (int step = 0; step < 30; ++step, at = loader.advance(at, 32)) {
      places.push_back(at);
      batches.push_back(loader.batch(at, 32, {}));
    }
    EXPECT_GT(at.epoch, 0);
    for (size_t step = 11; step < batches.size(); ++step) {
      EXPECT_EQ(resumed.batch(places[step], 32, {}), batches[step]) << step;
      std::vector<int32_t> parts;
      for (int64_t micro = 0; micro < 4; ++micro) {
        const Batch part = resumed.batch(places[step], 32, {.micro = micro, .n_micro = 4});
        parts.insert(parts.end(), part.ids.begin(), part.ids.end());
      }
      EXPECT_EQ(parts, batches[step].ids) << step;
    }
  }
}

// Trap B1: offsets beyond 32 bits. A shard of 2^32 + 100 tokens, all 0 (a hole in the file) but the last ten.
TEST(Loader, TrapB1TokensBeyond32BitsAreFound) {
  constexpr uint64_t kTokens = (uint64_t{1} << 32) + 100;
  ShardHeader h{.n_tokens = kTokens, .n_documents = 2, .vocab_size = 100};
  h.header_checksum = XXH3_64bits(&h, offsetof(ShardHeader, header_checksum));
  const ShardLayout layout = shard_layout(h);
  const std::array<uint64_t, 3> documents{0, kTokens - 9, kTokens};
  const std::array<uint16_t, 10> last{10, 11, 12, 13, 14, 15, 16, 17, 18, 19};
  const io::TestFolder folder;
  const auto file = folder.write("big.ktok", {reinterpret_cast<const char*>(&h), sizeof h});
  std::fstream out(file, std::ios::in | std::ios::out | std::ios::binary);
  out.seekp(static_cast<std::streamoff>(layout.documents));
  out.write(reinterpret_cast<const char*>(documents.data()), sizeof documents);
  out.seekp(static_cast<std::streamoff>(layout.end - sizeof last));
  out.write(reinterpret_cast<const char*>(last.data()), sizeof last);
  out.close();
  const Corpus corpus({file.string()}, Verify::kStructure);
  const Loader windows(corpus, {.length = 1 << 20, .shuffle = false}),
      packed(corpus, {.mode = LoaderMode::kPacked, .length = 1 << 20, .shuffle = false});
  EXPECT_EQ(windows.epoch_samples(), 4096);
  std::vector<int32_t> ids(10);
  corpus.read_ids(static_cast<int64_t>(kTokens) - 10, ids);
  EXPECT_THAT(ids, testing::ElementsAreArray(last));
  const Batch b = packed.samples({0, packed.epoch_samples() - 1}, 1);  // the end of the first document, and the second
  ASSERT_EQ(b.n_seqs(), 2);
  EXPECT_EQ(b.targets[static_cast<size_t>(b.spans.offset[1]) - 1], 10);
  EXPECT_THAT(std::vector(b.ids.end() - 8, b.ids.end()), testing::ElementsAre(11, 12, 13, 14, 15, 16, 17, 18));
}

TEST(Loader, FingerprintTellsOptionsAndDataApart) {
  const TestCorpus c({100}, 5000, 1000), d({101}, 5000, 1000);
  const Corpus corpus({c.place()}), other({d.place()});
  std::set<uint64_t> prints;
  for (const LoaderOptions& o :
       std::vector<LoaderOptions>{{}, {.seed = 1}, {.shuffle = false}, {.mode = LoaderMode::kPacked}}) {
    LoaderOptions options = o;
    for (const int64_t length : {8, 9}) {
      options.length = length;
      prints.insert(Loader(corpus, options).fingerprint());
      prints.insert(Loader(other, options).fingerprint());
    }
  }
  EXPECT_EQ(prints.size(), 16u);
}

TEST(Loader, ACorpusWithoutASampleIsRefused) {
  const TestCorpus c({16}, 5000, 1000);
  const Corpus corpus({c.place()});
  EXPECT_EQ(Loader(corpus, {.length = 15}).epoch_samples(), 1);
  EXPECT_THAT(io::bad_data([&] { Loader(corpus, {.length = 16}); }), testing::HasSubstr("16 tokens in 1 documents"));
  io::message_of(ErrorCode::kUsage, [&] { Loader(corpus, {.length = 0}); });
}

}  // namespace
}  // namespace krait::data
