#include "krait/quant/report.h"

#include <cmath>

#include "krait/io/json.h"

namespace krait::quant {
namespace {

using io::Json;

Json number(double v) { return std::isfinite(v) ? Json(v) : Json(); }
Json number(const std::optional<double>& v) { return v ? number(*v) : Json(); }

Json object(std::vector<std::pair<const char*, Json>> fields) {
  Json j = Json::object();
  for (auto& [key, value] : fields) j.set(key, std::move(value));
  return j;
}

Json text_use(const TextUse& t) { return object({{"text", Json(t.name)}, {"tokens", Json(t.tokens)}}); }

Json tensor_row(const Report& r, size_t i) {
  const PlannedTensor& t = r.tensors[i];
  Json shape = Json::array();
  for (const int64_t d : t.shape.dims()) shape.push(Json(d));
  return object({{"name", Json(t.file_name)},
                 {"shape", std::move(shape)},
                 {"from", Json(std::string(name_of(t.from)))},
                 {"type", Json(std::string(name_of(t.type)))},
                 {"bits_per_weight", Json(t.bits_per_weight())},
                 {"bytes", Json(t.bytes())},
                 {"weight_error", number(r.errors[i].weights)},
                 {"output_error", number(r.errors[i].outputs)},
                 {"effect_kl", r.effects.empty() ? Json() : number(r.effects[i])},
                 {"reason", Json(t.reason)},
                 {"fallback", Json(t.fallback)},
                 {"warning", t.warning.empty() ? Json() : Json(t.warning)}});
}

Json comparison(const Report& r) {
  const TextComparison& c = r.comparison;
  const double before = c.perplexity_original(), after = c.perplexity_quantized();
  return object({{"text", Json(r.evaluation.name)},
                 {"tokens", Json(c.tokens)},
                 {"mean_kl", number(c.mean_kl)},
                 {"max_kl", number(c.max_kl)},
                 {"same_top", number(c.same_top)},
                 {"loss_original", number(c.loss_original)},
                 {"loss_quantized", number(c.loss_quantized)},
                 {"perplexity_original", number(before)},
                 {"perplexity_quantized", number(after)},
                 {"perplexity_change", number(after / before - 1)}});
}

Json drift_rows(const Report& r) {
  Json rows = Json::array();
  for (const DriftPoint& p : r.drift) {
    Json states = Json::array();
    for (const StateDrift& s : p.states) {
      states.push(object({{"state", Json(s.name)}, {s.angle ? "rms_turns" : "relative_rms", number(s.error)}}));
    }
    rows.push(object({{"tokens", Json(p.tokens)},
                      {"mean_kl", number(p.mean_kl)},
                      {"state_relative_rms", number(p.state)},
                      {"states", std::move(states)}}));
  }
  return rows;
}

}  // namespace

std::vector<std::optional<double>> effects_of_each(const Model& original, const ParamStore& quantized,
                                                   const std::vector<PlannedTensor>& tensors,
                                                   std::span<const int32_t> ids,
                                                   const std::function<void(int64_t)>& advance) {
  std::vector<std::optional<double>> out;
  for (const PlannedTensor& t : tensors) {
    out.emplace_back();
    if (t.vector || t.type == t.from) {
      advance(static_cast<int64_t>(ids.size()));
      continue;
    }
    ParamStore one = original.params();
    one.set(t.name, quantized.get(t.name));
    out.back() = compare(original, Model(original.spec(), std::move(one), original.runtime()), ids, 0, advance).mean_kl;
  }
  return out;
}

std::string to_json(const Report& r) {
  Json tensors = Json::array();
  int64_t fallbacks = 0, warnings = 0;
  for (size_t i = 0; i < r.tensors.size(); ++i) {
    tensors.push(tensor_row(r, i));
    fallbacks += r.tensors[i].fallback ? 1 : 0;
    warnings += r.tensors[i].warning.empty() ? 0 : 1;
  }
  return object({{"model", Json(r.model)},
                 {"out", Json(r.out)},
                 {"type", Json(r.type)},
                 {"architecture", Json(r.architecture)},
                 {"weights", Json(r.weights())},
                 {"bytes_before", Json(r.bytes_before)},
                 {"bytes", Json(r.bytes())},
                 {"bits_per_weight", Json(r.bits_per_weight())},
                 {"calibration", r.calibration ? text_use(*r.calibration) : Json()},
                 {"evaluation", comparison(r)},
                 {"effects_text", r.effects.empty() ? Json() : text_use(r.effects_text)},
                 {"drift", drift_rows(r)},
                 {"fallbacks", Json(fallbacks)},
                 {"warnings", Json(warnings)},
                 {"tensors", std::move(tensors)}})
             .dump(2) +
         "\n";
}

}  // namespace krait::quant
