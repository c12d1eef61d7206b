#include "backend/cpu/kernels.h"

#include <cstdlib>
#include <string_view>

namespace qwenbench::backend::cpu {

namespace portable {
extern const Kernels table;
}
#ifdef QWENBENCH_X86
namespace avx2 {
extern const Kernels table;
}
namespace avx512 {
extern const Kernels table;
}
#endif

const Kernels* kernels(const char* name) {
  const std::string_view wanted = name;
#ifdef QWENBENCH_X86
  if (wanted == "avx512" && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
    return &avx512::table;
  }
  // Every processor with AVX2 has F16C, which not every compiler can ask for.
  if (wanted == "avx2" && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return &avx2::table;
#endif
  return wanted == "portable" ? &portable::table : nullptr;
}

const Kernels& kernels() {
  static const Kernels& chosen = []() -> const Kernels& {
    const char* asked = std::getenv("QWENBENCH_CPU_ISA");
    const Kernels* table = asked ? kernels(asked) : nullptr;
    for (const char* name : {"avx512", "avx2", "portable"}) {
      if (!table) table = kernels(name);
    }
    return *table;
  }();
  return chosen;
}

}  // namespace qwenbench::backend::cpu
