// A client for tests of the server: a blocking socket that sends any bytes, and reads answers with a time limit.
#pragma once
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <cstring>
#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>

namespace krait::serve::testing {

struct Reply {
  int status = 0;
  std::map<std::string, std::string> headers;  // lower case
  std::string body;                            // unchunked
  bool complete = false;                       // its end was seen
};

class TestClient {
 public:
  explicit TestClient(uint16_t port, int receive_buffer = 0) : fd_(socket(AF_INET, SOCK_STREAM, 0)) {
    if (receive_buffer > 0) setsockopt(fd_, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd_ < 0 || connect(fd_, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) {
      throw std::runtime_error(std::string("connect: ") + std::strerror(errno));
    }
  }
  ~TestClient() { close(); }
  TestClient(TestClient&& other) noexcept : fd_(std::exchange(other.fd_, -1)), buffer_(std::move(other.buffer_)) {}
  TestClient(const TestClient&) = delete;
  TestClient& operator=(const TestClient&) = delete;

  void close() {
    if (fd_ >= 0) ::close(fd_);
    fd_ = -1;
  }
  void reset() {  // goes without a goodbye
    const linger hard{1, 0};
    setsockopt(fd_, SOL_SOCKET, SO_LINGER, &hard, sizeof hard);
    close();
  }
  void close_sending_side() { shutdown(fd_, SHUT_WR); }
  int fd() const { return fd_; }

  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(n));
    }
    return true;
  }

  // False: nothing came within `ms`, or the connection ended.
  bool receive(int ms) {
    pollfd p{fd_, POLLIN, 0};
    if (poll(&p, 1, ms) <= 0) return false;
    char chunk[16384];
    const ssize_t n = recv(fd_, chunk, sizeof chunk, 0);
    if (n <= 0) {
      ended_ = true;
      return false;
    }
    buffer_.append(chunk, static_cast<size_t>(n));
    return true;
  }
  bool wait_for(std::string_view what, int ms = 5000) {
    const auto end = deadline(ms);
    while (buffer_.find(what) == std::string::npos) {
      if (!receive(left(end))) return false;
    }
    return true;
  }
  // The server has closed, and nothing was left to read.
  bool wait_for_end(int ms = 5000) {
    const auto end = deadline(ms);
    while (receive(left(end))) {
    }
    return ended_;
  }

  Reply reply(bool head = false, int ms = 10'000) {
    Reply out;
    const auto end = deadline(ms);
    if (!wait_for("\r\n\r\n", ms)) return out;
    const size_t header = buffer_.find("\r\n\r\n") + 4;
    parse_header(buffer_.substr(0, header), out);
    buffer_.erase(0, header);
    if (head || out.status == 100 || out.status == 204) {
      out.complete = true;
    } else if (out.headers.count("content-length")) {
      const size_t n = std::stoul(out.headers["content-length"]);
      while (buffer_.size() < n && receive(left(end))) {
      }
      out.complete = buffer_.size() >= n;
      out.body = buffer_.substr(0, n);
      buffer_.erase(0, n);
    } else if (out.headers["transfer-encoding"] == "chunked") {
      read_chunks(out, end);
    } else {
      while (receive(left(end))) {
      }
      out.body = std::exchange(buffer_, "");
      out.complete = ended_;
    }
    return out;
  }
  Reply get(const std::string& path, const std::string& headers = "") {
    send("GET " + path + " HTTP/1.1\r\nHost: localhost\r\n" + headers + "\r\n");
    return reply();
  }

  const std::string& buffered() const { return buffer_; }

 private:
  using Time = std::chrono::steady_clock::time_point;
  static Time deadline(int ms) { return std::chrono::steady_clock::now() + std::chrono::milliseconds(ms); }
  static int left(Time end) {
    const auto ms =
        std::chrono::duration_cast<std::chrono::milliseconds>(end - std::chrono::steady_clock::now()).count();
    return ms > 0 ? static_cast<int>(ms) : 0;
  }

  static void parse_header(const std::string& text, Reply& out) {
    out.status = std::stoi(text.substr(text.find(' ') + 1));
    size_t line = text.find("\r\n") + 2;
    while (line < text.size() - 2) {
      const size_t stop = text.find("\r\n", line);
      const size_t colon = text.find(": ", line);
      std::string name = text.substr(line, colon - line);
      for (char& c : name) c = static_cast<char>(std::tolower(c));
      out.headers[name] = text.substr(colon + 2, stop - colon - 2);
      line = stop + 2;
    }
  }

  void read_chunks(Reply& out, Time end) {
    for (;;) {
      size_t eol = 0;
      while ((eol = buffer_.find("\r\n")) == std::string::npos) {
        if (!receive(left(end))) return;
      }
      const size_t n = std::stoul(buffer_.substr(0, eol), nullptr, 16);
      while (buffer_.size() < eol + 2 + n + 2) {
        if (!receive(left(end))) return;
      }
      out.body += buffer_.substr(eol + 2, n);
      buffer_.erase(0, eol + 2 + n + 2);
      if (n == 0) {
        out.complete = true;
        return;
      }
    }
  }

  int fd_;
  std::string buffer_;
  bool ended_ = false;
};

}  // namespace krait::serve::testing
