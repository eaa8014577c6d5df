#include "krait/serve/cache/conversations.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <thread>
#include <utility>

#include "krait/core/rng.h"
#include "krait/io/test_folder.h"
#include "krait/serve/cache/disk_store.h"
#include "krait/serve/cache/redis_connection.h"
#include "krait/serve/cache/store_test.h"
#include "krait/serve/cache/test_redis.h"
#include "krait/serve/cache/test_state.h"

namespace krait::serve {
namespace {

namespace fs = std::filesystem;
using std::chrono::seconds;
using Ids = std::vector<int32_t>;

Turn turn(int32_t n) {
  Turn t;
  t.response_id = "resp-" + std::to_string(n);
  t.created = 1000 + n;
  t.prompt = {n, n + 1, n + 2};
  t.answer = {-n & 0xffff, 5};
  t.user = "question " + std::to_string(n);
  t.assistant = "answer";
  return t;
}

constexpr uint64_t kAdapted = kTestModel + 1;  // the same model with an adapter

// One server process: its memory, over stores that outlive it.
struct Replica {
  explicit Replica(Store* local, Store* shared, const Clock& clock, int64_t max_bytes = 1 << 26,
                   std::chrono::milliseconds lease = seconds(15))
      : cache({.max_bytes = max_bytes, .ttl = seconds(3600), .spill = {}, .fetch = {}}, clock),
        conversations({.model = kTestModel, .adapted = {kAdapted, kAdapted + 1}, .lease = lease}, cache, local, shared,
                      clock) {}

  // A whole turn as a service does it, with the state computed from what was found.
  PrefixHit say(const std::string& tenant, const std::string& id, int32_t n, uint64_t model = kTestModel) {
    const auto h = conversations.hold(tenant, id, model);
    const Turn t = turn(n);
    PrefixHit hit = h->find(t.prompt);
    h->commit(t, end_state(hit, h->conversation(), t));
    return hit;
  }
  static std::shared_ptr<const State> end_state(const PrefixHit& hit, const Conversation& c, const Turn& t) {
    Ids ids = c.ids();
    ids.insert(ids.end(), t.prompt.begin(), t.prompt.end());
    ids.insert(ids.end(), t.answer.begin(), t.answer.end());
    if (c.imported == 0) return test_state(ids, 4, c.model);
    auto s = std::make_shared<State>(*hit.state);
    s->head.history.push(std::span(ids).subspan(static_cast<size_t>(hit.length - c.imported)));
    return s;
  }

