// Texts to learn from: files, folders, patterns and standard input, as text or JSONL, packed or not.
#pragma once
#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "cli.h"
#include "krait/core/thread_pool.h"
#include "krait/io/byte_stream.h"
#include "krait/text/document_encoder.h"

namespace krait::cli {

struct DocumentArgs {
  std::vector<std::string> places;
  std::string field;   // of JSONL; empty: chosen by what a line has
  bool jsonl = false;  // whatever the files are called
  bool lossy = false;  // U+FFFD stands for what is not UTF-8
};
void add_document_options(Command&, DocumentArgs&);

// A text, or a line of JSON, as it was read.
struct RawDocument {
  std::string content, where;
  bool json = false;
};

class DocumentReader {
 public:
  // Finds the files. Throws kUsage where a place is not there, a folder has no .txt, .jsonl or .ndjson, or a field is
  // named and nothing is JSONL.
  explicit DocumentReader(const DocumentArgs&);

  // The next documents, together about `bytes` or one that is larger; empty at the end.
  std::vector<RawDocument> next(size_t bytes);
  int64_t total_bytes() const { return total_bytes_; }  // of the files as they are; 0: not known
  int64_t consumed() const;

 private:
  bool next_one(RawDocument&);

  std::deque<std::string> files_;
  bool jsonl_, lines_ = false;
  int64_t total_bytes_ = 0, consumed_ = 0, line_ = 0;
  std::string name_;
  std::unique_ptr<io::ByteStream> stream_;
  std::unique_ptr<io::LineReader> reader_;
};

// Throws kBadData: not UTF-8, not JSON, or without the field.
text::Document parse_document(RawDocument, const DocumentArgs&);

// body(i) for i in 0 .. n-1 on all threads; the first exception, by i, is thrown once all have ended.
void parallel_for_throwing(ThreadPool&, int64_t n, const std::function<void(int64_t)>& body);

}  // namespace krait::cli
