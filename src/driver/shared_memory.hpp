#pragma once

namespace reap {

/// Removes the names of the shared memory through which Open MPI's ranks on this node talk: for a job that is being
/// killed, which would leave them in /dev/shm. The memory itself lives until the last rank has ended.
void remove_shared_memory_names();

}  // namespace reap