  PrefixCache cache;
  Conversations conversations;
};

void expect_turns(const Conversation& c, const std::vector<int32_t>& want) {
  ASSERT_EQ(c.turns.size(), want.size());
  EXPECT_EQ(c.n_turns, want.size());
  for (size_t i = 0; i < want.size(); ++i) {
    const Turn t = turn(want[i]);
    EXPECT_EQ(c.turns[i].response_id, t.response_id);
    EXPECT_EQ(c.turns[i].created, t.created);
    EXPECT_EQ(c.turns[i].prompt, t.prompt);
    EXPECT_EQ(c.turns[i].answer, t.answer);
    EXPECT_EQ(c.turns[i].user, t.user);
    EXPECT_EQ(c.turns[i].assistant, t.assistant);
  }
}

// Everything that does not depend on where conversations are kept.
void check_conversations(Replica& r, TestClock& clock) {
  Conversations& cs = r.conversations;
  EXPECT_EQ(refusal([&] { cs.hold("t", "a"); }), "404 conversation_not_found");
  EXPECT_EQ(refusal([&] { cs.get("t", "a"); }), "404 conversation_not_found");
  for (const char* bad : {"", "..", "a/b", "a b", "\xc3\xa4"}) {
    EXPECT_EQ(refusal([&] { cs.hold("t", bad, kTestModel); }), "400 invalid_value");
    EXPECT_EQ(refusal([&] { cs.find_response("t", bad); }), "400 invalid_value");
  }
  {
    const auto h = cs.hold("t", "a", kTestModel);
  }
  EXPECT_EQ(refusal([&] { cs.get("t", "a"); }), "404 conversation_not_found");  // nothing was committed
  EXPECT_EQ(cs.active(), 0);

  EXPECT_EQ(r.say("t", "a", 1).length, 0);
  for (int32_t n = 2; n <= 6; ++n) {
    clock.pass(seconds(1));
    const PrefixHit hit = r.say("t", "a", n);
    EXPECT_EQ(hit.length, 5 * (n - 1));  // all that was said before
    EXPECT_EQ(hit.reason, MissReason::kUnknown);
  }
  expect_turns(cs.get("t", "a"), {1, 2, 3, 4, 5, 6});
  EXPECT_EQ(cs.get("t", "a").tokens(), 30);
  EXPECT_EQ(cs.get("t", "a").ids(2, true).size(), 8);
  {
    const auto h = cs.hold("t", "a");
    EXPECT_EQ(refusal([&] { cs.hold("t", "a", kTestModel); }), "409 conversation_busy");
    EXPECT_EQ(refusal([&] { cs.rewind("t", "a", 1); }), "409 conversation_busy");
    EXPECT_EQ(refusal([&] { cs.erase("t", "a"); }), "409 conversation_busy");
    EXPECT_EQ(h->find({}).reason, MissReason::kNone);
    expect_turns(cs.get("t", "a"), {1, 2, 3, 4, 5, 6});
    EXPECT_THROW(h->commit(turn(9), test_state(Ids{1, 2, 3})), Error);  // a state of something else
    EXPECT_EQ(h->conversation().turns.size(), 6);
  }

  // Another tenant has nothing of it, and a conversation of the same name is its own.
  EXPECT_EQ(refusal([&] { cs.get("u", "a"); }), "404 conversation_not_found");
  EXPECT_EQ(refusal([&] { cs.find_response("u", "resp-1"); }), "404 response_not_found");
  EXPECT_EQ(r.say("u", "a", 1).known, 0);
  expect_turns(cs.get("t", "a"), {1, 2, 3, 4, 5, 6});

  EXPECT_EQ(cs.find_response("t", "resp-2").turns, 2);
  for (const size_t n : {size_t{0}, size_t{2}, size_t{6}}) {
    const ConversationEnd end = cs.end("t", {"a", n});
    EXPECT_TRUE(std::ranges::equal(end.ids, cs.get("t", "a").ids(n)));
    EXPECT_EQ(end.mark.position, 5 * static_cast<int64_t>(n));
    EXPECT_EQ(end.last_response, n == 0 ? "" : "resp-" + std::to_string(n));
    EXPECT_EQ(end.is_last, n == 6);
  }
  EXPECT_EQ(refusal([&] { cs.end("t", {"a", 7}); }), "404 no_such_turn");
  EXPECT_EQ(cs.find_response("t", "resp-6").conversation, "a");
  EXPECT_EQ(refusal([&] { cs.find_response("t", "resp-7"); }), "404 response_not_found");

  // A fork goes its own way; responses of the part it shares are the original's.
  expect_turns(cs.fork("t", "a", 2, "b"), {1, 2});
  EXPECT_EQ(refusal([&] { cs.fork("t", "a", 2, "b"); }), "409 conversation_exists");
  EXPECT_EQ(refusal([&] { cs.fork("t", "a", 7, "c"); }), "404 no_such_turn");
  EXPECT_EQ(refusal([&] { cs.fork("u", "b", 0, "c"); }), "404 conversation_not_found");
  EXPECT_EQ(r.say("t", "b", 7).length, 10);
  expect_turns(cs.get("t", "b"), {1, 2, 7});
  EXPECT_EQ(cs.find_response("t", "resp-1").conversation, "a");
  EXPECT_EQ(cs.find_response("t", "resp-7").conversation, "b");

  // Rewound: the responses behind are gone, and the next turn stands in their place.
  expect_turns(cs.rewind("t", "a", 3), {1, 2, 3});
  EXPECT_EQ(refusal([&] { cs.find_response("t", "resp-4"); }), "404 response_not_found");
  EXPECT_EQ(refusal([&] { cs.rewind("t", "a", 4); }), "404 no_such_turn");
  EXPECT_EQ(r.say("t", "a", 8).length, 15);
  expect_turns(cs.get("t", "a"), {1, 2, 3, 8});
  EXPECT_EQ(cs.find_response("t", "resp-8").turns, 4);
  ASSERT_NE(cs.state("t", "a"), nullptr);
  EXPECT_EQ(cs.state("t", "a")->position(), 20);
  EXPECT_EQ(cs.state("t", "a", 0), nullptr);

  // A state from outside.
  const auto outside = test_state(Ids{90, 91, 92, 93});
  EXPECT_EQ(refusal([&] { cs.import("t", "i", test_state(Ids{1}, 4, 99)); }), "400 wrong_model");
  EXPECT_EQ(refusal([&] { cs.import("t", "a", outside); }), "409 conversation_exists");
  EXPECT_EQ(refusal([&] { cs.import("t", "i", test_state(Ids{})); }), "400 empty_state");
  EXPECT_EQ(cs.import("t", "i", outside).imported, 4);
  EXPECT_EQ(r.say("t", "i", 20).length, 4);
  EXPECT_EQ(r.say("t", "i", 21).length, 9);
  EXPECT_EQ(cs.get("t", "i").tokens(), 14);
  EXPECT_EQ(cs.fork("t", "i", 1, "j").tokens(), 9);
  EXPECT_EQ(r.say("t", "j", 22).length, 9);
  EXPECT_EQ(cs.rewind("t", "i", 0).tokens(), 4);
  EXPECT_TRUE(*cs.state("t", "i") == *outside);

  const auto list = cs.list("t", 10);
  ASSERT_EQ(list.size(), 4);
  EXPECT_TRUE(std::ranges::all_of(list, [](const Conversation& c) { return c.turns.empty(); }));
  EXPECT_EQ(cs.list("t", 2).size(), 2);
  EXPECT_EQ(cs.list("nobody", 2).size(), 0);

  cs.erase("t", "b");
  EXPECT_EQ(refusal([&] { cs.erase("t", "b"); }), "404 conversation_not_found");
  EXPECT_EQ(refusal([&] { cs.get("t", "b"); }), "404 conversation_not_found");
  EXPECT_EQ(refusal([&] { cs.find_response("t", "resp-7"); }), "404 response_not_found");
  EXPECT_EQ(cs.list("t", 10).size(), 3);
  EXPECT_EQ(r.say("t", "b", 30).length, 0);  // begun anew
  expect_turns(cs.get("t", "b"), {30});
}

// Trap E9: each conversation is of one model. Its name is taken for all of them, its states are for that one alone.
void check_adapters(Replica& r, TestClock& clock, const std::function<std::unique_ptr<Replica>()>& restarted) {
  EXPECT_EQ(r.say("t", "plain", 1).known, 0);
  clock.pass(seconds(1));
  EXPECT_EQ(r.say("t", "adapted", 1, kAdapted).known, 0) << "the same tokens, but of another model";
  EXPECT_EQ(r.say("t", "adapted", 2, kAdapted).length, 5);
  const auto after = restarted();
  for (Replica* one : {&r, after.get()}) {
    if (one == nullptr) continue;
    Conversations& cs = one->conversations;
    EXPECT_EQ(cs.get("t", "plain").model, kTestModel);
    EXPECT_EQ(cs.get("t", "adapted").model, kAdapted);
    EXPECT_EQ(cs.hold("t", "adapted", kTestModel)->conversation().model, kAdapted) << "begun already";
    EXPECT_EQ(cs.hold("t", "plain", kAdapted + 1)->conversation().model, kTestModel);
    EXPECT_EQ(cs.hold("t", "new", kAdapted + 1)->conversation().model, kAdapted + 1);
    EXPECT_EQ(cs.end("t", {"adapted", 1}).model, kAdapted);
    EXPECT_EQ(cs.find_response("t", "resp-2").conversation, "adapted");
    EXPECT_EQ(cs.hold("t", "adapted", kAdapted)->find({}).state->model_fingerprint, kAdapted);
    EXPECT_EQ(cs.state("t", "adapted")->model_fingerprint, kAdapted);
    EXPECT_EQ(cs.list("t", 1).front().model, kAdapted) << "last used first, over all models";
    EXPECT_EQ(cs.list("t", 10).size(), 2);
  }
  {
    const auto h = r.conversations.hold("t", "plain");
    EXPECT_THROW(h->commit(turn(9), test_state(Ids{1, 2, 3, 65535, 5, 9, 10, 11, 65527, 5}, 4, kAdapted)), Error);
  }
  EXPECT_EQ(r.conversations.fork("t", "adapted", 1, "forked").model, kAdapted);
  EXPECT_EQ(refusal([&] { r.conversations.fork("t", "plain", 1, "forked"); }), "409 conversation_exists");
  EXPECT_EQ(r.say("t", "forked", 7, kTestModel).length, 5) << "an adapter's it stays";
  EXPECT_EQ(r.conversations.import("t", "outside", test_state(Ids{90, 91}, 4, kAdapted)).model, kAdapted);
  EXPECT_EQ(r.say("t", "outside", 8, kAdapted).length, 2);
  EXPECT_EQ(r.conversations.rewind("t", "adapted", 1).model, kAdapted);
  r.conversations.erase("t", "adapted");
  EXPECT_EQ(refusal([&] { r.conversations.get("t", "adapted"); }), "404 conversation_not_found");
  EXPECT_EQ(r.say("t", "adapted", 3, kTestModel).known, 0) << "begun anew, without an adapter";
  EXPECT_EQ(r.conversations.get("t", "adapted").model, kTestModel);
}

TEST(Conversations, TrapE9_AdaptersInMemory) {
  TestClock clock;
  Replica r(nullptr, nullptr, clock);
  check_adapters(r, clock, [] { return nullptr; });
}

TEST(Conversations, TrapE9_AdaptersOnDisk) {
  const io::TestFolder folder;
  TestClock clock;
  const auto disk = open_disk_store({folder.path(), 1 << 20, &clock});
  Replica r(disk.get(), nullptr, clock);
  check_adapters(r, clock, [&] { return std::make_unique<Replica>(disk.get(), nullptr, clock); });
}

TEST(Conversations, TrapE9_AdaptersOnDiskAndInRedis) {
  KRAIT_NEEDS_REDIS();
  const io::TestFolder folder;
  const TestRedis redis;
  TestClock clock;
  const auto disk = open_disk_store({folder.path(), 1 << 20, &clock});
  const auto shared = redis.open();
  Replica r(disk.get(), shared.get(), clock);
  check_adapters(r, clock, [&] { return std::make_unique<Replica>(nullptr, shared.get(), clock); });
}

TEST(Conversations, InMemory) {
  TestClock clock;
  Replica r(nullptr, nullptr, clock);
  check_conversations(r, clock);
  clock.pass(seconds(3599));
  EXPECT_EQ(r.conversations.get("t", "a").turns.size(), 4);  // a use
  clock.pass(seconds(2));
  r.conversations.expire();
  EXPECT_EQ(r.conversations.active(), 1);
  clock.pass(seconds(3600));
  EXPECT_EQ(refusal([&] { r.conversations.get("t", "a"); }), "404 conversation_not_found");
}

TEST(Conversations, OnDisk) {
  const io::TestFolder folder;
  TestClock clock;
  const auto disk = open_disk_store({folder.path(), 1 << 20, &clock});
  Replica r(disk.get(), nullptr, clock);
  check_conversations(r, clock);
  clock.pass(seconds(3600));
  r.conversations.expire();
  EXPECT_EQ(r.conversations.active(), 0);
  EXPECT_EQ(disk->stats().logs + disk->stats().blobs, 0);  // no file stays
}

TEST(Conversations, InRedis) {
  KRAIT_NEEDS_REDIS();
  const TestRedis redis;
  TestClock clock;
  const auto shared = redis.open();
  Replica r(nullptr, shared.get(), clock);
  check_conversations(r, clock);
}

TEST(Conversations, OnDiskAndInRedis) {
  KRAIT_NEEDS_REDIS();
  const io::TestFolder folder;
  const TestRedis redis;
  TestClock clock;
  const auto disk = open_disk_store({folder.path(), 1 << 20, &clock});
  const auto shared = redis.open();
  Replica r(disk.get(), shared.get(), clock);
  check_conversations(r, clock);
}

// Traps E1 and E2: after a restart the next turn reads its own tokens only, and a regenerated one finds its state.
TEST(Conversations, TrapE1_E2_RestartReadsOnlyNewTokens) {
  const io::TestFolder folder;
  const TestClock clock;
  for (int32_t n = 1; n <= 8; ++n) {
    const auto disk = open_disk_store({folder.path(), 1 << 20, &clock});
    Replica r(disk.get(), nullptr, clock);
    if (n > 1 && n < 6) {
      EXPECT_EQ(r.conversations.find_response("t", "resp-" + std::to_string(n - 1)).turns, static_cast<size_t>(n - 1));
    }
    if (n == 5) r.conversations.rewind("t", "a", 3);
    const int32_t said = n < 5 ? n : n - 1;
    const PrefixHit hit = r.say("t", "a", said);
    EXPECT_EQ(hit.length, 5 * (said - 1));
    EXPECT_EQ(hit.reason, MissReason::kUnknown);
  }
}

TEST(Conversations, LostAndCorruptStatesAreTold) {
  const io::TestFolder folder;
  const TestClock clock;
  const auto states = [&] {
    std::vector<fs::path> all;
    for (const auto& e : fs::recursive_directory_iterator(folder / "blobs")) {
      if (e.is_regular_file()) all.push_back(e.path());
    }
    return all;
  };
  for (const bool corrupt : {true, false}) {
    {
      const auto disk = open_disk_store({folder.path(), 1 << 20, &clock});
      Replica r(disk.get(), nullptr, clock);
      for (int32_t n = 1; n <= 6; ++n) r.say("t", corrupt ? "a" : "b", n);
    }
    EXPECT_EQ(states().size(), 3);  // of the last turns only
    for (const fs::path& path : states()) {
      if (corrupt) {
        std::string bytes = io::read_text(path);
        bytes[bytes.size() / 2] ^= 1;
        std::ofstream(path, std::ios::binary) << bytes;
      } else {
        fs::remove(path);
      }
    }
    const auto disk = open_disk_store({folder.path(), 1 << 20, &clock});
    Replica r(disk.get(), nullptr, clock);
    const auto h = r.conversations.hold("t", corrupt ? "a" : "b");
    const PrefixHit hit = h->find(Ids{1, 2});
    EXPECT_EQ(hit.state, nullptr);
    EXPECT_EQ(hit.known, 30);
    EXPECT_EQ(hit.reason, corrupt ? MissReason::kCorrupt : MissReason::kEvicted);
    EXPECT_EQ(h->conversation().turns.size(), 6);  // what was said is there
  }
}

// What is behind the damage is not used, and reported once; all before it goes on, over restarts too.
TEST(Conversations, ADamagedLogEndsBeforeTheDamage) {
  const io::TestFolder folder;
  const TestClock clock;
  const auto open = [&](int* reports) {
    return open_disk_store({folder.path(), 1 << 20, &clock, [reports](const std::string&) { ++*reports; }});
  };
  int reports = 0;
  {
    const auto disk = open(&reports);
    Replica r(disk.get(), nullptr, clock);
    for (int32_t n = 1; n <= 3; ++n) r.say("t", "a", n);
  }
  const fs::path log = folder / "logs/tt/m0000000000001234/c/a.log";
  std::string bytes = io::read_text(log);
  bytes[bytes.size() - 3] ^= 1;
  std::ofstream(log, std::ios::binary) << bytes;
  {
    const auto disk = open(&reports);
    Replica r(disk.get(), nullptr, clock);
    expect_turns(r.conversations.get("t", "a"), {1, 2});
    EXPECT_EQ(r.say("t", "a", 4).length, 10);
    EXPECT_EQ(disk->stats().corrupt, 1);
  }
  EXPECT_EQ(reports, 1);
  const auto disk = open(&reports);
  Replica r(disk.get(), nullptr, clock);
  expect_turns(r.conversations.get("t", "a"), {1, 2, 4});
  EXPECT_EQ(reports, 1);
}

// A turn writes its own record and its own state, however many went before.
TEST(Conversations, EveryTurnCostsTheSame) {
  const io::TestFolder folder;
  const TestClock clock;
  const auto disk = open_disk_store({folder.path(), 1 << 20, &clock});
  Replica r(disk.get(), nullptr, clock);
  int64_t last = 0, first_growth = 0;
  for (int32_t n = 1; n <= 300; ++n) {
    EXPECT_EQ(r.say("t", "a", n).length, 5 * (n - 1));
    const int64_t now = static_cast<int64_t>(fs::file_size(folder / ("logs/tt/m0000000000001234/c/a.log")));
    if (n == 10) first_growth = now - last;
    if (n > 10) {
      ASSERT_LE(now - last, first_growth + 4);
    }
    last = now;
    ASSERT_LE(disk->stats().blobs, 3);
  }
}

TEST(Conversations, ALogThatVanishedIsWrittenAgain) {
  const io::TestFolder folder;
  const TestClock clock;
  const auto disk = open_disk_store({folder.path(), 1 << 20, &clock});
  Replica r(disk.get(), nullptr, clock);
  r.say("t", "a", 1);
  const fs::path log = folder / "logs/tt/m0000000000001234/c/a.log";
  fs::rename(log, folder / "away");
  EXPECT_EQ(refusal([&] { r.say("t", "a", 2); }), "");  // known in memory, written again
  expect_turns(r.conversations.get("t", "a"), {1, 2});
}

// ---- two replicas over one Redis

struct Pair {
  explicit Pair(std::chrono::milliseconds lease = seconds(15))
      : disk_a(open_disk_store({folder_a.path(), 1 << 20, &clock})),
        disk_b(open_disk_store({folder_b.path(), 1 << 20, &clock})),
        redis_a(redis.open()),
        redis_b(redis.open()),
        a(std::make_unique<Replica>(disk_a.get(), redis_a.get(), clock, 1 << 26, lease)),
        b(std::make_unique<Replica>(disk_b.get(), redis_b.get(), clock, 1 << 26, lease)) {}

