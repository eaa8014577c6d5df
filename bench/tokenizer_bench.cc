// Encoding and decoding of a text file on one thread.
//   tokenizer_bench TOKENIZER TEXT [rounds]
#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>

#include "bench/bench.h"
#include "krait/core/error.h"
#include "krait/text/factories.h"

namespace krait::bench {
namespace {

int run(const char* tokenizer, const char* file, int rounds) {
  const double start = seconds_now(true);
  const auto t = text::open_tokenizer(tokenizer);
  const double opened = seconds_now(true) - start;
  const std::string input = text::read_whole_file(file);
  const auto ids = t->encode(input);
  std::vector<Case> cases(2);
  cases[0] = {"encode", [&] { t->encode(input); }};
  cases[1] = {"decode", [&] { t->decode(ids, false); }};
  interleave(cases, rounds, true);
  const double mb = static_cast<double>(input.size()) / 1e6;
  fmt::print("{}, vocabulary {}: opened in {:.1f} ms\n", t->name(), t->vocab_size(), opened * 1e3);
  fmt::print("{:.2f} MB, {} tokens, {:.2f} bytes a token\n", mb, ids.size(),
             mb * 1e6 / static_cast<double>(ids.size()));
  for (const Case& c : cases) fmt::print("{}: {:.1f} MB/s\n", c.name, mb / c.seconds);
  return 0;
}

}  // namespace
}  // namespace krait::bench

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fputs("usage: tokenizer_bench TOKENIZER TEXT [rounds]\n", stderr);
    return 2;
  }
  try {
    return krait::bench::run(argv[1], argv[2], argc > 3 ? std::max(2, std::atoi(argv[3])) : 10);
  } catch (const krait::Error& e) {
    std::fprintf(stderr, "%s\n", e.what());
    return static_cast<int>(e.code());
  }
}
