# SPDX-License-Identifier: Apache-2.0
"""reap_dist for Spack 1.0 and later. In the root of the repository:

spack repo add jobs/spack/spack_repo/reap
spack dev-build reap-dist@main
"""

from spack_repo.builtin.build_systems.cmake import CMakePackage, generator

from spack.package import *


class ReapDist(CMakePackage):
    """Prunes the experts of sparse Mixture-of-Experts checkpoints with REAP, as an MPI job."""

    license("Apache-2.0")

    # There is no published release to fetch: a checkout is built where it is.
    version("main")

    depends_on("c", type="build")  # for CMake's probe of HDF5
    depends_on("cxx", type="build")
    depends_on("cmake@3.25:", type="build")
    generator("ninja")

    depends_on("mpi@3.1:")
    depends_on("onednn@2.6:2 cpu_runtime=omp")  # the interface of oneDNN 3 is another one
    depends_on("hdf5@1.10:1 ~mpi")  # rank 0 writes small tables: the serial library is enough
    depends_on("boost@1.74: +program_options")
    depends_on("fmt@9.1:9")
    depends_on("spdlog@1.10:")
    depends_on("nlohmann-json@3.11:")
    depends_on("openssl@3:")
    depends_on("xxhash@0.8:")
    depends_on("googletest@1.12:", type="test")

    requires("%gcc@12:", msg="C++20 and OpenMP as GCC 12 has them; no other compiler is tested")

    def cmake_args(self):
        return [self.define("REAP_TESTS", self.run_tests)]