  void wait_for_redis() {
    for (Store* s : {redis_a.get(), redis_b.get()}) {
      for (int i = 0; i < 200 && !refusal([&] { s->log_size("up"); }).empty(); ++i) {
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
      }
    }
  }

  TestRedis redis;
  io::TestFolder folder_a, folder_b;
  TestClock clock;
  std::unique_ptr<Store> disk_a, disk_b, redis_a, redis_b;
  std::unique_ptr<Replica> a, b;
};

TEST(ConversationReplicas, TakeTurns) {
  KRAIT_NEEDS_REDIS();
  Pair p;
  for (int32_t n = 1; n <= 10; ++n) {
    const PrefixHit hit = (n % 2 == 0 ? *p.a : *p.b).say("t", "a", n);
    EXPECT_EQ(hit.length, 5 * (n - 1));  // the other's state, from Redis
  }
  expect_turns(p.a->conversations.get("t", "a"), {1, 2, 3, 4, 5, 6, 7, 8, 9, 10});
  EXPECT_EQ(p.a->conversations.find_response("t", "resp-9").turns, 9);
  p.b->conversations.rewind("t", "a", 4);
  EXPECT_EQ(refusal([&] { p.a->conversations.find_response("t", "resp-9"); }), "404 response_not_found");
  p.a->say("t", "a", 11);
  expect_turns(p.b->conversations.get("t", "a"), {1, 2, 3, 4, 11});
  p.b->conversations.erase("t", "a");
  EXPECT_EQ(refusal([&] { p.a->conversations.get("t", "a"); }), "404 conversation_not_found");
  EXPECT_TRUE(p.a->conversations.list("t", 10).empty());
  p.a->say("t", "a", 12);
  expect_turns(p.b->conversations.get("t", "a"), {12});
}

TEST(ConversationReplicas, OneOfTwoAtOnceIsRefused) {
  KRAIT_NEEDS_REDIS();
  Pair p;
  const auto h = p.a->conversations.hold("t", "a", kTestModel);
  EXPECT_EQ(refusal([&] { p.b->conversations.hold("t", "a", kTestModel); }), "409 conversation_busy");
  h->commit(turn(1), nullptr);
  EXPECT_EQ(refusal([&] { p.b->conversations.rewind("t", "a", 0); }), "409 conversation_busy");

  std::atomic<int> committed = 0;
  std::vector<std::thread> threads;
  for (int i = 0; i < 6; ++i) {
    threads.emplace_back([&, i] {
      for (int32_t n = 0; n < 20; ++n) {
        const std::string r = refusal([&] { (i % 2 == 0 ? *p.a : *p.b).say("t", "race", 100 * i + n + 1); });
        EXPECT_TRUE(r.empty() || r == "409 conversation_busy") << r;
        committed += r.empty() ? 1 : 0;
      }
    });
  }
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(p.a->conversations.get("t", "race").turns.size(), static_cast<size_t>(committed));
  EXPECT_EQ(p.b->conversations.get("t", "race").ids(), p.a->conversations.get("t", "race").ids());
}

// A holder that lives keeps its lease for as long as it needs; one that was killed loses it.
// A store in whose log something happens right after it was read.
class Interrupted : public Store {
 public:
  explicit Interrupted(Store& store) : store_(store) {}
  std::function<void()> after_read;

