// Where the program meets the system: signals, pipes whose reader has gone, places that cannot be written, and names
// that are not there.
#include <sys/stat.h>

#include "krait/core/tensor.h"
#include "krait/io/npy.h"
#include "tests/cli_harness.h"

namespace krait::test {
namespace {

using testing::HasSubstr;

class CliEdges : public CliTest {
 protected:
  // Names in a folder, hidden ones too.
  std::vector<std::string> names_in(const std::string& folder) const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename().string());
    return names;
  }
  std::string ids_file(const Shape& shape) const {
    Tensor ids = Tensor::empty(shape, DType::kI32);
    for (int64_t i = 0; i < ids.numel(); ++i) ids.data<int32_t>()[i] = static_cast<int32_t>(i % 200);
    io::write_npy(path("ids.npy"), ids);
    return path("ids.npy");
  }
};

void expect_interrupted(const Finished& f) {
  EXPECT_EQ(f.code, 130);
  EXPECT_EQ(f.err, "krait: interrupted\n");
  EXPECT_EQ(f.out, "");
}

TEST_F(CliEdges, CtrlCWhileReadingEndsWithAMessageAndNothingElse) {
  const std::string m = model(), pipe = path("pipe");
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  for (const Args& args : std::vector<Args>{
           {"perplexity", m, pipe}, {"perplexity", m, pipe, "--json"}, {"tokenize", m, "-f", pipe, "--json"}}) {
    Child child(args, "");
    const int fd = open(pipe.c_str(), O_WRONLY);  // waits for the reader
    child.kill(SIGINT);
    expect_interrupted(child.wait());
    close(fd);
  }
}

TEST_F(CliEdges, CtrlCWhileComputing) {
  const std::string m = model();
  write("long.txt", std::string(3000000, 'a'));
  const std::string ids = ids_file({3000000});
  const std::string out = path("out.npy");
  for (const Args& args : std::vector<Args>{{"perplexity", m, path("long.txt"), "--json"},
                                            {"logits", m, "--ids", ids, "--out", out},
                                            {"verify", m, "--json", "--length", "2000"}}) {
    Child child(args, "");
    child.wait_for_handlers();
    usleep(300000);
    child.kill(SIGINT);
    expect_interrupted(child.wait());
  }
  EXPECT_FALSE(fs::exists(out));
  Child child({"perplexity", m, path("long.txt")}, "");
  child.wait_for_handlers();
  child.kill(SIGTERM);
  const Finished f = child.wait();
  EXPECT_EQ(f.code, 143);
  EXPECT_EQ(f.err, "krait: terminated\n");
}

// Interrupted in the midst of a big file, and before it.
TEST_F(CliEdges, CtrlCLeavesNoFolder) {
  fs::create_directories(path("here"));
  Child early({"new", "mamba-2.8b", path("here/a/b/model")}, "");
  early.wait_for_handlers();
  early.kill(SIGINT);
  expect_interrupted(early.wait());
  EXPECT_TRUE(names_in(path("here")).empty());

  Child child({"new", "mamba-130m", path("here/a/b/model"), "--dtype", "f16"}, "");
  for (int i = 0; i < 60000 && !fs::exists(path("here/a/b")); ++i) usleep(1000);
  ASSERT_TRUE(fs::exists(path("here/a/b"))) << "nothing was written in a minute";
  child.kill(SIGINT);
  expect_interrupted(child.wait());
  EXPECT_TRUE(names_in(path("here")).empty());
}

