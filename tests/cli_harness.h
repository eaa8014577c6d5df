// Running the program as a user does: arguments, pipes, signals, a terminal; and tiny models with a tokenizer to run.
#pragma once
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <fstream>
#include <functional>
#include <iterator>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "krait/models/export.h"
#include "krait/text/utf8.h"
#include "tests/tiny_models.h"

namespace krait::test {

using nlohmann::json;
using Args = std::vector<std::string>;

struct Finished {
  int code = -1;  // exit code; 128 + signal if it was killed by one
  std::string out, err;
  json parsed() const { return json::parse(out); }
};

inline std::string read_all(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

// A child process with its own standard streams.
class Child {
 public:
  // `out`: a file that standard output goes to instead of a pipe. `setup` runs in the child before the program.
  Child(const Args& args, const std::string& in, const std::string& out = "", const std::function<void()>& setup = {}) {
    int to[2], from[2], err[2];
    if (pipe2(to, O_CLOEXEC) != 0 || pipe2(from, O_CLOEXEC) != 0 || pipe2(err, O_CLOEXEC) != 0) abort();
    pid_ = fork();
    if (pid_ == 0) {
      const int o = out.empty() ? from[1] : open(out.c_str(), O_WRONLY);
      dup2(to[0], 0);
      dup2(o, 1);
      dup2(err[1], 2);
      if (setup) setup();
      execute(args);
    }
    for (const int fd : {to[0], from[1], err[1]}) close(fd);
    out_ = from[0];
    err_ = err[0];
    signal(SIGPIPE, SIG_IGN);
    for (size_t at = 0; at < in.size();) {
      const ssize_t n = write(to[1], in.data() + at, in.size() - at);
      if (n <= 0) break;  // it does not read its input
      at += static_cast<size_t>(n);
    }
    close(to[1]);
  }

  // Reads what comes until there are that many bytes.
  void read_output(size_t bytes) {
    while (done_.out.size() < bytes && take(out_, done_.out)) {
    }
  }
  void close_output() { close(std::exchange(out_, -1)); }
  void kill(int signal) { ::kill(pid_, signal); }
  // Until the program handles SIGINT itself.
  void wait_for_handlers() const {
    for (int i = 0; i < 20000; ++i, usleep(1000)) {
      std::ifstream status("/proc/" + std::to_string(pid_) + "/status");
      for (std::string line; std::getline(status, line);) {
        if (line.starts_with("SigCgt:") && (std::stoull(line.substr(7), nullptr, 16) & (1U << (SIGINT - 1))) != 0)
          return;
      }
    }
  }

  Finished wait() {
    pollfd fds[2] = {{out_, POLLIN, 0}, {err_, POLLIN, 0}};
    while (fds[0].fd >= 0 || fds[1].fd >= 0) {
      poll(fds, 2, -1);
      if (fds[0].revents != 0 && !take(out_, done_.out)) fds[0].fd = -1;
      if (fds[1].revents != 0 && !take(err_, done_.err)) fds[1].fd = -1;
    }
    if (out_ >= 0) close(out_);
    close(err_);
    done_.code = exit_code(pid_);
    return done_;
  }

  [[noreturn]] static void execute(const Args& args) {
    std::vector<char*> argv{const_cast<char*>("krait")};
    for (const std::string& a : args) argv.push_back(const_cast<char*>(a.c_str()));
    argv.push_back(nullptr);
    execv(KRAIT_PROGRAM, argv.data());
    _exit(127);
  }
  static int exit_code(pid_t pid) {
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

 private:
  static bool take(int fd, std::string& to) {
    char part[4096];
    const ssize_t n = read(fd, part, sizeof part);
    if (n <= 0) return false;
    to.append(part, static_cast<size_t>(n));
    return true;
  }
  pid_t pid_;
  int out_, err_;
  Finished done_;
};

inline Finished krait(const Args& args, const std::string& in = "") { return Child(args, in).wait(); }

// What a chat writes to a terminal before it reads; no random text happens to hold it.
constexpr const char* kPrompt = "\033[1;32m> \033[0m";

// The program on a terminal.
class Terminal {
 public:
  explicit Terminal(const Args& args) {
    pid_ = forkpty(&fd_, nullptr, nullptr, nullptr);
    if (pid_ == 0) Child::execute(args);
  }
  ~Terminal() {
    if (pid_ > 0) finish();
  }
  void type(const std::string& text) {
    ASSERT_EQ(write(fd_, text.data(), text.size()), static_cast<ssize_t>(text.size()));
  }
  // Waits until `text` has been shown since the last call; false after 20 seconds or at the end.
  bool shows(const std::string& text) {
    return shows([&] {
      const size_t at = screen_.find(text, seen_);
      if (at != std::string::npos) seen_ = at + text.size();
      return at != std::string::npos;
    });
  }
  // The same for anything at all.
  bool shows_more() {
    return shows([&] { return std::exchange(seen_, screen_.size()) < screen_.size(); });
  }
  void kill(int signal) const { ::kill(pid_, signal); }
  bool running() const { return ::kill(pid_, 0) == 0 && waitpid(pid_, nullptr, WNOHANG) == 0; }
  const std::string& screen() const { return screen_; }
  // Hangs up and returns the exit code.
  int finish() {
    close(fd_);
    return Child::exit_code(std::exchange(pid_, -1));
  }
  int wait() {
    shows("\x01 never shown \x01");  // reads to the end
    return finish();
  }

 private:
  bool shows(const std::function<bool()>& done) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!done()) {
      pollfd p{fd_, POLLIN, 0};
      char part[4096];
      if (std::chrono::steady_clock::now() > until) return false;
      if (poll(&p, 1, 1000) <= 0) continue;
      const ssize_t n = read(fd_, part, sizeof part);
      if (n <= 0) return false;
      screen_.append(part, static_cast<size_t>(n));
    }
    return true;
  }

  pid_t pid_ = -1;
  int fd_ = -1;
  std::string screen_;
  size_t seen_ = 0;
};

// A byte-level vocabulary without merges: token b is byte b, 256 is <|end|>, 257 <|user|>, 258 <|assistant|>.
inline json byte_tokenizer() {
  json vocab = json::object();
  uint32_t next = 256;  // stands for the next byte that is not printable
  for (uint32_t b = 0; b < 256; ++b) {
    const bool printable = (b >= 33 && b <= 126) || (b >= 161 && b <= 172) || b >= 174;
    vocab[text::to_utf8(printable ? b : next++)] = b;
  }
  json added = json::array();
  for (const char* name : {"<|end|>", "<|user|>", "<|assistant|>"}) {
    added.push_back({{"id", 256 + added.size()},
                     {"content", name},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", false},
                     {"special", true}});
  }
  const json byte_level = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", true}};
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", added},
          {"normalizer", nullptr},
          {"pre_tokenizer", byte_level},
          {"post_processor", nullptr},
          {"decoder", byte_level},
          {"model",
           {{"type", "BPE"},
            {"dropout", nullptr},
            {"unk_token", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"vocab", vocab},
            {"merges", json::array()}}}};
}