  Blob get(const std::string& k) override { return store_.get(k); }
  void put(const std::string& k, std::string_view b, seconds ttl) override { store_.put(k, b, ttl); }
  void erase(const std::string& k) override { store_.erase(k); }
  Log read_log(const std::string& k, int64_t from) override {
    Log log = store_.read_log(k, from);
    if (const auto f = std::exchange(after_read, nullptr)) f();
    return log;
  }
  int64_t log_size(const std::string& k) override { return store_.log_size(k); }
  void append(const std::string& k, int64_t n, std::string_view r, seconds ttl) override {
    store_.append(k, n, r, ttl);
  }
  void replace_log(const std::string& k, int64_t n, const std::vector<std::string>& r, seconds ttl) override {
    store_.replace_log(k, n, r, ttl);
  }
  void touch_log(const std::string& k, seconds ttl) override { store_.touch_log(k, ttl); }
  void erase_log(const std::string& k) override { store_.erase_log(k); }
  std::vector<LogName> list_logs(const std::string& folder) override { return store_.list_logs(folder); }
  std::unique_ptr<Lease> lease(const std::string& n, std::chrono::milliseconds t) override {
    return store_.lease(n, t);
  }
  void expire() override { store_.expire(); }
  Stats stats() override { return store_.stats(); }

