// TLS: handshake, answers, streams, certificates read again.
#include <gtest/gtest.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>

#include "krait/core/error.h"
#include "krait/serve/http/server_fixture.h"

namespace krait::serve {
namespace {

using namespace std::chrono_literals;
using testing::eventually;
using testing::TestClient;

// Writes a key and a certificate signed with it.
void make_certificate(const std::string& certificate, const std::string& key_path, const char* name,
                      const EVP_CIPHER* lock = nullptr) {
  const std::unique_ptr<EVP_PKEY, void (*)(EVP_PKEY*)> key(EVP_EC_gen("P-256"), EVP_PKEY_free);
  const std::unique_ptr<X509, void (*)(X509*)> x(X509_new(), X509_free);
  ASSERT_TRUE(key && x);
  ASN1_INTEGER_set(X509_get_serialNumber(x.get()), 1);
  X509_gmtime_adj(X509_getm_notBefore(x.get()), -3600);
  X509_gmtime_adj(X509_getm_notAfter(x.get()), 3600);
  X509_set_pubkey(x.get(), key.get());
  X509_NAME* subject = X509_get_subject_name(x.get());
  X509_NAME_add_entry_by_txt(subject, "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>(name), -1, -1, 0);
  X509_set_issuer_name(x.get(), subject);
  ASSERT_GT(X509_sign(x.get(), key.get(), EVP_sha256()), 0);
  std::FILE* f = std::fopen(certificate.c_str(), "w");
  ASSERT_TRUE(f && PEM_write_X509(f, x.get()));
  std::fclose(f);
  f = std::fopen(key_path.c_str(), "w");
  ASSERT_TRUE(f && PEM_write_PrivateKey(f, key.get(), lock, nullptr, 0, nullptr, const_cast<char*>("secret")));
  std::fclose(f);
}

class TlsClient {
 public:
  explicit TlsClient(uint16_t port) : socket_(port), context_(SSL_CTX_new(TLS_client_method())) {
    ssl_ = SSL_new(context_);
    SSL_set_fd(ssl_, socket_.fd());
    good_ = SSL_connect(ssl_) == 1;
  }
  ~TlsClient() {
    SSL_free(ssl_);
    SSL_CTX_free(context_);
  }
  TlsClient(const TlsClient&) = delete;
  TlsClient& operator=(const TlsClient&) = delete;

  bool good() const { return good_; }
  std::string name() const {  // of the server's certificate
    char out[100] = "";
    X509* x = SSL_get1_peer_certificate(ssl_);
    X509_NAME_get_text_by_NID(X509_get_subject_name(x), NID_commonName, out, sizeof out);
    X509_free(x);
    return out;
  }
  void send(const std::string& bytes) { SSL_write(ssl_, bytes.data(), static_cast<int>(bytes.size())); }
  bool wait_for(const std::string& what) {
    char chunk[4096];
    while (got_.find(what) == std::string::npos) {
      const int n = SSL_read(ssl_, chunk, sizeof chunk);
      if (n <= 0) return false;
      got_.append(chunk, static_cast<size_t>(n));
    }
    return true;
  }
  // The server said goodbye, as against: the connection was cut.
  bool wait_for_goodbye() {
    char chunk[4096];
    int n = 0;
    while ((n = SSL_read(ssl_, chunk, sizeof chunk)) > 0) got_.append(chunk, static_cast<size_t>(n));
    return SSL_get_error(ssl_, n) == SSL_ERROR_ZERO_RETURN;
  }
  const std::string& got() const { return got_; }
  void cut() { socket_.close(); }

 private:
  TestClient socket_;
  SSL_CTX* context_;
  SSL* ssl_ = nullptr;
  bool good_ = false;
  std::string got_;
};

class HttpTlsTest : public testing::ServerFixture {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "krait_tls_XXXXXX").string();
    ASSERT_NE(mkdtemp(pattern.data()), nullptr);
    folder_ = pattern;
    options_.tls_certificate = folder_ + "/cert.pem";
    options_.tls_key = folder_ + "/key.pem";
    make_certificate(options_.tls_certificate, options_.tls_key, "first");
  }
  void TearDown() override {
    ServerFixture::TearDown();
    std::filesystem::remove_all(folder_);
  }

