// krait convert: any checkpoint -> a safetensors folder or a GGUF file.
#include "convert.h"

#include <memory>

#include "checkpoint_out.h"
#include "cli.h"

namespace krait::cli {

int convert(const ConvertArgs& a) {
  CheckpointOut out({.command = "convert", .out = a.out, .to = a.to, .force = a.force, .no_tokenizer = a.no_tokenizer});
  out.write(read_model("convert", a.model, a.dtype));
  return 0;
}

void add_convert(Command& root) {
  auto a = std::make_shared<ConvertArgs>();
  Command c = root.subcommand("convert", "Write a checkpoint as a safetensors folder or a GGUF file");
  c.positional("MODEL", a->model, "folder or file: safetensors, pytorch_model.bin, GGUF");
  c.positional("OUT", a->out, "a folder, or a file that ends in .gguf");
  c.choice("--to", a->to, {"auto", "safetensors", "gguf", "hf", "original"},
           "auto: by OUT's ending; safetensors: the transformers form (hf) where it can express the model, else the "
           "original");
  c.choice("--dtype", a->dtype, {"file", "f32", "bf16", "f16"},
           "of matrices and embeddings; file: as they are (quantized types only into GGUF)");
  c.flag("--force", a->force, "overwrite what OUT has");
  c.flag("--no-tokenizer", a->no_tokenizer, "leave the tokenizer out");
  c.footer(
      "The tokenizer travels along: its files into a folder, its vocabulary (and tokenizer.json whole) into GGUF.");
  c.run([a] { return convert(*a); });
}

}  // namespace krait::cli