 private:
  Store& store_;
};

// One replica looks at a conversation for the first time while another one adds to it, or begins it.
TEST(ConversationReplicas, WhoOnlyLooksTakesNothingBack) {
  const io::TestFolder folder, folder_b;
  const TestClock clock;
  const auto shared = open_disk_store({folder.path(), 1 << 20, &clock});  // any store can be the shared one
  const auto disk_b = open_disk_store({folder_b.path(), 1 << 20, &clock});
  Interrupted seen_by_b(*shared);
  Replica a(nullptr, shared.get(), clock);
  const std::unique_ptr<Replica> looks[] = {std::make_unique<Replica>(nullptr, &seen_by_b, clock),
                                            std::make_unique<Replica>(disk_b.get(), &seen_by_b, clock)};
  int32_t n = 0;
  for (const auto& b : looks) {
    const std::string id = "c" + std::to_string(n);
    seen_by_b.after_read = [&] { a.say("t", id, n + 1); };
    const std::string begun = refusal([&] { b->conversations.get("t", id); });
    EXPECT_TRUE(begun.empty() || begun.starts_with("404"));
    expect_turns(a.conversations.get("t", id), {n + 1});
    n += 2;
  }
  Replica late(disk_b.get(), &seen_by_b, clock);
  seen_by_b.after_read = [&] { a.say("t", "c0", 20); };
  late.conversations.get("t", "c0");
  expect_turns(a.conversations.get("t", "c0"), {1, 20});
  expect_turns(late.conversations.get("t", "c0"), {1, 20});
}

TEST(ConversationReplicas, LeasesLiveAndDie) {
  KRAIT_NEEDS_REDIS();
  Pair p(std::chrono::milliseconds(300));
  p.a->say("t", "a", 1);
  const auto slow = p.a->conversations.hold("t", "a");
  std::this_thread::sleep_for(std::chrono::milliseconds(700));
  EXPECT_EQ(refusal([&] { p.b->say("t", "a", 2); }), "409 conversation_busy");
  const auto dead = p.redis_a->lease("tt/m0000000000001234/c/dead", std::chrono::milliseconds(300));
  EXPECT_EQ(refusal([&] { p.b->say("t", "dead", 2); }), "409 conversation_busy");
  std::this_thread::sleep_for(std::chrono::milliseconds(400));
  EXPECT_EQ(refusal([&] { p.b->say("t", "dead", 2); }), "");

  // Stopped for so long that another one went on: the one that comes late is refused, and nothing is mixed.
  RedisStoreOptions o;
  o.url = p.redis.url();
  RedisPool(o).run({"DEL", "krait:h:tt/m0000000000001234/c/a"});
  p.b->say("t", "a", 2);
  EXPECT_EQ(refusal([&] { slow->commit(turn(3), nullptr); }), "409 conversation_changed");
  expect_turns(p.b->conversations.get("t", "a"), {1, 2});
}

TEST(ConversationReplicas, RedisStopsAndComesBackEmpty) {
  KRAIT_NEEDS_REDIS();
  Pair p;
  p.a->say("t", "a", 1);
  p.b->say("t", "a", 2);
  p.a->say("t", "a", 3);
  auto h = p.a->conversations.hold("t", "a");
  p.redis.stop();
  EXPECT_EQ(refusal([&] { h->commit(turn(4), nullptr); }), "503 store_unavailable");
  EXPECT_EQ(h->conversation().turns.size(), 3);
  h.reset();
  EXPECT_EQ(refusal([&] { p.a->conversations.hold("t", "a"); }), "503 store_unavailable");
  p.redis.start();
  p.wait_for_redis();
  EXPECT_EQ(p.a->say("t", "a", 5).length, 15);  // from disk and memory
  EXPECT_EQ(p.b->say("t", "a", 6).length, 20);
  expect_turns(p.a->conversations.get("t", "a"), {1, 2, 3, 5, 6});
  EXPECT_EQ(p.a->conversations.find_response("t", "resp-2").turns, 2);

  // And it came back empty while a turn was running.
  h = p.a->conversations.hold("t", "a");
  p.redis.stop();
  p.redis.start();
  p.wait_for_redis();
  h->commit(turn(7), nullptr);
  h.reset();
  expect_turns(p.b->conversations.get("t", "a"), {1, 2, 3, 5, 6, 7});

  // All processes restart, Redis too: what the disks have is all there is.
  p.a.reset();
  p.b.reset();
  p.redis.stop();
  p.redis.start();
  p.wait_for_redis();
  p.a = std::make_unique<Replica>(p.disk_a.get(), p.redis_a.get(), p.clock);
  EXPECT_EQ(p.a->conversations.list("t", 10).size(), 1);
  EXPECT_EQ(p.a->conversations.find_response("t", "resp-6").turns, 5);
  expect_turns(p.a->conversations.get("t", "a"), {1, 2, 3, 5, 6, 7});
  EXPECT_EQ(p.redis_b->log_size("tt/m0000000000001234/c/a"), 6);
}

// A store that can fail an append, before it was done or behind it.
class Failing : public Store {
 public:
  explicit Failing(Store& store) : store_(store) {}
  enum { kNever, kBefore, kBehind } fails = kNever;

