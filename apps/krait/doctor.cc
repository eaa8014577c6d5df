// krait doctor: what this program sees of the machine, and whether it works here.
#include <sys/resource.h>
#include <sys/sysinfo.h>

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <exception>

#include "krait/backends/cpu/cpu_backend.h"
#include "krait/backends/cpu/kernel_check.h"
#include "krait/text/utf8.h"
#include "session.h"

namespace krait::cli {
namespace {

// One line a kernel set, and one for each kernel of it that computes something else than the scalar reference.
bool report_kernels(const KernelSet& k, ThreadPool& pool) {
  const std::vector<KernelCheck> checks = check_kernels(k, pool);
  const auto wrong = std::ranges::count_if(checks, [](const KernelCheck& c) { return !c.ok(); });
  double worst = 0;
  for (const KernelCheck& c : checks) worst = std::max(worst, c.error);
  std::printf("kernels   %-18s %s%s\n", k.name,
              wrong == 0 ? fmt::format("ok ({} checks, largest relative error {:.1e})", checks.size(), worst).c_str()
                         : fmt::format("WRONG in {} of {} checks", wrong, checks.size()).c_str(),
              &k == &cpu_kernels() ? "  <- default" : "");
  for (const KernelCheck& c : checks) {
    if (!c.ok()) {
      const std::string right = c.bound > 0 ? fmt::format("at most {:.0e} is", c.bound) : "the same bits are";
      std::printf("          %-18s %s: relative error %.1e, %s right\n", "", c.kernel.c_str(), c.error, right.c_str());
    }
  }
  return wrong == 0;
}

int doctor() {
  bool ok = true;
  struct sysinfo info{};
  sysinfo(&info);
  const double gib = static_cast<double>(info.mem_unit) / (1 << 30);
  std::printf("version   krait %s\n", KRAIT_VERSION);
  std::printf("cpu       %s\n", cpu_description().c_str());
  std::printf("threads   %d usable\n", ThreadPool::default_threads());
  std::printf("memory    %.1f GiB, %.1f GiB free\n", static_cast<double>(info.totalram) * gib,
              static_cast<double>(info.freeram) * gib);
  const auto pool = make_pool(0);
  for (const KernelSet* k : cpu_kernel_sets()) ok = report_kernels(*k, *pool) && ok;
  try {
    ModelArgs args;
    const Session s = open_session(args, NeedTokenizer::kYes);
    std::printf("model     %s ok (%lld parameters)\n",
                text::escape_controls(s.loaded.checkpoint->path().string()).c_str(),
                static_cast<long long>(s.model().param_count()));
  } catch (const std::exception& e) {
    ok = false;
    std::printf("model     %s\n", text::escape_message(e.what()).c_str());
  }
  std::printf("%s\n", ok ? "all well" : "problems found");
  return ok ? 0 : 1;
}

}  // namespace

void add_doctor(Command& root) {
  Command c = root.subcommand("doctor", "Check the machine, the kernels and the shipped model");
  c.run([] { return doctor(); });
}

}  // namespace krait::cli
