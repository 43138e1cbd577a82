#include "driver/write_files.hpp"

#include <string>

#include "driver/concurrently.hpp"
#include "driver/share_out.hpp"
#include "driver/unfinished_output.hpp"
#include "shard/json.hpp"

namespace reap {
namespace {

namespace fs = std::filesystem;

/// Gives every rank the digests that each has in `own`, by number of file; the others' are empty.
void all_gather_digests(const Comm& world, const std::vector<FileDigests>& own, std::vector<FileDigests>& all) {
  Json list = Json::array();
  for (std::size_t i = 0; i < own.size(); ++i) {
    if (!own[i].sha256.empty()) list.push_back({i, own[i].bytes, own[i].sha256, own[i].xxh3});
  }
  for (const std::string& text : world.all_gather(list.dump())) {
    for (const Json& file : parse_json(text, "digests of another rank")) {
      all[file[0].get<std::size_t>()] = {file[1], file[2], file[3].get<std::vector<std::string>>()};
    }
  }
}

/// Those of `kept` that are what their digests say, as far as they are this rank's to read.
std::vector<FileDigests> check_own(const Comm& world, const std::vector<OutputFile>& files, const fs::path& directory,
                                   const std::vector<FileDigests>& kept) {
  std::vector<std::uint64_t> bytes;
  for (const FileDigests& file : kept) bytes.push_back(file.bytes);
  const std::vector<std::size_t> own = share_out(bytes, world.size(), world.rank());
  std::vector<FileDigests> checked(files.size());
  const auto check = [&](std::size_t i) {
    const std::size_t file = own[i];
    if (kept[file].sha256.empty() || hash_tensors(files[file], directory) != kept[file]) return;
    checked[file] = kept[file];
  };
  for_each_concurrently(own.size(), kFilesAtOnce, check, [&] { world.idle(); });
  return checked;
}

/// Finds the files that an interrupted job has finished, and removes all else that it left. Collective.
/// @param trust  their digests are not compared
/// @return [file] digests on every rank; empty ones for files that are to be written
std::vector<FileDigests> all_keep_finished(const Comm& world, const std::vector<OutputFile>& files,
                                           const fs::path& directory, bool trust) {
  const UnfinishedOutput unfinished(directory);
  std::vector<FileDigests> found(files.size());
  world.all_try([&] {
    for (std::size_t i = 0; world.rank() == 0 && i < files.size(); ++i) {
      found[i] = unfinished.find(files[i]).value_or(FileDigests{});
    }
  });
  std::vector<FileDigests> kept(files.size());
  all_gather_digests(world, found, kept);
  if (!trust) {
    world.all_try([&] { found = check_own(world, files, directory, kept); });
    kept.assign(files.size(), {});
    all_gather_digests(world, found, kept);
  }
  world.all_try([&] {
    if (world.rank() != 0) return;
    std::vector<std::string> names;
    for (std::size_t i = 0; i < files.size(); ++i) {
      if (!kept[i].sha256.empty()) names.push_back(files[i].name);
    }
    unfinished.keep_only(names);
  });
  return kept;
}

/// Which files this rank writes, and what that comes to.
struct Share {
  std::vector<std::size_t> own;
  WriteWork work;
};

Share share_of(const Comm& world, const std::vector<OutputFile>& files, const std::vector<FileDigests>& kept) {
  Share share;
  std::vector<std::size_t> left;
  std::vector<std::uint64_t> bytes;
  for (std::size_t i = 0; i < files.size(); ++i) {
    if (!kept[i].sha256.empty()) {
      ++share.work.kept_files;
      share.work.kept_bytes += static_cast<std::int64_t>(files[i].bytes);
      continue;
    }
    left.push_back(i);
    bytes.push_back(files[i].bytes);
    share.work.bytes += static_cast<std::int64_t>(files[i].bytes);
  }
  for (const std::size_t i : share_out(bytes, world.size(), world.rank())) {
    share.own.push_back(left[i]);
    share.work.own_bytes += static_cast<std::int64_t>(bytes[i]);
  }
  return share;
}

/// Writes this rank's files, each with a record that it is finished. @return [file] digests; empty for those of others
std::vector<FileDigests> write_own_files(const Comm& world, const Checkpoint& source,
                                         const std::vector<OutputFile>& files, const std::vector<std::size_t>& own,
                                         const fs::path& directory, const WriteEvents& events) {
  const UnfinishedOutput unfinished(directory);
  std::vector<FileDigests> digests(files.size());
  const auto one_at_a_time = serialised(events.progress);
  const auto write = [&](std::size_t i) {
    const OutputFile& file = files[own[i]];
    digests[own[i]] = copy_tensors(source, file, directory, events.quantizer, one_at_a_time);
    unfinished.record(file, digests[own[i]]);
  };
  for_each_concurrently(own.size(), kFilesAtOnce, write, [&] { world.idle(); });
  return digests;
}

}  // namespace

std::vector<FileDigests> all_write_files(const Comm& world, const Checkpoint& source,
                                         const std::vector<OutputFile>& files, const fs::path& directory,
                                         const WriteEvents& events) {
  std::vector<FileDigests> digests = all_keep_finished(world, files, directory, events.all_check != nullptr);
  const Share share = share_of(world, files, digests);
  if (events.begin) events.begin(share.work);
  std::vector<FileDigests> written;
  world.all_try([&] { written = write_own_files(world, source, files, share.own, directory, events); });
  all_gather_digests(world, written, digests);
  return digests;
}

}  // namespace reap
