// StreamLog: the events of recent streams, so that a client whose connection broke can go on where it was
// (Last-Event-ID). What had not been written yet when it went is written again: the same, by the exactness contract.
#pragma once
#include <chrono>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "krait/serve/clock.h"
#include "krait/serve/http/exchange.h"

namespace krait::serve {

class Call;
struct Asked;

// One stream, as far as it got.
struct StreamRecord {
  std::string tenant;
  std::shared_ptr<const Asked> asked;   // to run it again
  std::deque<SseEvent> events;          // ids "<response id>:<number from 0>"
  size_t first = 0;                     // number of the first of them: earlier ones were dropped for want of memory
  std::map<int64_t, size_t> of_choice;  // how many events each choice has, those of the whole answer under -1
  std::optional<std::string> behind;    // the response that the conversation stood at (Usage::behind)
  bool told = false;                    // a client knows the id
  bool finished = false;                // the last event is there
  std::weak_ptr<Call> call;             // who writes it now
  size_t bytes = 0;
  bool kept = true;  // still findable

  size_t end() const { return first + events.size(); }
};

// Thread-safe; so is a record while `mutex` is held.
class StreamLog {
 public:
  StreamLog(size_t max_bytes, std::chrono::seconds ttl, const Clock& clock)
      : max_bytes_(max_bytes), ttl_(ttl), clock_(clock) {}

  std::shared_ptr<StreamRecord> open(const std::string& id, std::string tenant, std::shared_ptr<const Asked> asked);
  // Null: not known (any more), or another tenant's.
  std::shared_ptr<StreamRecord> find(const std::string& id, const std::string& tenant);
  // Unless a client has been told the id: it then may come back.
  void forget_untold(const std::string& id);
  void append(StreamRecord& record, SseEvent event);  // under `mutex`
  // Events before number `to` of a record that is not kept: all its readers have them. Under `mutex`.
  static void drop(StreamRecord& record, size_t to);

  std::mutex mutex;

 private:
  struct Entry {
    std::string id;
    std::chrono::nanoseconds at;
    std::shared_ptr<StreamRecord> record;
  };
  void trim();
  void remove(std::deque<Entry>::iterator at);

  size_t max_bytes_, bytes_ = 0;
  std::chrono::seconds ttl_;
  const Clock& clock_;
  std::deque<Entry> order_;  // oldest first
  std::map<std::string, std::shared_ptr<StreamRecord>> records_;
};

}  // namespace krait::serve
