#include "krait/serve/http/server.h"

#include <fmt/format.h>
#include <openssl/ssl.h>
#include <sys/resource.h>

#ifdef __SANITIZE_THREAD__
#define BOOST_ASIO_DISABLE_FENCED_BLOCK  // beside Asio's locks; g++ warns that ThreadSanitizer does not know fences
#endif
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/ip/v6_only.hpp>
#include <random>
#include <thread>

#include "krait/core/error.h"
#include "krait/serve/http/connection.h"

namespace krait::serve {
namespace {

using std::chrono::milliseconds;

// Connections above the limit that still get their 503; those above both are closed without a word.
constexpr int64_t kRefusals = 64;

[[noreturn]] void fail(const std::string& message) { throw Error(ErrorCode::kFailed, message); }

std::shared_ptr<asio::ssl::context> load_tls(const HttpOptions& options) {
  auto tls = std::make_shared<asio::ssl::context>(asio::ssl::context::tls_server);
  SSL_CTX* ctx = tls->native_handle();
  SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION);
  SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE);
  SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);  // tickets need no memory of ours
  error_code ec;
  tls->use_certificate_chain_file(options.tls_certificate, ec);
  if (ec) fail(fmt::format("[http] no certificate could be read from {}: {}", options.tls_certificate, ec.message()));
  // Nobody is there to be asked, least of all when the files are read again.
  bool locked = false;
  tls->set_password_callback([&locked](size_t, auto) { return locked = true, std::string(); }, ec);
  tls->use_private_key_file(options.tls_key, asio::ssl::context::pem, ec);
  if (locked) fail(fmt::format("[http] the key in {} is locked with a pass phrase", options.tls_key));
  if (ec)
    fail(fmt::format("[http] no key for the certificate could be read from {}: {}", options.tls_key, ec.message()));
  return tls;
}

// Each connection needs a file descriptor; the soft limit is often 1024.
void raise_file_limit(int connections) {
  rlimit limit{};
  const rlim_t wanted = static_cast<rlim_t>(std::max(0, connections)) + kRefusals + 256;
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted) return;
  limit.rlim_cur = std::min(wanted, limit.rlim_max);
  setrlimit(RLIMIT_NOFILE, &limit);  // if it fails, accept() says so in time, and connections wait
}

}  // namespace

struct HttpServer::Impl {
  using WorkGuard = asio::executor_work_guard<asio::io_context::executor_type>;

  std::shared_ptr<Core> core = std::make_shared<Core>();
  std::unique_ptr<tcp::acceptor> acceptor;  // of the first loop
  tcp::endpoint endpoint;
  std::mutex tls_mutex;
  std::shared_ptr<asio::ssl::context> tls;
  std::vector<WorkGuard> guards;
  std::vector<std::thread> threads;
  bool stopped = false;

  void bind();
  asio::awaitable<void> accept_all();
  void accepted(tcp::socket socket, Loop& loop);
  // Runs `f` on every loop, for each of its connections.
  void for_each_connection(void (*f)(Connection&)) {
    for (auto& loop : core->loops) {
      loop->post([l = loop.get(), f] {
        for (Connection* c : l->connections) f(*c);
      });
    }
  }
  void close_acceptor() {
    core->loops[0]->post([this] {
      error_code ignored;
      if (acceptor) acceptor->close(ignored);
    });
  }
};

void HttpServer::Impl::bind() {
  const HttpOptions& options = core->options;
  error_code ec;
  const auto address = asio::ip::make_address(options.host == "localhost" ? "127.0.0.1" : options.host, ec);
  if (ec)
    fail(fmt::format("[http] the host to listen on must be an address or \"localhost\", not \"{}\"", options.host));
  endpoint = tcp::endpoint(address, options.port);
  acceptor = std::make_unique<tcp::acceptor>(core->loops[0]->context);
  acceptor->open(endpoint.protocol(), ec);
  if (!ec) acceptor->set_option(tcp::acceptor::reuse_address(true), ec);
  if (!ec && address.is_v6()) acceptor->set_option(asio::ip::v6_only(!address.is_unspecified()), ec);
  if (!ec) acceptor->bind(endpoint, ec);
  if (!ec) acceptor->listen(asio::socket_base::max_listen_connections, ec);
  if (!ec) endpoint = acceptor->local_endpoint(ec);
  if (ec) fail(fmt::format("[http] cannot listen on {} port {}: {}", options.host, options.port, ec.message()));
}

