#include "kernels/cpu/isa.hpp"

#include <array>
#include <dnnl.hpp>
#include <mutex>
#include <optional>

#include "kernels/check.hpp"

namespace reap {
namespace {

struct IsaInfo {
  CpuIsa isa;
  std::string_view name;
  dnnl::cpu_isa onednn;
};

constexpr std::array<IsaInfo, 5> kIsas{{
    {CpuIsa::automatic, "auto", dnnl::cpu_isa::all},
    {CpuIsa::avx2, "avx2", dnnl::cpu_isa::avx2},
    {CpuIsa::avx512, "avx512", dnnl::cpu_isa::avx512_core},
    {CpuIsa::avx512_bf16, "avx512_bf16", dnnl::cpu_isa::avx512_core_bf16},
    {CpuIsa::amx, "amx", dnnl::cpu_isa::avx512_core_amx},
}};

const IsaInfo& info_of(CpuIsa isa) { return kIsas[static_cast<std::size_t>(isa)]; }

bool machine_has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
}

// What our own loops are compiled for (x86-64-v4), beyond what oneDNN looks at.
bool machine_has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

// The newest of ours that oneDNN will use: the machine's, or less by its own limit (ONEDNN_MAX_CPU_ISA). oneDNN's
// values are sets of features, so one that is newer than our list contains the newest on it.
CpuIsa newest_isa() {
  const auto effective = static_cast<unsigned>(dnnl::get_effective_cpu_isa());
  const bool avx512 = machine_has_avx512();
  for (std::size_t i = kIsas.size() - 1; i > 0; --i) {
    const auto needed = static_cast<unsigned>(kIsas[i].onednn);
    if ((effective & needed) == needed && (avx512 || kIsas[i].isa == CpuIsa::avx2)) return kIsas[i].isa;
  }
  fail(ExitCode::bad_input,
       "oneDNN is limited to less than AVX2, which the CPU backend needs: unset ONEDNN_MAX_CPU_ISA");
}

}  // namespace

std::string_view name_of(CpuIsa isa) { return info_of(isa).name; }

CpuIsa settle_isa(CpuIsa wanted) {
  static std::mutex mutex;
  static std::optional<CpuIsa> settled;
  const std::lock_guard lock(mutex);
  if (!machine_has_avx2()) {
    fail(ExitCode::bad_input, "this processor lacks AVX2 and FMA, which the CPU backend needs: use a newer machine");
  }
  if (!settled) {
    // Fails where oneDNN was used before; the comparison below then says what it is bound to.
    if (wanted != CpuIsa::automatic) dnnl::set_max_cpu_isa(info_of(wanted).onednn);
    settled = newest_isa();
  }
  if (wanted != CpuIsa::automatic && wanted != *settled) {
    fail(ExitCode::usage,
         "instruction set {} is not to be had: {} is the newest that this machine (or this process) offers",
         name_of(wanted), name_of(*settled));
  }
  return *settled;
}

DType bf16_product_dtype(CpuIsa isa) { return isa >= CpuIsa::avx512_bf16 ? DType::bf16 : DType::f32; }

std::int64_t row_tile(CpuIsa isa) {
  switch (isa) {
    case CpuIsa::amx:
      return 64;
    case CpuIsa::avx2:
      return 48;
    default:
      return 32;
  }
}

}  // namespace reap
