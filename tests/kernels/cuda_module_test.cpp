#include "kernels/cuda_module.hpp"

#include <gtest/gtest.h>

#include "kernels/error.hpp"

namespace reap {
namespace {

TEST(CudaModule, NamesDevicesOrSaysWhyThereAreNone) {
  const CudaDevices found = find_cuda_devices();
  EXPECT_NE(found.devices.empty(), found.why_none.empty());
  for (const CudaDevice& device : found.devices) {
    EXPECT_NE(device.name.find("sm_"), std::string::npos) << device.name;
    EXPECT_NE(device.bus_id.find(':'), std::string::npos) << device.bus_id;
    EXPECT_GT(device.memory_bytes, 0);
  }
  RecordProperty("cuda", found.devices.empty() ? found.why_none : found.devices.front().name);
}

TEST(CudaModule, MayBeAskedTwice) { EXPECT_EQ(find_cuda_devices().why_none, find_cuda_devices().why_none); }

TEST(CudaModule, RefusesADeviceThatIsNotThere) {
  const Scope scope("here");
  try {
    make_cuda_backend(Compute::bf16, 1000);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ExitCode::usage);
    EXPECT_NE(std::string(error.what()).find("here: "), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace reap