asio::awaitable<void> HttpServer::Impl::accept_all() {
  asio::steady_timer timer(core->loops[0]->context);
  for (size_t next = 0; acceptor->is_open(); ++next) {
    Loop& loop = *core->loops[next % core->loops.size()];
    error_code ec;
    tcp::socket socket = co_await acceptor->async_accept(loop.context, asio::redirect_error(asio::use_awaitable, ec));
    if (!ec) {
      try {
        accepted(std::move(socket), loop);
      } catch (const std::exception&) {  // no memory: the next one may find some
        ++core->refused;
      }
    } else if (acceptor->is_open() && ec != asio::error::connection_aborted) {
      // Out of file descriptors, mostly: others will be closed.
      timer.expires_after(milliseconds(50));
      co_await timer.async_wait(asio::redirect_error(asio::use_awaitable, ec));
    }
  }
}

void HttpServer::Impl::accepted(tcp::socket socket, Loop& loop) {
  std::shared_ptr<asio::ssl::context> context;
  {
    const std::lock_guard lock(tls_mutex);
    context = tls;
  }
  bool refused = false;
  {
    const std::lock_guard lock(core->mutex);
    if (core->connections >= core->options.max_connections) {
      ++core->refused;
      refused = true;
      if (core->connections >= core->options.max_connections + kRefusals) return;
    }
    ++core->connections;
  }
  ++core->accepted;
  try {
    std::make_shared<Connection>(core, loop, std::move(socket), std::move(context), refused)->start();
  } catch (...) {
    const std::lock_guard lock(core->mutex);
    --core->connections;
    throw;
  }
}

HttpServer::HttpServer(HttpOptions options, Handler handler) : impl_(std::make_unique<Impl>()) {
  if (options.tls_certificate.empty() != options.tls_key.empty()) {
    fail("[http] TLS wants a certificate and a key: only one of them is named");
  }
  Core& core = *impl_->core;
  core.options = std::move(options);
  core.handler = std::move(handler);
  core.memory = std::make_shared<SharedMemory>(core.options.max_held);
  core.id_base = std::random_device{}();
  for (int i = 0; i < std::max(1, core.options.threads); ++i) core.loops.push_back(std::make_unique<Loop>());
  if (!core.options.tls_certificate.empty()) impl_->tls = load_tls(core.options);
  raise_file_limit(core.options.max_connections);
  impl_->bind();
}

HttpServer::~HttpServer() { stop(); }

void HttpServer::start() {
  if (!impl_->threads.empty() || impl_->stopped) throw Error(ErrorCode::kInternal, "[http] a server starts once");
  for (auto& loop : impl_->core->loops) {
    impl_->guards.emplace_back(loop->context.get_executor());
    impl_->threads.emplace_back([context = &loop->context] { context->run(); });
  }
  asio::co_spawn(impl_->core->loops[0]->context, [impl = impl_.get()] { return impl->accept_all(); }, asio::detached);
}

uint16_t HttpServer::port() const { return impl_->endpoint.port(); }

HttpStats HttpServer::stats() const {
  Core& core = *impl_->core;
  HttpStats out;
  {
    const std::lock_guard lock(core.mutex);
    out.connections = core.connections;
  }
  out.streams = core.streams;
  out.accepted = core.accepted;
  out.refused = core.refused;
  out.malformed = core.malformed;
  out.timed_out = core.timed_out;
  out.cut_off = core.cut_off;
  return out;
}

void HttpServer::reload_tls() {
  if (!impl_->tls) fail("[http] there is no certificate to read again: the server runs without TLS");
  auto fresh = load_tls(impl_->core->options);
  const std::lock_guard lock(impl_->tls_mutex);
  impl_->tls = std::move(fresh);
}

bool HttpServer::drain(milliseconds patience) {
  Core& core = *impl_->core;
  core.draining = true;
  if (impl_->threads.empty()) return true;
  impl_->close_acceptor();
  impl_->for_each_connection([](Connection& c) { c.wake(); });
  std::unique_lock lock(core.mutex);
  return core.none_left.wait_for(lock, patience, [&] { return core.connections == 0; });
}

void HttpServer::stop() {
  if (std::exchange(impl_->stopped, true)) return;
  Core& core = *impl_->core;
  core.stopping = core.draining = true;
  impl_->close_acceptor();
  impl_->for_each_connection([](Connection& c) { c.abort(); });
  impl_->guards.clear();
  for (std::thread& t : impl_->threads) t.join();
  for (auto& loop : core.loops) loop->close();
  error_code ignored;
  impl_->acceptor->close(ignored);
}

}  // namespace krait::serve
