#include "krait/serve/api/stream_log.h"

namespace krait::serve {

std::shared_ptr<StreamRecord> StreamLog::open(const std::string& id, std::string tenant,
                                              std::shared_ptr<const Asked> asked) {
  const std::lock_guard lock(mutex);
  auto record = std::make_shared<StreamRecord>();
  record->tenant = std::move(tenant);
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
    const Entry e = std::move(order_.front());
    order_.pop_front();
    bytes_ -= e.record->bytes;
    e.record->kept = false;
    records_.erase(e.id);
  }
}

}  // namespace krait::serve
