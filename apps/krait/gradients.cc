// krait gradients: the loss of given ids and its gradient by every parameter.
#include <cstdio>
#include <memory>

#include "krait/core/error.h"
#include "krait/io/npy.h"
#include "krait/io/safetensors.h"
#include "krait/train/train_model.h"
#include "session.h"
#include "terminal.h"

namespace krait::cli {
namespace {

struct Args {
  ModelArgs model;
  std::string ids, out;
  bool checkpoint = false;
  int64_t segment = 0;
};

data::Batch next_tokens(const Tensor& ids) {
  data::Batch b;
  for (int64_t first = 0; first < ids.numel(); first += ids.dim(-1)) {
    b.add_next_tokens({ids.data<int32_t>() + first, static_cast<size_t>(ids.dim(-1))});
  }
  return b;
}

int gradients(const Args& a) {
  if (a.out == "-") fail_usage("[gradients] --out -: tensors are not written to standard output; name a file");
  if (a.segment < 0) fail_usage("[gradients] --segment is " + std::to_string(a.segment) + ", expected 0 or more");
  const Tensor ids = io::read_npy(a.ids);
  if (ids.dtype() != DType::kI32 || ids.rank() < 1 || ids.rank() > 2 || ids.dim(-1) < 2 || ids.numel() == 0) {
    fail_data("[gradients] " + a.ids + " holds " + std::string(name_of(ids.dtype())) + " " + ids.shape().str() +
              ", expected int32 [L] or [B, L], L >= 2");
  }
  const Session s = open_session(a.model, NeedTokenizer::kNo);
  train::TrainModelOptions options;
  options.checkpoint = a.checkpoint;
  options.segment = a.segment;
  train::TrainModel m(s.model().spec(), s.model().params(), s.model().runtime(), options);
  const data::Batch batch = next_tokens(ids);
  m.begin();
  const train::LossSum loss = m.accumulate(batch, 1 / train::weight_sum(batch));
  m.gradients();
  std::vector<io::NamedTensor> out;
  for (const train::Trained& t : m.trained()) {
    const WeightSource source = s.loaded.family->source(*s.loaded.checkpoint, m.spec(), t.spec.name);
    out.push_back({source.name, t.gradient});
  }
  Tensor mean = Tensor::empty({1}, DType::kF64);
  mean.data<double>()[0] = loss.mean();
  out.push_back({"loss", mean});
  const Signals signals;
  io::write_safetensors(a.out, out, {{"format", "krait gradients"}}, Signals::check);
  std::printf("loss %.9f, %lld targets, gradients of %zu tensors\n", loss.mean(),
              static_cast<long long>(batch.n_tokens()), m.trained().size());
  return 0;
}

}  // namespace

void add_gradients(Command& root) {
  auto a = std::make_shared<Args>();
  Command c =
      root.subcommand("gradients", "Write the gradient of the mean next-token cross-entropy by every parameter");
  add_model_options(c, a->model, true, true, {.tokenizer = false});
  c.option("--ids", a->ids, "ids, .npy, int32 [L] or [B, L] (each row its own sequence); the mean is over all rows");
  c.option("--out", a->out,
           "safetensors: each gradient under the parameter's name in the checkpoint, f32, and `loss`, f64 [1]");
  c.flag("--checkpoint", a->checkpoint, "keep the inputs of layers only and compute them again on the way back");
  c.option("--segment", a->segment, "tokens of a row to keep at once; 0: all");
  c.footer("Padded rows of the head take part in the softmax, as in other frameworks.");
  c.run([a] {
    if (a->ids.empty() || a->out.empty()) fail_usage("[gradients] --ids and --out are needed");
    return gradients(*a);
  });
}

}  // namespace krait::cli
