// One of each: tests/layering.cmake must report every line. Never compiled.
#include <mpi.h>
#include <vector>

#include "shard/comm.hpp"
#include "../driver/plan.hpp"

#ifdef REAP_CUDA
#endif
