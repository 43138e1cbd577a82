#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <string>
#include <utility>

#include "kernels/buffer.hpp"
#include "kernels/error.hpp"

namespace reap {
namespace {

bool aligned(const void* memory) { return reinterpret_cast<std::uintptr_t>(memory) % 64 == 0; }

TEST(Buffer, IsAlignedAndWritableToItsLastElement) {
  for (const std::int64_t size : {1, 3, 16, 17, 1000}) {
    const Buffer<float> buffer(host_memory, size);
    EXPECT_TRUE(aligned(buffer.data())) << size;
    for (std::int64_t i = 0; i < size; ++i) buffer.data()[i] = static_cast<float>(i);
    EXPECT_EQ(buffer.data()[size - 1], static_cast<float>(size - 1));
    EXPECT_EQ(buffer.bytes(), size * 4);
  }
}

TEST(Buffer, OfNoElementsIsEmpty) {
  const Buffer<double> none;
  EXPECT_EQ(none.size(), 0);
  EXPECT_EQ(none.data(), nullptr);
  const Buffer<double> zero(host_memory, 0);
  EXPECT_EQ(zero.size(), 0);
  EXPECT_EQ(zero.bytes(), 0);
}

TEST(Buffer, MovesItsMemoryAndIsThenEmpty) {
  Buffer<std::int32_t> from(host_memory, 5);
  from.data()[4] = 42;
  const std::int32_t* memory = from.data();
  const Buffer<std::int32_t> to = std::move(from);
  EXPECT_EQ(to.data(), memory);
  EXPECT_EQ(to.data()[4], 42);
  EXPECT_EQ(from.size(), 0);  // NOLINT(bugprone-use-after-move): what a moved-from buffer says is the point
}

TEST(HostMemory, SaysHowMuchItCouldNotHave) {
  for (const std::size_t bytes : {std::size_t{1} << 62, std::numeric_limits<std::size_t>::max()}) {
    try {
      host_memory.release(host_memory.allocate(bytes));
      FAIL() << "allocated " << bytes << " bytes";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ExitCode::io);
      EXPECT_NE(std::string(error.what()).find(std::to_string(bytes) + " bytes"), std::string::npos) << error.what();
    }
  }
}

}  // namespace
}  // namespace reap