  void append(const std::string& key, int64_t expected, std::string_view record, seconds ttl) override {
    const auto how = fails;
    if (how != kBefore) store_.append(key, expected, record, ttl);
    if (how != kNever) throw ServeError(503, "store_unavailable", "made to fail");
  }
  Blob get(const std::string& key) override { return store_.get(key); }
  void put(const std::string& key, std::string_view bytes, seconds ttl) override { store_.put(key, bytes, ttl); }
  void erase(const std::string& key) override { store_.erase(key); }
  Log read_log(const std::string& key, int64_t from) override { return store_.read_log(key, from); }
  int64_t log_size(const std::string& key) override { return store_.log_size(key); }
  void replace_log(const std::string& key, int64_t expected, const std::vector<std::string>& records,
                   seconds ttl) override {
    store_.replace_log(key, expected, records, ttl);
  }
  void touch_log(const std::string& key, seconds ttl) override { store_.touch_log(key, ttl); }
  void erase_log(const std::string& key) override { store_.erase_log(key); }
  std::vector<LogName> list_logs(const std::string& folder) override { return store_.list_logs(folder); }
  std::unique_ptr<Lease> lease(const std::string& name, std::chrono::milliseconds time) override {
    return store_.lease(name, time);
  }
  void expire() override { store_.expire(); }
  Stats stats() override { return store_.stats(); }

