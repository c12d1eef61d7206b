# Compiler settings, and the two functions through which every target is made.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
# The loops that need -O3 ask for it themselves (src/backend); elsewhere it only costs time to compile.
set(QWENBENCH_OPTIMIZATION -O2 CACHE STRING "Of host code in release builds; -O1 compiles in two thirds of the time")
set(CMAKE_CXX_FLAGS_RELEASE "${QWENBENCH_OPTIMIZATION} -DNDEBUG")
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bin)

find_program(CCACHE_PROGRAM ccache)
if(CCACHE_PROGRAM)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CCACHE_PROGRAM})
endif()

# qwenbench_options: warnings and, where asked for, sanitizers.
add_library(qwenbench_warnings INTERFACE)
add_library(qwenbench_options INTERFACE)
target_link_libraries(qwenbench_options INTERFACE qwenbench_warnings)
# -ffp-contract=off: a fused multiply-add is written where it is meant, so that every build computes the same bits.
target_compile_options(qwenbench_warnings INTERFACE
  $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wshadow -Wconversion -Wno-sign-conversion -ffp-contract=off>
  # GCC 12 sees overlaps in "text" + std::string that are not there.
  $<$<AND:$<CXX_COMPILER_ID:GNU>,$<VERSION_LESS:$<CXX_COMPILER_VERSION>,13>>:-Wno-restrict -Wno-stringop-overflow>)
if(QWENBENCH_SANITIZE)
  target_compile_options(qwenbench_options INTERFACE
    $<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${QWENBENCH_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all>)
  target_link_options(qwenbench_options INTERFACE -fsanitize=${QWENBENCH_SANITIZE})
endif()

if(QWENBENCH_UNITY_BUILD)
  # GCC takes the unnamed namespace of an included source file for a header's.
  target_compile_options(qwenbench_warnings INTERFACE $<$<COMPILE_LANG_AND_ID:CXX,GNU>:-Wno-subobject-linkage>)
endif()

# qwenbench_library(NAME SOURCES a.cpp ... [DEPENDS base ...] [PRIVATE_DEPENDS lib ...])
# makes qwenbench::NAME. DEPENDS are what its public headers include; names of our own modules or imported targets.
function(qwenbench_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPENDS;PRIVATE_DEPENDS" ${ARGN})
  add_library(qwenbench_${name} STATIC ${ARG_SOURCES})
  add_library(qwenbench::${name} ALIAS qwenbench_${name})
  target_include_directories(qwenbench_${name} PUBLIC ${PROJECT_SOURCE_DIR}/src)
  target_link_libraries(qwenbench_${name} PUBLIC ${ARG_DEPENDS} PRIVATE ${ARG_PRIVATE_DEPENDS} qwenbench_options)
endfunction()

# qwenbench_test(NAME SOURCES a_test.cpp ... DEPENDS qwenbench::x ...): one doctest executable, one ctest entry.
# Tests run in the source folder tests/, so that fixtures are named relative to it.
function(qwenbench_test name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPENDS;LABELS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES} ${PROJECT_SOURCE_DIR}/tests/doctest_main.cpp)
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/tests)
  target_link_libraries(${name} PRIVATE ${ARG_DEPENDS} doctest::doctest qwenbench_options)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  add_test(NAME ${name} COMMAND ${name} WORKING_DIRECTORY ${PROJECT_SOURCE_DIR}/tests)
  if("gpu" IN_LIST ARG_LABELS)
    set_tests_properties(${name} PROPERTIES SKIP_REGULAR_EXPRESSION "skipped: no CUDA device")
  endif()
  set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABELS}" ENVIRONMENT "QWENBENCH_BIN=${CMAKE_BINARY_DIR}/bin")
endfunction()

# qwenbench_fuzz(NAME SOURCE DEPENDS ...): a libFuzzer target, only where QWENBENCH_FUZZ is on.
function(qwenbench_fuzz name source)
  cmake_parse_arguments(ARG "" "" "DEPENDS" ${ARGN})
  if(NOT QWENBENCH_FUZZ)
    return()
  endif()
  add_executable(${name} ${source})
  target_link_libraries(${name} PRIVATE ${ARG_DEPENDS} qwenbench_options)
  target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/fuzz)
endfunction()

# qwenbench_must_not_link(TARGET FORBIDDEN...): configuring fails where TARGET reaches one of them, over any number of
# steps. Called when everything is known (the end of the top folder's scope).
function(qwenbench_must_not_link target)
  cmake_language(EVAL CODE "cmake_language(DEFER DIRECTORY ${PROJECT_SOURCE_DIR} CALL qwenbench_check_links ${target} ${ARGN})")
endfunction()

function(qwenbench_check_links target)
  set(open ${target})
  set(seen "")
  while(open)
    list(POP_FRONT open current)
    get_target_property(links ${current} LINK_LIBRARIES)
    get_target_property(interface ${current} INTERFACE_LINK_LIBRARIES)
    foreach(link IN LISTS links interface)
      string(REGEX REPLACE "^\\$<LINK_ONLY:(.*)>$" "\\1" link "${link}")
      if(NOT TARGET "${link}")
        continue()
      endif()
      get_target_property(aliased ${link} ALIASED_TARGET)
      if(aliased)
        set(link ${aliased})
      endif()
      if(link IN_LIST ARGN)
        message(FATAL_ERROR "${target} must not link ${link}, which ${current} needs")
      endif()
      if(link MATCHES "^qwenbench" AND NOT link IN_LIST seen)
        list(APPEND seen ${link})
        list(APPEND open ${link})
      endif()
    endforeach()
  endwhile()
endfunction()
