// Random schedules of everything that can happen to a service, each from a seed, in a simulated clock: every answer is
// the one that a plain engine gives alone, no slot and no file is left behind. KRAIT_SCHEDULES: how many, default few.
#include <gmock/gmock.h>

#include <unistd.h>

#include <array>
#include <cstdlib>
#include <filesystem>
#include <map>

#include "krait/core/rng.h"
#include "krait/serve/cache/disk_store.h"
#include "krait/serve/cache/state_key.h"
#include "tests/serve_tools.h"

namespace krait::serve::test {
namespace {

namespace fs = std::filesystem;
using std::chrono::milliseconds;
using std::chrono::seconds;

constexpr std::array<const char*, 2> kTenants = {"", "t2"};
constexpr seconds kTtl(3600);

// What a client knows of a conversation.
struct Known {
  std::string tenant, id;
  std::vector<Turn> turns;
  std::chrono::nanoseconds used{};
};

struct Asked {
  GenerateRequest request;
  std::shared_ptr<Recorder> heard;
  int64_t ticket = 0;
  std::optional<size_t> known;  // the conversation it goes on with
  size_t behind = 0;            // turns of it
  bool cancelled = false, lost = false;
};

class Schedule {
 public:
  Schedule(const Model& model, uint64_t seed, fs::path folder) : model_(model), rng_(seed), folder_(std::move(folder)) {
    fs::remove_all(folder_);
    start();
  }
  ~Schedule() {
    stop();
    fs::remove_all(folder_);
  }

  void run() {
    for (uint64_t i = 20 + rng_.below(40); i > 0; --i) {
      act();
      look();
    }
    while (service_->step()) clock_.advance(milliseconds(1));
    look();
    EXPECT_TRUE(asked_.empty()) << "requests without an end";
    const ServiceStats s = service_->stats();
    EXPECT_EQ(s.free_slots, s.slots);
    EXPECT_EQ(s.queued + s.running, 0);
    check_conversations();
    leave_no_file();
  }
  int answers() const { return answers_; }

 private:
  bool chance(uint64_t percent) { return rng_.below(100) < percent; }

  void start() {
    DiskStoreOptions d;
    d.folder = folder_;
    d.clock = &clock_;
    store_ = open_disk_store(d);
    PrefixCacheOptions p;
    p.max_bytes = chance(30) ? 20'000 : int64_t{1} << 28;  // a few states, or all
    if (chance(50)) spill_to(p, *store_, kTtl);
    cache_ = std::make_unique<PrefixCache>(p, clock_);
    conversations_ = std::make_unique<Conversations>(
        ConversationsOptions{
            .ttl = kTtl, .max_conversations = chance(30) ? 2 : 100, .model = model_.fingerprint(), .adapted = {}},
        *cache_, store_.get(), nullptr, clock_);
    ServiceOptions o;
    o.max_running = 1 + static_cast<int64_t>(rng_.below(5));
    o.max_queue = 20;
    o.prefill_tokens = 1 + static_cast<int64_t>(rng_.below(20));
    o.checkpoint_every = 4 + static_cast<int64_t>(rng_.below(30));
    o.prefix_cache = !chance(10);
    ServiceProbe probe;
    probe.fault = [](const std::string& id, const std::string& what) { ADD_FAILURE() << id << ": " << what; };
    service_ =
        std::make_unique<Service>(model_, tiny_tokenizer(), &tiny_chat(), *cache_, *conversations_, clock_, o, probe);
  }

  void stop() {
    service_ = nullptr;
    conversations_ = nullptr;
    cache_ = nullptr;
    store_ = nullptr;
  }

  void act() {
    const uint64_t what = rng_.below(100);
    if (what < 35) {
      submit();
    } else if (what < 70) {
      for (uint64_t n = 1 + rng_.below(8); n > 0; --n) service_->step();
      clock_.advance(milliseconds(rng_.below(50)));
    } else if (what < 80) {
      cancel();
    } else if (what < 86) {
      fork();
    } else if (what < 92) {
      rewind();
    } else if (what < 95) {
      clock_.advance(chance(30) ? kTtl + seconds(60) : seconds(400));
      if (chance(50)) settle();
      conversations_->expire();
      cache_->expire();
    } else if (what < 98) {
      for (Asked& a : asked_) a.lost = true;  // of those that run, nobody hears more than that the server went
      stop();
      start();
    } else {
      settle();
    }
  }

  void settle() {
    while (service_->step()) clock_.advance(milliseconds(1));
    look();
  }

  std::string letters(uint64_t most) {
    std::string s;
    for (uint64_t n = rng_.below(most); n > 0; --n) s += static_cast<char>('a' + rng_.below(6));
    return s;
  }

  // Or about to be: the server's time of the last use is a little earlier.
  bool expired(const Known& k) const { return clock_.steady() - k.used > kTtl - seconds(10); }