 private:
  Store& store_;
};

// A store fails in the middle of a commit; whether the turn is in it may be unknown. The client is told that it is not,
// and it is not; both stores say the same again with the next turn.
TEST(ConversationReplicas, ATurnThatWasRefusedIsNotThere) {
  KRAIT_NEEDS_REDIS();
  Pair p;
  Failing disk(*p.disk_a), redis(*p.redis_a);
  Replica a(&disk, &redis, p.clock);
  int32_t n = 0;
  std::vector<int32_t> said;
  for (Failing* bad : {&redis, &disk}) {
    for (const auto how : {Failing::kBefore, Failing::kBehind}) {
      for (const bool by_other : {false, true}) {
        a.say("t", "a", ++n);
        said.push_back(n);
        bad->fails = how;
        EXPECT_EQ(refusal([&] { a.say("t", "a", 1000 + n); }), "503 store_unavailable");
        bad->fails = Failing::kNever;
        expect_turns(a.conversations.get("t", "a"), said);
        if (by_other) {
          p.b->say("t", "a", ++n);
          said.push_back(n);
        }
      }
    }
  }
  a.say("t", "a", ++n);
  said.push_back(n);
  expect_turns(a.conversations.get("t", "a"), said);
  expect_turns(p.b->conversations.get("t", "a"), said);
  const std::string key = "tt/m0000000000001234/c/a";
  EXPECT_EQ(p.disk_a->read_log(key).records, p.redis_a->read_log(key).records);
}

TEST(Conversations, ATurnThatWasRefusedIsNotThere) {
  const io::TestFolder folder;
  const TestClock clock;
  const auto disk = open_disk_store({folder.path(), 1 << 20, &clock});
  Failing failing(*disk);
  Replica r(&failing, nullptr, clock);
  r.say("t", "a", 1);
  for (const auto how : {Failing::kBefore, Failing::kBehind}) {
    failing.fails = how;
    EXPECT_EQ(refusal([&] { r.say("t", "a", 2); }), "503 store_unavailable");
    failing.fails = Failing::kNever;
    expect_turns(r.conversations.get("t", "a"), {1});
  }
  r.say("t", "a", 3);
  Replica again(disk.get(), nullptr, clock);
  expect_turns(again.conversations.get("t", "a"), {1, 3});
}

}  // namespace
}  // namespace krait::serve
