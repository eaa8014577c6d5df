// States of whole models: snapshot, restore, files, marks, slots.
#include <gmock/gmock.h>
#include <unistd.h>
#include <xxhash.h>

#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <limits>

#include "krait/core/error.h"
#include "krait/infer/state_pool.h"
#include "krait/io/test_folder.h"
#include "tests/tiny_models.h"

namespace krait::test {
namespace {

std::string bytes_of(const State& s) {
  std::string out;
  encode_state(s, [&](const void* p, size_t n) { out.append(static_cast<const char*>(p), n); });
  return out;
}

State parse(const std::string& bytes) { return parse_state(std::as_bytes(std::span(bytes)), "test"); }

// Size and checksum as if the bytes had been written so.
std::string sealed(std::string bytes) {
  const uint64_t size = bytes.size();
  std::memcpy(bytes.data() + 16, &size, sizeof size);
  const uint64_t sum = XXH3_64bits(bytes.data(), bytes.size() - 8);
  std::memcpy(bytes.data() + bytes.size() - 8, &sum, sizeof sum);
  return bytes;
}

// The message of the kBadData that `f` throws.
template <class F>
std::string refusal(F&& f) {
  try {
    f();
  } catch (const Error& e) {
    EXPECT_EQ(e.code(), ErrorCode::kBadData) << e.what();
    return e.what();
  }
  return "nothing was thrown";
}

State state_after(const Model& m, std::span<const int32_t> ids) {
  StatePool pool(m, 1);
  Sequence s(pool);
  s.read(ids);
  return s.state();
}

class States : public testing::TestWithParam<std::string> {
 protected:
  std::unique_ptr<Model> model_ = tiny_model(GetParam());
  std::vector<int32_t> ids_ = random_ids(40, 29, 3);
};

TEST_P(States, TrapA10_ShortPrompts) {
  // Prompts of 0 .. d_conv + 1 tokens through a file, then decoding.
  const Tensor want = all_logits(*model_, ids_);
  for (size_t n = 0; n <= 6; ++n) {
    const State s = parse(bytes_of(state_after(*model_, std::span(ids_).first(n))));
    EXPECT_EQ(s.position(), static_cast<int64_t>(n));
    EXPECT_EQ(s.head.last_logits.defined(), n > 0);
    StatePool pool(*model_, 1);
    Sequence go_on(pool, s);
    for (size_t t = n; t < 10; ++t) {
      const Tensor& l = go_on.read(std::span(ids_).subspan(t, 1));
      EXPECT_EQ(std::memcmp(l.f32(), want.f32() + t * 32, 32 * 4), 0) << n << " then token " << t;
    }
  }
}

TEST_P(States, TrapA5_ResumedFromAFileEqualsUninterrupted) {
  const io::TestFolder folder;
  const State whole = state_after(*model_, ids_);
  for (size_t cut = 0; cut <= ids_.size(); ++cut) {
    write_state(folder / "s", state_after(*model_, std::span(ids_).first(cut)));
    StatePool pool(*model_, 1);
    Sequence s(pool, read_state(folder / "s"));
    s.read(std::span(ids_).subspan(cut));
    EXPECT_TRUE(s.state() == whole) << "cut at " << cut;
  }
}

TEST_P(States, TrapA11_LiveStateIsNeverRoundedToTheWeightsType) {
  for (const DType t : {DType::kF32, DType::kBF16, DType::kF16}) {
    for (const StateSpec& spec : tiny_model(GetParam(), t)->state_specs())
      for (const StateTensorSpec& x : spec) EXPECT_TRUE(x.dtype == DType::kF32 || x.dtype == DType::kI32) << x.name;
  }
}

TEST_P(States, TrapE3_FileHoldsLogitsAndSampler) {
  State s = state_after(*model_, ids_);
  s.head.rng = {11, 22, 33};
  const State back = parse(bytes_of(s));
  EXPECT_TRUE(back == s);
  EXPECT_EQ(back.head.rng, (RngState{11, 22, 33}));
  EXPECT_EQ(back.head.history, s.head.history);
  EXPECT_EQ(back.head.last_logits.numel(), 32);
}

TEST_P(States, TrapE13_RewindIsExactOrAnError) {
  StatePool pool(*model_, 2);
  Sequence s(pool);
  s.rng() = {5, 6, 7};
  s.read(std::span(ids_).first(10));
  s.mark();
  const State at10 = s.state();
  s.read(std::span(ids_).subspan(10, 7));
  s.rng().counter = 99;
  s.mark();
  s.read(std::span(ids_).subspan(17));
  EXPECT_EQ(s.marks(), (std::vector<int64_t>{10, 17}));
  for (const int64_t beyond : {0, 9, 11, 16, 39, 40, 41, -1}) {
    const State before = s.state();
    try {
      s.rewind(beyond);
      FAIL() << "rewound to " << beyond << ", which was not kept";
    } catch (const Error& e) {
      EXPECT_EQ(e.code(), ErrorCode::kUsage);
      EXPECT_THAT(e.what(), testing::HasSubstr("marks: 10, 17"));
    }
    EXPECT_TRUE(s.state() == before) << "a refused rewind changes nothing";
  }
  s.rewind(17);
  EXPECT_EQ(s.rng().counter, 99u);
  s.rewind(10);
  EXPECT_TRUE(s.state() == at10);
  EXPECT_EQ(s.marks(), std::vector<int64_t>{10}) << "17 belongs to tokens that are gone";
  s.read(std::span(ids_).subspan(10));
  EXPECT_EQ(diff(s.state(), state_after(*model_, ids_)).header, (std::vector<std::string>{"seed", "stream", "draws"}));
  s.rewind(10);
  EXPECT_TRUE(s.state() == at10) << "any number of times";
}

TEST_P(States, TrapE10_RemovingTheMiddleIsAnError) {
  // The only way back is a mark; a rewind to inside the text, as a cut there would need, is refused (see E13).
  StatePool pool(*model_, 1);
  Sequence s(pool);
  s.read(ids_);
  EXPECT_THROW(s.rewind(20), Error);
  EXPECT_EQ(s.position(), 40);
}

TEST_P(States, TrapE11_SlotsAndMarksGoBack) {
  StatePool pool(*model_, 8);
  {
    Sequence a(pool);
    a.read(ids_);
    a.mark();
    EXPECT_EQ(a.mark_bytes(), a.state().nbytes());
    std::vector<Sequence> forks;
    for (int i = 0; i < 7; ++i) forks.push_back(a.fork());
    EXPECT_EQ(pool.free_slots(), 0);
    EXPECT_THROW(a.fork(), Error);
    EXPECT_THROW(Sequence{pool}, Error);
    for (const Sequence& f : forks) EXPECT_TRUE(f.state() == a.state());
    forks.erase(forks.begin(), forks.begin() + 3);
    EXPECT_EQ(pool.free_slots(), 3);
    a.drop_mark(40);
    EXPECT_EQ(a.mark_bytes(), 0);
    EXPECT_THROW(a.drop_mark(40), Error);
    // A state of another model leaves no slot behind.
    const auto other = tiny_model(GetParam(), DType::kF32, 2);
    EXPECT_THROW(Sequence(pool, state_after(*other, ids_)), Error);
    EXPECT_EQ(pool.free_slots(), 3);
  }
  EXPECT_EQ(pool.free_slots(), 8);
}

TEST_P(States, ForksAreIndependent) {
  StatePool pool(*model_, 2);
  Sequence a(pool);
  a.read(std::span(ids_).first(20));
  const State before = a.state();
  Sequence b = a.fork();
  b.read(std::span(ids_).subspan(20));
  EXPECT_TRUE(a.state() == before);
  EXPECT_TRUE(b.state() == state_after(*model_, ids_));
}

TEST_P(States, OtherModelsAreRefusedWithTheReason) {
  const State s = state_after(*model_, ids_);
  for (const std::string& name : tiny_names()) {
    for (const DType t : {DType::kF32, DType::kBF16}) {
      if (name == GetParam() && t == DType::kF32) continue;
      const auto other = tiny_model(name, t);
      StatePool pool(*other, 1);
      EXPECT_THAT(refusal([&] { Sequence(pool, s); }), testing::HasSubstr("belongs to another model"));
    }
  }
  State shape = s;
  shape.specs[0][0].name = "renamed";
  StatePool pool(*model_, 1);
  EXPECT_THAT(refusal([&] { Sequence(pool, shape); }), testing::HasSubstr("does not fit the model"));
  State logits = s;
  logits.head.last_logits = Tensor::zeros({31});
  EXPECT_THAT(refusal([&] { Sequence(pool, logits); }), testing::HasSubstr("31 logits"));
}

TEST_P(States, EveryTruncationAndEveryFlippedByteIsRefused) {
  const std::string good = bytes_of(state_after(*model_, ids_));
  const size_t step = std::max<size_t>(1, good.size() / 997);
  for (size_t n = 0; n < good.size(); n += n < 600 ? 1 : step) {
    EXPECT_NE(refusal([&] { parse(good.substr(0, n)); }), "nothing was thrown") << n;
    std::string bad = good;
    bad[n] = static_cast<char>(bad[n] ^ 0x10);
    EXPECT_NE(refusal([&] { parse(bad); }), "nothing was thrown") << "byte " << n;
  }
  EXPECT_THAT(refusal([&] { parse(good.substr(0, good.size() / 2)); }), testing::HasSubstr("truncated"));
  EXPECT_THAT(refusal([&] { parse(good + "x"); }), testing::HasSubstr("too long"));
}

TEST_P(States, TrapC15_HostileFilesAreRefused) {
  // Right size and checksum, wrong content: every byte of the header and the specs set to extremes.
  const std::string good = bytes_of(state_after(*model_, ids_));
  int refused = 0;
  for (size_t n = 0; n < std::min<size_t>(good.size() - 8, 1500); ++n) {
    for (const int v : {0x00, 0x7F, 0x80, 0xFF}) {
      std::string bad = good;
      bad[n] = static_cast<char>(v);
      bad = sealed(bad);
      try {
        const State s = parse(bad);
        EXPECT_EQ(bytes_of(s), bad) << "what is accepted says exactly what the file says; byte " << n;
      } catch (const Error& e) {
        EXPECT_EQ(e.code(), ErrorCode::kBadData);
        ++refused;
      }
    }
  }
  EXPECT_GT(refused, 500);
}

TEST_P(States, WhatAStrangerBringsIsLookedAt) {
  const State good = state_after(*model_, ids_);
  check_foreign(*model_, good);
  State logits = parse(bytes_of(good));
  logits.head.last_logits.f32()[3] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THAT(refusal([&] { check_foreign(*model_, logits); }), testing::HasSubstr("row of logits"));
  State tensor = parse(bytes_of(good));
  for (StateView& block : tensor.blocks) {
    for (Tensor& t : block) {
      if (t.dtype() == DType::kF32) t.f32()[t.numel() - 1] = std::numeric_limits<float>::infinity();
    }
  }
  EXPECT_THAT(refusal([&] { check_foreign(*model_, tensor); }), testing::HasSubstr("not finite"));
  State token = parse(bytes_of(good));
  token.head.history = TokenHistory();
  token.head.history.push(static_cast<int32_t>(model_->vocab_size()));
  EXPECT_THAT(refusal([&] { check_foreign(*model_, token); }), testing::HasSubstr("the vocabulary has"));
  State shape = parse(bytes_of(good));
  shape.specs[0][0].name = "renamed";
  EXPECT_THAT(refusal([&] { check_foreign(*model_, shape); }), testing::HasSubstr("does not fit the model"));
}

TEST_P(States, VersionIsChecked) {
  std::string bytes = bytes_of(state_after(*model_, ids_));
  bytes[8] = 2;
  EXPECT_THAT(refusal([&] { parse(sealed(bytes)); }), testing::HasSubstr("format version 2"));
  EXPECT_THAT(refusal([&] { parse("something else altogether"); }), testing::HasSubstr("not a state file"));
}

TEST_P(States, DiffNamesWhatDiffers) {
  const State b = state_after(*model_, std::span(ids_).first(39));
  State a = state_after(*model_, ids_);
  EXPECT_TRUE(diff(a, a).equal());
  const StateDiff d = diff(a, b);
  EXPECT_FALSE(d.equal());
  EXPECT_EQ(d.header, (std::vector<std::string>{"position", "tokens"}));
  State c = a;
  c.blocks[0][0] = a.blocks[0][0].clone();
  // The first tensor of a Mamba-3 state holds phases: a quarter of a turn further, around the circle wherever it was.
  const bool phase = c.blocks[0][0].dtype() == DType::kI32;
  if (phase) {
    auto* ticks = c.blocks[0][0].data<int32_t>();
    ticks[0] = std::numeric_limits<int32_t>::max() - 5;
    a.blocks[0][0].data<int32_t>()[0] = ticks[0];
    ticks[0] = static_cast<int32_t>(static_cast<uint32_t>(ticks[0]) + (1U << 30));
  } else {
    c.blocks[0][0].f32()[0] += 1;
  }
  const StateDiff e = diff(c, a);
  EXPECT_TRUE(e.header.empty());
  for (size_t i = 0; i < e.tensors.size(); ++i) EXPECT_EQ(e.tensors[i].equal, i != 0);
  EXPECT_EQ(e.tensors[0].phase, phase);
  EXPECT_NEAR(e.tensors[0].max_abs, phase ? 0.25 : 1, 1e-6);
  EXPECT_GT(e.tensors[0].rms, 0);
  if (phase) {
    EXPECT_NEAR(e.tensors[0].rms, 0.25 / std::sqrt(c.blocks[0][0].numel()), 1e-9);
  }
  EXPECT_THAT(e.tensors[0].name, testing::StartsWith("0."));
}

INSTANTIATE_TEST_SUITE_P(Tiny, States, testing::ValuesIn(tiny_names()), [](const auto& i) { return i.param; });

TEST(StateFile, FixtureIsReadAndWrittenAgain) {
  const fs::path path = fs::path(KRAIT_SOURCE_DIR) / "tests/fixtures/conversation.state";
  const State s = read_state(path);
  EXPECT_EQ(s.position(), 3);
  EXPECT_EQ(s.head.last_logits.f32()[3], 3.0f);
  EXPECT_EQ(bytes_of(s), io::read_text(path));
}

}  // namespace
}  // namespace krait::test
