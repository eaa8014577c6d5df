// krait convert: any checkpoint -> a safetensors folder or a GGUF file.
#include "convert.h"

#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>

#include "gguf_vocab.h"
#include "krait/core/error.h"
#include "krait/io/atomic_file.h"
#include "krait/models/export.h"
#include "krait/models/load.h"
#include "krait/text/utf8.h"
#include "out_folder.h"
#include "session.h"
#include "terminal.h"
#include "text_file.h"
#include "tokenizer_files.h"

namespace krait::cli {
namespace {

namespace fs = std::filesystem;

struct Source {
  std::shared_ptr<const io::Checkpoint> checkpoint;
  ModelSpec spec;
  ParamStore params;
};

std::optional<DType> dtype_of(const std::string& name) {
  if (name == "f32") return DType::kF32;
  if (name == "bf16") return DType::kBF16;
  if (name == "f16") return DType::kF16;
  return std::nullopt;
}

Source read(const ConvertArgs& a) {
  Source s;
  s.checkpoint = io::Checkpoint::open(a.model);
  const FamilyInfo& family = find_family(*s.checkpoint);
  s.spec = family.parse(*s.checkpoint);
  s.params = load_params(*s.checkpoint, family, s.spec);
  const std::optional<DType> dtype = dtype_of(a.dtype);
  if (!dtype) return s;
  cast_matrices(s.params, s.spec, *dtype);
  for (const auto& [name, p] : s.params.all()) {
    if (const int64_t n = count_non_finite(p.value); n > 0) {
      fail_data("[convert] " + std::to_string(n) + " values of " + name + " leave the range of " + a.dtype);
    }
  }
  return s;
}

bool to_gguf(const ConvertArgs& a) {
  const bool named = a.out.ends_with(".gguf");
  if (a.to != "auto" && (a.to == "gguf") != named) {
    fail_usage("[convert] OUT is '" + a.out + "' and --to is " + a.to +
               ": a GGUF file ends in .gguf, a folder does not");
  }
  return named;
}

void write_tokenizer_files(const Source& s, const fs::path& out) {
  if (const io::Gguf* g = s.checkpoint->gguf()) {
    if (g->has("tokenizer.huggingface.json")) {
      io::write_file(out / "tokenizer.json", g->str("tokenizer.huggingface.json"));
    } else if (g->has("tokenizer.ggml.tokens")) {
      std::fputs("note: the GGUF file's vocabulary has no tokenizer.json in it, and none is written\n", stderr);
    }
  } else {
    for (const auto& entry : fs::directory_iterator(s.checkpoint->folder())) {
      const fs::path name = entry.path().filename();
      if (travels_with_model(name.string())) io::write_file(out / name, read_text(entry.path().string()));
    }
  }
}

// The original form has no place for the ids that end a text; generation_config.json has.
void keep_eos_ids(const ModelSpec& spec, const fs::path& out) {
  const fs::path file = out / "generation_config.json";
  if (spec.eos_ids.empty() || fs::exists(file)) return;
  io::Json ids = io::Json::array(), j = io::Json::object();
  for (const int32_t id : spec.eos_ids) ids.push(io::Json(int64_t{id}));
  j.set("eos_token_id", std::move(ids));
  io::write_file(file, j.dump(2) + "\n");
}

CheckpointForm form_of(const std::string& to) {
  return to == "hf"         ? CheckpointForm::kTransformers
         : to == "original" ? CheckpointForm::kStateSpaces
                            : CheckpointForm::kAuto;
}

// Whether the file OUT may be written, before any work is done.
void check_out_file(const ConvertArgs& a) {
  const fs::path out = a.out;
  if (fs::is_directory(out)) fail_usage("[convert] " + a.out + " is a folder; a file is to be written");
  if (!a.force && fs::exists(out)) fail_usage("[convert] " + a.out + " exists already (--force overwrites)");
  const io::AtomicFile probe(out);
}

// Types of a GGUF file that safetensors lacks are widened only when asked: the folder would be several times as large.
void check_types(const Source& s) {
  for (const auto& [name, p] : s.params.all()) {
    if (is_block_type(p.value.dtype())) {
      fail_usage("[convert] " + name + " is " + std::string(name_of(p.value.dtype())) +
                 ", which a folder cannot hold: choose --dtype f32, bf16 or f16");
    }
  }
}

void convert_to_folder(const ConvertArgs& a, const Source& s, OutFolder& out) {
  check_types(s);
  const Signals signals;
  const fs::path& folder = out.create();
  save_folder(s.spec, s.params, folder, form_of(a.to), Signals::check);
  if (!a.no_tokenizer) write_tokenizer_files(s, folder);
  if (!config_json(s.spec, form_of(a.to)).find("model_type")) keep_eos_ids(s.spec, folder);
  Signals::check();
  out.publish();
}

void convert_to_gguf(const ConvertArgs& a, const Source& s) {
  const Signals signals;
  save_gguf(s.spec, s.params, a.out, accompanying_values(*s.checkpoint, s.spec, !a.no_tokenizer), Signals::check);
}

}  // namespace

int convert(const ConvertArgs& a) {
  const bool gguf = to_gguf(a);
  std::optional<OutFolder> folder;
  if (gguf) {
    check_out_file(a);
  } else {
    folder.emplace("convert", a.out, a.force);
  }
  const Source s = read(a);
  if (gguf) {
    convert_to_gguf(a, s);
  } else {
    convert_to_folder(a, s, *folder);
  }
  std::fprintf(stderr, "wrote %s (%s, %s)\n", text::escape_controls(a.out).c_str(), s.spec.architecture.c_str(),
               gguf                                                    ? "GGUF"
               : config_json(s.spec, form_of(a.to)).find("model_type") ? "transformers form"
                                                                       : "original form");
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
