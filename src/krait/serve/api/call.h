// Call: one request of a client on its way: submitted, heard, worded, sent; cancelled if the client goes.
#pragma once
#include <atomic>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <variant>
#include <vector>

#include "krait/serve/api/context.h"
#include "krait/serve/api/dialect.h"
#include "krait/serve/http/exchange.h"

namespace krait::serve {

class Call : public std::enable_shared_from_this<Call> {
 public:
  // `record`: of a stream that is run again; null for a new request.
  Call(ApiContext& context, std::shared_ptr<const Asked> asked, KeyInfo key, Keys::Pass pass,
       std::shared_ptr<StreamRecord> record = nullptr);

  // Submits it; everything else follows from the service's calls. `from`: the first event that is wanted.
  void start(const std::shared_ptr<Exchange>& exchange, size_t from = 0);
  // One more reader of a stream, even if the call is just being cancelled: it then runs once more. False: it is over.
  bool attach(const std::shared_ptr<Exchange>& exchange, size_t from);

 private:
  class Part;
  struct Began {
    Usage usage;
  };
  struct Failed {
    ServeError error;
  };
  struct Ended {
    size_t part;
    Answer answer;
  };
  struct Heard {
    int run;  // of the call: what an earlier one still says is not listened to
    std::variant<Began, Delta, Ended, Failed> what;
  };
  struct Reader {
    std::shared_ptr<Exchange> exchange;
    size_t next = 0;  // event
    bool begun = false;
  };

  void submit(int run);
  // From any thread.
  void note(Heard heard);  // work() sees it, when it is scheduled
  void hear(Heard heard);  // and is scheduled
  void schedule();
  void work();  // on an IO thread
  void handle(Heard heard);
  void restart();
  void on_ended(Ended e);
  void on_failed(const ServeError& e);
  void finish(int status, const Answer* answer);
  void add_event(const std::string& event, std::string data);
  void note_usage(const Usage& usage);
  void send_events();
  void end_streams();
  void watch(const std::shared_ptr<Exchange>& exchange);
  void reader_gone();
  void cancel_all();
  Answer merged() const;

  ApiContext& context_;
  std::shared_ptr<const Asked> asked_;
  KeyInfo key_;
  Keys::Pass pass_;
  std::shared_ptr<StreamRecord> record_;
  std::shared_ptr<Exchange> first_;  // whose IO thread does the work

  std::atomic<int> run_ = 0;
  std::mutex inbox_mutex_;  // of the four below
  std::deque<Heard> inbox_;
  bool scheduled_ = false, cancelled_ = false;
  std::vector<int64_t> tickets_;

  std::mutex mutex_;  // of all that follows
  std::unique_ptr<Dialect> dialect_;
  Dialect::Emit emit_;
  std::vector<Reader> readers_;
  std::vector<std::optional<Answer>> answers_;
  size_t open_parts_;
  int64_t choice_ = -1;                // whose events are being made; -1: of the whole answer
  std::map<int64_t, size_t> emitted_;  // events of this run, by choice
  int64_t written_ = 0;                // tokens
  bool begun_ = false, over_ = false;
};

}  // namespace krait::serve