  void submit() {
    Asked a;
    GenerateRequest& r = a.request;
    r = text_request("ab " + letters(chance(20) ? 60 : 12), static_cast<int64_t>(rng_.below(14)), rng_.below(1000));
    r.id = "r" + std::to_string(++last_);
    r.tenant = kTenants[rng_.below(2)];
    r.ignore_eos = chance(50);
    r.priority = static_cast<int>(rng_.below(201)) - 100;
    if (chance(40)) r.stops = {"a", "bc", "df"};
    if (chance(30)) {
      r.input.text.reset();
      r.input.messages = {{"system", "ab"}, {"user", letters(8)}, {"assistant", letters(4)}, {"user", letters(8)}};
    }
    if (chance(50)) {
      go_on(a);
    } else if (chance(20) && r.max_tokens > 0) {
      r.n = 3;
    }
    a.heard = std::make_shared<Recorder>();
    try {
      a.ticket = service_->submit(r, a.heard);
    } catch (const ServeError& e) {
      EXPECT_EQ(e.status(), 429);
      return;
    }
    asked_.push_back(std::move(a));
  }

  // With a conversation: one that there is, or a new one; by its name, or behind one of its responses.
  void go_on(Asked& a) {
    Thread& t = a.request.thread;
    std::vector<size_t> own;
    for (size_t i = 0; i < known_.size(); ++i)
      if (known_[i].tenant == a.request.tenant && !expired(known_[i])) own.push_back(i);
    if (own.empty() || chance(25)) {
      if (chance(50)) t.keep = true;
      if (!t.keep) t.conversation = "c" + std::to_string(last_);
      return;
    }
    a.known = own[rng_.below(own.size())];
    const Known& k = known_[*a.known];
    a.behind = k.turns.size();
    const size_t turns = a.behind > 0 && chance(40) ? 1 + rng_.below(a.behind) : 0;
    if (turns > 0 && !k.turns[turns - 1].response_id.empty()) {
      a.behind = turns;
      t.previous_response = k.turns[turns - 1].response_id;
    } else {
      t.conversation = k.id;
    }
  }

  void cancel() {
    if (asked_.empty()) return;
    Asked& a = asked_[rng_.below(asked_.size())];
    if (a.lost) return;
    service_->cancel(a.ticket);
    a.cancelled = true;
  }

  // Both change a conversation for all that goes on with it: first what runs comes to its end.
  void fork() {
    settle();
    if (known_.empty()) return;
    const Known k = known_[rng_.below(known_.size())];
    if (expired(k)) return;
    const size_t turns = rng_.below(k.turns.size() + 1);
    Known copy{k.tenant,
               "f" + std::to_string(++last_),
               {k.turns.begin(), k.turns.begin() + static_cast<int64_t>(turns)},
               clock_.steady()};
    conversations_->fork(k.tenant, k.id, turns, copy.id);
    for (Turn& t : copy.turns) t.response_id.clear();  // of the conversation that it came from
    known_.push_back(std::move(copy));
  }

  void rewind() {
    settle();
    if (known_.empty()) return;
    Known& k = known_[rng_.below(known_.size())];
    if (expired(k)) return;
    const size_t turns = rng_.below(k.turns.size() + 1);
    conversations_->rewind(k.tenant, k.id, turns);
    k.turns.resize(turns);
    k.used = clock_.steady();
  }

  void look() {
    for (size_t i = 0; i < asked_.size();) {
      if (!asked_[i].heard->has_ended()) {
        ++i;
        continue;
      }
      const Asked a = std::move(asked_[i]);
      asked_.erase(asked_.begin() + static_cast<int64_t>(i));
      ended(a);
    }
  }

  void ended(const Asked& a) {
    const Recorder& h = *a.heard;
    EXPECT_EQ(h.ended, 1);
    EXPECT_EQ(h.out_of_order, 0);
    if (h.error) {
      const int status = h.error->status();
      const bool allowed = (status == 499 && a.cancelled) || (status == 503 && a.lost) || (status == 409 && a.known) ||
                           (status == 404 && a.request.thread.previous_response) ||
                           (status == 503 && h.error->code() == "queue_timeout");
      EXPECT_TRUE(allowed) << status << " " << h.error->what();
      return;
    }
    ++answers_;
    std::vector<Turn> before;
    if (a.known && *a.known < known_.size()) {
      const Known& k = known_[*a.known];
      before.assign(k.turns.begin(), k.turns.begin() + static_cast<int64_t>(std::min(a.behind, k.turns.size())));
    }
    check_answer(a, std::move(before));
  }

  std::vector<int32_t> input_ids(const Input& in, bool begins) {
    if (in.text) return tiny_tokenizer().encode(*in.text, {.add_special = begins});
    return tokenize_chat(tiny_tokenizer(),
                         begins ? render_chat(tiny_chat(), in.messages) : render_continuation(tiny_chat(), in.messages))
        .ids;
  }

