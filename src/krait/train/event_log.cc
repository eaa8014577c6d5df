#include "krait/train/event_log.h"

#include <chrono>

namespace krait::train {
namespace {

double now() { return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count(); }

}  // namespace

void EventLog::on_step(const StepReport& r) {
  const double when = now();
  const auto scalar = [&](const char* tag, double v) { file_.scalar(tag, r.step, when, static_cast<float>(v)); };
  scalar("loss/train", r.loss);
  if (r.kl) scalar("loss/kl", *r.kl);
  scalar("optimizer/lr", r.lr);
  scalar("optimizer/grad_norm", r.grad_norm);
  scalar("speed/tokens_per_second", r.tokens_per_second);
  if (r.peak_share > 0) scalar("speed/peak_share", r.peak_share);
  file_.flush();
}

void EventLog::on_validation(const ValidationReport& r) {
  file_.scalar("loss/valid", r.step, now(), static_cast<float>(r.loss));
  if (r.accuracy) file_.scalar("accuracy/valid", r.step, now(), static_cast<float>(*r.accuracy));
  file_.flush();
}

void EventLog::on_samples(int64_t step, const std::vector<SampleText>& texts) {
  for (size_t i = 0; i < texts.size(); ++i) {
    file_.text("sample/" + std::to_string(i), step, now(), "**" + texts[i].prompt + "**" + texts[i].text);
  }
  file_.flush();
}

}  // namespace krait::train
