#include "kernels/cuda_module.hpp"

#include <gtest/gtest.h>

namespace reap {
namespace {

TEST(CudaModule, NamesDevicesOrSaysWhyThereAreNone) {
  const CudaDevices devices = find_cuda_devices();
  EXPECT_NE(devices.names.empty(), devices.why_none.empty());
  for (const std::string& name : devices.names) EXPECT_NE(name.find("sm_"), std::string::npos) << name;
  RecordProperty("cuda", devices.names.empty() ? devices.why_none : devices.names.front());
}

TEST(CudaModule, MayBeAskedTwice) { EXPECT_EQ(find_cuda_devices().why_none, find_cuda_devices().why_none); }

}  // namespace
}  // namespace reap