TEST_F(CliEdges, WhatCannotBeWrittenIsSaidBeforeTheWorkAndLeavesNothing) {
  const std::string m = model();
  write("file", "x");
  const std::vector<std::pair<Args, int>> cases = {{{"new", "mamba-2.8b", path("file")}, 2},
                                                   {{"new", "mamba-2.8b", path("file/inside")}, 1},
                                                   {{"new", "mamba-2.8b", ""}, 2},
                                                   {{"convert", m, path("file")}, 2},
                                                   {{"convert", m, path("file/inside")}, 1},
                                                   {{"convert", m, path("file/inside.gguf")}, 1},
                                                   {{"logits", m, "--ids", ids_file({5}), "--out", "-"}, 2},
                                                   {{"logits", m, "--ids", ids_file({5}), "--out", "/dev/full"}, 1}};
  for (const auto& [args, code] : cases) {
    const Finished f = krait(args);
    EXPECT_EQ(f.code, code) << testing::PrintToString(args);
    EXPECT_TRUE(f.err.starts_with("krait: [")) << f.err;
    EXPECT_EQ(f.out, "");
    EXPECT_EQ(f.err.find("filesystem error"), std::string::npos) << f.err;
  }
  EXPECT_EQ(read_all(path("file")), "x");
  EXPECT_FALSE(fs::exists("-"));
}

// A full disk amid the weights: the folder that was begun is gone, and those made for it.
TEST_F(CliEdges, FullDiskLeavesNoFolder) {
  fs::create_directories(path("here"));
  const Finished f = Child({"convert", model(), path("here/a/model")}, "", "", [] {
                       const rlimit least{1000, 1000};
                       setrlimit(RLIMIT_FSIZE, &least);
                     }).wait();
  EXPECT_EQ(f.code, 1) << f.err;
  EXPECT_THAT(f.err, HasSubstr("cannot write"));
  EXPECT_TRUE(names_in(path("here")).empty());
}

TEST_F(CliEdges, AReaderThatGoesAwayIsNoError) {
  write("long.txt", std::string(400000, 'a'));
  for (const Args& args : std::vector<Args>{{"tokenize", model(), "-f", path("long.txt")},
                                            {"tokenize", model(), "-f", path("long.txt"), "--json"},
                                            {"inspect", model(), "--tensors"},
                                            {"--help"}}) {
    Child child(args, "");
    child.read_output(args[0] == "tokenize" ? 3 : 0);
    child.close_output();
    const Finished f = child.wait();
    EXPECT_EQ(f.code, 0) << testing::PrintToString(args);
    EXPECT_EQ(f.err, "") << testing::PrintToString(args);
  }
}

TEST_F(CliEdges, UnknownCommandsAreNamedWithWhatIsNear) {
  const Finished near = krait({"inspct", "x"});
  EXPECT_EQ(near.code, 2);
  EXPECT_EQ(near.err, "krait: [krait] unknown command 'inspct'; did you mean 'inspect'?\n");
  EXPECT_THAT(krait({"token"}).err, HasSubstr("did you mean 'tokenize'?"));
  EXPECT_THAT(krait({"frob"}).err, HasSubstr("unknown command 'frob'; the commands are run, serve, logits"));
  EXPECT_THAT(krait({}).err, HasSubstr("a command is wanted; the commands are run"));
  EXPECT_THAT(krait({"state", "frok"}).err, HasSubstr("[state] unknown command 'frok'; did you mean 'fork'?"));
  const Finished none = krait({"state"});
  EXPECT_EQ(none.code, 2);
  EXPECT_THAT(none.err, HasSubstr("[state] a command is wanted; the commands are info, diff, fork"));
  // A command that has one of its own may stand by itself.
  EXPECT_EQ(krait({"bench", model(), "-p", "2", "-n", "0", "-r", "1", "--no-roofline"}).code, 0);
}

TEST_F(CliEdges, NoIdsHaveNoLogits) {
  const std::string m = model(), out = path("out.npy");
  for (const Shape& shape : {Shape{0}, Shape{2, 0}, Shape{0, 5}}) {
    const Finished f = krait({"logits", m, "--ids", ids_file(shape), "--out", out});
    ASSERT_EQ(f.code, 0) << f.err;
    const Tensor logits = io::read_npy(out);
    ASSERT_EQ(logits.rank(), shape.rank() + 1);
    for (int i = 0; i < shape.rank(); ++i) EXPECT_EQ(logits.dim(i), shape[i]);
    EXPECT_EQ(logits.dim(-1), 272);
  }
}

}  // namespace
}  // namespace krait::test
