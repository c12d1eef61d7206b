# The communicators between GPUs. Sets QWENBENCH_COMM_CUDA_SOURCES (host code), QWENBENCH_COMM_CUDA_KERNELS (for the
# kernels library) and NCCL_LIBRARY, NCCL_INCLUDE_DIR where NCCL was found.
set(dir ${CMAKE_CURRENT_LIST_DIR})
set(QWENBENCH_COMM_CUDA_SOURCES ${dir}/choose.cpp ${dir}/p2p_group.cpp ${dir}/p2p_communicator.cpp)
set(QWENBENCH_COMM_CUDA_KERNELS ${PROJECT_SOURCE_DIR}/kernels/all_reduce.cu
                                ${PROJECT_SOURCE_DIR}/kernels/all_reduce_add_norm.cu)
find_path(NCCL_INCLUDE_DIR nccl.h HINTS ${CUDAToolkit_INCLUDE_DIRS})
find_library(NCCL_LIBRARY nccl HINTS ${CUDAToolkit_LIBRARY_DIR} ${CUDAToolkit_LIBRARY_ROOT}/lib)
if(NCCL_INCLUDE_DIR AND NCCL_LIBRARY)
  list(APPEND QWENBENCH_COMM_CUDA_SOURCES ${dir}/nccl_communicator.cpp)
else()
  list(APPEND QWENBENCH_COMM_CUDA_SOURCES ${dir}/no_nccl.cpp)
endif()
