# The decode products: qwenbench_linear_kernels, and their benchmark. Included by kernels/CMakeLists.txt.
add_library(qwenbench_linear_kernels STATIC
  ${CMAKE_CURRENT_LIST_DIR}/w4_linear.cu
  ${CMAKE_CURRENT_LIST_DIR}/fp8_block_linear.cu
  ${CMAKE_CURRENT_LIST_DIR}/bf16_linear.cu)
add_library(qwenbench::linear_kernels ALIAS qwenbench_linear_kernels)
target_include_directories(qwenbench_linear_kernels PUBLIC ${CMAKE_CURRENT_LIST_DIR})
target_compile_features(qwenbench_linear_kernels PUBLIC cuda_std_17)
target_link_libraries(qwenbench_linear_kernels PUBLIC CUDA::cudart_static)

add_executable(linear_bench ${CMAKE_CURRENT_LIST_DIR}/bench/linear_bench.cu)
target_link_libraries(linear_bench PRIVATE qwenbench_linear_kernels)
