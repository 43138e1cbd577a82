#include "driver/unfinished_output.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <system_error>

#include "driver/atomic_file.hpp"
#include "driver/digest.hpp"
#include "driver/manifest.hpp"
#include "driver/version.hpp"
#include "kernels/check.hpp"
#include "shard/input_file.hpp"
#include "shard/json.hpp"

namespace reap {
namespace {

namespace fs = std::filesystem;

constexpr const char* kStamp = "stamp.json";
constexpr std::uint64_t kMaxRecordBytes = std::uint64_t{1} << 30;

FileDigests parse_record(const std::string& text, const std::string& what) {
  const Json record = parse_json(text, what);
  return {record.at("bytes"), record.at("sha256"), record.at("xxh3").get<std::vector<std::string>>()};
}

}  // namespace

UnfinishedOutput::UnfinishedOutput(const fs::path& directory)
    : directory_{directory}, notes_{directory / ".reap-unfinished"} {}

fs::path UnfinishedOutput::record_of(const std::string& file) const { return notes_ / (file + ".json"); }

bool UnfinishedOutput::has_stamp(const std::string& stamp) const {
  try {
    return InputFile(notes_ / kStamp).read_text(kMaxRecordBytes) == stamp;
  } catch (const Error&) {
    return false;
  }
}

void UnfinishedOutput::write_stamp(const std::string& stamp) const {
  fs::create_directories(notes_);
  write_file_atomically(notes_ / kStamp, stamp);
}

void UnfinishedOutput::record(const OutputFile& file, const FileDigests& digests) const {
  Json record;
  record["bytes"] = digests.bytes;
  record["sha256"] = digests.sha256;
  record["xxh3"] = digests.xxh3;
  write_file_atomically(record_of(file.name), record.dump() + "\n");
}

std::optional<FileDigests> UnfinishedOutput::find(const OutputFile& file) const {
  const fs::path path = directory_ / file.name;
  const fs::path record = record_of(file.name);
  try {
    if (!fs::exists(record) || !fs::exists(path)) return std::nullopt;
    FileDigests digests = parse_record(InputFile(record).read_text(kMaxRecordBytes), record.string());
    const bool whole = digests.bytes == file.bytes && InputFile(path).size() == file.bytes;
    if (whole && digests.sha256.size() == 64 && digests.xxh3.size() == file.tensors.size()) return digests;
  } catch (const Error&) {
  } catch (const nlohmann::json::exception&) {
  }
  return std::nullopt;
}

void UnfinishedOutput::keep_only(const std::vector<std::string>& files) const {
  std::set<fs::path> kept{notes_, notes_ / kStamp};
  for (const std::string& file : files) kept.insert({directory_ / file, record_of(file)});
  for (const fs::path& folder : {directory_, notes_}) {
    std::vector<fs::path> surplus;
    for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
      if (!kept.contains(entry.path())) surplus.push_back(entry.path());
    }
    for (const fs::path& path : surplus) fs::remove_all(path);
  }
}

void UnfinishedOutput::remove() const { fs::remove_all(notes_); }

std::string output_stamp(const Checkpoint& source, const std::string& source_digest, const Plan& plan,
                         const WriteOptions& options) {
  std::string files;
  for (const std::string& name : source.files()) {
    const fs::path path = source.directory() / name;
    files += fmt::format("{} {} {}\n", name, fs::file_size(path), fs::last_write_time(path).time_since_epoch().count());
  }
  Json stamp;
  stamp["software"] = "reap_dist " + release();
  stamp["source_digest"] = source_digest;
  stamp["source_files"] = sha256_of(files);
  stamp["plan"] = sha256_of(plan_text(plan));
  stamp["max_shard_bytes"] = options.max_shard_bytes;
  stamp["mtp"] = options.mtp == Mtp::keep ? "keep" : "drop";
  if (options.quantize) stamp["quantize"] = to_json(*options.quantize);
  if (options.form != Form::ordinary) stamp["form"] = name_of(options.form);
  return stamp.dump(1) + "\n";
}

}  // namespace reap