constexpr const char* kTestTemplate =
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}";

// Folders that live as long as the test.
class CliTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    folder_ = fs::path(testing::TempDir()) / ("krait-" + std::to_string(getpid()) + "-" + info->name());
    fs::create_directories(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  void write(const std::string& name, const std::string& content) const { std::ofstream(folder_ / name) << content; }

  // A tiny model of that generation (tiny_names()) with the tokenizer above, in a folder.
  std::string model(const std::string& generation = "mamba2", const std::string& chat_template = "",
                    uint64_t seed = 1) const {
    const fs::path out = folder_ / (generation + std::to_string(seed) + (chat_template.empty() ? "" : "-chat"));
    if (fs::exists(out)) return out.string();
    ModelSpec spec = tiny_spec(generation);
    spec.vocab_size = 259;
    spec.padded_vocab_size = 272;
    for (SubBlockSpec& b : spec.blocks) {
      if (b.mixer == "gated_mlp") b.config.set("d_hidden", 128);  // files of that form hold multiples of 128
    }
    ParamStore params = random_params(spec, seed, DType::kF32, pool());
    Tensor table = params.f32(kEmbeddingName);
    for (int64_t i = 0; i < table.numel(); ++i) table.f32()[i] *= 25;
    params.set(kEmbeddingName, {table, false});
    save_folder(spec, params, out, CheckpointForm::kAuto);
    std::ofstream(out / "tokenizer.json") << byte_tokenizer().dump();
    json config = {{"eos_token", "<|end|>"}, {"tokenizer_class", "PreTrainedTokenizerFast"}};
    if (!chat_template.empty()) config["chat_template"] = chat_template;
    std::ofstream(out / "tokenizer_config.json") << config.dump();
    return out.string();
  }

  fs::path folder_;
};

inline Args operator+(Args a, const Args& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

}  // namespace krait::test
