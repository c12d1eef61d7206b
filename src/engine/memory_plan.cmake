qwenbench_library(memory_plan
  SOURCES device_memory.cpp memory_plan.cpp
  DEPENDS qwenbench::base qwenbench::profile qwenbench::model
  PRIVATE_DEPENDS qwenbench::graph qwenbench::backend fmt::fmt)
