// The kernel tables that this processor can run.
#pragma once

#include <vector>

#include "backend/cpu/kernels.h"

inline std::vector<const qwenbench::backend::cpu::Kernels*> runnable_kernels() {
  std::vector<const qwenbench::backend::cpu::Kernels*> tables;
  for (const char* name : {"portable", "avx2", "avx512"}) {
    if (const auto* table = qwenbench::backend::cpu::kernels(name)) tables.push_back(table);
  }
  return tables;
}
