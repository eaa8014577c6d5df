#include "documents.h"

#include <algorithm>
#include <exception>
#include <filesystem>
#include <set>

#include "krait/core/error.h"
#include "krait/io/find_files.h"
#include "krait/io/json.h"
#include "session.h"
#include "terminal.h"

namespace krait::cli {
namespace {

namespace fs = std::filesystem;

// "a/b.txt.gz" -> ".txt"
std::string kind_of(const fs::path& file) {
  const std::string last = file.extension().string();
  return last == ".gz" || last == ".zst" ? file.stem().extension().string() : last;
}

bool is_lines(const fs::path& file) {
  const std::string kind = kind_of(file);
  return kind == ".jsonl" || kind == ".ndjson";
}

bool is_text(const fs::path& file) { return kind_of(file) == ".txt" || is_lines(file); }

std::vector<text::Message> messages_of(const io::Json& list) {
  std::vector<text::Message> messages;
  for (size_t i = 0; i < list.size(); ++i) {
    const io::Json& m = list.at(i);
    messages.push_back({m.at("role").as_string(), m.at("content").as_string()});
  }
  return messages;
}

}  // namespace

void add_document_options(Command& c, DocumentArgs& a) {
  c.option("--jsonl-field", a.field,
           "of JSONL, the field that is the text; default: messages (a conversation), prompt and completion, or text, "
           "whichever a line has (several: an error)");
  c.flag("--jsonl", a.jsonl, "all inputs are JSONL, whatever they are called");
  c.flag("--lossy-utf8", a.lossy, "take text that is not UTF-8: U+FFFD stands for what is not");
}

DocumentReader::DocumentReader(const DocumentArgs& a) : jsonl_(a.jsonl) {
  bool known = true;
  std::set<std::string> seen;
  for (const std::string& place : a.places) {
    std::vector<std::string> files{place};
    if (place != "-") files = io::find_files(place, true, is_text);
    if (files.empty()) {
      const bool folder = fs::is_directory(place);
      fail_usage("[texts] " + place +
                 (folder ? ": there are no .txt, .jsonl or .ndjson files" : ": there is no such file"));
    }
    for (const std::string& file : files) {
      std::error_code ec;
      if (!seen.insert(file == "-" ? file : fs::weakly_canonical(file, ec).string()).second) {
        fail_usage("[texts] " + file + " is named twice");
      }
      const auto size = file == "-" ? 0 : fs::file_size(file, ec);
      known = known && file != "-" && !ec;
      total_bytes_ += known ? static_cast<int64_t>(size) : 0;
      files_.push_back(file);
    }
  }
  if (!known) total_bytes_ = 0;
  if (!a.field.empty() && !jsonl_ && std::ranges::none_of(files_, is_lines)) {
    fail_usage("[texts] --jsonl-field has no effect: no file is JSONL (--jsonl takes all as such)");
  }
}

int64_t DocumentReader::consumed() const { return consumed_ + (stream_ ? stream_->consumed() : 0); }

bool DocumentReader::next_one(RawDocument& out) {
  for (;;) {
    if (!stream_) {
      if (files_.empty()) return false;
      name_ = files_.front() == "-" ? "standard input" : files_.front();
      lines_ = jsonl_ || is_lines(files_.front());
      line_ = 0;
      stream_ = io::open_byte_stream(files_.front(), Signals::check);
      reader_ = std::make_unique<io::LineReader>(*stream_);
      files_.pop_front();
      if (!lines_) {
        out = {reader_->rest(), name_, false};
        consumed_ += stream_->consumed();
        stream_.reset();
        return true;
      }
    }
    while (reader_->next(out.content)) {
      ++line_;
      if (out.content.find_first_not_of(" \t\r") == std::string::npos) continue;
      out.where = name_ + ":" + std::to_string(line_);
      out.json = true;
      return true;
    }
    consumed_ += stream_->consumed();
    stream_.reset();
  }
}

std::vector<RawDocument> DocumentReader::next(size_t bytes) {
  std::vector<RawDocument> batch;
  size_t total = 0;
  for (RawDocument d; total < bytes && next_one(d);) {
    total += d.content.size() + 1;
    batch.push_back(std::move(d));
    d = {};
  }
  return batch;
}

text::Document parse_document(RawDocument raw, const DocumentArgs& a) {
  text::Document d;
  d.where = raw.where;
  std::string content = require_utf8(std::move(raw.content), raw.where, a.lossy);
  if (!raw.json) {
    d.text = std::move(content);
    return d;
  }
  try {
    const io::Json line = io::Json::parse(content, raw.where);
    const io::Json* messages = line.find("messages");
    const io::Json *prompt = line.find("prompt"), *completion = line.find("completion");
    const bool instruction = prompt != nullptr && completion != nullptr;
    if (a.field.empty() && (messages != nullptr) + instruction + (line.find("text") != nullptr) > 1) {
      fail_data(
          "it has several of messages, prompt and completion, and text: --jsonl-field takes one field as the text");
    }
    if (!a.field.empty()) {
      d.text = line.at(a.field).as_string();
    } else if (messages != nullptr) {
      d.kind = text::Document::Kind::kChat;
      d.messages = messages_of(*messages);
    } else if (instruction) {
      d.kind = text::Document::Kind::kCompletion;
      d.prompt = prompt->as_string();
      d.text = completion->as_string();
    } else {
      d.text = line.at("text").as_string();
    }
  } catch (const Error& e) {
    const std::string message = e.what();
    if (message.find(raw.where) != std::string::npos) throw;
    fail_data("[jsonl] " + raw.where + ": " + message);
  }
  return d;
}

void parallel_for_throwing(ThreadPool& pool, int64_t n, const std::function<void(int64_t)>& body) {
  std::vector<std::exception_ptr> failures(static_cast<size_t>(n));
  pool.parallel_for(n, [&](int64_t i) {
    try {
      body(i);
    } catch (...) {
      failures[static_cast<size_t>(i)] = std::current_exception();
    }
  });
  for (const std::exception_ptr& f : failures) {
    if (f) std::rethrow_exception(f);
  }
}

}  // namespace krait::cli
