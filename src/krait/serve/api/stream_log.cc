#include "krait/serve/api/stream_log.h"

#include <algorithm>

#include "krait/serve/api/read_request.h"

namespace krait::serve {
namespace {

// What a record costs before its first event: the request most of all, which may be longer than any answer.
size_t bytes_of(const Asked& asked) {
  size_t n = sizeof(StreamRecord) + sizeof(Asked) + 1024;  // a deque's first block, nodes of maps, ids
  n += asked.echo.is_null() ? 0 : asked.echo.dump().size();
  for (const GenerateRequest& r : asked.requests) {
    n += sizeof(GenerateRequest) + r.sampler.logit_bias.size() * 64;
    n += (r.input.text ? r.input.text->size() : 0) + (r.input.ids ? r.input.ids->size() * sizeof(int32_t) : 0);
    for (const text::Message& m : r.input.messages) n += sizeof m + m.content.size();
  }
  return n;
}

}  // namespace

std::shared_ptr<StreamRecord> StreamLog::open(const std::string& id, std::string tenant,
                                              std::shared_ptr<const Asked> asked) {
  const std::lock_guard lock(mutex);
  auto record = std::make_shared<StreamRecord>();
  record->tenant = std::move(tenant);
  record->bytes = bytes_of(*asked);
  bytes_ += record->bytes;
  record->asked = std::move(asked);
  records_[id] = record;
  order_.push_back({id, clock_.steady(), record});
  trim();
  return record;
}

std::shared_ptr<StreamRecord> StreamLog::find(const std::string& id, const std::string& tenant) {
  const std::lock_guard lock(mutex);
  trim();
  const auto it = records_.find(id);
  return it == records_.end() || it->second->tenant != tenant ? nullptr : it->second;
}

void StreamLog::forget_untold(const std::string& id) {
  const std::lock_guard lock(mutex);
  const auto at = std::find_if(order_.rbegin(), order_.rend(), [&](const Entry& e) { return e.id == id; });
  if (at != order_.rend() && !at->record->told) remove(std::prev(at.base()));
}

void StreamLog::append(StreamRecord& record, SseEvent event) {
  const size_t bytes = event.id.size() + event.event.size() + event.data.size() + sizeof(SseEvent);
  record.events.push_back(std::move(event));
  if (!record.kept) return;
  record.bytes += bytes;
  bytes_ += bytes;
  trim();
}

void StreamLog::drop(StreamRecord& record, size_t to) {
  if (record.kept) return;
  for (; record.first < to; ++record.first) record.events.pop_front();
}

// Under the lock.
void StreamLog::trim() {
  while (!order_.empty() && (bytes_ > max_bytes_ || clock_.steady() - order_.front().at > ttl_)) {
    remove(order_.begin());
  }
}

void StreamLog::remove(std::deque<Entry>::iterator at) {
  bytes_ -= at->record->bytes;
  at->record->kept = false;
  records_.erase(at->id);
  order_.erase(at);
}

}  // namespace krait::serve
