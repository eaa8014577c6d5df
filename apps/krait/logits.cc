// krait logits: the logits of given ids, all positions, all padded columns.
#include <cstdio>
#include <cstring>
#include <memory>

#include "krait/core/error.h"
#include "krait/infer/score.h"
#include "krait/io/npy.h"
#include "progress.h"
#include "session.h"
#include "terminal.h"

namespace krait::cli {
namespace {

struct Args {
  ModelArgs model;
  std::string ids, out;
};

int logits(const Args& a) {
  if (a.out == "-") fail_usage("[logits] --out -: an array is not written to standard output; name a file");
  {
    const io::AtomicFile probe(a.out);
  }  // before any work is done that could not be kept
  const Tensor ids = io::read_npy(a.ids);
  if (ids.dtype() != DType::kI32 || ids.rank() < 1 || ids.rank() > 2) {
    fail_data("[logits] " + a.ids + " holds " + std::string(name_of(ids.dtype())) + " " + ids.shape().str() +
              ", expected int32 [L] or [B, L]");
  }
  const Session s = open_session(a.model, NeedTokenizer::kNo);
  const Model& m = s.model();
  const int64_t L = ids.dim(-1), B = ids.rank() == 2 ? ids.dim(0) : 1, V = m.padded_vocab_size();
  Tensor out = ids.rank() == 2 ? Tensor::empty({B, L, V}) : Tensor::empty({L, V});
  SlotStore states(m.state_specs(), 1);
  ProgressBar bar("logits", B * L, "tokens");
  for (int64_t b = 0; b < B; ++b) {
    m.reset_state(states, 0);
    const std::span row(ids.data<int32_t>() + b * L, static_cast<size_t>(L));
    score(m, states, 0, row, [&](int64_t first, const Tensor& part) {
      std::memcpy(out.f32() + (b * L + first) * V, part.f32(), static_cast<size_t>(part.nbytes()));
      bar.advance(part.dim(0));
      return true;
    });
  }
  bar.finish();
  const Signals signals;
  io::write_npy(a.out, out, Signals::check);
  return 0;
}

}  // namespace

void add_logits(Command& root) {
  auto a = std::make_shared<Args>();
  Command c = root.subcommand("logits", "Write the logits of given ids: int32 [L] or [B, L] -> float32 [.., L, V_pad]");
  add_model_options(c, a->model, true, true, {.tokenizer = false, .lora = true});
  c.option("--ids", a->ids, "ids, .npy, int32 [L] or [B, L] (each row its own sequence)");
  c.option("--out", a->out, "logits, .npy, float32, all padded columns");
  c.run([a, c] {
    if (a->ids.empty() || a->out.empty()) fail_usage("[logits] --ids and --out are needed");
    return logits(*a);
  });
}

}  // namespace krait::cli
