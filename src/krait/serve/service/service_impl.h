// Service::Impl. Three kinds of threads work on it: the loop, which alone touches the engine and never blocks; two
// workers, one for tokens and states in memory, one for what waits for the stores; and the callers' own.
#pragma once
#include <condition_variable>
#include <list>
#include <map>
#include <mutex>
#include <span>

#include "krait/serve/service/job.h"
#include "krait/serve/service/pass_budget.h"
#include "krait/serve/service/prompt.h"
#include "krait/serve/service/request_queue.h"
#include "krait/serve/service/task_queue.h"

namespace krait::serve {

struct Service::Impl {
  Impl(const Model& m, const text::Tokenizer& t, const text::ChatTemplate* ct, PrefixCache& pc, Conversations& cs,
       const Clock& ck, const ServiceOptions& o, ServiceProbe p);

  // Callers' threads (service.cc).
  void check(const GenerateRequest& request) const;
  int64_t submit(GenerateRequest request, std::shared_ptr<Listener> listener);
  void cancel(int64_t ticket, const ServeError& why);
  std::shared_ptr<const State> state(const std::string& tenant, const std::string& id, std::optional<size_t> turns);
  bool idle() const;  // no requests; under the lock
  bool step();
  void run();
  bool drain(std::chrono::milliseconds patience);
  void abandon();  // ends all that is left, with 503; nobody else works any more

  // Any thread (service.cc).
  void wake();
  void set_stage(Job& job, Stage stage);  // under the lock
  void advance(Job& job, Stage stage);    // the same; throws what the job was cancelled with
  void fail(const JobPtr& job, ServeError error);
  void end(const JobPtr& job);
  ServeError fault(const Job& job, std::exception_ptr error) const;      // reports what is not the client's fault
  ServeError of_engine(const Job& job, std::exception_ptr error) const;  // the same, for what ended it there
  PrefixRoot root_of(int32_t adapter) const { return beginning_of(model.fingerprint(adapter)); }
  int32_t adapter_of(uint64_t fingerprint) const;  // throws kBadData if it is none of this model
  int retry_after() const;                         // seconds; under the lock
  template <class F>
  void tell(const Job& job, F&& f) const {  // what a listener throws is its own problem
    try {
      f(*job.listener);
    } catch (...) {
      fault(job, std::current_exception());
    }
  }

  // Workers (service_work.cc).
  void prepare(const JobPtr& job);
  void open_conversation(Job& job);
  void hold_behind(Job& job, const std::string& response);
  void tokenize(Job& job) const;
  void find(const JobPtr& job);
  void look_up(Job& job);
  bool wait_for_reading(const JobPtr& job);                    // under the lock
  void check_model(const Job& job, uint64_t read_with) const;  // throws ServeError 400 "wrong_model"
  void keep(const std::string& tenant, std::span<const int32_t> ids, std::shared_ptr<const State> state,
            const PrefixMark* from = nullptr, const PrefixMark* name = nullptr) const;
  void keep_mark(const JobPtr& job, std::shared_ptr<const State> state);  // within its prompt; on a worker, later
  void commit(const JobPtr& job, Answer answer, std::shared_ptr<const State> end_state);
  void read_as_history(const Job& job, const std::string& answer, const SharedIds& ids,
                       const std::shared_ptr<const State>& end_state);
  void add_reading(ReadingPtr reading);
  void requeue(const std::vector<JobPtr>& waited);

  // The loop (service_loop.cc, service_answer.cc). True: the engine has more to do at once.
  bool pass();
  void apply_cancels();
  void drop_late(Time now);
  void keep_house(Time now);
  void dispatch();
  void start_ready();
  void start(const JobPtr& job);
  Request engine_request(const JobPtr& job);
  static Request engine_request(const Reading& reading);
  bool deliver(const JobPtr& job, const GeneratedToken& token);
  bool tick();
  void collect();
  void finish(const JobPtr& job, Result result);
  Answer answer_of(Job& job, const Result& result) const;
  void start_readings();
  void finish(const ReadingPtr& reading, Result result);
  void end_reading(const ReadingPtr& reading, std::shared_ptr<const State> state, std::exception_ptr error);
  void count_pass();
  int64_t openings() const;  // slots that nobody was promised; under the lock
  void make_engine();

  const Model& model;
  const text::Tokenizer& tokenizer;
  const ControlTexts control;
  const text::ChatTemplate* chat;
  PrefixCache& cache;
  Conversations& conversations;
  const Clock& clock;
  const ServiceOptions options;
  const ServiceProbe probe;
  std::vector<int32_t> stop_ids;

  TaskQueue work, store_work;

  std::mutex drive;  // held by who drives the loop: run() or one step()

  mutable std::mutex mutex;
  std::condition_variable changed;  // for the loop: `woken`; for drain(): idle()
  bool woken = false, looping = false, draining = false, stopping = false;
  int64_t last_ticket = 0;
  std::map<int64_t, JobPtr> jobs;  // until they have ended
  RequestQueue queue;
  int64_t finding = 0;  // jobs of this stage
  std::vector<JobPtr> ready;
  std::vector<int64_t> cancels;  // tickets that the loop has not looked at
  std::list<ReadingPtr> readings;
  int64_t waiting = 0;  // jobs before kRunning
  std::map<std::string, int64_t> waiting_of;
  int64_t free_openings = 0;  // as of the last pass
  double mean_seconds = 1;    // that a request takes
  ServiceStats stats;

  // Of the loop alone.
  std::unique_ptr<Engine> engine;
  PassBudget budget;
  std::vector<JobPtr> running;
  Time housekept{};
};

}  // namespace krait::serve
