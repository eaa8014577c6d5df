#include "krait/io/byte_stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>
#include <zstd.h>

#include "krait/core/rng.h"
#include "krait/io/test_folder.h"

namespace krait::io {
namespace {

using testing::HasSubstr;

std::string gzipped(const std::string& text) {
  std::string out(compressBound(static_cast<uLong>(text.size())) + 64, '\0');
  z_stream z{};
  deflateInit2(&z, 6, Z_DEFLATED, 16 + MAX_WBITS, 8, Z_DEFAULT_STRATEGY);
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
  z.avail_in = static_cast<uInt>(text.size());
  z.next_out = reinterpret_cast<Bytef*>(out.data());
  z.avail_out = static_cast<uInt>(out.size());
  deflate(&z, Z_FINISH);
  out.resize(z.total_out);
  deflateEnd(&z);
  return out;
}

std::string zstandard(const std::string& text) {
  std::string out(ZSTD_compressBound(text.size()), '\0');
  out.resize(ZSTD_compress(out.data(), out.size(), text.data(), text.size(), 3));
  return out;
}

std::string some_text() {
  std::string text;
  Rng rng(1);
  for (int i = 0; i < 30000; ++i) text += std::to_string(rng.below(1000)) + (rng.below(10) == 0 ? "\n" : " ");
  return text;
}

std::string all_of(const std::filesystem::path& path) {
  const auto stream = open_byte_stream(path.string());
  return LineReader(*stream).rest();
}

TEST(ByteStream, UnpacksWhatItsFirstBytesSayItIs) {
  const TestFolder folder;
  const std::string text = some_text();
  EXPECT_EQ(all_of(folder.write("plain", text)), text);
  EXPECT_EQ(all_of(folder.write("gz", gzipped(text))), text);
  EXPECT_EQ(all_of(folder.write("zst", zstandard(text))), text);
  EXPECT_EQ(all_of(folder.write("members", gzipped(text) + gzipped("more") + gzipped(""))), text + "more");
  EXPECT_EQ(all_of(folder.write("frames", zstandard("more") + zstandard(text))), "more" + text);
  for (const char* small : {"", "a", "abc", "\x1F"}) EXPECT_EQ(all_of(folder.write("small", small)), small);
}

TEST(ByteStream, CountsTheBytesOfTheFile) {
  const TestFolder folder;
  const std::string packed = gzipped(some_text());
  const auto stream = open_byte_stream(folder.write("gz", packed).string());
  LineReader(*stream).rest();
  EXPECT_EQ(stream->consumed(), std::ssize(packed));
}

TEST(ByteStream, DamagedFilesAreRefused) {
  const TestFolder folder;
  for (const std::string& packed : {gzipped(some_text()), zstandard(some_text())}) {
    const std::string cut = packed.substr(0, packed.size() / 2);
    EXPECT_THAT(bad_data([&] { all_of(folder.write("cut", cut)); }), HasSubstr("truncated"));
    EXPECT_THAT(bad_data([&] { all_of(folder.write("cut", packed.substr(0, packed.size() - 1))); }),
                HasSubstr("truncated"));
    EXPECT_THAT(bad_data([&] { all_of(folder.write("tail", packed + "tail")); }), HasSubstr("corrupt"));
  }
  EXPECT_THAT(message_of(ErrorCode::kFailed, [&] { all_of(folder.path()); }), HasSubstr("it is a folder"));
  EXPECT_THAT(message_of(ErrorCode::kFailed, [&] { all_of(folder / "absent"); }), HasSubstr("cannot read"));
}

TEST(ByteStream, WhatThePollThrowsEndsTheReading) {
  const TestFolder folder;
  const std::string file = folder.write("f", some_text()).string();
  int polls = 0;
  const auto poll = [&polls] {
    if (++polls == 3) throw Error(ErrorCode::kFailed, "enough");
  };
  EXPECT_EQ(message_of(ErrorCode::kFailed,
                       [&] {
                         const auto stream = open_byte_stream(file, poll);
                         LineReader(*stream).rest();
                       }),
            "enough");
}

TEST(ByteStream, LinesOfAnyLength) {
  const TestFolder folder;
  const std::string longest(300000, 'x');
  const auto stream = open_byte_stream(folder.write("f", "a\n\n" + longest + "\nend").string());
  LineReader reader(*stream);
  std::vector<std::string> lines;
  for (std::string line; reader.next(line);) lines.push_back(line);
  EXPECT_EQ(lines, (std::vector<std::string>{"a", "", longest, "end"}));
}

}  // namespace
}  // namespace krait::io