  void check_answer(const Asked& a, std::vector<Turn> before) {
    const GenerateRequest& r = a.request;
    const Answer& answer = *a.heard->answer;
    std::vector<int32_t> ids;
    if (answer.conversation) {  // what it went on with is what the log says that it was
      const Conversation c = conversations_->get(r.tenant, *answer.conversation);
      size_t turn = 0;
      while (turn < c.turns.size() && c.turns[turn].response_id != r.id) ++turn;
      ASSERT_LT(turn, c.turns.size()) << r.id << " was acknowledged and is not in the log";
      ids = c.ids(turn);
      std::vector<int32_t> known;
      for (const Turn& t : before) {
        known.insert(known.end(), t.prompt.begin(), t.prompt.end());
        known.insert(known.end(), t.answer.begin(), t.answer.end());
      }
      if (a.known && r.thread.previous_response) {
        EXPECT_EQ(ids, known) << "not what was said up to that response";
      }
      remember(a, c);
    }
    const auto input = input_ids(r.input, ids.empty());
    ids.insert(ids.end(), input.begin(), input.end());
    EXPECT_EQ(answer.usage.prompt_tokens, std::ssize(ids));
    for (int64_t i = 0; i < r.n; ++i) {
      const Expected want = expected(model_, ids, r, i);
      EXPECT_EQ(answer.choices[static_cast<size_t>(i)].ids, want.ids) << r.id;
      EXPECT_EQ(answer.choices[static_cast<size_t>(i)].text, want.text) << r.id;
      EXPECT_EQ(a.heard->text_of(i), want.text) << r.id;
    }
  }

  void remember(const Asked& a, const Conversation& c) {
    for (Known& k : known_) {
      if (k.tenant != c.tenant || k.id != c.id) continue;
      k.turns = c.turns;
      k.used = clock_.steady();
      return;
    }
    known_.push_back({a.request.tenant, c.id, c.turns, clock_.steady()});
  }

  // What was acknowledged and has not expired is there, after all restarts.
  void check_conversations() {
    for (const Known& k : known_) {
      if (expired(k)) continue;
      const Conversation c = conversations_->get(k.tenant, k.id);
      ASSERT_EQ(c.turns.size(), k.turns.size()) << k.id;
      for (size_t i = 0; i < k.turns.size(); ++i) {
        EXPECT_EQ(c.turns[i].prompt, k.turns[i].prompt);
        EXPECT_EQ(c.turns[i].answer, k.turns[i].answer);
      }
    }
  }

  void leave_no_file() {
    clock_.advance(2 * kTtl);
    conversations_->expire();
    cache_->expire();
    store_->expire();
    const Store::Stats s = store_->stats();
    EXPECT_EQ(s.blobs, 0);
    EXPECT_EQ(s.logs, 0);
    EXPECT_EQ(s.corrupt, 0);
    EXPECT_EQ(s.errors, 0);
    std::vector<std::string> files;
    for (const auto& f : fs::recursive_directory_iterator(folder_))
      if (f.is_regular_file()) files.push_back(fs::relative(f.path(), folder_).string());
    EXPECT_THAT(files, testing::Each(testing::AnyOf("lock", "LOCK", "format"))) << "nothing but what every store has";
  }

  const Model& model_;
  Rng rng_;
  fs::path folder_;
  SetClock clock_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<PrefixCache> cache_;
  std::unique_ptr<Conversations> conversations_;
  std::unique_ptr<Service> service_;
  std::vector<Asked> asked_;
  std::vector<Known> known_;
  int last_ = 0, answers_ = 0;
};

TEST(Schedules, RandomOnesChangeNoTokenAndLeakNothing) {
  const char* wanted = std::getenv("KRAIT_SCHEDULES");
  const char* first = std::getenv("KRAIT_FIRST_SCHEDULE");
  const uint64_t n = wanted != nullptr ? std::stoull(wanted) : 300, from = first != nullptr ? std::stoull(first) : 0;
  std::vector<std::unique_ptr<Model>> models;
  for (const std::string& name : krait::test::tiny_names()) models.push_back(tiny_model(name));
  // In memory, where there is such a place: syncing to a disk is not what is tested here.
  const fs::path memory = "/dev/shm";
  const fs::path folder =
      (fs::exists(memory) ? memory : fs::temp_directory_path()) / ("krait_schedules_" + std::to_string(getpid()));
  int64_t answers = 0;
  for (uint64_t seed = from; seed < from + n; ++seed) {
    SCOPED_TRACE("schedule " + std::to_string(seed) + ": KRAIT_FIRST_SCHEDULE=" + std::to_string(seed) +
                 " KRAIT_SCHEDULES=1");
    Schedule s(*models[seed % models.size()], seed, folder);
    s.run();
    answers += s.answers();
    if (HasFailure()) break;
  }
  RecordProperty("answers", std::to_string(answers));
  EXPECT_GT(answers, static_cast<int64_t>(n)) << "most schedules have answers to check";
}

}  // namespace
}  // namespace krait::serve::test
