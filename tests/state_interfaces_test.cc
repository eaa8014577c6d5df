// The state over every interface: the library, the commands, a chat.
#include <utility>

#include "krait/infer/state_pool.h"
#include "tests/cli_harness.h"

namespace krait::test {
namespace {

using Ids = std::vector<int32_t>;

class StateInterfaces : public CliTest {
 protected:
  Finished ok(const Args& args, const std::string& in = "") const {
    Finished f = krait(args, in);
    EXPECT_EQ(f.code, 0) << f.err;
    return f;
  }
  bool equal(const std::string& a, const std::string& b) const {
    const Finished f = krait({"state", "diff", path(a), path(b), "--json"});
    return f.parsed().at("equal").get<bool>();
  }
};

TEST_F(StateInterfaces, TrapE14_SnapshotForkRewindExportImportInTheLibrary) {
  for (const std::string& name : tiny_names()) {
    const auto m = tiny_model(name);
    StatePool pool(*m, 3);
    Sequence s(pool);
    const Ids head = random_ids(9, 29, 1), tail = random_ids(5, 29, 2);
    s.read(head);
    s.mark();
    const State snapshot = s.state();
    Sequence fork = s.fork();
    fork.read(tail);
    EXPECT_TRUE(s.state() == snapshot) << name;  // the fork left it alone
    s.read(tail);
    EXPECT_TRUE(s.state() == fork.state()) << name;
    s.rewind(9);
    EXPECT_TRUE(s.state() == snapshot) << name;
    write_state(folder_ / name, snapshot);
    Sequence again(pool, read_state(folder_ / name));
    again.read(tail);
    EXPECT_TRUE(again.state() == fork.state()) << name;
  }
}

TEST_F(StateInterfaces, TrapE14_ExportImportInspectCompareForkAsCommands) {
  const std::string m = model();
  const Args more = {"--ignore-eos", "--json", "-n", "6"};
  ok(Args{"run", m, "-p", "It was", "--seed", "3", "--save-state", path("a")} + more);
  EXPECT_EQ(ok({"state", "info", path("a"), "--json"}).parsed().at("position"), 12);
  EXPECT_EQ(krait({"state", "fork", path("a"), path("no"), "--stream", "0"}).code, 2);  // that would be no other
  ok({"state", "fork", path("a"), path("other")});
  fs::copy_file(path("a"), path("same"));
  EXPECT_TRUE(equal("a", "same"));
  EXPECT_FALSE(equal("a", "other"));  // the same text, other draws from here on
  const auto on = [&](const char* from) {
    return ok(Args{"run", m, "--load-state", path(from)} + more).parsed().at("ids").get<Ids>();
  };
  EXPECT_EQ(on("a"), on("same"));
  EXPECT_NE(on("a"), on("other"));
}

TEST_F(StateInterfaces, TrapE14_ExportImportRewindInAChat) {
  const Args chat = {"run", model("mamba2", kTestTemplate), "-i", "-n", "8", "--ignore-eos"};
  ok(chat, "one\n/save " + path("a") + "\ntwo\n/undo\n/save " + path("b") + "\n/load " + path("a") + "\n/save " +
               path("c") + "\ntwo\n/save " + path("d") + "\n");
  EXPECT_TRUE(equal("a", "b"));
  EXPECT_TRUE(equal("a", "c"));
  EXPECT_FALSE(equal("a", "d"));
}

}  // namespace
}  // namespace krait::test
