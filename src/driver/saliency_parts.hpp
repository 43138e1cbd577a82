#pragma once

#include "driver/hdf5.hpp"
#include "driver/saliency_file.hpp"

namespace reap {

/// The parts that a saliency file is of; one, all of the calibration file, when info.parts is empty.
std::vector<CalibrationPart> parts_of(const SaliencyInfo& info);

/// Makes `info` that of these parts, in any order: everything that follows from them (digest, samples, tokens,
/// domains). One whole calibration file leaves info.parts empty.
void set_parts(SaliencyInfo& info, std::vector<CalibrationPart> parts);

/// The group /parts of a saliency file (docs/format/saliency.md). Nothing is written for one whole calibration file.
void write_parts(Hdf5Writer& file, const SaliencyFile& saliency);

/// Reads what write_parts has written into `saliency`, whose attributes and sums have been read, and checks that they
/// follow from the parts. @throws Error(bad_input)
void read_parts(const Hdf5Reader& file, SaliencyFile& saliency);

}  // namespace reap
