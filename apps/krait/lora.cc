// krait lora: adapters of a model, apart from running it.
#include <filesystem>
#include <memory>

#include "checkpoint_out.h"
#include "cli.h"
#include "krait/core/error.h"
#include "krait/models/peft.h"
#include "session.h"

namespace krait::cli {
namespace {

struct MergeArgs {
  std::string model, adapter, dtype = "file";
  CheckpointOutArgs out{.command = "lora merge", .out = {}};
};

int merge_adapter(const MergeArgs& a) {
  CheckpointOut out(a.out);
  ModelSource source = read_model("lora merge", a.model, a.dtype);
  merge(read_adapter(a.adapter, source.spec), source.spec, source.params);
  out.write(source);
  return 0;
}

void add_merge(Command& lora) {
  auto a = std::make_shared<MergeArgs>();
  Command c = lora.subcommand("merge", "Write a model with what an adapter adds to it made part of its weights");
  c.positional("MODEL", a->model, "folder or file: safetensors, pytorch_model.bin, GGUF");
  c.positional("ADAPTER", a->adapter, "folder of the adapter, as krait train and the peft package write it");
  c.positional("OUT", a->out.out, "a folder, or a file that ends in .gguf");
  c.choice("--to", a->out.to, {"auto", "safetensors", "gguf", "hf", "original"}, "as in krait convert");
  c.choice("--dtype", a->dtype, {"file", "f32", "bf16", "f16"},
           "of matrices and embeddings; file: as they are. Sums are made in f32 and rounded once");
  c.flag("--force", a->out.force, "overwrite what OUT has");
  c.flag("--no-tokenizer", a->out.no_tokenizer, "leave the tokenizer out");
  c.footer("A model whose embedding serves as its head gets a head of its own if the adapter changes the embedding.");
  c.run([a] { return merge_adapter(*a); });
}

struct CombineArgs {
  std::string model, out;
  std::vector<std::string> adapters;
};

int combine(const CombineArgs& a) {
  const auto checkpoint = io::Checkpoint::open(a.model);
  const ModelSpec spec = find_family(*checkpoint).parse(*checkpoint);
  if (std::filesystem::exists(a.out)) fail_usage("[lora combine] " + a.out + " exists already");
  write_adapter(a.out, read_adapters(a.adapters, spec));
  return 0;
}

void add_combine(Command& lora) {
  auto a = std::make_shared<CombineArgs>();
  Command c = lora.subcommand("combine", "Write several adapters of one model as a single one");
  c.positional("MODEL", a->model, "the model that they belong to");
  c.positional("OUT", a->out, "folder to write");
  c.positionals("ADAPTER", a->adapters, "folders, DIR or DIR=SCALE: what they add is added up");
  c.run([a] { return combine(*a); });
}

}  // namespace

void add_lora(Command& root) {
  Command lora = root.subcommand("lora", "Adapters (LoRA): merge one into a model, combine several");
  add_merge(lora);
  add_combine(lora);
}

}  // namespace krait::cli