  std::string folder_;
  HttpOptions options_;
};

TEST_F(HttpTlsTest, AnswersAndStreams) {
  start(options_);
  TlsClient c(server_->port());
  ASSERT_TRUE(c.good());
  EXPECT_EQ(c.name(), "first");
  c.send("POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nhi");
  EXPECT_TRUE(c.wait_for("POST /a  hi"));
  c.send("GET /stream HTTP/1.1\r\nHost: x\r\n\r\nGET /big HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  const auto x = held();
  x->send({"", "", "token"});
  EXPECT_TRUE(c.wait_for("data: token\n\n"));
  x->end_stream();
  EXPECT_TRUE(c.wait_for_goodbye());
  EXPECT_GT(c.got().size(), size_t{8} << 20);
}

TEST_F(HttpTlsTest, AClientThatGoesIsNoticed) {
  start(options_);
  TlsClient c(server_->port());
  c.send("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
  held();
  c.cut();
  EXPECT_TRUE(eventually([&] { return gone_ == 1; }));
  EXPECT_TRUE(eventually([&] { return server_->stats().connections == 0; }));
}

TEST_F(HttpTlsTest, OtherProtocolsAndSilenceEndTheHandshake) {
  options_.header_timeout = 200ms;
  start(options_);
  TestClient plain = client();
  plain.send("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(plain.wait_for_end());
  TestClient silent = client();
  EXPECT_TRUE(silent.wait_for_end());
  EXPECT_EQ(server_->stats().malformed, 1);
  EXPECT_EQ(server_->stats().timed_out, 1);
  EXPECT_TRUE(TlsClient(server_->port()).good());
}

TEST_F(HttpTlsTest, CertificatesAreReadAgain) {
  start(options_);
  TlsClient old(server_->port());
  make_certificate(options_.tls_certificate, options_.tls_key, "second");
  EXPECT_EQ(TlsClient(server_->port()).name(), "first");
  server_->reload_tls();
  EXPECT_EQ(TlsClient(server_->port()).name(), "second");
  old.send("GET /old HTTP/1.1\r\nHost: x\r\n\r\n");
  EXPECT_TRUE(old.wait_for("GET /old"));
  make_certificate(options_.tls_certificate, folder_ + "/other.pem", "third");  // does not fit the key
  EXPECT_THROW(server_->reload_tls(), Error);
  std::ofstream(options_.tls_certificate) << "no certificate";
  EXPECT_THROW(server_->reload_tls(), Error);
  EXPECT_EQ(TlsClient(server_->port()).name(), "second");
}

TEST_F(HttpTlsTest, WhatIsMissingIsAnError) {
  HttpOptions half = options_;
  half.tls_key.clear();
  EXPECT_THROW(start(half), Error);
  HttpOptions absent = options_;
  absent.tls_certificate = folder_ + "/absent.pem";
  EXPECT_THROW(start(absent), Error);
  start();
  EXPECT_THROW(server_->reload_tls(), Error);
}

// Not asked for at a terminal, where a server that reads its files again would wait for ever.
TEST_F(HttpTlsTest, ALockedKeyIsAnError) {
  make_certificate(options_.tls_certificate, options_.tls_key, "locked", EVP_aes_128_cbc());
  try {
    start(options_);
    FAIL();
  } catch (const Error& e) {
    EXPECT_NE(std::string(e.what()).find("pass phrase"), std::string::npos) << e.what();
  }
}

TEST_F(HttpTlsTest, StopDuringHandshakesAndStreams) {
  start(options_);
  TestClient silent = client();
  TlsClient c(server_->port());
  c.send("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n");
  held();
  server_->stop();
  EXPECT_EQ(gone_, 1);
  EXPECT_EQ(server_->stats().connections, 0);
}

}  // namespace
}  // namespace krait::serve
