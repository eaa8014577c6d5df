#include "checkpoint_out.h"

#include <cstdio>
#include <filesystem>

#include "gguf_vocab.h"
#include "krait/core/error.h"
#include "krait/io/atomic_file.h"
#include "krait/models/export.h"
#include "krait/text/utf8.h"
#include "terminal.h"
#include "text_file.h"
#include "tokenizer_files.h"

namespace krait::cli {
namespace {

namespace fs = std::filesystem;

std::optional<DType> dtype_of(const std::string& name) {
  if (name == "f32") return DType::kF32;
  if (name == "bf16") return DType::kBF16;
  if (name == "f16") return DType::kF16;
  return std::nullopt;
}

bool to_gguf(const CheckpointOutArgs& a) {
  const bool named = a.out.ends_with(".gguf");
  if (a.to != "auto" && (a.to == "gguf") != named) {
    fail_usage("[" + a.command + "] OUT is '" + a.out + "' and --to is " + a.to +
               ": a GGUF file ends in .gguf, a folder does not");
  }
  return named;
}

void write_tokenizer_files(const ModelSource& s, const fs::path& out) {
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
void check_out_file(const CheckpointOutArgs& a) {
  const fs::path out = a.out;
  if (fs::is_directory(out)) fail_usage("[" + a.command + "] " + a.out + " is a folder; a file is to be written");
  if (!a.force && fs::exists(out)) fail_usage("[" + a.command + "] " + a.out + " exists already (--force overwrites)");
  const io::AtomicFile probe(out);
}

// Types of a GGUF file that safetensors lacks are widened only when asked: the folder would be several times as large.
void check_types(const ModelSource& s, const std::string& command) {
  for (const auto& [name, p] : s.params.all()) {
    if (is_block_type(p.value.dtype())) {
      fail_usage("[" + command + "] " + name + " is " + std::string(name_of(p.value.dtype())) +
                 ", which a folder cannot hold: choose --dtype f32, bf16 or f16");
    }
  }
}

}  // namespace

ModelSource read_model(const std::string& command, const std::string& path, const std::string& dtype) {
  ModelSource s;
  s.checkpoint = io::Checkpoint::open(path);
  const FamilyInfo& family = find_family(*s.checkpoint);
  s.spec = family.parse(*s.checkpoint);
  s.params = load_params(*s.checkpoint, family, s.spec);
  const std::optional<DType> to = dtype_of(dtype);
  if (!to) return s;
  cast_matrices(s.params, s.spec, *to);
  for (const auto& [name, p] : s.params.all()) {
    if (const int64_t n = count_non_finite(p.value); n > 0) {
      fail_data("[" + command + "] " + std::to_string(n) + " values of " + name + " leave the range of " + dtype);
    }
  }
  return s;
}

CheckpointOut::CheckpointOut(CheckpointOutArgs args) : args_(std::move(args)) {
  if (to_gguf(args_)) {
    check_out_file(args_);
  } else {
    folder_.emplace(args_.command, args_.out, args_.force);
  }
}

void CheckpointOut::write_folder(const ModelSource& s) {
  check_types(s, args_.command);
  const CheckpointForm form = form_of(args_.to);
  const fs::path& folder = folder_->create();
  save_folder(s.spec, s.params, folder, form, Signals::check);
  if (!args_.no_tokenizer) write_tokenizer_files(s, folder);
  if (!config_json(s.spec, form).find("model_type")) keep_eos_ids(s.spec, folder);
  Signals::check();
  folder_->publish();
}

void CheckpointOut::write(const ModelSource& s) {
  const Signals signals;
  if (folder_) {
    write_folder(s);
  } else {
    save_gguf(s.spec, s.params, args_.out, accompanying_values(*s.checkpoint, s.spec, !args_.no_tokenizer),
              Signals::check);
  }
  std::fprintf(stderr, "wrote %s (%s, %s)\n", text::escape_controls(args_.out).c_str(), s.spec.architecture.c_str(),
               !folder_                                                    ? "GGUF"
               : config_json(s.spec, form_of(args_.to)).find("model_type") ? "transformers form"
                                                                           : "original form");
}

}  // namespace krait::cli
