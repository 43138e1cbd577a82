#include <hdf5.h>
#include <unknown/library.h>

#include "driver/plan.hpp"
#include "kernels/cpu/gemm.hpp"

void meet() { MPI_Barrier(MPI_COMM_WORLD); }
